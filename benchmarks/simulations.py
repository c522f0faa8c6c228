"""Simulated results shaped like ours: do intervals cover, do tests keep their level, is power kept?

    python benchmarks/simulations.py

prints the tables of docs/statistics.md (about six CPU minutes on one thread; `--sets 100` for a
glance, names of studies for some of them).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtri, stdtrit
from threadpoolctl import threadpool_limits
from worlds import (
    TOPICS,
    Array,
    Part,
    World,
    chunks,
    difference,
    mean,
    mean_difference,
    one,
    samples,
    unlike,
    world,
)

from speechtaxi.scores import accuracy, macro_f1
from speechtaxi.statistics import (
    Interval,
    Sample,
    bca,
    benjamini_hochberg,
    cases_needed,
    differences_by_chance,
    discordance,
    exchange,
    holm,
    pool,
    share_as_extreme,
)

LEVEL = 0.05

Rows = Iterator[tuple[dict[str, object], dict[str, list[float]]]]
"""What a row is of, and what happened in each data set: 1 for covered or claimed, else 0."""


def covers(interval: Interval, truth: float) -> bool:
    """Tell whether an interval holds the truth."""
    return interval.low <= truth <= interval.high


def percentile(sample: Sample) -> Interval:
    """Return the plain percentile interval."""
    low, high = np.quantile(sample.replicates, [LEVEL / 2, 1 - LEVEL / 2])
    return Interval(sample.estimate, float(low), float(high))


def clips_only(sample: Sample) -> Interval:
    """Return the BCa interval as if the seeds at hand were all."""
    return bca(sample.estimate, sample.replicates, sample.jackknife.mean(0))


def joined(sample: Sample) -> Interval:
    """Return BCa over clips joined with Student's t over seeds, each at its full length."""
    inner, number = clips_only(sample), len(sample.seeds)
    reach = stdtrit(number - 1, 1 - LEVEL / 2) * sample.spread / number**0.5
    return Interval(
        inner.estimate,
        inner.estimate - float(np.hypot(inner.estimate - inner.low, reach)),
        inner.estimate + float(np.hypot(inner.high - inner.estimate, reach)),
    )


def satterthwaite(sample: Sample) -> Interval:
    """Return a Student's t interval by Satterthwaite's degrees of freedom."""
    number, clips = len(sample.seeds), sample.error**2
    seeds = max(0.0, sample.spread**2 - sample.noise**2) / number
    free = (clips + seeds) ** 2 / (seeds**2 / (number - 1)) if seeds else np.inf
    reach = stdtrit(free, 1 - LEVEL / 2) if free < np.inf else ndtri(1 - LEVEL / 2)
    reach *= (clips + seeds) ** 0.5
    return Interval(sample.estimate, sample.estimate - reach, sample.estimate + reach)


def by_clip(counts: Array, weights: Array, rng: np.random.Generator) -> list[Interval]:
    """Return intervals of the mean over languages as if each clip were a case of its own."""
    total = counts.sum(0)
    replicates = pool(weights, counts, macro_f1)[..., 0, 0]  # (resamples, sets, languages)
    without = macro_f1(total - counts)[..., 0, 0]
    scores = macro_f1(total)[..., 0, 0]
    apart = rng.permuted(replicates, axis=0).mean(-1)  # languages drawn independently
    pull = (without - scores) / scores.shape[-1]
    return [
        bca(float(scores[n].mean()), apart[:, n], scores[n].mean() + pull[:, n].ravel())
        for n in range(len(scores))
    ]


def within_topics(counts: Array, resamples: int, rng: np.random.Generator) -> Interval:
    """Return the percentile interval of one data set (verses, 3, topics), drawn within topics."""
    weights = np.zeros((resamples, len(counts)), np.float32)
    for topic in range(TOPICS):
        verses = np.flatnonzero(counts[:, 1, topic])
        if len(verses):
            share = np.full(len(verses), 1 / len(verses))
            weights[:, verses] = rng.multinomial(len(verses), share, resamples)
    score = pool(weights, counts, macro_f1)
    return percentile(Sample(np.atleast_1d(macro_f1(counts.sum(0))), score, np.zeros((1, 0))))


def coverage_of_one(sets: int, resamples: int = 2000) -> Rows:
    """One language, 111 clips: which interval covers?"""
    for right in (-0.7, 0.5, 1.5, 2.5):
        law = world(systems=(right,))
        truth, exact = law.truth(one), law.truth(one, accuracy)
        rng = np.random.default_rng(5)
        hits: dict[str, list[float]] = {}
        for counts, weights in chunks(law, sets, 1, resamples):
            (found,) = samples(counts, [one], weights, macro_f1)
            (shares,) = samples(counts, [one], weights, accuracy)
            for n, (sample, share) in enumerate(zip(found, shares, strict=True)):
                stratified = within_topics(counts[:, n, 0, 0, 0], resamples // 2, rng)
                for name, interval, true in (
                    ("ours", sample.interval(), truth),
                    ("BCa", clips_only(sample), truth),
                    ("percentile", percentile(sample), truth),
                    ("within topics", stratified, truth),
                    ("ours, of accuracy", share.interval(), exact),
                ):
                    hits.setdefault(name, []).append(covers(interval, true))
        yield {"true macro-F1": f"{truth:.2f}"}, hits


def coverage_of_means(sets: int, resamples: int = 1000) -> Rows:
    """28 languages, 100 of 111 verses each, or 50 of 50: means and paired differences."""
    parts = [one, mean, difference, mean_difference]
    usual = world(28, (0.5, 0.3), missing=11)
    few = replace(usual, verses=50, missing=0)
    for score, law in ((macro_f1, usual), (accuracy, usual), (macro_f1, few)):
        hits: dict[str, list[float]] = {}
        truths = [law.truth(part, score) for part in parts]
        rng = np.random.default_rng(2)
        for counts, weights in chunks(law, sets, 2, resamples):
            for part, true, found in zip(
                parts, truths, samples(counts, parts, weights, score), strict=True
            ):
                name = part.__name__.replace("_", " ")
                hits.setdefault(name, []).extend(covers(s.interval(), true) for s in found)
                if score is macro_f1:
                    hits.setdefault(f"{name}, BCa", []).extend(
                        covers(clips_only(s), true) for s in found
                    )
            if score is macro_f1:
                naive = by_clip(counts, weights, rng)
                hits.setdefault("mean, clip by clip", []).extend(
                    covers(interval, truths[1]) for interval in naive
                )
        yield {"score": score.__name__, "clips": law.verses - law.missing}, hits


def coverage_of_seeds(
    sets: int, resamples: int = 1000, seeds: Sequence[int] = (2, 3, 5), languages: int = 6
) -> Rows:
    """Several training seeds: does the interval cover the mean over all seeds and verses?"""
    for number in seeds:
        for spread in (0.0, 0.1, 0.3):
            law = world(languages, (0.5, 0.3), seeds=number, spread=spread, missing=11)
            for name, part, found in _seeds(law, sets, resamples):
                true = law.truth(part)
                ways = {
                    "ours": Sample.interval,
                    "clips only": clips_only,
                    "joined": joined,
                    "Satterthwaite": satterthwaite,
                }
                hits = {way: [covers(f(s), true) for s in found] for way, f in ways.items()}
                ends = [sample.interval() for sample in found]
                width = np.median([end.high - end.low for end in ends])
                row = {
                    "seeds": number,
                    "of": name,
                    "sd over seeds": f"{law.population(part).std():.3f}",
                    "sd over clips": f"{np.mean([s.error for s in found]):.3f}",
                    "median width": f"{width:.3f}",
                }
                yield row, hits


def _seeds(law: World, sets: int, resamples: int) -> list[tuple[str, Part, list[Sample]]]:
    parts = [one, difference, mean, mean_difference]
    found: list[list[Sample]] = [[] for _ in parts]
    for counts, weights in chunks(law, sets, 3, resamples):
        for gathered, more in zip(found, samples(counts, parts, weights, macro_f1), strict=True):
            gathered += more
    names = [part.__name__.replace("_", " ") for part in parts]
    return list(zip(names, parts, found, strict=True))


def level_of_tests(sets: int, resamples: int = 1000) -> Rows:
    """Two systems that are alike: how often does each test say that they are not?"""
    for name, law, pooled in (
        ("one language, 111 clips", world(systems=(0.5, 0.5)), False),
        ("50 sentences said by 3 speakers", world(3, (0.5, 0.5), verses=50), True),
        ("28 languages, the same verses", world(28, (0.5, 0.5), missing=11), False),
        ("alike in macro-F1 only, one language", unlike(), False),
    ):
        hits: dict[str, list[float]] = {}
        rng = np.random.default_rng(6)
        for counts, weights in chunks(law, sets, 4, resamples):
            right = counts[..., 0, 0, :].sum(-1).astype(bool)  # (verses, sets, languages, systems)
            said = counts[..., 0, 1, :].sum(-1).astype(bool)
            grouped = counts.sum(2, keepdims=True) if pooled else counts
            p = chance(grouped, resamples)
            q = chance_by_clip(counts, resamples, pooled, rng)
            (found,) = samples(grouped, [mean_difference], weights, macro_f1)
            for n, sample in enumerate(found):
                verses, languages = np.nonzero(said[:, n, :, 0])
                pair = [right[verses, n, languages, system] for system in (0, 1)]
                ends = sample.interval()
                for test, rejects in (
                    ("randomisation", p[n] < LEVEL),
                    ("and interval off 0", p[n] < LEVEL and ends.off_zero),
                    ("randomisation clip by clip", q[n] < LEVEL),
                    ("McNemar by group", discordance(*pair, verses).p < LEVEL),
                    ("McNemar clip by clip", discordance(*pair).p < LEVEL),
                ):
                    hits.setdefault(test, []).append(bool(rejects))
        yield {"the two are alike in": name}, hits


def nulls(counts: Array, resamples: int, seed: int = 0) -> tuple[Array, Array]:
    """Return observed differences (sets, languages) and those by chance (resamples, ...)."""
    first, second = (counts[..., system, 0, :, :] for system in (0, 1))
    swaps = exchange(len(counts), resamples, seed)
    return (
        macro_f1(first.sum(0)) - macro_f1(second.sum(0)),
        differences_by_chance(first, second, macro_f1, swaps),
    )


def chance(counts: Array, resamples: int) -> list[float]:
    """Return p of each data set's mean difference."""
    observed, null = nulls(counts, resamples)
    return _shares(observed, null)


def _shares(observed: Array, null: Array) -> list[float]:
    means, by_chance = observed.mean(-1), null.mean(-1)
    return [share_as_extreme(float(d), by_chance[:, n]) for n, d in enumerate(means)]


def chance_by_clip(
    counts: Array, resamples: int, pooled: bool, rng: np.random.Generator
) -> list[float]:
    """Return p of each data set when every clip is exchanged by itself."""
    if pooled:  # each speaker's clip of a sentence becomes a case
        flat = np.moveaxis(counts, 2, 0).reshape(-1, counts.shape[1], 1, *counts.shape[3:])
        return chance(flat, resamples)
    observed, null = nulls(counts, resamples)
    return _shares(observed, rng.permuted(null, axis=0))


def families(sets: int, resamples: int = 1000) -> Rows:
    """28 languages at once: how often is anything claimed wrongly?"""
    for better in (0, 5):
        law = world(28, (0.5, 0.5), missing=11)
        law.right[-better or 28 :, 0] += 1.6
        rows: dict[str, list[float]] = {}
        for counts, weights in chunks(law, sets, 7, resamples):
            observed, null = nulls(counts, resamples)
            parts = [lambda s, n=n: s[..., n, 0, :] - s[..., n, 1, :] for n in range(28)]
            found = samples(counts, parts, weights, macro_f1)
            for n in range(len(observed)):
                p = [share_as_extreme(float(observed[n, m]), null[:, n, m]) for m in range(28)]
                off = np.array([found[m][n].interval().off_zero for m in range(28)])
                claims = {
                    "raw p": np.array(p) < LEVEL,
                    "Holm": np.array(holm(p)) < LEVEL,
                    "Holm and interval": (np.array(holm(p)) < LEVEL) & off,
                    "Benjamini-Hochberg": np.array(benjamini_hochberg(p)) < LEVEL,
                }
                for name, claimed in claims.items():
                    false = claimed[: 28 - better].sum()
                    rows.setdefault(f"{name}: any", []).append(false > 0)
                    rows.setdefault(f"{name}: share", []).append(false / max(1, claimed.sum()))
                    rows.setdefault(f"{name}: found", []).append(claimed[28 - better :].sum())
        for name in ("raw p", "Holm", "Holm and interval", "Benjamini-Hochberg"):
            yield (
                {
                    "truly different": better,
                    "claims by": name,
                    "found": f"{np.mean(rows[f'{name}: found']):.2f}" if better else "-",
                },
                {
                    "any false claim": rows[f"{name}: any"],
                    "false among claims": rows[f"{name}: share"],
                },
            )


def promised_power(sets: int, resamples: int = 1000) -> Rows:
    """A sample of the size that `cases_needed` asks for: how often is the difference found?"""
    for other, aim in ((0.1, 0.8), (-0.2, 0.8), (-0.2, 0.9)):
        law = world(systems=(0.5, other), verses=100)
        true = law.truth(difference)
        pilot: list[Sample] = []
        for counts, weights in chunks(law, sets, 8, resamples):
            pilot += samples(counts, [difference], weights, macro_f1)[0]
        error = float(np.mean([sample.error**2 for sample in pilot])) ** 0.5
        needed = cases_needed(true, error, 100, chance=aim)
        assert needed is not None
        asked = [cases_needed(s.estimate, s.error, 100, chance=aim) or np.inf for s in pilot]
        p: list[float] = []
        for counts, _ in chunks(replace(law, verses=needed), sets, 9, 2):
            p += chance(counts, resamples)
        quarter, half = np.quantile(asked, [0.25, 0.75])
        row = {
            "true difference": f"{true:.3f}",
            "power promised": f"{100 * aim:.0f}",
            "clips needed": needed,
            "asked for by half of all samples of 100": f"{quarter:.0f} to {half:.0f}",
        }
        yield row, {"power found": [value < LEVEL for value in p]}


STUDIES: dict[str, tuple[Callable[[int], Rows], int]] = {
    "one": (coverage_of_one, 2000),
    "means": (coverage_of_means, 1000),
    "seeds": (coverage_of_seeds, 1000),
    "tests": (level_of_tests, 1000),
    "families": (families, 400),
    "power": (promised_power, 1500),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("studies", nargs="*", choices=[[], *STUDIES], metavar="STUDY")
    parser.add_argument("--sets", type=int, help="data sets in each row")
    options = parser.parse_args()
    columns: list[str] = []
    for name in options.studies or STUDIES:
        study, sets = STUDIES[name]
        start = time.process_time()
        print(f"\n{study.__doc__} {options.sets or sets} data sets a row.\n")
        for number, (row, hits) in enumerate(study(options.sets or sets)):
            if not number:
                columns = list(hits)
                print("|", " | ".join((*row, *columns)), "|")
                print("|" + "---|" * len((*row, *columns)))
            shares = (f"{100 * np.mean(hits[c]):.1f}" if c in hits else "-" for c in columns)
            print("|", " | ".join((*map(str, row.values()), *shares)), "|", flush=True)
        print(f"{name}: {time.process_time() - start:.0f} CPU seconds", file=sys.stderr)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
