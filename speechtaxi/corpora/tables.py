"""Rows of any table, one after the other: CSV, TSV, JSON lines, Parquet; from a file or a stream.

TSV files of the hub are read as pandas reads and writes them: a cell may stand in quotation marks,
doubled inside (SIB-200 and MasakhaNEWS do so). `quoted=False` takes cells as they are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from speechtaxi.errors import InputError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
LONGEST_CELL = 1 << 26
"""Characters; a whole news article is a cell."""

ROWS_AT_ONCE = 16
"""Of a Parquet file: a row may hold minutes of audio."""


def read_rows(
    path: Path, stream: IO[bytes] | None = None, *, name: str = "", quoted: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where a row stands and its cells by column; class numbers come as class names.

    Args:
        stream: the table's bytes, where `path` is only the archive that holds it under `name`.

    Raises:
        InputError: damaged, not UTF-8, a row of another width, an unknown kind of table.
    """
    where = f"{path}: {name}" if name else str(path)
    suffix = Path(name or path.name).suffix.lower()
    if suffix == ".parquet":
        yield from _parquet(where, path if stream is None else io.BytesIO(stream.read()))
        return
    if suffix not in SUFFIXES:
        raise InputError(f"{where}: unknown kind of table; use {', '.join(SUFFIXES)}")
    with _text(path, stream) as text:
        try:
            if suffix == ".jsonl":
                yield from _json(where, text)
            else:
                yield from _separated(where, text, "\t" if suffix == ".tsv" else ",", quoted)
        except UnicodeDecodeError:
            raise InputError(f"{where}: is not UTF-8 text") from None


def columns(path: Path) -> list[str]:
    """Return the column names of a table.

    Raises:
        InputError: as `read_rows`.
    """
    if path.suffix.lower() == ".parquet":
        return list(_open_parquet(str(path), path).schema_arrow.names)
    for _, row in read_rows(path):
        return list(row)
    return []


@contextmanager
def _text(path: Path, stream: IO[bytes] | None) -> Generator[io.TextIOBase, None, None]:
    with stream or path.open("rb") as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as text:
        yield text


def _json(where: str, text: io.TextIOBase) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row: object = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}:{number}: broken JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise InputError(f"{where}:{number}: not a JSON object; write one object per line")
        yield f"{where}:{number}", cast("dict[str, Any]", row)


def _separated(
    where: str, text: io.TextIOBase, delimiter: str, quoted: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(LONGEST_CELL)
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting)
    header: list[str] = []
    try:
        for cells in filter(None, reader):
            if not header:
                header = [name.strip() for name in cells]
            elif len(cells) != len(header):
                raise InputError(
                    f"{where}:{reader.line_num}: {len(cells)} cells, but there are "
                    f"{len(header)} columns: {', '.join(header)}"
                )
            else:
                yield f"{where}:{reader.line_num}", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: broken table: {error}") from None


def _open_parquet(where: str, file: Path | IO[bytes]) -> Any:
    parquet = cast(Any, import_module("pyarrow.parquet"))
    try:
        return parquet.ParquetFile(file)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InputError(
            f"{where}: not a whole Parquet file ({error}); download it again"
        ) from None


def _parquet(where: str, file: Path | IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    table = _open_parquet(where, file)
    classes = _classes(table.schema_arrow.metadata or {})
    number = 0
    with table:
        batches = table.iter_batches(batch_size=ROWS_AT_ONCE)
        while True:
            try:
                batch = next(batches, None)
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{where}: damaged after row {number} ({error}); download it again"
                ) from None
            if batch is None:
                return
            for row in batch.to_pylist():
                number += 1
                for name, names in classes.items():
                    if isinstance(row.get(name), int):
                        row[name] = names[row[name]] if 0 <= row[name] < len(names) else None
                yield f"{where}: row {number}", row


def _classes(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return column -> class names, as the `datasets` library writes them into a file's schema."""
    try:
        features: dict[str, dict[str, Any]]
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            name: feature["names"]
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
