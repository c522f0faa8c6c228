"""What nearly all sources share: files named by language and split, a row for each clip."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from speechtaxi.audio import AUDIO_SUFFIXES
from speechtaxi.corpora.clip import Clip, Shard, Sound, Wish, language_code
from speechtaxi.corpora.mirror import Mirror, download_command, wanted, whole
from speechtaxi.corpora.tables import columns, read_rows
from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN
from speechtaxi.records import SPLITS
from speechtaxi.types import Utterance

NAMES = ("audio", "text", "label", "group", "speaker", "language", "split")
"""The fields that columns can fill; ids are made, lengths are measured."""

Fields = Mapping[str, tuple[str, ...]]
"""Our field -> columns to take it from, the first that is there; "a+b" joins two with a space."""


def find_shards(
    mirror: Mirror, layouts: Sequence[str], wish: Wish, patterns: Sequence[str] = ()
) -> list[Shard]:
    """Return the files of the wished languages.

    Args:
        layouts: regular expressions of whole paths, with the groups `config` and `part`; of a
            configuration that has files in several layouts, the first layout counts.
        patterns: what to download where files are missing.

    Raises:
        InputError: no file of that layout, a language without one.
    """
    found: dict[str, tuple[int, list[Shard]]] = {}
    for place, layout in enumerate(layouts):
        for path in mirror.paths:
            match = re.fullmatch(layout, path)
            if match is None:
                continue
            config, part = match["config"], match["part"]
            if found.setdefault(config, (place, []))[0] == place:
                shard = Shard(mirror.root / path, config, part, language_code(config))
                found[config][1].append(with_split(shard))
    missing = [name for name in wish.languages if not any(_is(name, c) for c in found)]
    if missing or not found:
        there = f"it has {', '.join(sorted(found))}" if found else "it has no such files"
        command = (
            download_command(mirror.repository, wanted(patterns, Wish(tuple(missing))))
            if mirror.repository and patterns
            else "name the folder that holds them with --from"
        )
        what = ", ".join(missing) or "no file of the published layout"
        raise InputError(f"{mirror.root}: lacks {what} ({there}); to get it: {command}")
    return [
        shard
        for config in sorted(found)
        if not wish.languages or any(_is(name, config) for name in wish.languages)
        for shard in found[config][1]
    ]


def with_split(shard: Shard) -> Shard:
    """Return a shard whose split is read off its part ("train_115" is for training)."""
    split = SPLITS.get(re.sub(r"_\d+$", "", shard.part.lower()), "predict")
    return Shard(shard.path, shard.config, shard.part, shard.language, split)


def _is(name: str, config: str) -> bool:
    return name in (config, language_code(config))


def read_shards(
    shards: Sequence[Shard],
    wish: Wish,
    fields: Fields,
    labels: Sequence[str] = (),
    quoted: bool = True,
) -> Iterator[Clip]:
    """Yield a clip for each recording in the shards.

    A column of audio holds what the `datasets` library writes: `{bytes, path}`, or a list of them,
    several recordings of one sentence; other lists of that length then belong to them one by one.
    Ids are made from configuration, part and place: the same whenever the same files are read.

    Args:
        fields: where a wish does not name columns of its own.
        labels: names of the classes, where the file holds numbers and does not name them.

    Raises:
        InputError: a damaged file, a wished column that is not there, a row without language.
    """
    numbers: Counter[tuple[str, str]] = Counter()
    for shard in shards:
        chosen = _choose(shard.path, fields, wish)
        for where, cells in read_rows(whole(shard.path), quoted=quoted):
            numbers[shard.config, shard.part] += 1
            name = f"{shard.part or 'row'}-{numbers[shard.config, shard.part]:05d}"
            name = f"{shard.config}-{name}" if shard.config else name
            values = {ours: _value(cells, column) for ours, column in chosen.items()}
            if isinstance(values.get("label"), int):
                values["label"] = _named(where, cast(int, values["label"]), labels)
            sounds = values.pop("audio", None)
            if not isinstance(sounds, list):
                yield _clip(shard, where, name, values, sounds, wish)
                continue
            recordings = cast("list[Any]", sounds)
            for number, sound in enumerate(recordings):
                own = {ours: _nth(value, number, len(recordings)) for ours, value in values.items()}
                yield _clip(shard, where, f"{name}-{number + 1}", own, sound, wish)


def _choose(path: Path, fields: Fields, wish: Wish) -> dict[str, str]:
    there = columns(path)
    chosen: dict[str, str] = {}
    for ours, theirs in wish.columns.items():
        if ours not in NAMES:
            raise InputError(f"unknown field '{ours}' in columns; use one of {', '.join(NAMES)}")
        if not _has(there, theirs):
            raise InputError(
                f"{path}: no column '{theirs}' (for {ours}); the columns are {', '.join(there)}"
            )
        chosen[ours] = theirs
    for ours, candidates in fields.items():
        fitting = [column for column in candidates if _has(there, column)]
        if ours not in chosen and fitting:
            chosen[ours] = fitting[0]
    if "audio" not in chosen and "text" not in chosen:
        raise InputError(
            f"{path}: neither audio nor text; the columns are {', '.join(there)}; "
            "name them, for example --columns audio=recording text=sentence"
        )
    return chosen


def _has(there: Sequence[str], column: str) -> bool:
    return all(name in there for name in column.split("+"))


def _value(cells: Mapping[str, Any], column: str) -> Any:
    if "+" not in column:
        return cells[column]
    return " ".join(str(cells[name]).strip() for name in column.split("+") if cells[name])


def _nth(value: Any, number: int, count: int) -> Any:
    """Return the recording's own value of a column that has one for each recording."""
    if not isinstance(value, list):
        return value
    listed = cast("list[Any]", value)
    return listed[number] if len(listed) == count else None


def _named(where: str, number: int, labels: Sequence[str]) -> str:
    if not labels:
        return str(number)
    if not 0 <= number < len(labels):
        raise InputError(f"{where}: label {number}, but there are {len(labels)} classes")
    return labels[number]


def _clip(
    shard: Shard, where: str, name: str, values: Mapping[str, Any], sound: Any, wish: Wish
) -> Clip:
    def word(field: str) -> str | None:
        value = values.get(field)
        return None if value is None else str(value).strip() or None

    language = wish.language or (language_code(word("language") or "") if word("language") else "")
    language = language or shard.language
    if language == UNKNOWN and wish.language is None:
        raise InputError(f"{where}: the language is not told; give --language CODE (or und)")
    split = SPLITS.get((word("split") or "").lower(), shard.split)
    row = Utterance(
        id=name,
        language=language,
        split=split,
        text=word("text"),
        label=word("label"),
        group=word("group"),
        speaker=word("speaker"),
    )
    if sound is None:
        problem = None if row.text else f"{where}: neither audio nor text"
        return Clip(row, problem=problem)
    return _with_sound(shard, row, sound)


def _with_sound(shard: Shard, row: Utterance, sound: Any) -> Clip:
    """Return a clip whose audio is bytes in the file, or a path beside it."""
    struct = cast("dict[str, Any]", sound) if isinstance(sound, dict) else {"path": sound}
    data: bytes | None = struct.get("bytes")
    path: str | None = struct.get("path")
    suffix = Path(path or "").suffix.lower()
    if data:
        suffix = suffix if suffix in AUDIO_SUFFIXES else ".audio"
        place = f"{shard.config or 'all'}/{row.id}{suffix}"
        return Clip(row, Sound(place, len(data), lambda: io.BytesIO(data)))
    beside = shard.path.parent / (path or "")
    outside = Path(path or "").is_absolute() or ".." in Path(path or "").parts
    if not path or outside or not beside.is_file():
        return Clip(row, problem=f"{row.id}: {path or 'audio'} is not beside {shard.path.name}")
    return Clip(replace(row, audio=str(beside)))
