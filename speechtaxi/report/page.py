"""The report as one HTML page that loads nothing, and as one picture."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from speechtaxi.languages import name_of
from speechtaxi.report import charts
from speechtaxi.report.comparison import Comparison, Difference, Score
from speechtaxi.report.runs import SETUPS
from speechtaxi.report.tables import (
    Table,
    difference_table,
    mean_table,
    run_table,
    score_table,
    score_tables,
    setups,
    topic_table,
    transcript_table,
)
from speechtaxi.report.words import METHOD, systems, verdict
from speechtaxi.statistics import Interval


@dataclass(frozen=True)
class Figure:
    """A chart and its caption."""

    title: str
    spec: Mapping[str, Any]


def as_html(found: Comparison) -> str:
    """Return the page: verdict, plots, tables, with all scripts inside."""
    environment = Environment(
        loader=PackageLoader("speechtaxi.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = {
        "means": _mean_figures(found),
        "forests": _forest_figures(found),
        "languages": _language_figures(found),
        "transcripts": [_figure("", charts.transcript_chart(found))] if found.transcripts else [],
        "confusions": [
            _figure(f"{t.system}, {t.setup}", charts.confusion_chart(t, found.labels))
            for t in found.topics
        ],
    }
    page = environment.get_template("page.html").render(
        found=found,
        clips=sum({cell.languages: cell.clips for cell in found.cells}.values()),
        notes={note: systems(found, names) for note, names in found.notes.items()},
        verdict=verdict(found),
        method=METHOD,
        kinds={k: c for k, c in charts.KINDS.items() if k in _kinds(found)},
        better=charts.BETTER,
        shapes={
            s: "■●▲◆"[n] for n, s in enumerate(SETUPS) if any(c.setup == s for c in found.cells)
        },
        figures=figures,
        specs={
            f"{place}-{n}": figure.spec
            for place, group in figures.items()
            for n, figure in enumerate(group)
        },
        config=charts.config("currentColor"),
        means=mean_table(found),
        side_by_side=score_tables(found),
        scores=score_table(found),
        differences=difference_table(found),
        transcripts=transcript_table(found),
        topics=topic_table(found),
        runs=run_table(found),
        sort_key=sort_key,
        numeric=numeric,
        vega=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
    )
    return page + "\n"


def overview(found: Comparison, path: Path) -> None:
    """Write the means of all setups as a PNG."""
    spec = charts.overview_chart(found).to_dict()
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(
            vl_convert.vegalite_to_png({**spec, "config": charts.config("#222222")}, scale=2)
        )
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def sort_key(value: object) -> str:
    """Return what a column is sorted by."""
    value = value.estimate if isinstance(value, Interval) else value
    return "" if value is None else str(value)


def numeric(table: Table, column: str) -> bool:
    """Tell whether a column holds numbers."""
    return any(isinstance(row[column], (int, float, Interval)) for row in table.rows)


def _figure(title: str, chart: Any) -> Figure:
    spec: dict[str, Any] = chart.to_dict(validate=False)  # a test validates; here it takes seconds
    return Figure(title, {k: v for k, v in spec.items() if k not in ("$schema", "config")})


def _mean_figures(found: Comparison) -> list[Figure]:
    return [
        _figure(charts.setup_title(setup, langs), charts.score_chart(found, means, "container"))
        for setup, means, langs in setups(found)
    ]


def _language_figures(found: Comparison) -> list[Figure]:
    cells: dict[str, list[Score]] = defaultdict(list)
    for cell in found.cells:
        cells[cell.languages[0]].append(cell)
    return [
        _figure(
            f"{name_of(language)} ({cells[language][0].clips} clips)",
            charts.score_chart(found, cells[language], "container"),
        )
        for language in found.languages
    ]


def _forest_figures(found: Comparison) -> list[Figure]:
    pairs: dict[tuple[str, str, str], list[Difference]] = defaultdict(list)
    means = [d for d in found.mean_differences if len(d.languages) > 1]
    for d in (*means, *found.differences):
        pairs[d.setup, d.e2e, d.cascade].append(d)
    limit = charts.widest(found.differences)
    return [
        _figure(f"{e2e} minus {cascade}, {setup}", charts.forest_chart(group, limit))
        for (setup, e2e, cascade), group in sorted(
            pairs.items(), key=lambda pair: SETUPS.index(pair[0][0])
        )
    ]


def _kinds(found: Comparison) -> Sequence[str]:
    return [charts.kind(found, run.system) for run in found.runs]
