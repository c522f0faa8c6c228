"""A report as Markdown and JSON, and its tables and figures as CSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, TypeAlias, cast

import numpy as np

import speechtaxi
from speechtaxi.report.comparison import Comparison
from speechtaxi.report.forms.words import METHOD, systems, verdict
from speechtaxi.report.questions.router import choices
from speechtaxi.report.section import Figure, Section, Table
from speechtaxi.statistics import Interval

SCHEMA = "urn:speechtaxi:report:1"
"""Names the JSON Schema of report.json, schema.json beside this file."""

Cell: TypeAlias = str | int | float | None


def as_markdown(found: Comparison, sections: Sequence[Section]) -> str:
    """Return the report to read in a terminal or a repository."""
    parts = ["# Topics heard and read: a comparison\n"]
    parts += [f"> **{note}** ({systems(found, who)})\n" for note, who in found.notes.items()]
    parts.append("## Verdict\n")
    parts += [f"**{setup}**\n\n{_bullets(said)}" for setup, said in verdict(found).items()]
    if found.warnings:
        parts += ["## Beware\n", _bullets(found.warnings)]
    for section in sections:
        tables = [t for t in section.tables if t.rows and not t.folded]
        # Words say how to read figures, too: alone they say nothing
        if tables or (section.words and not section.figures):
            parts += [f"## {section.title}\n", *(f"{words}\n" for words in section.words)]
            parts += [markdown(table) for table in tables]
    parts += ["## Method\n", _bullets(METHOD), f"{drawn(found)}\n"]
    return _MARKUP.sub(r"\\<", "\n".join(parts))


def drawn(found: Comparison) -> str:
    """Tell how often was drawn from what."""
    board = found.board
    return f"Split {found.split}, {board.resamples} resamples, seed {board.seed}."


def markdown(table: Table) -> str:
    """Return a table with its title and footnotes as Markdown."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in cells) + " |"

    lines = [f"### {table.title}", "", line(table.columns), "|" + "---|" * len(table.columns)]
    lines += [line(map(table.text, row.values())) for row in table.rows]
    if table.total:
        lines.append(line(f"**{table.text(cell)}**" for cell in table.total.values()))
    return "\n".join([*lines, *(f"\n† {note}" for note in table.footnotes)]) + "\n"


_MARKUP = re.compile(r"<(?=[A-Za-z/!?])")
"""What Markdown would take for the beginning of an HTML tag."""


def numbers(sections: Iterable[Section]) -> dict[str, list[dict[str, Cell]]]:
    """Return the rows of every table and of every figure, by the name of their file.

    An interval takes three columns: x, x low, x high.
    """
    rows = {table.name: flat(table) for part in sections for table in part.tables if table.rows}
    for figure in (figure for part in sections for figure in part.figures):
        for n, drawn in enumerate(plotted(figure), 1):
            rows[f"figures/{figure.name}" + (f"-{n}" if n > 1 else "")] = drawn
    return rows


def flat(table: Table) -> list[dict[str, Cell]]:
    """Return a table's rows with an interval in three columns."""
    spread = {c for row in table.rows for c, v in row.items() if isinstance(v, Interval)}
    rows: list[dict[str, Cell]] = []
    for row in table.rows:
        cells: dict[str, Cell] = {}
        for column, value in row.items():
            if column not in spread:
                cells[column] = cast(Cell, value)
                continue
            numbers = (
                (value.estimate, value.low, value.high)
                if isinstance(value, Interval)
                else (None, None, None)
            )
            cells |= dict(zip((column, f"{column} low", f"{column} high"), numbers, strict=True))
        rows.append(cells)
    return rows


def plotted(figure: Figure) -> list[list[dict[str, Cell]]]:
    """Return the rows that a figure shows, the longest data first, without single numbers."""
    spec: dict[str, Any] = figure.chart.to_dict(validate=False)
    found: dict[str, list[dict[str, Any]]] = {}
    for node in nodes(spec):
        inline: dict[str, Any] = node.get("data") or {}
        for rows in (inline.get("values", []), *node.get("datasets", {}).values()):
            if sum(map(len, rows)) > 1:  # else a line that is the same in every chart, as 0 is
                found.setdefault(json.dumps(rows, default=str), rows)
    return [
        [{c: v if _is_cell(v) else json.dumps(v, default=str) for c, v in r.items()} for r in rows]
        for rows in sorted(found.values(), key=len, reverse=True)
    ]


def as_csv(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Return rows as CSV; what is not known is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _columns(rows), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {c: round(v, 6) if isinstance(v, float) else v for c, v in row.items() if v == v}
        )
    return file.getvalue()


def as_parquet(rows: Sequence[Mapping[str, Cell]]) -> bytes:
    """Return rows as Parquet; what is not known is null, numbers among words are words."""
    arrow, parquet = (
        cast(Any, import_module("pyarrow")),
        cast(Any, import_module("pyarrow.parquet")),
    )
    columns: dict[str, Any] = {}
    for column in _columns(rows):
        values = [None if (v := row.get(column)) != v else v for row in rows]
        if any(isinstance(v, str) for v in values):
            values = [v if v is None else str(v) for v in values]
        columns[column] = arrow.array(values)
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def _columns(rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _is_cell(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects of a Vega-Lite specification, without what is in its data."""
    if isinstance(part, list):
        for item in cast("list[Any]", part):
            yield from nodes(item)
    elif isinstance(part, dict):
        node = cast("dict[str, Any]", part)
        yield node
        for key, item in node.items():
            if key not in ("data", "datasets"):
                yield from nodes(item)


def as_json(found: Comparison, sections: Sequence[Section]) -> str:
    """Return the whole comparison and what is said of it for machines; NaN is null."""
    board = found.board
    whole: dict[str, Any] = {
        "$schema": SCHEMA,
        "version": speechtaxi.__version__,
        "verdict": verdict(found),
        "method": METHOD,
        "warnings": found.warnings,
        "notes": found.notes,
        "split": found.split,
        "resamples": board.resamples,
        "seed": board.seed,
        "labels": found.labels,
        "languages": found.languages,
        "baselines": {
            language: {"macro_f1": f1, "accuracy": right}
            for language, (f1, right) in found.baselines.items()
        },
        "scores": [asdict(s) for s in found.cells],
        "mean_scores": [asdict(s) for s in found.means],
        "differences": [asdict(d) | {"better": d.better} for d in found.differences],
        "mean_differences": [asdict(d) | {"better": d.better} for d in found.mean_differences],
        "transcripts": [asdict(t) for t in found.transcripts],
        "mean_transcripts": [asdict(t) for t in found.mean_transcripts],
        "topics": [asdict(t) for t in found.topics],
        "runs": [
            asdict(r.record) | {"source": str(r.source), "unlabelled": r.unlabelled}
            for r in found.runs
        ],
        "router": {
            choice.language: {k: v for k, v in asdict(choice).items() if k != "language"}
            for choice in choices(found)
        },
        "sections": [
            {
                "name": section.name,
                "title": section.title,
                "words": section.words,
                "figures": [
                    {"name": f.name, "title": f.title, "description": _description(f)}
                    for f in section.figures
                ],
                "tables": [{"name": t.name, "title": t.title} for t in section.tables if t.rows],
            }
            for section in sections
        ],
        "tables": {
            table.name: [
                {c: asdict(v) if isinstance(v, Interval) else v for c, v in row.items()}
                for row in table.rows
            ]
            for section in sections
            for table in section.tables
            if table.rows
        },
    }
    return json.dumps(_plain(whole), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(cast("Any", value).tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _description(figure: Figure) -> str:
    told = figure.chart.description
    return told if isinstance(told, str) else ""


def _bullets(sentences: Iterable[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)
