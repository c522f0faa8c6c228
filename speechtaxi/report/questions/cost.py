"""What a score costs: weights, training time, and time to answer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from speechtaxi.report import charts
from speechtaxi.report.board import Arm
from speechtaxi.report.comparison import Comparison, Score, headline
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Figure, Row, Section, Table
from speechtaxi.types import RunRecord

MEASURES = {
    "parameters": "parameters of a model",
    "training hours": "training, hours times processes",
    "real-time factor": "seconds of answering per second of audio",
}
"""Costs and the titles of their axes."""

TIMES = ("training hours", "real-time factor")


@dataclass(frozen=True)
class Cost:
    """A system's score in a setup, and what it costs as far as its runs tell."""

    score: Score
    gold: bool
    """Whether it reads gold text, and so cannot answer speech."""
    models: int
    """Trained for the setup, of one seed: in-language one for each language."""
    costs: Mapping[str, float]
    """Of `MEASURES`, those that are known."""
    transcribing: float | None
    """What of the real-time factor is transcribing."""
    partial: Mapping[str, str]
    """Costs that lack something: measure -> what."""
    machines: tuple[str, ...]
    """What its runs were trained on; "" stands for what is not known."""

    def compared(self, measure: str) -> float | None:
        """Return a cost that can be held against those of others, else None."""
        cost = self.costs.get(measure)
        return None if self.gold or measure in self.partial or not cost else cost


def cost(found: Comparison) -> Section | None:
    """Tell what the systems cost, and which is the cheapest of the good; None where none tells."""
    scores = {(mean.system, mean.setup): mean for mean in found.means}
    costs = [
        _cost(arm, scores[arm.system, arm.setup], found.split) for arm in headline(found.board.arms)
    ]
    if not any(c.costs for c in costs):
        return None
    rivals: defaultdict[tuple[str, tuple[str, ...]], list[Cost]] = defaultdict(list)
    for c in costs:
        rivals[c.score.setup, c.score.languages].append(c)
    systems = list(dict.fromkeys(c.score.system for c in costs if not c.gold))
    words: list[str] = []
    figures: list[Figure] = []
    best: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (setup, _), field in rivals.items():
        for measure in MEASURES:
            priced = [c for c in field if c.compared(measure)]
            if len(priced) < 2:
                continue
            alike = measure not in TIMES or _same_machine(priced)
            ahead = front(priced, measure) if alike else []
            for c in ahead:
                best[c.score.system, setup].append(measure)
            if ahead:
                words.append(_told(setup, measure, priced, ahead))
            chart = cost_chart(systems, measure, priced, ahead)
            title = f"Macro-F1 against {measure}, {setup}"
            figures.append(Figure(f"cost-{len(figures) + 1}", title, chart))
    rows: list[Row] = [
        {
            "setup": c.score.setup,
            "system": c.score.system,
            "macro-F1": c.score.macro_f1,
            "models": c.models,
            "parameters": int(c.costs["parameters"]) if "parameters" in c.costs else None,
            "training hours": c.costs.get("training hours"),
            "real-time factor": c.costs.get("real-time factor"),
            "of which transcribing": c.transcribing,
            "not counted": "; ".join(f"{what} ({m})" for m, what in c.partial.items()) or None,
            "trained on": "; ".join(filter(None, c.machines)) or None,
            "front": ", ".join(best[c.score.system, c.score.setup]) or None,
        }
        for c in costs
    ]
    return Section(
        "cost",
        "Cost",
        (
            "Macro-F1 against cost. The front (dashed) joins the systems that none of the same "
            "setup matches at lower cost, by their estimates. Training hours are wall-clock hours "
            "times processes (GPU hours where each has one), of all models of a setup, the mean "
            "over seeds; pretraining is not in them. The real-time factor is seconds to answer per "
            "second of "
            "audio: the test as a whole, with reading the files, and what transcribing took when "
            "it was first done, also where transcripts came from the store. Run records name the "
            "machine of the training, which is taken to have done the test too.",
            *_beware(costs),
            *words,
        ),
        figures,
        [Table("cost", "Cost", rows, digits=3)],
    )


def front(priced: Sequence[Cost], measure: str) -> list[Cost]:
    """Return the Pareto front, cheapest first: what none matches at lower cost or beats at none.

    Args:
        priced: systems that have this cost, all with scores of the same languages.
    """

    def key(c: Cost) -> tuple[float, float]:
        return c.costs[measure], -c.score.macro_f1.estimate

    ahead: list[Cost] = []
    for c in sorted(priced, key=key):
        if not ahead or c.score.macro_f1.estimate > ahead[-1].score.macro_f1.estimate:
            ahead.append(c)
    return ahead


def cost_chart(
    systems: Sequence[str], measure: str, priced: Sequence[Cost], ahead: Sequence[Cost]
) -> charts.Drawing:
    """Draw macro-F1 with its interval against a cost on a log axis, and the front.

    Args:
        systems: all that any chart of the report shows, so that each keeps its colour.
    """
    rows: list[dict[str, Any]] = [
        {
            "system": c.score.system,
            "cost": c.costs[measure],
            "macro-F1": c.score.macro_f1.estimate,
            "low": _or_none(c.score.macro_f1.low),
            "high": _or_none(c.score.macro_f1.high),
            "front": "yes" if c in ahead else "no",
        }
        for c in priced
    ]
    x = alt.X(
        "cost:Q", scale=alt.Scale(type="log", nice=False, padding=20), title=MEASURES[measure]
    )
    colours = alt.Scale(
        domain=list(systems),
        range=[charts.SEVERAL[n % len(charts.SEVERAL)] for n in range(len(systems))],
    )
    shown = [row["system"] for row in rows]
    legend = alt.Legend(orient="bottom", title=None, columns=3, values=shown)
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f")
    numbers = [alt.Tooltip(f"{n}:Q", format=".3f") for n in ("macro-F1", "low", "high")]
    plain = alt.Chart(alt.Data(values=rows)).encode(
        x=x,
        tooltip=["system:N", *numbers, alt.Tooltip("cost:Q", format=".3~g"), "front:N"],
    )
    base = plain.encode(color=alt.Color("system:N", scale=colours, legend=legend))
    y = alt.Y("macro-F1:Q", scale=alt.Scale(domain=[0, 1]), axis=axis)
    return alt.layer(
        plain.mark_line(color=charts.GREY, strokeDash=[4, 4], interpolate="step-after")
        .transform_filter("datum.front === 'yes'")
        .encode(y=y),
        base.mark_rule(strokeWidth=2.5).encode(y=alt.Y("low:Q", title="macro-F1"), y2="high:Q"),
        base.mark_point(filled=True, size=80, opacity=1).encode(y=y),
    ).properties(
        width="container",
        height=220,
        description=f"Macro-F1 against {MEASURES[measure]}. "
        + "; ".join(f"{r['system']} {r['macro-F1']:.2f} at {_price(r['cost'])}" for r in rows),
    )


def _cost(arm: Arm, score: Score, split: str) -> Cost:
    # a run of several languages counts once, and of several seeds each a part
    shares = {id(run): (run, 1 / len(runs)) for runs in arm.runs.values() for run in runs}
    weighted = list(shares.values())
    records = [run.record for run, _ in weighted]
    reads = arm.route == "cascade" and not arm.reads_gold
    costs: dict[str, float] = {}
    partial: dict[str, str] = {}
    transcribing: float | None = None
    if parameters := [record.parameters for record in records if record.parameters]:
        costs["parameters"] = max(parameters)
    if all("fit" in record.seconds for record in records):
        costs["training hours"] = sum(w * _training_hours(run.record) for run, w in weighted)
    answers = [_answering(run, split) for run, _ in weighted]
    if not arm.reads_gold and None not in answers:
        told = np.array([answer for answer in answers if answer is not None])
        classifying, reading, audio = np.array([w for _, w in weighted]) @ told
        costs["real-time factor"] = float((classifying + reading) / audio)
        if reads and told[:, 1].all():
            transcribing = float(reading / audio)
        elif reads:
            partial["real-time factor"] = "transcribing, or part of it"
    return Cost(
        score=score,
        gold=arm.reads_gold,
        models=round(sum(share for _, share in weighted)),
        costs=costs,
        transcribing=transcribing,
        partial=partial,
        machines=tuple(sorted({_machine(record) for record in records})),
    )


def _training_hours(record: RunRecord) -> float:
    processes = record.hardware.get("processes", "1")
    return record.seconds["fit"] * (int(processes) if processes.isdecimal() else 1) / 3600


def _answering(run: Run, split: str) -> tuple[float, float, float] | None:
    """Return seconds of classifying and transcribing, and of the audio; None where unknown.

    The record tells of all clips of the split; of those that are not compared, a part is taken off.
    """
    rows = list(run.rows())
    seconds = run.record.seconds
    classifying = seconds.get("test", seconds.get("predict"))
    audio = sum(row.duration or 0.0 for row in rows)
    if classifying is None or not all(row.duration for row in rows):
        return None
    part = min(1.0, len(rows) / (run.record.clips.get(split) or len(rows)))
    return part * classifying, part * seconds.get("transcribe", 0.0), audio


def _machine(record: RunRecord) -> str:
    """Return what a run was trained on as far as it changes times; empty where unknown."""
    told = record.hardware
    device = told.get("device", "")
    parts = [f"{told[name]} {name}" for name in ("processes", "threads") if name in told]
    return ", ".join([device, *parts]) if device else ""


def _beware(costs: Sequence[Cost]) -> list[str]:
    """Return what keeps costs from being compared."""
    told: list[str] = []
    lacking: defaultdict[str, list[str]] = defaultdict(list)
    for c in costs:
        for measure in c.partial:
            if c.score.system not in lacking[measure]:
                lacking[measure].append(c.score.system)
    if names := lacking["real-time factor"]:
        told.append(
            f"The real-time factor of {', '.join(names)} is not the cost of a first run: how long "
            "transcribing took is not recorded, and transcripts may have come from the store. It "
            "is not held against that of others."
        )
    timed = [c for c in costs if any(c.compared(measure) for measure in TIMES)]
    machines: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for c in timed:
        if c.score.system not in machines[c.machines]:
            machines[c.machines].append(c.score.system)
    if len(timed) > 1 and not _same_machine(timed):
        parts = [
            f"{' and '.join(on).strip() or 'not recorded'} ({', '.join(names)})"
            for on, names in machines.items()
        ]
        told.append(
            "Beware: times are not comparable, for the machines differ or are not known: "
            f"{'; '.join(parts)}. No front is drawn where they do."
        )
    return told


def _same_machine(costs: Sequence[Cost]) -> bool:
    machines = {machine for c in costs for machine in c.machines}
    return len(machines) == 1 and "" not in machines


def _told(setup: str, measure: str, priced: Sequence[Cost], ahead: Sequence[Cost]) -> str:
    """Name the front, and the cheapest of those that cannot be told from the best."""
    named = [
        f"{c.score.system} ({c.score.macro_f1.estimate:.2f} at {_price(c.costs[measure])})"
        for c in ahead
    ]
    told = f"{setup.capitalize()}, {measure}: the front is {', '.join(named)}."
    if good := [c for c in priced if c.score.best]:
        cheapest = front(good, measure)[0]
        told += f" The cheapest that the data cannot tell from the best is {cheapest.score.system}."
    return told


def _price(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number
