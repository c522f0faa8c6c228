"""A system's setups side by side: what other languages give, and what it costs to have no own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from speechtaxi.languages import name_of
from speechtaxi.report import charts
from speechtaxi.report.board import Arm, Board
from speechtaxi.report.comparison import Comparison, Difference, corrected, difference, headline
from speechtaxi.report.runs import setup_order
from speechtaxi.report.section import Figure, Row, Section, Table
from speechtaxi.statistics import Interval

COLOURS = {"in-language": "#56b4e9", "all-languages": "#cc79a7", "zero-shot": "#e69f00"}
"""Of the kinds of setup; none of them stands for a route."""

FINDINGS = {"first": "gain", "second": "loss", None: "cannot tell"}


@dataclass(frozen=True)
class Gain:
    """A setup of a system minus another of its setups, on the same clips."""

    against: str
    average: Difference
    """Corrected over all averages."""
    languages: Sequence[Difference]
    """Corrected over the languages."""


def side_by_side(found: Comparison) -> Section | None:
    """Tell the setups of each system; None where none has one language in two setups."""
    board, systems = found.board, by_system(headline(found.board.arms))
    gains = [gain for arms in systems.values() for gain in _gains(board, arms)]
    if not gains:
        return None
    averages = corrected([gain.average for gain in gains])
    gains = [replace(gain, average=a) for gain, a in zip(gains, averages, strict=True)]
    systems = {gain.average.first: systems[gain.average.first] for gain in gains}
    setups = sorted({arm.setup for arms in systems.values() for arm in arms}, key=setup_order)
    colours = _colours(setups)
    details: list[Row] = [
        {
            "system": d.first,
            "language": place,
            "setup": d.setup,
            "minus": gain.against,
            "macro-F1": d.macro_f1[0],
            "macro-F1 of the other": d.macro_f1[1],
            "difference": d.difference,
            "p": d.p,
            "p (Holm)": d.p_holm,
            "finding": FINDINGS[d.better],
        }
        for gain in gains
        for place, d in _placed(gain)
    ]
    return Section(
        "setups",
        "Setups side by side",
        (
            "Macro-F1 of each setup by language. A gain is a setup minus in-language on the same "
            "clips (zero-shot minus all-languages where no run is in-language); below 0 it is a "
            "loss. p is corrected over the languages of a gain, and for means over the means.",
            *map(_told_gain, gains),
        ),
        [
            Figure(f"setups-{n}", system, setups_chart(board, arms, colours), systems=[system])
            for n, (system, arms) in enumerate(systems.items(), 1)
        ],
        [
            Table("setups", "Macro-F1 by setup", _score_rows(board, systems, setups, gains)),
            Table("setup-gains", "All gains and losses", details, digits=3, folded=True),
        ],
        {f"{charts.SIGNS[charts.shape(s)]} {s}": colour for s, colour in colours.items()},
    )


def by_system(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Return the arms of each system, in their order."""
    systems: defaultdict[str, list[Arm]] = defaultdict(list)
    for arm in arms:
        systems[arm.system].append(arm)
    return systems


def signed(interval: Interval) -> str:
    """Print a difference, and its limits where it has any."""
    limits = f" [{interval.low:+.3f}, {interval.high:+.3f}]"
    told = f"{interval.estimate:+.3f}" + ("" if math.isnan(interval.low) else limits)
    return told.replace("-", "−")


def setups_chart(board: Board, arms: Sequence[Arm], colours: Mapping[str, str]) -> charts.Drawing:
    """Draw the setups of a system, a line for each language from its worst to its best."""
    rows: list[dict[str, Any]] = [
        {
            "language": name_of(language),
            "setup": arm.setup,
            "macro-F1": score.estimate,
            "interval": None if math.isnan(score.low) else f"{score.low:.3f} to {score.high:.3f}",
        }
        for arm in arms
        for language in arm.languages
        for score in [board.macro_f1(arm, (language,)).interval()]
    ]
    rows.sort(key=lambda row: row["language"])
    setups = [arm.setup for arm in arms]
    y = alt.Y("language:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, ticks=False))
    x = alt.X("macro-F1:Q", title="macro-F1", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(alt.Data(values=rows)).encode(y=y)
    return alt.layer(
        base.mark_rule(color=charts.GREY).encode(
            x=alt.X("min(macro-F1):Q", title="macro-F1"), x2="max(macro-F1):Q"
        ),
        base.mark_point(filled=True, size=80, opacity=1).encode(
            x=x,
            color=alt.Color(
                "setup:N",
                scale=alt.Scale(domain=setups, range=[colours[setup] for setup in setups]),
                legend=None,
            ),
            shape=alt.Shape(
                "setup:N",
                scale=alt.Scale(domain=setups, range=[charts.shape(setup) for setup in setups]),
                legend=None,
            ),
            tooltip=[
                "language:N",
                "setup:N",
                alt.Tooltip("macro-F1:Q", format=".3f"),
                "interval:N",
            ],
        ),
    ).properties(
        width="container",
        height=charts.LINE * len({row["language"] for row in rows}),
        description=f"Macro-F1 of {arms[0].system} by setup. "
        + "; ".join(f"{r['language']} {r['setup']} {r['macro-F1']:.2f}" for r in rows),
    )


def _gains(board: Board, arms: Sequence[Arm]) -> list[Gain]:
    """Return each setup of a system minus its in-language runs, or what comes next to them."""
    named = {arm.setup: arm for arm in arms}
    gains: list[Gain] = []
    for arm in arms:
        if arm.setup.startswith(("in-language", "unknown")):
            continue
        left = arm.languages
        zero_shot = arm.setup.startswith("zero-shot")
        for rival in (named.get("in-language"), named.get("all-languages") if zero_shot else None):
            shared = tuple(lang for lang in left if rival and lang in rival.runs)
            if not rival or not shared:
                continue
            left = tuple(lang for lang in left if lang not in shared)
            alone = corrected([difference(board, arm, rival, (lang,)) for lang in shared])
            gains.append(Gain(rival.setup, difference(board, arm, rival, shared), alone))
    return gains


def _score_rows(
    board: Board,
    systems: dict[str, list[Arm]],
    setups: Sequence[str],
    gains: Sequence[Gain],
) -> list[Row]:
    """Return macro-F1 by setup and what each gains, a row for a system in a language."""
    gained = {(d.first, d.setup, *d.languages): d.difference for g in gains for d in g.languages}
    columns = [setup for setup in setups if any(setup == d.average.setup for d in gains)]
    rows: list[Row] = []
    for system, arms in systems.items():
        for language in sorted({language for arm in arms for language in arm.languages}):
            scores = {
                arm.setup: board.macro_f1(arm, (language,)).interval()
                for arm in arms
                if language in arm.runs
            }
            rows.append(
                {"system": system, "language": name_of(language)}
                | {setup: scores.get(setup) for setup in setups}
                | {f"gain of {setup}": gained.get((system, setup, language)) for setup in columns}
            )
    return rows


def _told_gain(gain: Gain) -> str:
    mean = gain.average
    head = f"{mean.first}, {mean.setup} minus {gain.against}: {signed(mean.difference)}"
    if len(mean.languages) == 1:
        return f"{head} in {name_of(mean.languages[0])} ({FINDINGS[mean.better]})."
    names: defaultdict[str, list[str]] = defaultdict(list)
    for d in gain.languages:
        names[FINDINGS[d.better]].append(name_of(d.languages[0]))
    told = [
        f"{word} in " + (", ".join(of) if len(of) < len(gain.languages) else f"all {len(of)}")
        for word in ("gain", "loss")
        if (of := names[word])
    ]
    if untold := len(names["cannot tell"]):
        told.append(f"the data cannot tell in {untold} of {len(gain.languages)}")
    return (
        f"{head}, the mean over {len(mean.languages)} languages ({FINDINGS[mean.better]}). "
        f"By language: {'; '.join(told)}."
    )


def _placed(gain: Gain) -> list[tuple[str, Difference]]:
    """Return what the differences are of: the mean over several languages, then languages."""
    several = len(gain.languages) > 1
    average = [(f"mean of {len(gain.languages)}", gain.average)] if several else []
    return [*average, *((name_of(d.languages[0]), d) for d in gain.languages)]


def _colours(setups: Sequence[str]) -> dict[str, str]:
    """Give the first setup of each kind its colour, and its variants what is left."""
    spare = iter([charts.GREEN, charts.ORANGE, charts.BLUE])
    free = dict(COLOURS)
    return {
        s: free.pop(s.split(" ")[0].rstrip(","), None) or next(spare, charts.GREY) for s in setups
    }
