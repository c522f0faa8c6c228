"""Intervals and tests: against SciPy where it can do the case, and the cases that it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from speechtaxi.scores import accuracy, macro_f1, tally, tally_groups
from speechtaxi.statistics import bootstrap, holm, permutation_test, resampling


def mean(sums: np.ndarray) -> np.ndarray:
    """The mean of a sample whose counts are (value, 1)."""
    return sums[..., 0] / sums[..., 1]


def answers(rng, clips=111, topics=6, right=0.6):
    gold = rng.integers(topics, size=clips)
    return gold, np.where(rng.random(clips) < right, gold, rng.integers(topics, size=clips))


@pytest.mark.parametrize("skewed", [False, True])
def test_bca_agrees_with_scipy(skewed):
    rng = np.random.default_rng(1)
    sample = rng.exponential(size=40) if skewed else rng.normal(size=40)
    ours = bootstrap(np.stack([sample, np.ones(40)], 1), mean, resamples=40_000)
    theirs = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=40_000, method="BCa", rng=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.estimate == pytest.approx(sample.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.02 * width)


def test_bca_of_macro_f1_agrees_with_scipy():
    gold, predicted = answers(np.random.default_rng(3), clips=60)

    def score(index):
        return macro_f1(tally(gold[index], predicted[index], 6).sum(0))

    ours = bootstrap(tally(gold, predicted, 6), macro_f1, resamples=4000)
    theirs = scipy.stats.bootstrap(
        (np.arange(60),), score, vectorized=False, n_resamples=4000, method="BCa", rng=4
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.012)


def test_level_widens_and_seed_repeats():
    counts = tally(*answers(np.random.default_rng(5)), 6)
    narrow, wide = (bootstrap(counts, macro_f1, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high
    assert bootstrap(counts, macro_f1, seed=1) == bootstrap(counts, macro_f1, seed=1)
    assert bootstrap(counts, macro_f1, seed=1) != bootstrap(counts, macro_f1, seed=2)


def test_recordings_of_one_verse_are_one_case():
    """Ten copies of each clip tell nothing new: clustered, the interval stays as wide."""
    clips = tally(*answers(np.random.default_rng(6), clips=60), 6)
    copies = np.repeat(clips, 10, axis=0)
    once = bootstrap(clips, macro_f1)
    clustered = bootstrap(tally_groups(copies, np.repeat(np.arange(60), 10), 60), macro_f1)
    naive = bootstrap(copies, macro_f1)
    assert clustered == once
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_a_verse_in_several_languages_is_drawn_once():
    """The same answers in 4 languages: their mean is as uncertain as one language."""
    clips = tally(*answers(np.random.default_rng(7)), 6)
    shared = np.stack([clips] * 4, axis=1)
    one = bootstrap(clips, macro_f1)
    joint = bootstrap(shared, lambda c: macro_f1(c).mean(-1))
    assert (joint.low, joint.high) == pytest.approx((one.low, one.high))
    apart = np.zeros((4 * len(clips), 4, 3, 6))  # the same counts, but every clip its own group
    for language in range(4):
        apart[language * len(clips) : (language + 1) * len(clips), language] = clips
    independent = bootstrap(apart, lambda c: macro_f1(c).mean(-1))
    assert independent.high - independent.low < 0.65 * (one.high - one.low)


def test_blocks_do_not_change_the_result(monkeypatch):
    counts = tally(*answers(np.random.default_rng(8)), 6)
    whole = bootstrap(counts, macro_f1, resamples=500)
    other = np.roll(counts, 5, axis=0)
    p = permutation_test(counts, other, macro_f1, resamples=500)
    monkeypatch.setattr(resampling, "CELLS", 1000)
    assert bootstrap(counts, macro_f1, resamples=500) == whole
    assert permutation_test(counts, other, macro_f1, resamples=500) == p


def test_all_correct_collapses_and_says_so():
    gold = np.arange(60) % 6
    interval = bootstrap(tally(gold, gold, 6), macro_f1)
    assert (interval.estimate, interval.low, interval.high) == (1, 1, 1)
    assert "point" in interval.note


@pytest.mark.parametrize("groups", [0, 1])
def test_too_few_groups_have_no_interval(groups):
    interval = bootstrap(np.ones((groups, 3, 6)), macro_f1)
    assert np.isnan([interval.low, interval.high]).all()
    assert "fewer than two groups" in interval.note
    assert np.isnan(interval.estimate) == (groups == 0)


def test_an_estimate_outside_its_resamples_falls_back():
    """An extreme: the number of different cases seen; every resample sees fewer than the sample."""
    interval = bootstrap(np.eye(50), lambda sums: (sums > 0).mean(-1), resamples=300)
    assert "percentile" in interval.note
    assert interval.low < interval.high < interval.estimate


def test_languages_without_clips_in_a_resample_are_left_out():
    counts = np.zeros((8, 2, 3, 3))
    counts[:6, 0], counts[6:, 1] = tally([0, 1, 2] * 2, [0, 1, 1] * 2, 3), tally([0, 1], [0, 2], 3)
    interval = bootstrap(counts, lambda c: macro_f1(c).mean(-1))
    assert interval.low <= interval.estimate <= interval.high


def test_permutation_test_equals_enumeration():
    """Six clips: all 64 exchanges can be counted."""
    gold = np.array([0, 1, 0, 1, 0, 1])
    first, second = tally(gold, gold, 2), tally(gold, [0, 1, 1, 0, 1, 1], 2)
    observed = accuracy(first.sum(0)) - accuracy(second.sum(0))
    gaps = []
    for pattern in range(64):
        swap = np.array([pattern >> bit & 1 for bit in range(6)])[:, None, None]
        a, b = (first * (1 - swap) + second * swap).sum(0), (second * (1 - swap) + first * swap)
        gaps.append(abs(accuracy(a) - accuracy(b.sum(0))))
    exact = np.mean(np.array(gaps) >= observed - 1e-12)
    assert exact == 0.25
    assert permutation_test(first, second, accuracy, resamples=20_000) == pytest.approx(
        exact, abs=0.01
    )


def test_permutation_test_agrees_with_scipy():
    rng = np.random.default_rng(9)
    gold, one = answers(rng, right=0.7)
    other = np.where(rng.random(111) < 0.5, gold, rng.integers(6, size=111))
    ours = permutation_test(tally(gold, one, 6), tally(gold, other, 6), accuracy, resamples=20_000)
    theirs = scipy.stats.permutation_test(
        ((gold == one).astype(float), (gold == other).astype(float)),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=10,
    ).pvalue
    assert ours == pytest.approx(theirs, abs=0.01)


def test_equal_systems_have_p_one():
    counts = tally(*answers(np.random.default_rng(11)), 6)
    assert permutation_test(counts, counts, macro_f1) == 1
    assert np.isnan(permutation_test(counts * 0, counts * 0, macro_f1))


def test_clustered_exchange_is_the_careful_one():
    """Ten copies of 30 clips: exchanged clip by clip, chance looks like a certainty."""
    rng = np.random.default_rng(12)
    gold, one = answers(rng, clips=30, right=0.7)
    _, other = gold, np.where(rng.random(30) < 0.55, gold, rng.integers(6, size=30))
    copies = np.repeat(np.arange(30), 10)
    pair = [tally(gold, system, 6)[copies] for system in (one, other)]
    careful = permutation_test(*(tally_groups(c, copies, 30) for c in pair), macro_f1)
    careless = permutation_test(*pair, macro_f1)
    assert careless < 0.01 < 0.03 < careful


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.04, 0.6]) == pytest.approx([0.04, 0.06, 0.08, 0.6])
    assert holm([]) == []
    corrected = holm([0.5, float("nan"), 0.02])
    assert corrected[::2] == [0.5, 0.04]
    assert np.isnan(corrected[1])
