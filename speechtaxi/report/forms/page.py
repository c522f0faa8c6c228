"""The report as one HTML page that loads nothing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from speechtaxi.languages import LANGUAGES, name_of
from speechtaxi.report import charts
from speechtaxi.report.comparison import Comparison
from speechtaxi.report.forms.texts import drawn
from speechtaxi.report.forms.words import METHOD, systems, verdict
from speechtaxi.report.section import Section, Table, Value
from speechtaxi.statistics import Interval

SCRIPTS = {
    "Arab": "Arabic",
    "Beng": "Bengali",
    "Cyrl": "Cyrillic",
    "Deva": "Devanagari",
    "Gujr": "Gujarati",
    "Guru": "Gurmukhi",
    "Knda": "Kannada",
    "Latn": "Latin",
    "Mlym": "Malayalam",
    "Orya": "Oriya",
    "Taml": "Tamil",
    "Telu": "Telugu",
}
"""ISO 15924."""

DIGITS = 5
"""Significant ones of numbers in charts and of those that tables are sorted by."""


def as_html(found: Comparison, sections: Sequence[Section]) -> str:
    """Return the page: verdict, plots, tables and their filter, with all scripts inside."""
    environment = Environment(
        loader=PackageLoader("speechtaxi.report.forms", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    drawings: dict[str, dict[str, Any]] = {  # a test validates; here it takes seconds
        figure.name: figure.chart.to_dict(validate=False)
        for section in sections
        for figure in section.figures
    }
    names = list(dict.fromkeys(run.system for run in found.runs))
    languages = [_language(code) for code in found.languages]
    page = environment.get_template("page.html").render(
        found=found,
        sections=sections,
        languages=sorted(languages, key=lambda language: language["name"]),
        scripts=_facet(language["script"] for language in languages),
        families=_facet(language["family"] for language in languages),
        systems=[{"name": name, "kind": charts.kind(found, name)} for name in names],
        clips=sum({cell.languages: cell.clips for cell in found.cells}.values()),
        notes={note: systems(found, who) for note, who in found.notes.items()},
        verdict=verdict(found),
        method=[*METHOD, drawn(found)],
        specs={name: _spec(chart) for name, chart in drawings.items()},
        described={name: chart["description"] for name, chart in drawings.items()},
        config=charts.config("currentColor"),
        number=number,
        numeric=numeric,
        vega=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
    )
    return page + "\n"


def numeric(table: Table, column: str) -> bool:
    """Tell whether a column holds numbers."""
    return any(isinstance(row[column], (int, float, Interval)) for row in table.rows)


def number(value: Value) -> str:
    """Return what a column of numbers is sorted by, nothing for what is none.

    >>> number(0.123456789), number(1234567), number(None), number("(0.50 over 2)")
    ('0.12346', '1234567', '', '')
    """
    value = value.estimate if isinstance(value, Interval) else value
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{DIGITS}g}"
    return str(value) if isinstance(value, int) else ""


def _language(code: str) -> dict[str, str]:
    known = LANGUAGES.get(code)
    return {
        "name": name_of(code),
        "script": SCRIPTS.get(known.script, known.script) if known else "other",
        "family": known.family if known else "other",
    }


def _facet(names: Iterable[str]) -> list[dict[str, str]]:
    """Return the options of a filter, once each, all of one group."""
    return [{"name": name, "group": ""} for name in sorted({name for name in names if name})]


def _spec(chart: dict[str, Any]) -> dict[str, Any]:
    """Return a chart without what the page says itself, and data that layers share only once."""
    spec = {k: v for k, v in chart.items() if k not in ("$schema", "config", "description")}
    spec = _short(spec)
    uses = Counter(json.dumps(data) for data in _inline(spec))
    names = {data: f"shared{n}" for n, (data, count) in enumerate(uses.items()) if count > 1}
    for data in list(_inline(spec)):
        if name := names.get(json.dumps(data)):
            spec.setdefault("datasets", {})[name] = data.pop("values")
            data["name"] = name
    return spec


def _inline(spec: Any) -> Iterator[dict[str, Any]]:
    """Yield the inline data of a chart and of its parts."""
    for key, value in _items(spec):
        if key == "data" and isinstance(value, dict) and "values" in value:
            yield cast("dict[str, Any]", value)
        elif key != "values":
            yield from _inline(value)


def _items(spec: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(spec, dict):
        yield from cast("dict[str, Any]", spec).items()
    elif isinstance(spec, list):
        yield from enumerate(cast("list[Any]", spec))


def _short(value: Any) -> Any:
    """Round the numbers of a chart to what a reader can see."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {k: _short(v) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_short(v) for v in cast("list[Any]", value)]
    return value
