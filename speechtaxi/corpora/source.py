"""A published corpus, and where its copy lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechtaxi.corpora.clip import Clip, Shard, Wish
from speechtaxi.corpora.mirror import Mirror, cached, from_hub
from speechtaxi.errors import InputError


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


def find(source: Source, local: Path | None, revision: str | None, wish: Wish) -> Mirror:
    """Return a source's mirror; without `local`, the hub's cache, filled from the hub if it can be.

    Args:
        local: a folder with the published files, or a copied cache (`datasets--owner--name` or
            `hub/datasets--owner--name` in it).
        revision: commit, branch or tag to take instead of the source's own.

    Raises:
        InputError: nothing there; the line says how to get it.
    """
    if local is not None:
        if not local.is_dir():
            raise InputError(f"{local}: no such folder; --from names a folder with the corpus")
        found = cached(local, source.repository, revision or source.revision)
        found = found or Mirror(local, source.repository, revision)
        also = cached(local, source.also, None) or None
        return Mirror(found.root, found.repository, found.revision, also)
    if source.repository is None:
        raise InputError(f"{source.name} lies on no hub; name a local folder with --from")
    found = from_hub(source.repository, revision or source.revision, source.patterns, wish)
    also = None
    if source.also is not None:
        try:
            also = from_hub(source.also, None, source.patterns, wish)
        except InputError:  # its readers tell what is not there
            also = None
    return Mirror(found.root, found.repository, found.revision, also)
