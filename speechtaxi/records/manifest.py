"""Manifests: a row for each clip, in whatever table a user has."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from speechtaxi.errors import InputError
from speechtaxi.languages import is_code
from speechtaxi.records.files import READERS, Row, refuse_repeated, replacing
from speechtaxi.types import Split, Utterance

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("utterance_id",),
    "language": ("lang",),
    "audio": ("audio_filepath", "file", "path"),
    "split": (),
    "start": ("offset",),
    "duration": ("sec", "seconds"),
    "text": ("transcription", "transcript"),
    "label": (),
    "group": ("verse_id", "verse_ref"),
    "speaker": ("speaker_id",),
}
"""Our field names, and what NeMo's manifests and the corpora at hand call them."""

SPLITS: dict[str, Split] = {
    "train": "train",
    "dev": "dev",
    "valid": "dev",
    "validation": "dev",
    "val": "dev",
    "development": "dev",
    "test": "test",
    "predict": "predict",
}


def read_manifest(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    language: str | None = None,
) -> list[Utterance]:
    """Read a manifest: JSONL, CSV, TSV, Parquet, or a folder of label folders.

    Columns are found by our names or their `ALIASES`; others are ignored. TSV cells are taken as
    they are, quotation marks included. A folder holds `<label>/clip`, or `<split>/<label>/clip`;
    every visible file in it counts as a clip. Relative audio paths start at the manifest's folder.
    A row without an id gets one from its audio path, or from language and group if it is only text.

    Args:
        columns: our field -> their column name, where the aliases do not do.
        labels: their label -> ours; a label that is not in it stays.
        language: for manifests, or rows, that do not tell it.

    Raises:
        InputError: no such file, another format, a missing column, a bad value, a repeated id.
    """
    path = Path(path)
    if language is not None and not is_code(language):
        raise InputError(bad_language(language))
    if path.is_dir():
        rows = list(_folder_rows(path))
        home = Path(os.path.abspath(path))
    else:
        read = READERS.get(path.suffix.lower())
        if read is None:
            raise InputError(
                f"{path}: unknown kind of manifest; use {', '.join(READERS)} "
                "or a folder of label folders"
            )
        rows = list(read(path))
        home = Path(os.path.abspath(path)).parent
    if not rows:
        raise InputError(f"{path}: holds no rows")
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    chosen = _choose_columns(path, names, columns or {}, language)
    utterances = [
        _utterance(where, {ours: row.get(theirs) for ours, theirs in chosen.items()}, language)
        for where, row in rows
    ]
    if labels:
        utterances = [
            replace(item, label=labels.get(item.label, item.label)) if item.label else item
            for item in utterances
        ]
    utterances = list(_with_ids(utterances, home))
    refuse_repeated((where, item.id) for (where, _), item in zip(rows, utterances, strict=True))
    return utterances


def write_manifest(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a JSONL manifest; audio below its folder is written relative to it."""
    home = os.path.abspath(Path(path).parent)
    with replacing(path) as file:
        for utterance in utterances:
            row = {name: value for name, value in asdict(utterance).items() if value is not None}
            if utterance.audio is not None:
                row["audio"] = _relative(os.path.abspath(utterance.audio), home)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def fingerprint(utterances: Iterable[Utterance]) -> str:
    """Return a short hash of what the rows say, whatever their order and wherever audio lies."""
    rows = sorted(
        json.dumps(
            [u.id, u.language, u.split, u.label, u.group, u.start, u.duration, u.text],
            ensure_ascii=False,
        )
        for u in utterances
    )
    return hashlib.blake2b("\n".join(rows).encode(), digest_size=8).hexdigest()


def _folder_rows(path: Path) -> Iterator[Row]:
    folders = _visible(item for item in path.iterdir() if item.is_dir())
    splits = [folder for folder in folders if folder.name.lower() in SPLITS]
    if splits and len(splits) < len(folders):
        others = ", ".join(folder.name for folder in folders if folder not in splits)
        raise InputError(
            f"{path}: holds split folders ({splits[0].name}, ...) and others: {others}"
        )
    for top in splits or [path]:
        for label in _visible(item for item in top.iterdir() if item.is_dir()):
            for clip in _visible(item for item in label.rglob("*") if item.is_file()):
                row = {"audio": os.path.abspath(clip), "label": label.name}
                yield str(clip), row | ({"split": top.name} if splits else {})


def _visible(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if not path.name.startswith("."))


def _choose_columns(
    path: Path, names: list[str], columns: Mapping[str, str], language: str | None
) -> dict[str, str]:
    """Return our field -> their column, for the fields that the table has."""
    there = f"the columns are {', '.join(names)}"
    for ours, theirs in columns.items():
        if ours not in ALIASES:
            raise InputError(f"unknown field '{ours}' in columns; use one of {', '.join(ALIASES)}")
        if theirs not in names:
            raise InputError(f"{path}: no column '{theirs}' (for {ours}); {there}")
    chosen = dict(columns)
    for ours, aliases in ALIASES.items():
        if ours in chosen:
            continue
        found = [ours] if ours in names else [name for name in aliases if name in names]
        if len(found) > 1:
            raise InputError(
                f"{path}: {' and '.join(found)} could both be {ours}; "
                f"choose one, for example {ours}={found[0]}"
            )
        if found:
            chosen[ours] = found[0]
    if "audio" not in chosen and "text" not in chosen:
        raise InputError(f"{path}: neither an audio nor a text column; {there}")
    if "language" not in chosen and language is None:
        raise InputError(
            f"{path}: no language column; give one language for all rows "
            f"(an ISO 639-3 code, or und if it is not known); {there}"
        )
    return chosen


def _utterance(where: str, row: dict[str, Any], language: str | None) -> Utterance:
    """Return one checked row; its id is "" and its audio path is as written."""

    def word(field: str) -> str | None:
        value = row.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise InputError(f"{where}: {field} must be text, not {value!r}")
        return str(value).strip() or None

    def seconds(field: str) -> float | None:
        value = row.get(field)
        if value is None or value == "":
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or number < 0 or (field == "duration" and number == 0):
            kind = "positive" if field == "duration" else "non-negative"
            raise InputError(f"{where}: {field} must be a {kind} number of seconds, not {value!r}")
        return number

    split = word("split") or "predict"
    if split.lower() not in SPLITS:
        raise InputError(f"{where}: unknown split '{split}'; use one of {', '.join(SPLITS)}")
    code = word("language") or language
    if code is None:
        raise InputError(f"{where}: no language; write an ISO 639-3 code, or und")
    if not is_code(code):
        raise InputError(f"{where}: {bad_language(code)}")
    audio, text = word("audio"), word("text")
    if audio is None and text is None:
        raise InputError(f"{where}: neither audio nor text")
    return Utterance(
        id=word("id") or "",
        language=code,
        audio=audio,
        split=SPLITS[split.lower()],
        start=seconds("start") or 0.0,
        duration=seconds("duration"),
        text=text,
        label=word("label"),
        group=word("group"),
        speaker=word("speaker"),
    )


def bad_language(code: str) -> str:
    """Return what is wrong with a language that is no code."""
    return (
        f"language '{code}' must be an ISO 639-3 code such as eng, "
        "a corpus code such as tw-asante, or und"
    )


def _with_ids(utterances: list[Utterance], home: Path) -> Iterator[Utterance]:
    """Make audio paths absolute and fill in the ids that are missing."""
    groups = Counter((item.language, item.group) for item in utterances if not item.audio)
    for number, item in enumerate(utterances, 1):
        made = f"{item.language}-row{number}"
        if item.audio:
            item = replace(item, audio=os.path.normpath(home / item.audio))
            made = _relative(cast(str, item.audio), str(home), always=True)
            made += f"@{item.start}" if item.start else ""
        elif item.group and groups[item.language, item.group] == 1:
            made = f"{item.language}-{item.group}"
        yield item if item.id else replace(item, id=made)


def _relative(path: str, home: str, always: bool = False) -> str:
    """Return `path` as seen from the folder `home`, if it is below it (or `always`)."""
    relative = os.path.relpath(path, home)
    outside = relative.startswith(os.pardir)
    return path if outside and not always else Path(relative).as_posix()
