"""What travels from a source to a manifest: a wish, shards of files, clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import langcodes

from speechtaxi.languages import UNKNOWN, is_code
from speechtaxi.types import Split, Utterance

if TYPE_CHECKING:
    from speechtaxi.corpora.mirror import Mirror


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a source."""

    languages: tuple[str, ...] = ()
    """ISO 639-3 codes or the source's own names of configurations; none: all that are there."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Our field to the source's column, where its usual one is not wanted."""
    language: str | None = None
    """Of all rows, for sources that do not tell it."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a source, and what its place in the source tells."""

    path: Path
    config: str = ""
    """The source's name of the language or variety, such as eng_Latn or en-US."""
    part: str = ""
    """The source's name of the split, such as validation."""
    language: str = UNKNOWN
    split: Split = "predict"


@dataclass(frozen=True, slots=True)
class Sound:
    """The encoded bytes of a clip that no file holds yet."""

    place: str
    """The file to be, below the corpus' folder of audio, with forward slashes."""
    size: int
    """In bytes."""
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class Clip:
    """A manifest row to be."""

    row: Utterance
    """Its `audio` names the file where that lies already."""
    sound: Sound | None = None
    romanized: str | None = None
    """Gold transcript in Latin letters, where the source has one."""
    problem: str | None = None
    """Why it must be left out."""


@dataclass(frozen=True, slots=True)
class Source:
    """A published corpus: where it lies and how it is read."""

    name: str
    about: str
    shards: Callable[[Mirror, Wish], list[Shard]]
    """The files that a wish needs; raises `InputError` where one is missing."""
    read: Callable[[Sequence[Shard], Wish], Iterator[Clip]]
    patterns: tuple[str, ...] = ()
    """What to download; `{config}` stands for the languages of the wish."""
    repository: str | None = None
    """Id of the data set on the model hub; None where only a local folder will do."""
    also: str | None = None
    """A second repository, whose absence is told but does no harm."""
    revision: str | None = None
    """The newest commit known to have the layout that `shards` expects; None takes main."""
    licence: str = "not declared"
    """As declared in the data set's card, where a mirror comes without the card."""
    labels: str | None = None
    """Name of the label set."""
    mapped: bool = True
    """Whether a wish may name columns."""
    notes: tuple[str, ...] = ()


def language_code(name: str) -> str:
    """Return the ISO 639-3 code in a source's name of a language; "und" where there is none.

    >>> [language_code(name) for name in ("eng_Latn", "en-US", "tw-asante", "yor", "default")]
    ['eng', 'eng', 'tw-asante', 'yor', 'und']
    """
    if is_code(name):
        return name
    head = name.replace("_", "-").split("-")[0]
    if len(head) == 2:
        try:
            return langcodes.Language.get(head).to_alpha3()
        except LookupError:
            return UNKNOWN
    return head if len(head) == 3 and is_code(head) else UNKNOWN
