"""A comparison as tables, to print as Markdown, CSV or HTML, and as JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO, TypeAlias, TypeVar, cast

import numpy as np

from speechtaxi.languages import name_of
from speechtaxi.report.comparison import Comparison, Difference, Score, Transcripts
from speechtaxi.report.runs import SETUPS
from speechtaxi.statistics import Interval

Value: TypeAlias = str | int | float | Interval | None
Row: TypeAlias = Mapping[str, Value]
Finding = TypeVar("Finding", Score, Difference, Transcripts)


@dataclass(frozen=True)
class Table:
    """Rows of raw values by column; all rows have the same columns."""

    name: str
    title: str
    rows: Sequence[Row]
    total: Row | None = None
    """A row that stays below when the others are sorted."""
    digits: int = 2

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0])

    @property
    def footnotes(self) -> list[str]:
        """What the daggers say."""
        cells = (cell for row in (*self.rows, self.total or {}) for cell in row.values())
        return list(dict.fromkeys(c.note for c in cells if isinstance(c, Interval) and c.note))

    def text(self, value: Value) -> str:
        """Print a cell; a dagger marks an interval with a note."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        if isinstance(value, Interval):
            limits = f" [{self.text(value.low)}, {self.text(value.high)}]"
            dagger = " †" if value.note else ""
            return self.text(value.estimate) + ("" if math.isnan(value.low) else limits) + dagger
        if isinstance(value, float):
            least = 10**-self.digits
            return f"<{least}" if 0 < value < least / 2 else f"{value:.{self.digits}f}"
        return f"{value:,}" if isinstance(value, int) else value


def markdown(table: Table) -> str:
    """Return a table with its title and footnotes as Markdown."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in cells) + " |"

    lines = [f"### {table.title}", "", line(table.columns), "|" + "---|" * len(table.columns)]
    lines += [line(map(table.text, row.values())) for row in table.rows]
    if table.total:
        lines.append(line(f"**{table.text(cell)}**" for cell in table.total.values()))
    return "\n".join([*lines, *(f"\n† {note}" for note in table.footnotes)]) + "\n"


def write_csv(file: TextIO, table: Table) -> None:
    """Write a table as CSV in full precision; an interval takes three columns."""
    spread = {c for row in table.rows for c, v in row.items() if isinstance(v, Interval)}
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        name
        for column in table.columns
        for name in (column, f"{column} low", f"{column} high")[: 3 if column in spread else 1]
    )
    for row in table.rows:
        cells: list[Value] = []
        for value in row.values():
            if isinstance(value, Interval):
                cells += [value.estimate, value.low, value.high]
            else:
                cells.append(value)
        writer.writerow(round(cell, 6) if isinstance(cell, float) else cell for cell in cells)


def mean_table(found: Comparison) -> Table:
    """Return the systems in each setup, over the languages that they cover there."""
    routes = {run.system: run.record.route for run in found.runs}
    rows: list[Row] = [
        {
            "setup": setup,
            "system": mean.system,
            "route": routes[mean.system],
            "languages": len(mean.languages),
            "clips": mean.clips,
            "macro-F1": mean.macro_f1,
            "accuracy": mean.accuracy,
            "majority macro-F1": found.baseline(mean.languages)[0],
        }
        for setup, means, _ in setups(found)
        for mean in means
    ]
    return Table("means", "Mean over languages", rows)


def score_tables(found: Comparison) -> list[Table]:
    """Return macro-F1 for each setup, languages by systems, to be read side by side."""
    clips = {cell.languages[0]: cell.clips for cell in found.cells}
    cells = {(cell.system, cell.setup, cell.languages): cell.macro_f1 for cell in found.cells}
    tables: list[Table] = []
    for setup, means, languages in setups(found):
        rows: list[Row] = [
            {
                "language": name_of(language),
                "clips": clips[language],
                "majority": found.baselines[language][0],
                **{mean.system: cells.get((mean.system, setup, (language,))) for mean in means},
            }
            for language in languages
        ]
        total: Row = {
            "language": f"mean of {len(languages)}",
            "clips": sum(clips[language] for language in languages),
            "majority": found.baseline(languages)[0],
            **{mean.system: _comparable(mean, languages) for mean in means},
        }
        several = len(languages) > 1
        tables.append(
            Table(f"macro-f1-{setup}", f"Macro-F1, {setup}", rows, total if several else None)
        )
    return tables


def score_table(found: Comparison) -> Table:
    """Return every system in every language."""
    rows: list[Row] = [
        {
            "system": cell.system,
            "setup": cell.setup,
            "language": name_of(cell.languages[0]),
            "clips": cell.clips,
            "groups": cell.groups,
            "macro-F1": cell.macro_f1,
            "accuracy": cell.accuracy,
            "majority macro-F1": found.baselines[cell.languages[0]][0],
            "majority accuracy": found.baselines[cell.languages[0]][1],
        }
        for cell in found.cells
    ]
    return Table("scores", "All scores", rows)


def difference_table(found: Comparison) -> Table:
    """Return the paired differences, means first."""
    rows: list[Row] = [
        {
            "E2E": d.e2e,
            "cascade": d.cascade,
            "setup": d.setup,
            "language": place,
            "clips": d.clips,
            "E2E macro-F1": d.macro_f1[0],
            "cascade macro-F1": d.macro_f1[1],
            "difference": d.difference,
            "p": d.p,
            "p (Holm)": d.p_holm,
            "better": {"e2e": "E2E", "cascade": "cascade", None: "cannot tell"}[d.better],
        }
        for place, d in _placed(found.mean_differences, found.differences)
    ]
    return Table("differences", "E2E minus cascade, macro-F1", rows, digits=3)


def transcript_table(found: Comparison) -> Table:
    """Return error rates and flags of transcripts, means first."""
    rows: list[Row] = [
        {
            "system": t.system,
            "setup": t.setup,
            "language": place,
            "clips": t.clips,
            "with gold text": t.referenced,
            "flagged": t.flagged,
            "CER": t.cer,
        }
        for place, t in _placed(found.mean_transcripts, found.transcripts)
    ]
    return Table("transcripts", "Transcripts", rows, digits=3)


def topic_table(found: Comparison) -> Table:
    """Return precision, recall and F1 by topic."""
    rows: list[Row] = [
        {
            "system": topics.system,
            "setup": topics.setup,
            "topic": label,
            "clips": int(topics.confusion[n].sum()),
            "precision": float(topics.scores[0, n]),
            "recall": float(topics.scores[1, n]),
            "F1": float(topics.scores[2, n]),
        }
        for topics in found.topics
        for n, label in enumerate(found.labels)
    ]
    return Table("topics", "Topics, pooled over the languages of a setup", rows)


def confusion_table(found: Comparison) -> Table:
    """Return how often each topic was called each other."""
    rows: list[Row] = [
        {
            "system": topics.system,
            "setup": topics.setup,
            "gold": gold,
            "predicted": predicted,
            "clips": int(topics.confusion[row, column]),
        }
        for topics in found.topics
        for row, gold in enumerate(found.labels)
        for column, predicted in enumerate(found.labels)
    ]
    return Table("confusion", "Confusion, pooled over the languages of a setup", rows)


def run_table(found: Comparison) -> Table:
    """Return what each run says of itself."""
    rows: list[Row] = [
        {
            "system": r.system,
            "route": r.route,
            "view": r.view,
            "trained on": ", ".join(r.train_languages) or None,
            "seed": None if r.seed is None else str(r.seed),
            "recogniser": r.recognizer,
            "parameters": r.parameters,
            "audio hours": r.audio_hours,
            "seconds": _pairs(r.seconds),
            "skipped": r.skipped,
            "flagged": _pairs({flag: count for flag, count in r.flagged.items() if count}),
            "data": r.data_fingerprint,
            "commit": r.git_commit,
            "hardware": _pairs(r.hardware),
            "versions": _pairs(r.versions),
        }
        for r in (run.record for run in found.runs)
    ]
    return Table("runs", "Runs", rows)


def csv_tables(found: Comparison) -> list[Table]:
    """Return the tables that are written as CSV: one row per finding."""
    makers = (mean_table, score_table, difference_table, transcript_table)
    tables = [make(found) for make in (*makers, topic_table, confusion_table, run_table)]
    return [table for table in tables if table.rows]


def setups(found: Comparison) -> Iterator[tuple[str, list[Score], tuple[str, ...]]]:
    """Yield each setup with the systems' means in it and the languages that any of them covers."""
    for setup in SETUPS:
        if means := [mean for mean in found.means if mean.setup == setup]:
            covered = {language for mean in means for language in mean.languages}
            yield setup, means, tuple(lang for lang in found.languages if lang in covered)


def as_json(found: Comparison, words: Mapping[str, object]) -> str:
    """Return the whole comparison and what is said of it for machines; NaN is null."""
    whole: dict[str, Any] = {
        **words,
        "warnings": found.warnings,
        "notes": found.notes,
        "split": found.split,
        "resamples": found.resamples,
        "seed": found.seed,
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
        "runs": [asdict(run.record) | {"unlabelled": run.unlabelled} for run in found.runs],
    }
    return json.dumps(_plain(whole), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, np.ndarray):
        return cast("Any", value).tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _comparable(mean: Score, languages: tuple[str, ...]) -> Value:
    """Return a mean, or say that it is over fewer languages than the others'."""
    if mean.languages == languages:
        return mean.macro_f1
    return f"({mean.macro_f1.estimate:.2f} over {len(mean.languages)})"


def _placed(means: Sequence[Finding], cells: Sequence[Finding]) -> Iterator[tuple[str, Finding]]:
    """Yield findings with what they are of: means over several languages, then languages."""
    for mean in means:
        if len(mean.languages) > 1:
            yield f"mean of {len(mean.languages)}", mean
    for cell in cells:
        yield name_of(cell.languages[0]), cell


def _pairs(values: Mapping[str, object]) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or None
