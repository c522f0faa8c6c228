"""Intervals and tests that respect groups: a verse said twice, or in two languages, is one case.

Everything starts from counts by group, (groups, *shape): all that was said of one group, in all
languages and by all systems, is drawn together. A statistic is any function of summed counts,
(..., *shape) -> (...,). Pure functions over arrays; only NumPy and scipy.special are imported.
"""

from speechtaxi.statistics.intervals import Interval, Sample, bca, bootstrap, mean, take
from speechtaxi.statistics.planning import cases_needed, power
from speechtaxi.statistics.resampling import draw, exchange, pool
from speechtaxi.statistics.significance import (
    Discordance,
    benjamini_hochberg,
    differences_by_chance,
    discordance,
    holm,
    permutation_test,
    share_as_extreme,
)

__all__ = [
    "Discordance",
    "Interval",
    "Sample",
    "bca",
    "benjamini_hochberg",
    "bootstrap",
    "cases_needed",
    "differences_by_chance",
    "discordance",
    "draw",
    "exchange",
    "holm",
    "mean",
    "permutation_test",
    "pool",
    "power",
    "share_as_extreme",
    "take",
]
