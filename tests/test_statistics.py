"""Intervals and tests: against SciPy where it can do the case, and the cases that it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from speechtaxi.scores import accuracy, macro_f1, tally, tally_groups
from speechtaxi.statistics import (
    Sample,
    bca,
    benjamini_hochberg,
    bootstrap,
    cases_needed,
    discordance,
    draw,
    holm,
    permutation_test,
    power,
    resampling,
    take,
)


def mean(sums: np.ndarray) -> np.ndarray:
    """The mean of a sample whose counts are (value, 1)."""
    return sums[..., 0] / sums[..., 1]


def answers(rng, clips=111, topics=6, right=0.6):
    gold = rng.integers(topics, size=clips)
    return gold, np.where(rng.random(clips) < right, gold, rng.integers(topics, size=clips))


def plain_bca(counts: np.ndarray, statistic, resamples: int):
    sample = take(counts, statistic, draw(len(counts), resamples))
    return bca(sample.estimate, sample.replicates, sample.jackknife[0])


@pytest.mark.parametrize("skewed", [False, True])
def test_bca_agrees_with_scipy(skewed):
    rng = np.random.default_rng(1)
    sample = rng.exponential(size=40) if skewed else rng.normal(size=40)
    ours = plain_bca(np.stack([sample, np.ones(40)], 1), mean, 40_000)
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

    ours = plain_bca(tally(gold, predicted, 6), macro_f1, 4000)
    theirs = scipy.stats.bootstrap(
        (np.arange(60),), score, vectorized=False, n_resamples=4000, method="BCa", rng=4
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.012)


def test_intervals_are_stretched_to_the_jackknife_but_not_past_the_resamples():
    """The jackknife's error of a mean is Student's: s / root n, and resamples lack n / (n - 1)."""
    sample = np.random.default_rng(13).normal(size=10)
    found = take(np.stack([sample, np.ones(10)], 1), mean, draw(10, 2000))
    bare = bca(found.estimate, found.replicates, found.jackknife[0])
    ours = found.interval()
    error = sample.std(ddof=1) / 10**0.5
    stretch = error / found.error
    assert stretch > 1.03
    assert found.estimate - ours.low == pytest.approx(stretch * (found.estimate - bare.low))
    assert ours.high - found.estimate == pytest.approx(stretch * (bare.high - found.estimate))
    far = Sample(found.seeds, found.replicates, found.estimate + 10 * (found.jackknife - 1))
    ends = far.interval()
    assert (ends.low, ends.high) == pytest.approx(
        (found.replicates.min(), found.replicates.max()), rel=1e-12
    )


def test_seeds_widen_by_what_clips_do_not_explain():
    """Against the formula by hand, from seeds, resamples and left-out groups of known variance."""
    rng = np.random.default_rng(14)
    replicates = rng.normal(0.5, 0.03, 4000)
    seeds = np.array([0.44, 0.50, 0.56])
    scores = rng.normal(size=(3, 100))
    without = seeds[:, None] - (scores - scores.mean(1, keepdims=True)) * 0.01 / 99
    several = Sample(seeds, replicates, without)
    pulls = scores - scores.mean(0)
    noise = (0.01**2 / 99**2) * 99 / 100 * ((pulls - pulls.mean(1, keepdims=True)) ** 2).sum() / 2
    assert several.noise**2 == pytest.approx(noise)
    assert several.spread == pytest.approx(0.06)
    clips, extra = several.error**2, (0.06**2 - noise) / 3
    student = scipy.stats.t.ppf(0.975, 2)
    reach = (clips * 1.959964 + extra * student) / (clips + extra)
    alone = Sample(seeds.mean(keepdims=True), replicates, without.mean(0)).interval()
    ours = several.interval()
    square = reach**2 * (clips + extra) - 1.959964**2 * clips
    assert (0.5 - ours.low) ** 2 == pytest.approx((0.5 - alone.low) ** 2 + square, rel=1e-4)
    assert (ours.high - 0.5) ** 2 == pytest.approx((alone.high - 0.5) ** 2 + square, rel=1e-4)


def test_seeds_that_differ_no_more_than_clips_make_them_widen_nothing():
    """Three seeds of one law: their variance is the clips' own, and half the time below it."""
    rng = np.random.default_rng(15)
    weights = draw(300, 200)
    spread, noise = [], []
    for _ in range(150):
        gold = rng.integers(6, size=300)
        said = [np.where(rng.random(300) < 0.6, gold, rng.integers(6, size=300)) for _ in range(3)]
        counts = np.stack([tally(gold, answer, 6) for answer in said], axis=1)
        found = take(counts, macro_f1, weights)
        assert found.jackknife.shape == (3, 300)
        spread.append(found.spread**2)
        noise.append(found.noise**2)
        alone = Sample(found.seeds.mean(keepdims=True), found.replicates, found.jackknife.mean(0))
        assert (found.interval() == alone.interval()) == (found.spread <= found.noise)
    assert np.mean(noise) == pytest.approx(np.mean(spread), rel=0.3)  # 150 x 2 degrees of freedom
    assert np.std(noise) < 0.3 * np.std(spread)  # from 300 clips, not from 3 seeds


def test_samples_of_other_numbers_of_seeds_keep_their_means_and_spread():
    rng = np.random.default_rng(16)
    made = {
        number: Sample(rng.random(number), rng.random(50), rng.random((number, 9)))
        for number in (1, 2, 3)
    }
    for one in made.values():
        for two in made.values():
            gap = one - two
            assert gap.estimate == pytest.approx(one.estimate - two.estimate)
            rows = one.jackknife.mean(0) - two.jackknife.mean(0)
            assert gap.jackknife.mean(0) == pytest.approx(rows)
    assert (made[3] - made[1]).spread == pytest.approx(made[3].spread)  # not lost
    assert len((made[3] - made[2]).seeds) == 2
    old = Sample(made[3].seeds, made[3].replicates, made[3].jackknife.mean(0))
    assert old.noise == 0
    assert (old + made[1]).jackknife.shape == (1, 9)


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


def test_mcnemar_agrees_with_the_binomial_test():
    rng = np.random.default_rng(17)
    for _ in range(20):
        one, two = rng.random((2, 80)) < rng.random((2, 1))
        found = discordance(one, two)
        only = int((one & ~two).sum()), int((two & ~one).sum())
        assert (found.first, found.second) == only
        expected = scipy.stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1
        assert found.p == pytest.approx(expected)
        assert discordance(one, two, np.arange(80)).p == pytest.approx(expected)


def test_mcnemar_agrees_with_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    one, two = np.random.default_rng(18).random((2, 111)) < [[0.7], [0.55]]
    cells = [[(one & two).sum(), (one & ~two).sum()], [(~one & two).sum(), (~one & ~two).sum()]]
    theirs = tables.mcnemar(cells, exact=True).pvalue
    assert discordance(one, two).p == pytest.approx(theirs)


def test_mcnemar_by_group_equals_enumeration_and_exchange():
    rng = np.random.default_rng(19)
    groups = rng.integers(8, size=40) * 7
    one, two = rng.random((2, 40)) < [[0.8], [0.5]]
    leads = np.array([(one[groups == g] * 1 - two[groups == g]).sum() for g in np.unique(groups)])
    signs = 1 - 2 * (np.arange(2 ** len(leads))[:, None] >> np.arange(len(leads)) & 1)
    exact = (np.abs(signs @ leads) >= abs(leads.sum())).mean()
    assert discordance(one, two, groups).p == pytest.approx(exact)
    copies = [np.repeat(system, 10) for system in (one, two)]  # ten copies tell nothing new
    apart = np.repeat(np.arange(40), 10)
    assert discordance(*copies, apart).p == pytest.approx(discordance(one, two).p)
    assert discordance(*copies).p < 0.1 * discordance(one, two).p


def test_mcnemar_of_many_groups_and_of_none():
    right = np.ones(3000, bool)
    assert discordance(right, ~right).p == pytest.approx(0, abs=1e-300)
    found = discordance(right, right, np.zeros(3000, int))
    assert (found.p, found.first) == (1, 0)
    assert np.isnan(found.odds_ratio)


def test_corrections_agree_with_scipy_and_statsmodels():
    p = np.random.default_rng(20).random(28) ** 3
    theirs = scipy.stats.false_discovery_control(p, method="bh")
    assert benjamini_hochberg(list(p)) == pytest.approx(theirs)
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for ours, name in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        assert ours(list(p)) == pytest.approx(multitest.multipletests(p, method=name)[1])


def test_power_and_cases_needed_agree_with_each_other_and_the_normal_law():
    """Power of a z test by hand; and a sample as large as asked for has the power asked for."""
    assert power(0.1, 0.04) == pytest.approx(scipy.stats.norm.sf(1.959964 - 2.5), abs=1e-6)
    for chance in (0.5, 0.8, 0.95):
        needed = cases_needed(-0.07, 0.05, 100, chance=chance, level=0.01)
        grown = power(-0.07, 0.05 * (100 / needed) ** 0.5, level=0.01)
        assert chance <= grown < chance + 0.005
    assert cases_needed(0, 0.05, 100) is None
    assert cases_needed(float("nan"), 0.05, 100) is None
    assert cases_needed(0.1, 0, 100) is None


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.04, 0.6]) == pytest.approx([0.04, 0.06, 0.08, 0.6])
    assert holm([]) == []
    corrected = holm([0.5, float("nan"), 0.02])
    assert corrected[::2] == [0.5, 0.04]
    assert np.isnan(corrected[1])
