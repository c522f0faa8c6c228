"""Bootstrap intervals: over groups of clips, and over training seeds where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit  # pyright: ignore[reportMissingTypeStubs]

from speechtaxi.statistics.resampling import Array, Counts, Statistic, draw, pool

TOLERANCE = 1e-12
"""Differences of scores below this are rounding."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between its limits; the limits are NaN where there are none."""

    estimate: float
    low: float
    high: float
    note: str = ""
    """Why the limits are not what a reader expects, in words; else empty."""

    @property
    def off_zero(self) -> bool:
        """Whether there are limits, and both lie on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Sample:
    """A score and how it varies: over resamples, over left-out groups, over training seeds.

    Samples over the same draws add and subtract: a mean over languages, a difference of systems and
    a difference of differences are samples again.
    """

    seeds: Array
    """(S,) the score of each training seed."""
    replicates: Array
    """(R,) the mean over seeds in each resample."""
    jackknife: Array
    """(S, G) the score of each seed without each group; (G,) where only their mean is known."""

    @property
    def estimate(self) -> float:
        """The mean over seeds."""
        return float(self.seeds.mean())

    @property
    def spread(self) -> float:
        """The standard deviation over seeds; NaN for one."""
        return float(self.seeds.std(ddof=1)) if len(self.seeds) > 1 else float("nan")

    @property
    def error(self) -> float:
        """The standard error over resamples."""
        return float(np.nanstd(self.replicates, ddof=1))

    @property
    def noise(self) -> float:
        """The standard deviation over seeds that the clips alone would make.

        Seeds that are equally good differ in which clips they have right. The jackknife tells how
        much that moves them apart; 0 where it is of their mean only.
        """
        without = np.atleast_2d(self.jackknife)
        if len(without) < 2:
            return 0.0
        variances = _jackknife_variance(without - without.mean(0))
        return float(variances.sum() / (len(without) - 1)) ** 0.5

    def __add__(self, other: Sample) -> Sample:
        one, two = self._beside(other), other._beside(self)
        return Sample(
            one.seeds + two.seeds,
            one.replicates + two.replicates,
            one.jackknife + two.jackknife,
        )

    def __sub__(self, other: Sample) -> Sample:
        return self + other.times(-1)

    def times(self, factor: float) -> Sample:
        """Return the sample of a multiple of the score."""
        return Sample(self.seeds * factor, self.replicates * factor, self.jackknife * factor)

    def _beside(self, other: Sample) -> Sample:
        """Return the sample with as many seeds as the other has, its mean unchanged.

        Seeds are paired by number. A single seed is a constant beside several; of several, the
        first stand for all, which overstates what fewer seeds leave open.
        """
        number = len(other.seeds)
        if not 1 < number < len(self.seeds):
            return self
        without = np.atleast_2d(self.jackknife)
        return replace(self, seeds=_first(self.seeds, number), jackknife=_first(without, number))

    def interval(self, level: float = 0.95) -> Interval:
        """Return the BCa interval over clips, widened where it is known to be too narrow.

        Resamples lose rare topics, and so differ too little: BCa's distances from the estimate are
        stretched where the jackknife's standard error is the larger one, no farther than resamples
        go. Several training seeds add the variance that their spread has beyond `noise`. The reach,
        in standard errors, is then the mean of the normal and Student's t quantile, weighted by
        both variances (Cochran & Cox, "Experimental Designs", 1950), and the distances grow by the
        same square (Zou & Donner, Stat. Med. 2008), which keeps BCa's asymmetry. Coverage is shown
        in docs/statistics.md.
        """
        without = np.atleast_2d(self.jackknife).mean(0)
        interval = bca(self.estimate, self.replicates, without, level)
        if not interval.low <= interval.estimate <= interval.high:  # or there is none
            return interval
        clips = self.error**2
        wider = max(1.0, float(_jackknife_variance(without[None])[0]) / clips) if clips else 1.0
        below = (interval.estimate - interval.low) * wider**0.5
        above = (interval.high - interval.estimate) * wider**0.5
        below = min(below, interval.estimate - float(np.nanmin(self.replicates)))
        above = min(above, float(np.nanmax(self.replicates)) - interval.estimate)
        more = self._seeds_reach(clips * wider, level)
        return replace(
            interval,
            low=interval.estimate - float(np.hypot(below, more)),
            high=interval.estimate + float(np.hypot(above, more)),
        )

    def _seeds_reach(self, clips: float, level: float) -> float:
        """Return how far seeds move the limits, beside a variance over clips."""
        number = len(self.seeds)
        if number < 2:
            return 0.0
        seeds = max(0.0, self.spread**2 - self.noise**2) / number
        if not seeds:
            return 0.0
        normal, student = ndtri((1 + level) / 2), stdtrit(number - 1, (1 + level) / 2)
        reach = (clips * normal + seeds * student) / (clips + seeds)
        return float(reach**2 * (clips + seeds) - normal**2 * clips) ** 0.5


def _jackknife_variance(without: Array) -> Array:
    """Return the variance (S,) of scores by how they fare without each group, (S, G)."""
    pull = without - np.nanmean(without, axis=1, keepdims=True)
    groups = without.shape[1]
    return np.nansum(pull**2, axis=1) * (groups - 1) / groups


def _first(values: Array, number: int) -> Array:
    """Return the first of values (S, ...), moved so that their mean is that of all."""
    return values[:number] + (values.mean(0) - values[:number].mean(0))


def mean(samples: Sequence[Sample]) -> Sample:
    """Return the mean of samples over the same draws."""
    total = samples[0]
    for sample in samples[1:]:
        total = total + sample
    return total.times(1 / len(samples))


def take(counts: Counts, statistic: Statistic, weights: NDArray[np.float32]) -> Sample:
    """Return the sample of a statistic.

    Args:
        counts: summed counts of each group, (groups, *shape).
        statistic: of pooled counts, (..., *shape) -> (...,), or (..., S) for several seeds.
        weights: what `draw` gave, (resamples, groups).
    """
    total = counts.sum(0)
    return Sample(
        np.atleast_1d(statistic(total)),
        pool(weights, counts, statistic).reshape(len(weights), -1).mean(-1),
        statistic(total - counts).reshape(len(counts), -1).T,
    )


def bootstrap(
    counts: Counts,
    statistic: Statistic,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return a statistic with its two-sided BCa interval, groups drawn with replacement.

    Args:
        counts: summed counts of each group, (groups, *shape).
        statistic: of pooled counts, (..., *shape) -> (...,).
        level: coverage aimed at, between 0 and 1.
    """
    if len(counts) < 2:
        return bca(float(statistic(counts.sum(0))), np.zeros(0), np.zeros(len(counts)), level)
    return take(counts, statistic, draw(len(counts), resamples, seed)).interval(level)


def bca(estimate: float, replicates: Array, jackknife: Array, level: float = 0.95) -> Interval:
    """Return the two-sided BCa interval of an estimate.

    Efron, "Better bootstrap confidence intervals", JASA 1987; Efron & Tibshirani, "An Introduction
    to the Bootstrap", 1993, equations 14.10-14.15. Replicates for which the statistic is NaN (a
    language of which no clip was drawn) are left out.

    Args:
        replicates: the statistic of each resample, (R,).
        jackknife: the statistic without each group, (G,).
        level: coverage aimed at, between 0 and 1.
    """
    if len(jackknife) < 2 or np.isnan(estimate):
        nan = float("nan")
        return Interval(estimate, nan, nan, "no interval: fewer than two groups of clips")
    replicates = np.sort(replicates[~np.isnan(replicates)])
    if not len(replicates) or replicates[-1] - replicates[0] < TOLERANCE:
        return Interval(
            estimate,
            estimate,
            estimate,
            "the interval is a point: no group of clips makes a difference, so the sample cannot "
            "tell how others would",
        )
    tails, note = _tails(replicates, estimate, jackknife[~np.isnan(jackknife)], level)
    low, high = np.quantile(replicates, tails)
    return Interval(estimate, float(low), float(high), note)


def _tails(replicates: Array, estimate: float, jackknife: Array, level: float) -> tuple[Array, str]:
    """Return the shares of the replicates below the lower and upper limit, and a note."""
    below = (replicates < estimate - TOLERANCE).mean()
    up_to = (replicates <= estimate + TOLERANCE).mean()
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    share = float(below + up_to) / 2
    if not 0 < share < 1:
        return tails, "percentile interval: the estimate lies outside its resamples"
    bias = ndtri(share)
    pull = jackknife.mean() - jackknife
    spread = float((pull**2).sum())
    skew = float((pull**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = bias + ndtri(tails)
    return ndtr(bias + shifted / (1 - skew * shifted)), ""
