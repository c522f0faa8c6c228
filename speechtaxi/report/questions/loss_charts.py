"""Plots of what is lost from step to step: a waterfall, and bars by language."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt

from speechtaxi.report.charts import BLUE, GREY, LINE, ORANGE, SEVERAL, Drawing
from speechtaxi.statistics import Interval

COLOURS = {
    "classifier": GREY,
    "classifier and romanisation": SEVERAL[4],
    "romanisation": SEVERAL[3],
    "romanisation and recognition": SEVERAL[1],
    "recognition": ORANGE,
}
"""Of the steps, in their order."""

LEFT = "what is left"
_SCALE = alt.Scale(domain=[*COLOURS, LEFT], range=[*COLOURS.values(), BLUE])
_STEP: dict[str, Any] = {
    "fill": alt.Fill("step:N", scale=_SCALE, legend=None),
    "stroke": alt.Stroke("step:N", scale=_SCALE, legend=None),
    "fillOpacity": alt.condition("datum.change > 0", alt.value(0), alt.value(0.55)),
}


def waterfall(lost: Mapping[str, Interval], score: Interval, title: str) -> Drawing:
    """Draw how macro-F1 falls from 1, step by step, to what is left; gains are hollow.

    Rules are the intervals of the losses, laid off from where each step begins.
    """
    rows: list[dict[str, Any]] = []
    start = 1.0
    for step, loss in lost.items():
        rows.append(
            {
                "step": step,
                "start": start,
                "end": start - loss.estimate,
                "change": -loss.estimate,
                "label": f"{-loss.estimate:+.3f}".replace("-", "−"),
                **_limits(loss),
                "near": _or_none(start - loss.high),
                "far": _or_none(start - loss.low),
            }
        )
        start -= loss.estimate
    limits = _limits(score)
    rows.append(
        {
            "step": LEFT,
            "start": 0,
            "end": score.estimate,
            "change": None,
            "label": f"{score.estimate:.3f}",
            **limits,
            "near": limits["low"],
            "far": limits["high"],
        }
    )
    numbers = ("low", "high", "start", "end")
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("step:N", sort=None, title=None, axis=alt.Axis(labelLimit=190, ticks=False)),
        tooltip=["step:N", "label:N", *(alt.Tooltip(f"{n}:Q", format=".3f") for n in numbers)],
    )
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f", labelFlush=False)
    x = alt.X("start:Q", title="macro-F1", scale=alt.Scale(domain=[0, 1]), axis=axis)
    return alt.layer(
        base.mark_bar(height=14, strokeWidth=1.5).encode(x=x, x2="end:Q", **_STEP),
        base.mark_rule(strokeWidth=2.5, clip=True).encode(
            x="near:Q", x2="far:Q", color=alt.Color("step:N", scale=_SCALE, legend=None)
        ),
        base.mark_text(align="left", dx=6, fontSize=12).encode(
            x=alt.value("width"), text="label:N"
        ),
    ).properties(
        width="container",
        height=LINE * len(rows),
        description=f"How macro-F1 falls from 1. {title}. "
        + "; ".join(f"{row['step']} {row['label']}" for row in rows),
    )


def bars(lost: Mapping[str, Mapping[str, Interval]], title: str) -> Drawing:
    """Draw the losses of each language side by side, gains hollow on the other side of 0.

    A tick tells what is lost in all.
    """
    rows = [
        {
            "language": language,
            "step": step,
            "order": number,
            "loss": loss.estimate,
            "change": -loss.estimate,
            **_limits(loss),
        }
        for language, steps in lost.items()
        for number, (step, loss) in enumerate(steps.items())
    ]
    sums = {language: sum(i.estimate for i in steps.values()) for language, steps in lost.items()}
    y = alt.Y("language:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, ticks=False))
    numbers = ("loss", "low", "high")
    totals = [{"language": language, "in all": total} for language, total in sums.items()]
    return alt.layer(
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height=14, strokeWidth=1.5)
        .encode(
            y=y,
            x=alt.X("loss:Q", stack="zero", title="macro-F1 lost", axis=alt.Axis(tickCount=6)),
            order="order:Q",
            tooltip=[
                "language:N",
                "step:N",
                *(alt.Tooltip(f"{n}:Q", format=".3f") for n in numbers),
            ],
            **_STEP,
        ),
        alt.Chart(alt.Data(values=totals))
        .mark_tick(color=BLUE, thickness=3, size=20, opacity=1)
        .encode(y=y, x="in all:Q", tooltip=["language:N", alt.Tooltip("in all:Q", format=".3f")]),
    ).properties(
        width="container",
        height=LINE * len(sums),
        description=f"Macro-F1 lost at each step. {title}. "
        + "; ".join(f"{language} {total:.2f} in all" for language, total in sums.items()),
    )


def _limits(interval: Interval) -> dict[str, float | None]:
    return {"low": _or_none(interval.low), "high": _or_none(interval.high)}


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number
