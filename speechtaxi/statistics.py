"""Intervals and tests that respect groups: a verse said twice, or in two languages, is one case.

A statistic is any function of summed counts, (..., *shape) -> (...,). A sample is the counts of its
groups, (groups, *shape): everything said of one group, in all languages and by all systems, lies in
one slice and is drawn together. That makes one function do for a score, for a mean over languages
and for a paired difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
Statistic = Callable[[Counts], NDArray[np.float64]]

CELLS = 4_000_000
"""How many numbers a block of replicates may hold: 32 MB."""

TOLERANCE = 1e-12
"""Differences of scores below this are rounding."""

NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between its limits; the limits are NaN where there are none."""

    estimate: float
    low: float
    high: float
    note: str = ""
    """Why the limits are not what a reader expects, in words; else empty."""


def bootstrap(
    counts: Counts,
    statistic: Statistic,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return a statistic with its two-sided BCa interval, groups drawn with replacement.

    BCa: Efron, "Better bootstrap confidence intervals", JASA 1987; Efron & Tibshirani, "An
    Introduction to the Bootstrap", 1993, equations 14.10-14.15. Replicates for which the statistic
    is NaN (a language of which no clip was drawn) are left out.

    Args:
        counts: summed counts of each group, (groups, *shape).
        statistic: of pooled counts, (..., *shape) -> (...,).
        level: coverage aimed at, between 0 and 1.
    """
    estimate = float(statistic(counts.sum(0)))
    if len(counts) < 2 or np.isnan(estimate):
        return Interval(estimate, np.nan, np.nan, "no interval: fewer than two groups of clips")
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(_pool(_multiplicities(rng, size, len(counts)), counts))
        for size in _blocks(counts, resamples)
    ]
    replicates = np.sort(np.concatenate(drawn))
    replicates = replicates[~np.isnan(replicates)]
    if not len(replicates) or replicates[-1] - replicates[0] < TOLERANCE:
        return Interval(
            estimate,
            estimate,
            estimate,
            "the interval is a point: no group of clips makes a difference, so the sample cannot "
            "tell how others would",
        )
    tails, note = _bca_tails(replicates, estimate, _leave_one_out(counts, statistic), level)
    low, high = np.quantile(replicates, tails)
    return Interval(estimate, float(low), float(high), note)


def permutation_test(
    first: Counts,
    second: Counts,
    statistic: Statistic,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> float:
    """Return the two-sided p of "both systems are alike" by approximate randomisation.

    Both systems' answers are exchanged for a random half of the groups; p is the share of exchanges
    whose difference is at least the observed one, which itself counts as one (Noreen, "Computer
    Intensive Methods for Testing Hypotheses", 1989; Yeh, COLING 2000).

    Args:
        first: summed counts of each group, (groups, *shape), of one system.
        second: those of the other, for the same groups and clips.
        statistic: of pooled counts, (..., *shape) -> (...,).
    """
    observed = abs(float(statistic(first.sum(0)) - statistic(second.sum(0))))
    if np.isnan(observed):
        return float("nan")
    rng = np.random.default_rng(seed)
    total, moved = first.sum(0), second - first
    extreme = 0
    for size in _blocks(first, resamples):
        exchanged = _pool(rng.integers(2, size=(size, len(first))).astype(float), moved)
        gap = statistic(total + exchanged) - statistic(second.sum(0) - exchanged)
        extreme += int((np.abs(gap) >= observed - TOLERANCE).sum())
    return (1 + extreme) / (1 + resamples)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, Scand. J. Statist. 1979); NaN stays.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [float("nan")] * len(p)
    order = sorted((value, index) for index, value in enumerate(p) if value == value)
    largest = 0.0
    for rank, (value, index) in enumerate(order):
        largest = max(largest, min(1.0, value * (len(order) - rank)))
        corrected[index] = largest
    return corrected


def _blocks(counts: Counts, resamples: int) -> Iterator[int]:
    """Split the resamples into blocks whose numbers fit into `CELLS`."""
    size = max(1, CELLS // (len(counts) + counts[0].size))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _multiplicities(rng: np.random.Generator, size: int, groups: int) -> Counts:
    """Return how often each group is drawn, (size, groups)."""
    drawn = rng.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups).astype(float)


def _pool(weights: Counts, counts: Counts) -> Counts:
    """Return weighted sums over groups, (size, *shape)."""
    return (weights @ counts.reshape(len(counts), -1)).reshape(-1, *counts.shape[1:])


def _leave_one_out(counts: Counts, statistic: Statistic) -> NDArray[np.float64]:
    values = statistic(counts.sum(0) - counts)
    return values[~np.isnan(values)]


def _bca_tails(
    replicates: NDArray[np.float64], estimate: float, jackknife: NDArray[np.float64], level: float
) -> tuple[list[float], str]:
    """Return the shares of the replicates below the lower and upper limit, and a note."""
    below = (replicates < estimate - TOLERANCE).mean()
    up_to = (replicates <= estimate + TOLERANCE).mean()
    tails = [(1 - level) / 2, (1 + level) / 2]
    share = float(below + up_to) / 2
    if not 0 < share < 1:
        return tails, "percentile interval: the estimate lies outside its resamples"
    bias = NORMAL.inv_cdf(share)
    pull = jackknife.mean() - jackknife
    spread = float((pull**2).sum())
    skew = float((pull**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = [bias + NORMAL.inv_cdf(tail) for tail in tails]
    return [NORMAL.cdf(bias + z / (1 - skew * z)) for z in shifted], ""
