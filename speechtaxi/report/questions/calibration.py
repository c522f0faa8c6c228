"""Whether probabilities can be believed: confidence against accuracy, and what chance explains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np

from speechtaxi.report import charts
from speechtaxi.report.board import Arm, Array, Board, Counts
from speechtaxi.report.comparison import SIGNIFICANT, Comparison, headline
from speechtaxi.report.questions.setups import signed
from speechtaxi.report.section import Figure, Row, Section, Table
from speechtaxi.scores import LEAST, brier, calibration_error, log_loss, reliability
from speechtaxi.statistics import Interval, Sample, holm, share_as_extreme

BINS, STEPS = 10, 10
"""Of the reliability diagram, and into how many each is cut where chance is simulated."""

DRAWS = 2000
"""Simulated samples of a perfectly calibrated system."""

LIMIT = f"one in {1 / LEAST:,.0f}"

FINDINGS = ("overconfident", "underconfident", "neither shown")


@dataclass(frozen=True)
class Calibration:
    """How well a system's probabilities fit its hits, clips of its languages pooled."""

    system: str
    setup: str
    clips: int
    log_loss: Interval
    brier: Interval
    error: float
    """Expected calibration error, the mean over seeds."""
    by_chance: float
    """What it would be on average if the confidences were right."""
    confidence: Interval
    accuracy: Interval
    gap: Sample
    """Mean confidence minus accuracy."""
    p: float
    """Two-sided, of so large a gap if the confidences were right."""
    bins: Counts
    """(3, BINS) clips, confidence, hits, the mean over seeds."""
    band: Array
    """(2, BINS) accuracies between which 95 % of calibrated systems lie; NaN without clips."""
    clipped: float
    """Share of answers whose gold topic has a probability below `LEAST`."""
    certain: bool
    """Whether every answer has the probability 1, as where a system tells none."""
    finding: str = FINDINGS[2]


def calibration(found: Comparison) -> Section:
    """Tell whose confidence is too high or too low, by more than the clips leave open."""
    measured = judged([_measure(found.board, arm) for arm in headline(found.board.arms)])
    rows: list[Row] = [
        {
            "setup": c.setup,
            "system": c.system,
            "clips": c.clips,
            "log loss": c.log_loss,
            "Brier score": c.brier,
            "ECE": c.error,
            "ECE by chance": c.by_chance,
            "mean confidence": c.confidence,
            "accuracy": c.accuracy,
            "confidence − accuracy": c.gap.interval(),
            "finding": c.finding,
        }
        for c in measured
    ]
    kinds = {c.system: charts.kind(found, c.system) for c in measured}
    return Section(
        "calibration",
        "Calibration",
        (
            "A calibrated system is right in 8 of 10 answers that it gives with a probability of "
            "0.8, its confidence. In the diagrams it lies on the diagonal: below it a system is "
            "overconfident. Points are as large as their share of the clips; the grey bars hold "
            "95 % of systems whose confidences are right. Clips of all languages are pooled, and "
            "seeds averaged.",
            f"ECE is the distance of confidence and accuracy in {BINS} equally wide bins, averaged "
            "over clips (Guo et al. 2017). It is biased upwards: in few clips a bin misses its "
            "confidence by chance. “ECE by chance” is the mean of a perfectly calibrated system "
            f"with the same confidences ({DRAWS:,} simulated samples of independent clips); only "
            "what ECE has beyond it speaks against a system. Log loss is in nats; a probability "
            f"below {LIMIT} counts as that. The Brier score runs from 0 to 2.",
            *_words(measured),
        ),
        [
            Figure(
                f"calibration-{number}",
                f"{c.system}, {c.setup}",
                reliability_chart(c, charts.KINDS[kinds[c.system]]),
                systems=[c.system],
            )
            for number, c in enumerate(measured, 1)
        ],
        [Table("calibration", "Calibration", rows, digits=3)],
        {kind: colour for kind, colour in charts.KINDS.items() if kind in kinds.values()},
        narrow=True,
    )


def judged(measured: Sequence[Calibration]) -> list[Calibration]:
    """Return systems with what is found of them, corrected for their number.

    Two tests must agree. The interval (Bonferroni) respects groups and seeds, but is too short
    where nearly all answers are right; the simulation (Holm) is exact there, but knows no groups.
    """
    level = 1 - SIGNIFICANT / max(1, len(measured))
    judged: list[Calibration] = []
    for c, p in zip(measured, holm([c.p for c in measured]), strict=True):
        shown = p < SIGNIFICANT and c.gap.interval(level).off_zero
        judged.append(replace(c, finding=FINDINGS[int(c.gap.estimate < 0) if shown else 2]))
    return judged


def reliability_chart(of: Calibration, colour: str) -> charts.Drawing:
    """Draw accuracy against confidence, a point for each bin that has clips."""
    clips, confidence, hits = of.bins
    rows: list[dict[str, Any]] = [
        {
            "confidence": confidence[b] / clips[b],
            "accuracy": hits[b] / clips[b],
            "clips": clips[b],
            "low": None if np.isnan(of.band[0, b]) else of.band[0, b],
            "high": None if np.isnan(of.band[1, b]) else of.band[1, b],
        }
        for b in np.flatnonzero(clips)
    ]
    ends = alt.Data(values=[{"confidence": end, "accuracy": end} for end in (0, 1)])
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f")
    scale = alt.Scale(domain=[0, 1])
    x = alt.X("confidence:Q", scale=scale, axis=axis)
    numbers = ("confidence", "accuracy", "low", "high")
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=x,
        tooltip=[
            *(alt.Tooltip(f"{name}:Q", format=".3f") for name in numbers),
            alt.Tooltip("clips:Q", format=",.0f"),
        ],
    )
    return alt.layer(
        alt.Chart(ends).mark_line(color=charts.GREY, strokeDash=[4, 4]).encode(x=x, y="accuracy:Q"),
        base.mark_rule(color=charts.GREY, strokeWidth=6, opacity=0.45).encode(
            y=alt.Y("low:Q", title="accuracy"), y2="high:Q"
        ),
        base.mark_point(filled=True, color=colour, opacity=1).encode(
            y=alt.Y("accuracy:Q", scale=scale, axis=axis),
            size=alt.Size(
                "clips:Q", scale=alt.Scale(domain=[0, of.clips], range=[25, 400]), legend=None
            ),
        ),
    ).properties(
        width="container",
        height=200,
        description=f"Accuracy by confidence of {of.system}, {of.setup}. "
        + "; ".join(f"{r['confidence']:.2f}: {r['accuracy']:.2f}" for r in rows),
    )


def _measure(board: Board, arm: Arm) -> Calibration:
    rows = [row for language in arm.languages for row in arm.rows(language)]
    seeds = min(map(len, arm.runs.values()))  # where languages differ: those that all have
    answers = [_answers(board, arm, language, seeds) for language in arm.languages]
    clips = np.concatenate([counts for counts, _ in answers])
    steps = np.sum([pooled for _, pooled in answers], axis=0)
    confidence, accuracy, loss, squares = (board.sample(clips, rows, _mean(k)) for k in range(4))
    simulated = _merged(_calibrated(steps))
    alike = simulated[:, 0]  # seeds err on the same clips: judged as if all answered like the first
    empty = np.full((DRAWS, BINS), np.nan)
    shares = np.divide(alike[:, 2], alike[:, 0], out=empty, where=alike[:, 0] > 0)
    return Calibration(
        system=arm.system,
        setup=arm.setup,
        clips=len(rows),
        log_loss=loss.interval(),
        brier=squares.interval(),
        error=float(calibration_error(_merged(steps)).mean()),
        by_chance=float(calibration_error(simulated).mean()),
        confidence=confidence.interval(),
        accuracy=accuracy.interval(),
        gap=confidence - accuracy,
        p=share_as_extreme((confidence - accuracy).estimate, _gap(alike)),
        bins=_merged(steps).mean(0),
        band=np.quantile(shares, [0.025, 0.975], axis=0),
        clipped=float((clips[..., 2] >= -np.log(LEAST)).mean()),
        certain=bool((clips[..., 0] == 1).all()),
    )


def _answers(board: Board, arm: Arm, language: str, seeds: int) -> tuple[Counts, Counts]:
    """Return counts of a language's clips, and its answers by confidence.

    Shape: (N, seeds, 5) confidence, hits, log loss, Brier score, 1; (seeds, 3, BINS * STEPS)
    """
    numbers = {label: number for number, label in enumerate(board.labels)}
    counts: list[Counts] = []
    pooled: list[Counts] = []
    for run in arm.runs[language][:seeds]:
        rows = run.predictions[language]
        odds = np.array([[r.probabilities.get(name, 0.0) for name in numbers] for r in rows])
        gold = np.array([numbers[row.label] for row in rows if row.label is not None])
        sure = np.array([row.probabilities[row.prediction] for row in rows])
        hits = np.array([row.prediction == row.label for row in rows], float)
        counts.append(
            np.stack([sure, hits, log_loss(odds, gold), brier(odds, gold), 0 * sure + 1], axis=-1)
        )
        pooled.append(reliability(sure, hits, BINS * STEPS).sum(0))
    return np.stack(counts, axis=1), np.stack(pooled)


def _mean(column: int) -> Callable[[Counts], Array]:
    """Return the mean of a column of `_answers` as a statistic of pooled counts."""

    def statistic(counts: Counts) -> Array:
        clips = counts[..., -1]
        empty = np.full(clips.shape, np.nan)
        return np.divide(counts[..., column], clips, out=empty, where=clips > 0)

    return statistic


def _calibrated(steps: Counts) -> Counts:
    """Return what `reliability` would give if the confidences were right, (DRAWS, *steps.shape).

    Hits are drawn by steps of .01, in which confidences are taken to be alike.
    """
    clips, confidence, _ = np.moveaxis(steps, -2, 0)
    chance = np.divide(confidence, clips, out=np.zeros_like(clips), where=clips > 0)
    rng = np.random.default_rng(0)
    hits = rng.binomial(clips.astype(int), chance.clip(0, 1), size=(DRAWS, *clips.shape))
    return np.stack(np.broadcast_arrays(clips, confidence, hits), axis=-2)


def _merged(steps: Counts) -> Counts:
    """Sum steps (..., BINS * STEPS) to bins (..., BINS)."""
    return steps.reshape(*steps.shape[:-1], BINS, STEPS).sum(-1)


def _gap(pooled: Counts) -> Array:
    """Return mean confidence minus accuracy (...,) of pooled counts (..., 3, BINS)."""
    clips, confidence, hits = np.moveaxis(pooled.sum(-1), -1, 0)
    return (confidence - hits) / clips


def _words(measured: Sequence[Calibration]) -> list[str]:
    told = [
        f"{finding.capitalize()}: {'; '.join(named)}."
        for finding in FINDINGS[:2]
        if (named := [_told(c) for c in measured if c.finding == finding])
    ]
    rest = [c for c in measured if c.finding == FINDINGS[2]]
    if rest:
        names = ", ".join(f"{c.system} ({c.setup})" for c in rest) if told else "any system"
        told.append(f"Neither is shown of {names}.")
    told[0] = (
        "A system is called over- or underconfident where the interval of its mean confidence "
        "minus accuracy leaves out 0, and a system whose confidences are right would have so large "
        f"a difference by chance in less than 5 % of samples, both corrected for {len(measured)} "
        f"tests. {told[0]}"
    )
    for c in measured:
        if c.certain:
            told.append(f"{c.system} ({c.setup}) gives every answer the probability 1.")
        elif c.clipped:
            told.append(
                f"{c.system} ({c.setup}) gives the right topic a probability below {LIMIT} in "
                f"{c.clipped:.1%} of its answers; its log loss hangs on that limit."
            )
    return told


def _told(of: Calibration) -> str:
    return f"{of.system} ({of.setup}) by {signed(of.gap.interval())}"
