"""Published corpora, each turned into an ordinary manifest; a module says how a source lies there.

Nothing here runs code of a data set, and nothing needs the network where a mirror is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from speechtaxi.corpora import hub, minds14, sib_fleurs, speech_massive, speechtaxi, texts
from speechtaxi.corpora.clip import Clip, Wish
from speechtaxi.corpora.folder import Written, write_corpus
from speechtaxi.corpora.mirror import Mirror, digest
from speechtaxi.corpora.source import Source, find
from speechtaxi.errors import InputError

SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        speechtaxi.SOURCE,
        sib_fleurs.SOURCE,
        speech_massive.SOURCE,
        minds14.SOURCE,
        texts.TAXI1500,
        texts.SIB200,
        texts.MASAKHANEWS,
        hub.AUDIOFOLDER,
    )
}
"""By name; a name with a slash is any other data set of the hub."""


def source(name: str) -> Source:
    """Return a source by name, or any data set of the hub by id.

    Raises:
        InputError: an unknown name.
    """
    if name in SOURCES:
        return SOURCES[name]
    if "/" in name:
        return hub.hub_source(name)
    raise InputError(
        f"unknown corpus '{name}'; use one of {', '.join(SOURCES)}, "
        "or the id of a data set on the hub (owner/name)"
    )


def fetch(
    name: str,
    output: Path,
    wish: Wish | None = None,
    local: Path | None = None,
    revision: str | None = None,
    watch: Callable[[Iterable[Clip]], Iterable[Clip]] = lambda clips: clips,
) -> Written:
    """Turn a published corpus into `output`: manifest.jsonl, audio/ and source.json.

    The manifest holds what this call wishes; recordings that earlier calls wrote are kept and not
    written again.

    Args:
        local: a mirror (see `source.find`); None takes the hub's cache.
        watch: shows progress.

    Raises:
        InputError: an unknown corpus, no mirror, files or languages that are missing or damaged.
    """
    chosen, wish = source(name), wish or Wish()
    if wish.columns and not chosen.mapped:
        raise InputError(f"{name} has columns of its own; --columns is for other corpora")
    mirror = find(chosen, local, revision, wish)
    shards = chosen.shards(mirror, wish)
    record = {
        "corpus": chosen.name,
        "repository": mirror.repository,
        "revision": mirror.revision,
        "licence": mirror.licence or chosen.licence,
        "labels": chosen.labels,
        "languages": list(wish.languages) or "all",
        "columns": dict(wish.columns),
        "notes": [*chosen.notes, *_notes(chosen, mirror, revision)],
        "files": [_file(mirror, shard.path) for shard in shards if shard.path.is_file()],
    }
    return write_corpus(output, record, watch(chosen.read(shards, wish)))


def _notes(chosen: Source, mirror: Mirror, revision: str | None) -> Iterator[str]:
    pinned = revision or chosen.revision
    if mirror.revision and pinned and "/" not in pinned and pinned != mirror.revision:
        yield f"commit {mirror.revision}, where {pinned} was expected"
    if chosen.also and mirror.also is None:
        yield f"without {chosen.also}, which may ask for a login"


def _file(mirror: Mirror, path: Path) -> dict[str, Any]:
    homes = (mirror, mirror.also) if mirror.also is not None else (mirror,)
    home = next(home for home in homes if path.is_relative_to(home.root))
    name = path.relative_to(home.root).as_posix()
    file: dict[str, Any] = {"path": name, "bytes": path.stat().st_size, "sha256": digest(path)}
    if home is not mirror:
        file |= {"repository": home.repository, "revision": home.revision}
    return file
