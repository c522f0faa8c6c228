"""The plots of a report, as Vega-Lite specifications without colours of their own for text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import altair as alt

from speechtaxi.languages import name_of
from speechtaxi.report.comparison import Comparison, Difference, Score, Topics

Spec = dict[str, Any]
Drawing: TypeAlias = alt.LayerChart | alt.FacetChart

# Okabe & Ito's palette, which colour-blind readers can tell apart; all show on white and on black
ORANGE, BLUE, GREEN, GREY = "#d55e00", "#0072b2", "#009e73", "#808080"
SEVERAL = [BLUE, "#e69f00", GREEN, "#cc79a7", "#56b4e9", ORANGE, GREY]

KINDS = {"E2E": ORANGE, "cascade": BLUE, "cascade on gold text": GREEN, "baseline": GREY}
BETTER = {"E2E better": ORANGE, "cascade better": BLUE, "cannot tell": GREY}
SHAPES = {
    "in-language": "square",
    "all-languages": "circle",
    "zero-shot": "triangle-up",
    "unknown": "diamond",
}
SIGNS = {"square": "■", "circle": "●", "triangle-up": "▲", "diamond": "◆"}


LINE = 24
"""Pixels from one line of a plot to the next."""


def config(ink: str) -> Spec:
    """Return Vega's settings with text and lines in one colour; "currentColor" is the page's."""
    axis = {"labelColor": ink, "titleColor": ink, "domainColor": ink, "tickColor": ink}
    return {
        "background": "transparent" if ink == "currentColor" else "white",
        "font": "system-ui, sans-serif",
        "padding": {"left": 4, "top": 4, "right": 8, "bottom": 4},
        "axis": {
            **axis,
            "gridColor": ink,
            "gridOpacity": 0.12,
            "domainOpacity": 0.3,
            "tickOpacity": 0.3,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
        },
        "legend": {
            "labelColor": ink,
            "labelFontSize": 12,
            "labelLimit": 220,
            "symbolBaseFillColor": ink,
            "symbolBaseStrokeColor": ink,
        },
        "title": {"color": ink, "subtitleColor": ink, "anchor": "start", "frame": "group"},
        "text": {"color": ink},
        "view": {"stroke": None},
    }


def kind(found: Comparison, system: str) -> str:
    """Tell what a system is, as one of `KINDS`."""
    run = next(run for run in found.runs if run.system == system)
    if run.reads_gold:
        return "cascade on gold text"
    return "E2E" if run.record.route == "e2e" else run.record.route


def shape(setup: str) -> str:
    """Return the shape of a setup; its variants share it."""
    return next((sign for kind, sign in SHAPES.items() if setup.startswith(kind)), "diamond")


def score_chart(
    found: Comparison,
    scores: Sequence[Score],
    width: int | str,
    legend: alt.Legend | None = None,
) -> Drawing:
    """Draw macro-F1 with its interval, one system a line; the dashes are the majority baseline."""
    rows = [
        {
            "system": s.system,
            "kind": kind(found, s.system),
            "setup": s.setup,
            "macro-F1": s.macro_f1.estimate,
            "low": _or_none(s.macro_f1.low),
            "high": _or_none(s.macro_f1.high),
            "label": f"{s.macro_f1.estimate:.2f}",
            "accuracy": s.accuracy.estimate,
            "clips": s.clips,
            "best": "yes" if s.best else "no",
            "majority": found.baseline(s.languages)[0],
        }
        for s in scores
    ]
    tooltip: list[Any] = ["system:N", "setup:N", alt.Tooltip("macro-F1:Q", format=".3f")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("low", "high", "accuracy")]
    tooltip += ["best:N", "clips:Q", alt.Tooltip("majority:Q", format=".3f")]
    plain = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("system:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, ticks=False)),
        tooltip=tooltip,
    )
    names = {s.system for s in scores}
    used = list(dict.fromkeys(s.setup for s in scores))
    lines, line = len(names), LINE
    if len(scores) > len(names):  # a line for each setup of a system
        plain = plain.encode(yOffset=alt.YOffset("setup:N", sort=used))
        lines, line = len(names) * len(used), LINE * 3 // 4
    base = plain.encode(color=alt.Color("kind:N", scale=_scale(KINDS), legend=legend))
    x = alt.X("macro-F1:Q", scale=alt.Scale(domain=[0, 1]), axis=_axis())
    return alt.layer(
        plain.mark_tick(color=GREY, thickness=2).encode(x="majority:Q"),
        base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title="macro-F1"), x2="high:Q"),
        base.mark_point(filled=True, size=80, opacity=1).encode(
            x=x,
            shape=alt.Shape(
                "setup:N", scale=_scale({setup: shape(setup) for setup in used}), legend=None
            ),
        ),
        plain.mark_text(align="left", dx=6, fontSize=12).encode(
            x=alt.value("width"), text="label:N"
        ),
    ).properties(
        width=width,
        height=line * lines,
        description="Macro-F1 with 95 % intervals. "
        + "; ".join(
            " ".join([str(r["system"]), *[str(r["setup"])] * (len(used) > 1), str(r["label"])])
            for r in rows
        ),
    )


def forest_chart(pairs: Sequence[Difference], limit: float) -> Drawing:
    """Draw the differences of one pair of systems: means over languages first, then languages."""
    rows = [
        {
            "language": name_of(d.languages[0])
            if len(d.languages) == 1
            else f"mean of {len(d.languages)}",
            "difference": d.difference.estimate,
            "low": _or_none(d.difference.low),
            "high": _or_none(d.difference.high),
            "p": d.p_holm,
            "finding": finding(d),
            "of": "one" if len(d.languages) == 1 else "mean",
            "E2E": d.macro_f1[0],
            "cascade": d.macro_f1[1],
        }
        for d in pairs
    ]
    numbers = ("difference", "low", "high", "p", "E2E", "cascade")
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("language:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, ticks=False)),
        color=alt.Color("finding:N", scale=_scale(BETTER), legend=None),
        tooltip=[
            "language:N",
            "finding:N",
            *(alt.Tooltip(f"{n}:Q", format=".3f") for n in numbers),
        ],
    )
    domain = alt.Scale(domain=[-limit, limit])
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=GREY).encode(x="zero:Q")
    shape = {"one": "circle", "mean": "diamond"}
    return alt.layer(
        zero,
        base.mark_rule(strokeWidth=2.5).encode(
            x=alt.X("low:Q", title="← cascade better · E2E better →", scale=domain), x2="high:Q"
        ),
        base.mark_point(filled=True, opacity=1).encode(
            x=alt.X("difference:Q", scale=domain),
            shape=alt.Shape("of:N", scale=_scale(shape), legend=None),
            size=alt.condition("datum.of === 'mean'", alt.value(160), alt.value(70)),
        ),
    ).properties(
        width="container",
        height=LINE * len(rows),
        description=f"Macro-F1 of {pairs[0].first} minus {pairs[0].second} with 95 % intervals. "
        + "; ".join(f"{r['language']} {r['difference']:+.2f}, {r['finding']}" for r in rows),
    )


def confusion_chart(topics: Topics, labels: Sequence[str]) -> Drawing:
    """Draw what each topic (row) was called (column), as a share of its clips."""
    rows = [
        {
            "gold": gold,
            "predicted": predicted,
            "clips": int(topics.confusion[i, j]),
            "share": float(topics.confusion[i, j] / max(1, topics.confusion[i].sum())),
        }
        for i, gold in enumerate(labels)
        for j, predicted in enumerate(labels)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("predicted:N", sort=None, axis=alt.Axis(labelAngle=-60, ticks=False, domain=False)),
        y=alt.Y("gold:N", sort=None, axis=alt.Axis(ticks=False, domain=False)),
        tooltip=["gold:N", "predicted:N", "clips:Q", alt.Tooltip("share:Q", format=".0%")],
    )
    cells = base.mark_rect(color=BLUE).encode(
        opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None)
    )
    few = len(labels) <= 10
    counts = base.mark_text(fontSize=11).encode(text="clips:Q").transform_filter("datum.clips > 0")
    pale = counts.transform_filter("datum.share <= 0.8")
    strong = counts.transform_filter("datum.share > 0.8").encode(color=alt.value("white"))
    step = alt.Step(28 if few else 9)
    return alt.layer(cells, *([pale, strong] if few else [])).properties(
        width=step,
        height=step,
        description=f"What {topics.system} called the topics, {topics.setup}. "
        + "; ".join(
            f"{r['gold']} right {r['share']:.0%}" for r in rows if r["gold"] == r["predicted"]
        ),
    )


def transcript_chart(found: Comparison) -> alt.Chart:
    """Draw macro-F1 against the error rate of transcripts, a point for a system in a language."""
    scores = {(c.system, c.setup, c.languages): c.macro_f1.estimate for c in found.cells}
    rows = [
        {
            "system": t.system,
            "setup": t.setup,
            "language": name_of(t.languages[0]),
            "CER": _or_none(t.cer.estimate),
            "macro-F1": scores[t.system, t.setup, t.languages],
            "clips": t.clips,
        }
        for t in found.transcripts
    ]
    names = list(dict.fromkeys(t.system for t in found.transcripts))
    colours = {name: SEVERAL[n % len(SEVERAL)] for n, name in enumerate(names)}
    legend = alt.Legend(orient="bottom", title=None, columns=2)
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=90, opacity=0.9)
        .encode(
            x=alt.X("CER:Q", title="character error rate", axis=alt.Axis(tickCount=6)),
            y=alt.Y("macro-F1:Q", scale=alt.Scale(domain=[0, 1]), axis=_axis()),
            color=alt.Color("system:N", scale=_scale(colours), legend=legend),
            shape=alt.Shape(
                "setup:N", scale=_scale({s: shape(s) for s in found.setups}), legend=legend
            ),
            tooltip=[
                "system:N",
                "language:N",
                "setup:N",
                alt.Tooltip("CER:Q", format=".3f"),
                alt.Tooltip("macro-F1:Q", format=".3f"),
                "clips:Q",
            ],
        )
        .properties(
            width="container",
            height=300,
            description="Macro-F1 against the character error rate of the transcripts.",
        )
    )


def setup_title(setup: str, languages: Sequence[str]) -> str:
    """Name a setup and what its scores are of."""
    alone = name_of(languages[0]) if len(languages) == 1 else f"mean of {len(languages)} languages"
    return f"{setup.capitalize()}: {alone}"


def finding(difference: Difference) -> str:
    """Tell the finding of a difference, as one of `BETTER`."""
    names = {"first": "E2E better", "second": "cascade better", None: "cannot tell"}
    return names[difference.better]


def widest(differences: Iterable[Difference]) -> float:
    """Return the limit of a symmetrical axis that holds all intervals."""
    ends = [abs(e) for d in differences for e in (d.difference.low, d.difference.high)]
    return math.ceil(10 * max((end for end in ends if not math.isnan(end)), default=1)) / 10


def _axis() -> alt.Axis:
    return alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f", labelFlush=False)


def _scale(values: dict[str, Any]) -> alt.Scale:
    return alt.Scale(domain=list(values), range=list(values.values()))


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number
