"""The report as one HTML page that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from speechtaxi.report import charts
from speechtaxi.report.comparison import Comparison
from speechtaxi.report.forms import cell_key, drawn
from speechtaxi.report.section import Section, Table
from speechtaxi.report.words import METHOD, systems, verdict
from speechtaxi.statistics import Interval


def as_html(found: Comparison, sections: Sequence[Section]) -> str:
    """Return the page: verdict, plots, tables, with all scripts inside."""
    environment = Environment(
        loader=PackageLoader("speechtaxi.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = [figure for section in sections for figure in section.figures]
    page = environment.get_template("page.html").render(
        found=found,
        sections=sections,
        systems=list(dict.fromkeys(run.system for run in found.runs)),
        clips=sum({cell.languages: cell.clips for cell in found.cells}.values()),
        notes={note: systems(found, names) for note, names in found.notes.items()},
        verdict=verdict(found),
        method=[*METHOD, drawn(found)],
        specs={figure.name: _spec(figure.chart) for figure in figures},
        config=charts.config("currentColor"),
        cell_key=cell_key,
        numeric=numeric,
        vega=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
    )
    return page + "\n"


def numeric(table: Table, column: str) -> bool:
    """Tell whether a column holds numbers."""
    return any(isinstance(row[column], (int, float, Interval)) for row in table.rows)


def _spec(chart: Any) -> dict[str, Any]:
    spec: dict[str, Any] = chart.to_dict(validate=False)  # a test validates; here it takes seconds
    return {k: v for k, v in spec.items() if k not in ("$schema", "config")}
