"""Learning curves: systems that differ in nothing but how much they were trained on."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np

from speechtaxi.languages import name_of
from speechtaxi.report import charts
from speechtaxi.report.board import Arm, Board
from speechtaxi.report.comparison import Comparison, Difference, corrected, difference, headline
from speechtaxi.report.questions.setups import signed
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Figure, Row, Section, Table

SIZE = re.compile(r"[\s_./,:@(-]+n?=?\d[\d.,]*\s*(%|k|h|hours|min|minutes|clips)?\)?$", re.I)
"""The end of a name that tells a size of training data: "e2e 25%", "e2e_n100", "e2e-2.5h"."""

APART = 1.5
"""How many times the smallest size the largest must be: a few skipped clips make no curve."""

HALF = (0.3, 0.75)
"""What share of the largest size may stand for about half of it."""

FINDINGS = {"first": "still rises", "second": "falls", None: "cannot tell"}


@dataclass(frozen=True)
class Curve:
    """Arms of one stem in one setup, by training clips, and what the last doubling gave."""

    stem: str
    arms: Sequence[tuple[float, Arm]]
    """Training clips of a model (the mean over models and seeds), and the arm; ascending."""
    last: Difference | None
    """The largest minus that of about half its size; None where there is none."""

    @property
    def setup(self) -> str:
        return self.arms[0][1].setup


def stem(system: str) -> str:
    """Return a system's name without the size of its training data.

    >>> stem("e2e 25%"), stem("e2e_n100"), stem("mms-300m"), stem("e2e")
    ('e2e', 'e2e', 'mms-300m', 'e2e')
    """
    return SIZE.sub("", system) or system


def learning_curves(found: Comparison) -> Section | None:
    """Tell whether more data would help; None where no system has two sizes of training data.

    The arms of a curve share the stem of their names, setup, route, view, recogniser, number of
    weights, languages and the training languages of each; of arms of one size the first counts.
    """
    board = found.board
    curves = _curves(board, headline(board.arms))
    if not curves:
        return None
    rows: list[Row] = [
        {
            "setup": curve.setup,
            "curve": curve.stem,
            "system": arm.system,
            "training clips": round(clips),
            "training hours of audio": _audio(arm),
            "macro-F1": board.macro_f1(arm, arm.languages).interval(),
        }
        for curve in curves
        for clips, arm in curve.arms
    ]
    gains: list[Row] = [
        {
            "setup": curve.setup,
            "curve": curve.stem,
            "system": last.first,
            "minus": last.second,
            "from clips": round(_clips_of(curve, last.second)),
            "to clips": round(_clips_of(curve, last.first)),
            "difference": last.difference,
            "p (Holm)": last.p_holm,
            "finding": FINDINGS[last.better],
        }
        for curve in curves
        if (last := curve.last)
    ]
    setups = list(dict.fromkeys(curve.setup for curve in curves))
    stems = list(dict.fromkeys(curve.stem for curve in curves))
    return Section(
        "learning-curves",
        "Learning curves",
        (
            "Macro-F1 against the number of training clips, with 95 % intervals. Systems whose "
            "names differ only in a size at the end, and that differ in nothing else, are one "
            "curve. Whether more data are still worth their cost is read off the paired difference "
            "of the largest size and about half of it; p is corrected over the curves.",
            *(_told(curve) for curve in curves),
        ),
        [
            Figure(
                f"learning-curves-{number}",
                setup.capitalize(),
                curve_chart(board, stems, [curve for curve in curves if curve.setup == setup]),
                systems=[arm.system for c in curves if c.setup == setup for _, arm in c.arms],
            )
            for number, setup in enumerate(setups, 1)
        ],
        [
            Table("learning-curves", "Macro-F1 by training size", rows),
            *([Table("last-doubling", "The last doubling", gains, digits=3)] if gains else []),
        ],
    )


def curve_chart(board: Board, stems: Sequence[str], curves: Sequence[Curve]) -> charts.Drawing:
    """Draw macro-F1 against training clips on a log axis, a line for each curve of a setup.

    Args:
        stems: of all setups, so that each keeps its colour.
    """
    rows: list[dict[str, Any]] = []
    for curve in curves:
        for clips, arm in curve.arms:
            score = board.macro_f1(arm, arm.languages).interval()
            rows.append(
                {
                    "curve": curve.stem,
                    "system": arm.system,
                    "clips": clips,
                    "macro-F1": score.estimate,
                    "low": None if math.isnan(score.low) else score.low,
                    "high": None if math.isnan(score.high) else score.high,
                }
            )
    colours = [charts.SEVERAL[n % len(charts.SEVERAL)] for n in range(len(stems))]
    shown = [curve.stem for curve in curves]
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f")
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "clips:Q",
            scale=alt.Scale(type="log", nice=False, padding=20),
            title="training clips",
            axis=alt.Axis(values=sorted({row["clips"] for row in rows}), format=",.0f"),
        ),
        color=alt.Color(
            "curve:N",
            scale=alt.Scale(domain=list(stems), range=colours),
            legend=alt.Legend(orient="bottom", title=None, columns=3, values=shown),
        ),
        tooltip=[
            "system:N",
            alt.Tooltip("clips:Q", format=",.0f"),
            *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("macro-F1", "low", "high")),
        ],
    )
    y = alt.Y("macro-F1:Q", scale=alt.Scale(domain=[0, 1]), axis=axis)
    return alt.layer(
        base.mark_line().encode(y=y),
        base.mark_rule(strokeWidth=2.5, opacity=0.6).encode(
            y=alt.Y("low:Q", title="macro-F1"), y2="high:Q"
        ),
        base.mark_point(filled=True, size=70, opacity=1).encode(y=y),
    ).properties(
        width="container",
        height=260,
        description="Macro-F1 by training clips. "
        + "; ".join(f"{r['curve']} {r['clips']:,.0f} clips {r['macro-F1']:.2f}" for r in rows),
    )


def _curves(board: Board, arms: Sequence[Arm]) -> list[Curve]:
    alike: defaultdict[object, dict[float, Arm]] = defaultdict(dict)
    for arm in arms:
        if clips := _clips(arm):
            alike[_sameness(arm)].setdefault(clips, arm)
    curves: list[Curve] = []
    for sizes in alike.values():
        if max(sizes) < APART * min(sizes):
            continue
        ordered = sorted(sizes.items())
        curves.append(Curve(stem(ordered[0][1].system), ordered, _last(board, ordered)))
    told = [curve for curve in curves if curve.last]
    tests = iter(corrected([curve.last for curve in told if curve.last]))
    return [replace(curve, last=next(tests)) if curve.last else curve for curve in curves]


def _sameness(arm: Arm) -> object:
    """Return what the arms of a curve have in common."""
    record = arm.first.record
    trained = tuple(
        (language, tuple(sorted(runs[0].record.train_languages)))
        for language, runs in arm.runs.items()
    )
    parts = (record.route, record.view, record.recognizer, record.parameters)
    return stem(arm.system), arm.setup, trained, *parts


def _clips(arm: Arm) -> float | None:
    """Return the training clips of an arm's models, the mean; None where not all tell."""
    sizes = [run.record.clips.get("train") for run in _runs(arm)]
    known = [size for size in sizes if size]
    return float(np.mean(known)) if len(known) == len(sizes) else None


def _audio(arm: Arm) -> float | None:
    """Return the hours of training audio of an arm's models, the mean; None where not all tell."""
    hours = [run.record.audio_hours for run in _runs(arm)]
    known = [number for number in hours if number]
    return float(np.mean(known)) if len(known) == len(hours) else None


def _runs(arm: Arm) -> list[Run]:
    """Return an arm's runs, each once."""
    return list({id(run): run for runs in arm.runs.values() for run in runs}.values())


def _last(board: Board, ordered: Sequence[tuple[float, Arm]]) -> Difference | None:
    *smaller, (most, largest) = ordered
    near = {
        abs(math.log(2 * clips / most)): arm
        for clips, arm in smaller
        if HALF[0] <= clips / most <= HALF[1]
    }
    if not near:
        return None
    return difference(board, largest, near[min(near)], largest.languages)


def _clips_of(curve: Curve, system: str) -> float:
    return next(clips for clips, arm in curve.arms if arm.system == system)


def _told(curve: Curve) -> str:
    """Tell whether the last doubling was worth it."""
    last, arm = curve.last, curve.arms[-1][1]
    where = (
        name_of(arm.languages[0]) if len(arm.languages) == 1 else f"{len(arm.languages)} languages"
    )
    head = f"{curve.stem}, {curve.setup} ({where})"
    if last is None:
        return f"{head}: no system has about half the clips of the largest, so nothing is said."
    few, many = (f"{_clips_of(curve, system):,.0f}" for system in (last.second, last.first))
    gap = last.difference
    p = f"= {last.p_holm:.3f}" if last.p_holm >= 0.001 else "< 0.001"
    told = f"{head}, from {few} to {many} training clips: {signed(gap)}, corrected p {p}."
    if last.better == "first":
        return f"{told} The curve still rises."
    if last.better == "second":
        return f"{told} The curve falls."
    unlikely = f"; the interval has no room for a gain above {gap.high:.3f}" if gap.high > 0 else ""
    return f"{told} The data cannot tell whether it still rises{unlikely}."
