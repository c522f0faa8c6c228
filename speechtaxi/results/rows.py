"""An answer as a row: one way for all formats."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from speechtaxi.types import Answer, Span


def row(answer: Answer, top_k: int) -> dict[str, Any]:
    """Return an answer as JSONL tells it: its fields in order, times as `start` and `end`.

    Probabilities are the `top_k` best, best first, to four digits; times are to the millisecond.
    """
    told: dict[str, Any] = {}
    for field in fields(answer):
        value = getattr(answer, field.name)
        if isinstance(value, Span):
            told |= {"start": round(value.start, 3), "end": round(value.end, 3)}
        elif field.name == "probabilities":
            ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:top_k]
            told[field.name] = {label: round(chance, 4) for label, chance in ranked}
        else:
            told[field.name] = round(value, 4) if isinstance(value, float) else value
    return told


def columns(top_k: int) -> dict[str, type]:
    """Return a table's columns and their types (str, float, bool), in the order of `row`.

    >>> [name for name in columns(1) if name not in Answer.__slots__]
    ['start', 'end', 'topic_1', 'probability_1']
    """
    named: dict[str, type] = {}
    for name, hint in get_type_hints(Answer).items():
        if hint is Span:
            named |= {"start": float, "end": float}
        elif name == "probabilities":
            for rank in range(1, top_k + 1):
                named |= {f"topic_{rank}": str, f"probability_{rank}": float}
        else:
            named[name] = float if hint in (float, float | None) else bool if hint is bool else str
    return named


def cells(told: Mapping[str, Any], top_k: int) -> list[Any]:
    """Return a `row` for a table: each topic and probability a cell, flags with blanks between."""
    line: list[Any] = []
    for name, value in told.items():
        if name == "probabilities":
            best = [cell for pair in value.items() for cell in pair]
            line += best + [None] * (2 * top_k - len(best))
        else:
            line.append(" ".join(value) if name == "flags" else value)
    return [plain(cell) if isinstance(cell, str) else cell for cell in line]


def encode(told: Mapping[str, Any], kind: str, top_k: int) -> bytes:
    """Return a `row` as a line of JSONL, CSV or TSV."""
    return json_line(told) if kind == "jsonl" else csv_line(cells(told, top_k), kind)


def header(kind: str, top_k: int) -> bytes:
    """Return what JSONL, CSV or TSV begins with."""
    return b"" if kind == "jsonl" else csv_line(columns(top_k), kind)


def plain(text: str) -> str:
    """Return text as UTF-8 can hold it: names of files may hold bytes that are no text.

    >>> plain("caf\\udce9.wav")
    'caf\\\\udce9.wav'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def json_line(value: Mapping[str, Any]) -> bytes:
    """Return one line of JSON; a byte that is no text becomes JSON's own escape of it."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
    return line.encode("utf-8", "backslashreplace")


def csv_line(line: Iterable[Any], kind: str) -> bytes:
    """Return one row of CSV or TSV, quoted where needed (RFC 4180, but for its end of line)."""
    # Told to end lines with \n alone, csv leaves a \r in a cell unquoted, and readers break there.
    text = io.StringIO(newline="")
    mark = "," if kind == "csv" else "\t"
    csv.writer(text, delimiter=mark, lineterminator="\r\n").writerow(line)
    return (text.getvalue()[:-2] + "\n").encode("utf-8", "backslashreplace")
