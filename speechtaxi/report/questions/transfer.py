"""The sections on transfer, and the first of them: from each language to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np

from speechtaxi.languages import LANGUAGES, name_of
from speechtaxi.report import charts
from speechtaxi.report.board import Arm, Board, Gap
from speechtaxi.report.comparison import Comparison, Difference, difference
from speechtaxi.report.questions.explained import explained
from speechtaxi.report.questions.setups import FINDINGS, by_system, side_by_side, signed
from speechtaxi.report.section import Figure, Row, Section, Table
from speechtaxi.statistics import Interval, mean, share_as_extreme

NUMBERED = 12
"""Matrices of up to this many languages a side have their numbers in the cells."""


@dataclass(frozen=True)
class Pair:
    """A system trained on one language and tested in another, or in the same."""

    source: str
    target: str
    macro_f1: Interval
    loss: Difference | None
    """Minus the system's in-language run of the target; None where there is none, or this is it.
    Corrected over the pairs of the system."""


def transfer(found: Comparison) -> list[Section]:
    """Tell how systems do in languages that they were not, or not alone, trained on."""
    sections = (matrix(found), side_by_side(found), explained(found))
    return [section for section in sections if section]


def matrix(found: Comparison) -> Section | None:
    """Tell macro-F1 by language trained on and language tested; None without two single sources."""
    board = found.board
    matrices = {system: _pairs(board, arms) for system, arms in by_system(board.arms).items()}
    matrices = {system: pairs for system, pairs in matrices.items() if pairs}
    if not matrices:
        return None
    rows: list[Row] = [
        {
            "system": system,
            "source": name_of(pair.source),
            "target": name_of(pair.target),
            "macro-F1": pair.macro_f1,
            "minus in-language": pair.loss and pair.loss.difference,
            "p": pair.loss and pair.loss.p,
            "p (max-T)": pair.loss and pair.loss.p_holm,
            "finding": pair.loss and FINDINGS[pair.loss.better],
        }
        for system, pairs in matrices.items()
        for pair in pairs
    ]
    return Section(
        "transfer",
        "Transfer from one language",
        (
            "Macro-F1 when trained on one language (row) and tested in another (column); the "
            "outlined diagonal is in-language. The deeper the colour, the higher. Languages stand "
            "by script, then family. p is corrected over the pairs of a system (max-T).",
            *(_told_pairs(board, system, pairs) for system, pairs in matrices.items()),
        ),
        [
            Figure(f"transfer-{n}", system, matrix_chart(system, pairs), systems=[system])
            for n, (system, pairs) in enumerate(matrices.items(), 1)
        ],
        [Table("transfer", "Transfer from one language", rows, digits=3, folded=True)],
        narrow=True,
    )


def matrix_chart(system: str, pairs: Sequence[Pair]) -> charts.Drawing:
    """Draw macro-F1 by source (row) and target (column), as depth of one colour."""
    codes = {
        code: name_of(code) for code in _ordered({c for p in pairs for c in (p.source, p.target)})
    }
    sources = [codes[code] for code in codes if any(pair.source == code for pair in pairs)]
    targets = [codes[code] for code in codes if any(pair.target == code for pair in pairs)]
    rows: list[dict[str, Any]] = [
        {
            "source": codes[pair.source],
            "target": codes[pair.target],
            "macro-F1": pair.macro_f1.estimate,
            "label": f"{pair.macro_f1.estimate:.2f}".removeprefix("0"),
            "own": pair.source == pair.target,
            **({"minus in-language": signed(pair.loss.difference)} if pair.loss else {}),
            **({"p (max-T)": pair.loss.p_holm} if pair.loss else {}),
        }
        for pair in pairs
    ]
    axis = alt.Axis(ticks=False, domain=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "target:N",
            sort=targets,
            title="tested in",
            axis=alt.Axis(**axis.to_dict(), labelAngle=-60),
        ),
        y=alt.Y("source:N", sort=sources, title="trained on", axis=axis),
        tooltip=[
            "source:N",
            "target:N",
            alt.Tooltip("macro-F1:Q", format=".3f"),
            "minus in-language:N",
            alt.Tooltip("p (max-T):Q", format=".3f"),
        ],
    )
    cells = base.mark_rect(color=charts.BLUE).encode(
        opacity=alt.Opacity("macro-F1:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None)
    )
    outline = base.mark_rect(filled=False, stroke=charts.GREY, strokeWidth=2)
    numbers = base.mark_text(fontSize=11).encode(text="label:N")
    pale = numbers.transform_filter("datum['macro-F1'] <= 0.55")
    strong = numbers.transform_filter("datum['macro-F1'] > 0.55").encode(color=alt.value("white"))
    few = max(len(sources), len(targets)) <= NUMBERED
    means = {
        source: [r["macro-F1"] for r in rows if r["source"] == source and not r["own"]]
        for source in sources
    }
    return alt.layer(
        cells, outline.transform_filter("datum.own"), *([pale, strong] if few else [])
    ).properties(
        width=alt.Step(32 if few else 12),
        height=alt.Step(28 if few else 12),
        description=f"Macro-F1 of {system}, trained on one language and tested in others. Means "
        "over the other languages: "
        + "; ".join(f"from {s} {sum(v) / len(v):.2f}" for s, v in means.items() if v),
    )


def _pairs(board: Board, arms: Sequence[Arm]) -> list[Pair]:
    """Return the cells of a system's matrix; none where it has fewer than two single sources."""
    own = next((arm for arm in arms if arm.setup == "in-language"), None)
    sources = {arm.first.record.train_languages[0]: arm for arm in arms if _is_single(arm)}
    if len(sources) < 2:
        return []
    places = [
        (arm, (target,))
        for arm in sources.values()
        for target in arm.languages
        if own and target in own.runs
    ]
    losses = [difference(board, arm, own, place) for arm, place in places if own]
    adjusted = max_t([board.gap(arm, own, place) for arm, place in places if own])
    by_place = {
        (d.setup, d.languages): replace(d, p_holm=p) for d, p in zip(losses, adjusted, strict=True)
    }
    pairs = [
        Pair(
            source,
            target,
            board.macro_f1(arm, (target,)).interval(),
            by_place.get((arm.setup, (target,))),
        )
        for source, arm in sources.items()
        for target in arm.languages
    ]
    if own:
        pairs += [
            Pair(code, code, board.macro_f1(own, (code,)).interval(), None)
            for code in own.languages
        ]
    return pairs


def max_t(gaps: Sequence[Gap]) -> list[float]:
    """Return the p of many gaps, corrected for their number by step-down max-T.

    Each exchange of answers is of the same groups in all gaps, so that its largest gap tells what
    chance does to the largest of all (Westfall & Young, "Resampling-Based Multiple Testing", 1993).
    Holm's correction of a matrix would ask for more exchanges than there are: p is
    at least 1 / (1 + exchanges), and there are hundreds of pairs. Gaps count in their own spread.
    """
    if not gaps:
        return []
    null = np.abs([gap.null for gap in gaps])
    spread = np.sqrt((null**2).mean(1))
    spread[spread == 0] = np.inf  # alike in every answer
    tested = np.abs([gap.tested for gap in gaps]) / spread
    order = np.argsort(-tested)
    largest = np.maximum.accumulate((null / spread[:, None])[order[::-1]], axis=0)[::-1]
    p = [share_as_extreme(t, others) for t, others in zip(tested[order], largest, strict=True)]
    adjusted = np.empty(len(gaps))
    adjusted[order] = np.maximum.accumulate(p)
    return adjusted.tolist()


def _is_single(arm: Arm) -> bool:
    """Tell whether an arm is zero-shot from one language; its variants have setups of their own."""
    trained = arm.first.record.train_languages
    return len(trained) == 1 and arm.setup == f"zero-shot from {trained[0]}"


def _told_pairs(board: Board, system: str, pairs: Sequence[Pair]) -> str:
    losses = [pair.loss for pair in pairs if pair.loss]
    if not losses:
        return f"{system}: no target has an in-language run, so what is lost is not told."
    arms = {arm.setup: arm for arm in board.arms if arm.system == system}
    own = arms["in-language"]
    average = mean([board.gap(arms[d.setup], own, d.languages).sample for d in losses]).interval()
    counts = {
        finding: sum(FINDINGS[d.better] == finding for d in losses) for finding in FINDINGS.values()
    }
    return (
        f"{system}: training on one other language changes macro-F1 by {signed(average)} against "
        f"in-language, the mean over {len(losses)} pairs. {counts['loss']} of them lose, "
        f"{counts['gain']} gain; in {counts['cannot tell']} the data cannot tell."
    )


def _ordered(codes: set[str]) -> list[str]:
    """Return codes by script, then family, then name; those beyond the table come last."""

    def key(code: str) -> tuple[bool, str, str, str]:
        known = LANGUAGES.get(code)
        script, family = (known.script, known.family) if known else ("", "")
        return known is None, script, family, name_of(code)

    return sorted(codes, key=key)
