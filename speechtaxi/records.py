"""Files of records: manifests, predictions, run records. What is wrong is told as file:line."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import types
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from speechtaxi.errors import InputError
from speechtaxi.languages import is_code
from speechtaxi.types import Prediction, RunRecord, Split, Utterance

Record = TypeVar("Record", Prediction, RunRecord)
Row = tuple[str, dict[str, Any]]  # where it stands (file:line), its cells by column name

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

SUM_TOLERANCE = 1e-3
"""How far the sum of probabilities may be from 1: other people's files are rounded."""


# ---------------------------------------------------------------------------------- manifests


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
        raise InputError(_bad_language(language))
    if path.is_dir():
        rows = list(_folder_rows(path))
        home = Path(os.path.abspath(path))
    else:
        read = _READERS.get(path.suffix.lower())
        if read is None:
            raise InputError(
                f"{path}: unknown kind of manifest; use {', '.join(_READERS)} "
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
    _refuse_repeated((where, item.id) for (where, _), item in zip(rows, utterances, strict=True))
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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); convert it") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row: object = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}:{number}: broken JSON ({error.msg}, column {error.colno}); "
                "write one object per line"
            ) from None
        except (RecursionError, ValueError) as error:  # nested beyond reason; endless numbers
            raise InputError(f"{path}:{number}: not what a manifest holds ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: not a JSON object; write one object per line")
        yield f"{path}:{number}", cast("dict[str, Any]", row)


def _table_rows(path: Path, **dialect: Any) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), **dialect)
    header: list[str] = []
    try:
        for cells in filter(None, reader):
            where = f"{path}:{reader.line_num}"
            if not header:
                header = [name.strip() for name in cells]
                if len(set(header)) < len(header):
                    raise InputError(f"{where}: a column name is repeated: {', '.join(header)}")
            elif len(cells) != len(header):
                raise InputError(
                    f"{where}: {len(cells)} cells, but there are {len(header)} columns: "
                    f"{', '.join(header)}"
                )
            else:
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: broken table: {error}") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    parquet = cast(Any, import_module("pyarrow.parquet"))
    try:
        rows: list[dict[str, Any]] = parquet.read_table(str(path)).to_pylist()
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from None
    return ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".csv": partial(_table_rows, strict=True),
    ".tsv": partial(_table_rows, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".parquet": _parquet_rows,
}


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
        raise InputError(f"{where}: {_bad_language(code)}")
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


def _bad_language(code: str) -> str:
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


def _refuse_repeated(rows: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for where, name in rows:
        if name in seen:
            raise InputError(
                f"{where}: id '{name}' is already used at {seen[name]}; give every row its own"
            )
        seen[name] = where


# -------------------------------------------------------------------- predictions, run records


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """Read prediction rows (JSONL); a row without a group is its own group.

    Raises:
        InputError: no such file, a missing or ill-typed field, probabilities that are none, a
            prediction or labels that do not fit them, a repeated id.
    """
    predictions: list[Prediction] = []
    places: list[str] = []
    for where, row in _json_rows(Path(path)):
        prediction = record(Prediction, {"group": row.get("id"), "label": None} | row, where)
        odds = prediction.probabilities
        bad = [p for p in odds.values() if not 0 <= p <= 1]  # also what is not a number
        if bad:
            raise InputError(f"{where}: probabilities must lie in [0, 1], not {bad[0]}")
        if abs(sum(odds.values()) - 1) > SUM_TOLERANCE:
            raise InputError(f"{where}: probabilities must sum to 1, not {sum(odds.values()):.4f}")
        if prediction.prediction not in odds:
            raise InputError(
                f"{where}: prediction '{prediction.prediction}' has no probability; "
                f"the labels are {', '.join(odds)}"
            )
        if prediction.label is not None and prediction.label not in odds:
            raise InputError(
                f"{where}: gold label '{prediction.label}' is none of the labels: {', '.join(odds)}"
            )
        if not is_code(prediction.language):
            raise InputError(f"{where}: {_bad_language(prediction.language)}")
        if predictions and odds.keys() != predictions[0].probabilities.keys():
            raise InputError(
                f"{where}: probabilities of {', '.join(odds)}, but {places[0]} has "
                f"{', '.join(predictions[0].probabilities)}; a file has one label set"
            )
        predictions.append(prediction)
        places.append(where)
    if not predictions:
        raise InputError(f"{path}: holds no predictions")
    _refuse_repeated(zip(places, (item.id for item in predictions), strict=True))
    return predictions


def write_predictions(path: str | os.PathLike[str], rows: Iterable[Prediction]) -> None:
    """Write prediction rows (JSONL), atomically."""
    with replacing(path) as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def read_run(folder: str | os.PathLike[str]) -> RunRecord:
    """Read run.json of a run folder; unknown keys are ignored.

    Raises:
        InputError: no such file, not JSON, `system` or `route` missing, an ill-typed field.
    """
    path = Path(folder) / "run.json"
    try:
        data: object = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: broken JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path}: not what a run's record holds ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a JSON object")
    return record(RunRecord, cast("dict[str, Any]", data), str(path))


def write_run(folder: str | os.PathLike[str], record: RunRecord) -> None:
    """Write run.json into a run folder, atomically."""
    with replacing(Path(folder) / "run.json") as file:
        json.dump(asdict(record), file, ensure_ascii=False, indent=2)
        file.write("\n")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[TextIO, None, None]:
    """Open a text file that takes the place of `path` only once it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def record(kind: type[Record], row: dict[str, Any], where: str) -> Record:
    """Build a record from a JSON object, checked against the annotations of its class."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in row:
            if field.default is MISSING and field.default_factory is MISSING:
                raise InputError(
                    f"{where}: '{field.name}' is missing; the keys are {', '.join(row)}"
                )
            continue
        value = row[field.name]
        if not _fits(value, _hints(kind)[field.name]):
            raise InputError(f"{where}: {field.name} must be {field.type}, not {value!r}")
        values[field.name] = tuple(cast("list[Any]", value)) if isinstance(value, list) else value
    return kind(**values)


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a JSON value fits an annotation: plain types, unions, tuples, mappings."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:  # a JSON list of one kind
        return isinstance(value, list) and all(
            _fits(item, inner[0]) for item in cast("list[Any]", value)
        )
    if origin is Mapping:
        return isinstance(value, dict) and all(
            _fits(item, inner[1]) for item in cast("dict[str, Any]", value).values()
        )
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
