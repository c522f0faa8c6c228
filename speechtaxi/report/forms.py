"""A report as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO, cast

import numpy as np

from speechtaxi.report.comparison import Comparison
from speechtaxi.report.section import Section, Table, Value
from speechtaxi.report.words import METHOD, systems, verdict
from speechtaxi.statistics import Interval


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
    return "\n".join(parts)


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


def flat(table: Table) -> list[dict[str, str | int | float | None]]:
    """Return a table's rows with an interval in three columns."""
    spread = {c for row in table.rows for c, v in row.items() if isinstance(v, Interval)}
    rows: list[dict[str, str | int | float | None]] = []
    for row in table.rows:
        cells: dict[str, str | int | float | None] = {}
        for column, value in row.items():
            if column not in spread:
                cells[column] = cast("str | int | float | None", value)
                continue
            numbers = (
                (value.estimate, value.low, value.high)
                if isinstance(value, Interval)
                else (None, None, None)
            )
            cells |= dict(zip((column, f"{column} low", f"{column} high"), numbers, strict=True))
        rows.append(cells)
    return rows


def write_csv(file: TextIO, table: Table) -> None:
    """Write a table as CSV in full precision; an interval takes three columns."""
    rows = flat(table)
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({c: round(v, 6) if isinstance(v, float) else v for c, v in row.items()})


def as_json(found: Comparison, sections: Sequence[Section]) -> str:
    """Return the whole comparison and what is said of it for machines; NaN is null."""
    board = found.board
    whole: dict[str, Any] = {
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
        "tables": {
            table.name: [
                {c: asdict(v) if isinstance(v, Interval) else v for c, v in row.items()}
                for row in table.rows
            ]
            for section in sections
            for table in section.tables
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


def _bullets(sentences: Iterable[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)


def cell_key(value: Value) -> str:
    """Return what a column is sorted by."""
    value = value.estimate if isinstance(value, Interval) else value
    return "" if value is None else str(value)
