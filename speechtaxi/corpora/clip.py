"""What travels from a source to a manifest: a wish, shards of files, clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import langcodes

from speechtaxi.languages import UNKNOWN, is_code
from speechtaxi.types import Split, Utterance


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
