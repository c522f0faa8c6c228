"""What benchmarks/simulations.py shows at length, in small: coverage, level, families, power.

Bounds are of the binomial law: at the limits of what is promised, one test in 1,000 would fail.
"""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

pytestmark = pytest.mark.slow

LUCK = 0.0005


@pytest.fixture(scope="module")
def simulations():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        yield importlib.import_module("simulations")


def covers(hits, low=0.93, high=0.97) -> bool:
    """Tell whether coverage between low and high may be the truth."""
    return binom.ppf(LUCK, len(hits), low) <= sum(hits) <= binom.isf(LUCK, len(hits), high)


def keeps(hits, level=0.05) -> bool:
    """Tell whether a rate of at most the level may be the truth."""
    return sum(hits) <= binom.isf(LUCK, len(hits), level)


def test_intervals_of_one_language_cover(simulations):
    rows = [hits for _, hits in simulations.coverage_of_one(600, 1000)]
    assert len(rows) == 4
    for hits in rows:
        assert covers(hits["ours"])
        assert covers(hits["ours, of accuracy"])
    ours, plain, within = (
        np.mean([hits[way] for hits in rows]) for way in ("ours", "percentile", "within topics")
    )
    assert ours > plain + 0.01
    assert plain > within  # the same data, so that luck is shared


def test_intervals_of_means_and_differences_cover_and_naive_ones_do_not(simulations):
    (_, f1), (_, shares), _ = simulations.coverage_of_means(300)
    for hits in (f1, shares):
        for part in ("one", "mean", "difference", "mean difference"):
            assert covers(hits[part]), part
    assert not covers(f1["mean, clip by clip"])


def test_intervals_cover_the_training_seeds_too(simulations):
    """Up to seeds that spread as much as clips; beyond, two seeds are too few (see the page)."""
    small = partial(simulations.coverage_of_seeds, 300, 600, languages=3)
    rows = list(small((2, 3)))
    for row, hits in rows:
        if float(row["sd over seeds"]) < float(row["sd over clips"]):
            assert covers(hits["ours"]), row
    wild = [hits for row, hits in rows if float(row["sd over seeds"]) > 0.05]
    assert wild
    for hits in wild:
        assert not covers(hits["clips only"])
        assert covers(hits["ours"], 0.90)  # the page's lowest is 91.1 % of 1,000


def test_tests_keep_their_level_and_naive_ones_do_not(simulations):
    rows = {row["the two are alike in"]: hits for row, hits in simulations.level_of_tests(500)}
    one, recordings, many, unlike = rows.values()
    for hits in (one, recordings, many):
        for test in ("randomisation", "and interval off 0", "McNemar by group"):
            assert keeps(hits[test]), test
            assert sum(hits[test])  # a test that never rejects is no test
    assert keeps(one["McNemar clip by clip"])
    assert not keeps(many["McNemar clip by clip"])
    assert not keeps(many["randomisation clip by clip"])
    assert keeps(unlike["randomisation"])


def test_corrections_keep_their_promises_over_28_languages(simulations):
    rows = {
        (row["truly different"], row["claims by"]): (row, hits)
        for row, hits in simulations.families(300)
    }
    for better in (0, 5):
        for name in ("Holm", "Holm and interval"):
            assert keeps(rows[better, name][1]["any false claim"])
        assert not keeps(rows[better, "raw p"][1]["any false claim"])
        false = rows[better, "Benjamini-Hochberg"][1]["false among claims"]
        assert np.mean(false) < 0.05 + 3.3 * np.std(false) / len(false) ** 0.5
    found = [float(rows[5, name][0]["found"]) for name in ("Holm", "Benjamini-Hochberg")]
    assert 2.5 < found[0] < found[1] <= 5


def test_samples_of_the_size_asked_for_have_the_power_promised(simulations):
    for row, hits in simulations.promised_power(500):
        promised = float(row["power promised"]) / 100
        assert covers(hits["power found"], promised - 0.03, promised + 0.03), row
