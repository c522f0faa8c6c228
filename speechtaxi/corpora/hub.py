"""Any audio data set of the hub, by id and columns; and folders in the layout `audiofolder`.

Read are Parquet files as the `datasets` library writes them, in any folders: the split is told by
the file's name or a folder (`train-00000-of-00001.parquet`, `train/0000.parquet`), the language by
`--language`, a column, or the folder. Audio is decoded by `speechtaxi.audio`, never by torchcodec.

`audiofolder` (huggingface.co/docs/datasets/audio_dataset): recordings beside `metadata.csv` or
`metadata.jsonl` with the column `file_name`, relative to that file, in one folder or in one for
each split; without metadata, a folder for each label. The recordings stay where they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from speechtaxi.corpora.clip import Clip, Shard, Wish, language_code
from speechtaxi.corpora.mirror import Mirror, download_command, whole
from speechtaxi.corpora.shards import NAMES, Fields, read_shards, with_split
from speechtaxi.corpora.source import Source
from speechtaxi.errors import InputError
from speechtaxi.records import ALIASES, SPLITS, read_manifest

LABELS = ("label", "category", "topic", "intent", "class")
FIELDS: Fields = {ours: (ours, *ALIASES[ours]) for ours in NAMES} | {
    "text": ("text", *ALIASES["text"], "sentence"),
    "label": LABELS,
}
PATTERNS = ("*.parquet",)
METADATA = ("metadata.csv", "metadata.jsonl")


def hub_source(repository: str) -> Source:
    """Return a source for a data set of the hub that nobody has described here.

    Raises:
        InputError: not an id of the form owner/name.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise InputError(f"'{repository}' is no id of a data set; it has the form owner/name")
    return Source(
        name=repository,
        about="a data set of the hub",
        shards=hub_shards,
        read=lambda shards, wish: read_shards(shards, wish, FIELDS),
        patterns=PATTERNS,
        repository=repository,
    )


def hub_shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return all Parquet files, or those of the wished configurations (folders).

    Raises:
        InputError: there is none.
    """
    found: list[Shard] = []
    for path in mirror.paths:
        if not path.endswith(".parquet"):
            continue
        *folders, name = path.split("/")
        words = [re.split(r"[-.]", name)[0], *reversed(folders)]
        part = next((word for word in words if re.sub(r"_\d+$", "", word) in SPLITS), "")
        named = [word for word in folders if word not in (part, "data", "default")]
        config = "-".join(named)
        shard = Shard(mirror.root / path, config, part, language_code(named[-1] if named else ""))
        found.append(with_split(shard))
    if wish.languages:
        there = sorted({shard.config for shard in found})
        for name in wish.languages:
            if not any(name in (shard.config, shard.language) for shard in found):
                raise InputError(f"{mirror.root}: lacks {name}; it has {', '.join(there)}")
        found = [s for s in found if {s.config, s.language} & set(wish.languages)]
    if not found:
        command = download_command(mirror.repository or "OWNER/NAME", PATTERNS)
        raise InputError(f"{mirror.root}: holds no Parquet files; to get them: {command}")
    return found


def folder_shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return the metadata files of an audio folder; of one with label folders, the folder."""
    found = [path for path in mirror.paths if path.split("/")[-1] in METADATA]
    if not found:
        return [Shard(mirror.root)]
    shards: list[Shard] = []
    for path in found:
        words = [word for word in reversed(path.split("/")[:-1]) if word.lower() in SPLITS]
        shards.append(with_split(Shard(mirror.root / path, part=words[0] if words else "")))
    return shards


def read_folder(shards: Sequence[Shard], wish: Wish) -> Iterator[Clip]:
    """Yield the recordings of an audio folder.

    Raises:
        InputError: as `speechtaxi.records.read_manifest`.
    """
    seen: set[str] = set()
    for shard in shards:
        of_labels = shard.path.is_dir()
        columns = dict(wish.columns) if of_labels else {"audio": "file_name", **wish.columns}
        path = shard.path if of_labels else whole(shard.path)
        for row in read_manifest(path, columns=columns, language=wish.language):
            if row.split == "predict":
                row = replace(row, split=shard.split)
            if wish.languages and row.language not in wish.languages:
                continue
            name = f"{shard.part}/{row.id}" if shard.part else row.id
            problem = f"{row.audio}: no such file" if not os.path.isfile(row.audio or "") else None
            if problem is None and name in seen:
                problem = f"{name}: named twice"
            seen.add(name)
            yield Clip(replace(row, id=name), problem=problem)


AUDIOFOLDER = Source(
    name="audiofolder",
    about="a folder of recordings with metadata.csv, metadata.jsonl or label folders",
    shards=folder_shards,
    read=read_folder,
)
