"""The report's plots as pictures: on white, with title and legend inside, each to stand alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert

from speechtaxi.report import charts
from speechtaxi.report.comparison import Comparison
from speechtaxi.report.forms.texts import nodes
from speechtaxi.report.questions.systems import kinds, setups
from speechtaxi.report.section import Figure, Section

INK = "#222222"

WIDTH = 480
"""Pixels of a plot that takes a page's width; at `SCALE`, 300 dpi in a paper's column."""

SCALE = 2


def pictures(found: Comparison, sections: Sequence[Section]) -> dict[str, charts.Spec]:
    """Return the specifications of all pictures by name: the overview, then the figures."""
    overview: charts.Spec = overview_chart(found).to_dict(validate=False)
    return {"overview": overview | {"config": charts.config(INK)}} | {
        figure.name: printed(figure, section.legend, [*found.notes])
        for section in sections
        for figure in section.figures
    }


def as_svg(spec: charts.Spec) -> str:
    """Return a specification drawn; nothing is loaded from elsewhere."""
    return vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])


def as_png(svg: str) -> bytes:
    """Return a drawing in pixels, `SCALE` times its size."""
    return vl_convert.svg_to_png(svg, scale=SCALE)


def printed(figure: Figure, legend: Mapping[str, str], notes: Sequence[str]) -> charts.Spec:
    """Return a figure with what a page writes around it: title, notes, and what signs mean.

    Args:
        legend: of its section.
        notes: of the report, such as "synthetic speech": a picture travels alone.
    """
    spec: charts.Spec = figure.chart.to_dict(validate=False)
    for node in nodes(spec):
        if node.get("width") == "container":
            node["width"] = WIDTH
        encoding: dict[str, Any] = node.get("encoding", {})
        for channel in ("color", "shape"):
            drawn: dict[str, Any] = encoding.get(channel, {})
            scale: dict[str, Any] = drawn.get("scale") or {}
            domain: Sequence[str] = scale.get("domain", ())
            told = [v for v in domain if any(f" {word}".endswith(f" {v}") for word in legend)]
            if told and drawn.get("legend", "") is None and (channel == "color" or len(told) > 1):
                signs = {"symbolType": "circle"} if channel == "color" else {}
                drawn["legend"] = {"orient": "top", "title": None, "values": told, **signs}
    title = {"text": figure.title, "subtitle": notes}
    return {"title": title} | spec | {"config": charts.config(INK)}


def overview_chart(found: Comparison) -> alt.VConcatChart:
    """Draw the means of all setups below each other, for one picture."""
    used = [name for name in charts.KINDS if name in kinds(found)]
    legend = alt.Legend(orient="top", title=None, symbolType="circle", values=used)
    return alt.vconcat(
        *(
            charts.score_chart(found, means, WIDTH, legend if n == 0 else None).properties(
                title=charts.setup_title(setup, languages)
            )
            for n, (setup, means, languages) in enumerate(setups(found))
        )
    ).properties(
        title=alt.TitleParams(
            "Macro-F1 with 95 % intervals (grey: majority baseline)",
            subtitle=list(found.notes),
            fontSize=16,
            subtitleFontSize=12,
            subtitlePadding=6,
            offset=16,
        ),
        padding=20,
    )
