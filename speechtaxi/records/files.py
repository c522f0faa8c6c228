"""Rows in text files and tables, each with its place (file:line), and files that appear whole."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, cast

from speechtaxi.errors import InputError

Row = tuple[str, dict[str, Any]]  # where it stands (file:line), its cells by column name


def text(path: Path) -> str:
    """Return the text of a UTF-8 file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); convert it") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def json_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSONL file."""
    for number, line in enumerate(text(path).split("\n"), 1):
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


def table_rows(path: Path, **dialect: Any) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV file with a header."""
    reader = csv.reader(io.StringIO(text(path), newline=""), **dialect)
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


def parquet_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file."""
    parquet = cast(Any, import_module("pyarrow.parquet"))
    try:
        rows: list[dict[str, Any]] = parquet.read_table(str(path)).to_pylist()
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from None
    return ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": json_rows,
    ".json": json_rows,
    ".csv": partial(table_rows, strict=True),
    ".tsv": partial(table_rows, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".parquet": parquet_rows,
}
"""By suffix."""


def refuse_repeated(rows: Iterable[tuple[str, str]]) -> None:
    """Refuse an id that stands at two places, given as (place, id)."""
    seen: dict[str, str] = {}
    for where, name in rows:
        if name in seen:
            raise InputError(
                f"{where}: id '{name}' is already used at {seen[name]}; give every row its own"
            )
        seen[name] = where


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
