"""Paired tests on the same clips, and corrections for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speechtaxi.statistics.intervals import TOLERANCE
from speechtaxi.statistics.resampling import Array, Counts, Statistic, exchange, pool


@dataclass(frozen=True, slots=True)
class Discordance:
    """Clips that only one of two systems has right, and McNemar's exact test of them."""

    first: int
    """Clips that only the first system has right."""
    second: int
    p: float
    """Two-sided; 1 where there is no such clip."""

    @property
    def odds_ratio(self) -> float:
        """How many times as often it is the first that is right (an effect size); NaN for 0/0."""
        if self.second:
            return self.first / self.second
        return float("inf" if self.first else "nan")


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
    whose difference is at least the observed one (Noreen, "Computer Intensive Methods for Testing
    Hypotheses", 1989; Yeh, COLING 2000).

    Args:
        first: summed counts of each group, (groups, *shape), of one system.
        second: those of the other, for the same groups and clips.
        statistic: of pooled counts, (..., *shape) -> (...,).
    """
    observed = float(statistic(first.sum(0)) - statistic(second.sum(0)))
    null = differences_by_chance(first, second, statistic, exchange(len(first), resamples, seed))
    return share_as_extreme(observed, null)


def differences_by_chance(
    first: Counts, second: Counts, statistic: Statistic, swaps: NDArray[np.float32]
) -> Array:
    """Return the difference of a statistic in each exchange of answers, (resamples, ...).

    Args:
        swaps: what `exchange` gave, (resamples, groups).
    """
    one, two = first.sum(0), second.sum(0)

    def gap(moved: Counts) -> Array:
        return statistic(one + moved) - statistic(two - moved)

    return pool(swaps, second - first, gap)


def share_as_extreme(observed: float, null: Array) -> float:
    """Return the two-sided p of a difference among differences by chance, itself one of them."""
    if np.isnan(observed):
        return float("nan")
    extreme = int((np.abs(null) >= abs(observed) - TOLERANCE).sum())
    return (1 + extreme) / (1 + len(null))


def discordance(first: Array, second: Array, groups: ArrayLike | None = None) -> Discordance:
    """Count clips that one system alone has right, and test whether either does so more often.

    McNemar's test in its exact form (Fagerland, Lydersen & Laake, BMC Med. Res. Methodol. 2013).
    Where clips have groups, the answers of a whole group change places, and p is the exact share of
    all exchanges with a difference in right answers at least as large: the same p where each clip
    is its own group.

    Args:
        first, second: whether each clip is right, (N,), of two systems.
        groups: the group of each clip, (N,), whole numbers; None where each is its own.
    """
    only_first = int((first.astype(bool) & ~second.astype(bool)).sum())
    only_second = int((~first.astype(bool) & second.astype(bool)).sum())
    leads = first.astype(bool).astype(int) - second.astype(bool).astype(int)
    if groups is not None:
        _, places = np.unique(np.asarray(groups), return_inverse=True)
        leads = np.bincount(places, weights=leads).astype(int)
    return Discordance(only_first, only_second, _share_of_signs(np.abs(leads), leads.sum()))


def _share_of_signs(sizes: NDArray[np.int_], observed: int) -> float:
    """Return how many of all choices of signs sum to at least the observed sum, by size."""
    chances = np.ones(1)  # of 0, 1, 2... times a plus, weighted by size
    for size in sizes[sizes > 0]:
        grown = np.zeros(len(chances) + size)
        grown[: len(chances)] = chances / 2
        grown[size:] += chances / 2
        chances = grown
    sums = np.abs(2 * np.arange(len(chances)) - (len(chances) - 1))
    return min(1.0, float(chances[sums >= abs(observed)].sum()))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, Scand. J. Statist. 1979); NaN stays.

    The chance of any false claim stays below the level.

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


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Return p-values so corrected that few claims are false; NaN stays.

    The expected share of false claims among all stays below the level (Benjamini & Hochberg, J. R.
    Statist. Soc. B 1995).

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    corrected = [float("nan")] * len(p)
    order = sorted(
        ((value, index) for index, value in enumerate(p) if value == value), reverse=True
    )
    least = 1.0
    for rank, (value, index) in enumerate(order):
        least = min(least, value * len(order) / (len(order) - rank))
        corrected[index] = least
    return corrected
