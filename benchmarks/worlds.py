"""Simulated answers: verses hard in all languages, systems that err alike, seeds that vary.

Made for simulations.py. Every data set draws verses anew, in the proportions of Taxi1500's topics;
what a system answers depends on how hard the verse is (the same in all languages and for all
systems), the clip, the system, and the training seed. The true values are those of the laws that
answers are drawn from, exact but for the mean over 20,000 training seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from speechtaxi.scores import macro_f1, tally
from speechtaxi.statistics import Sample, draw, pool

TOPICS = 6
SHARES = np.array([224, 208, 147, 122, 112, 47]) / 860
"""Of Taxi1500's topics in English training verses (Ma et al., arXiv 2305.08487)."""

Array = NDArray[np.float64]
Part = Callable[[Array], Array]
"""What an interval is of: (..., languages, systems, seeds) -> (..., seeds)."""


def one(scores: Array) -> Array:
    """Return the first system's score in the first language."""
    return scores[..., 0, 0, :]


def difference(scores: Array) -> Array:
    """Return how much better the first of two systems is in the first language."""
    return scores[..., 0, 0, :] - scores[..., 0, 1, :]


def mean(scores: Array) -> Array:
    """Return the first system's mean over languages."""
    return scores[..., 0, :].mean(-2)


def mean_difference(scores: Array) -> Array:
    """Return how much better the first of two systems is, the mean over languages."""
    return (scores[..., 0, :] - scores[..., 1, :]).mean(-2)


@dataclass(frozen=True)
class World:
    """The law that answers are drawn from."""

    right: Array
    """(languages, systems, topics) log odds of a right answer."""
    seeds: int = 1
    spread: float = 0.0
    """Of the log odds over training seeds: half the variance is common to all languages."""
    verses: int = 111
    missing: int = 0
    """How many verses each language lacks, by chance."""
    shares: tuple[float, ...] = (0.25, 0.15, 0.1, 0.2, 0.3)
    """Of the variance of an answer: verse, clip, verse and system, clip and system, seed."""

    def odds(self, rng: np.random.Generator, sets: int, seeds: int) -> Array:
        """Return chances of a right answer (sets, languages, systems, seeds, topics)."""
        languages, systems, _ = self.right.shape
        common = rng.normal(size=(sets, 1, systems, seeds, 1))
        own = rng.normal(size=(sets, languages, systems, seeds, 1))
        return expit(self.right[:, :, None] + self.spread * (common + own) / 2**0.5)

    def draw(self, rng: np.random.Generator, sets: int) -> Array:
        """Return tallies (verses, sets, languages, systems, seeds, 3, topics)."""
        languages, systems, _ = self.right.shape
        shape = (self.verses, sets, languages, systems, self.seeds)
        odds = self.odds(rng, sets, self.seeds)
        latent = np.zeros(shape)
        for share, axes in zip(self.shares, ((2, 3, 4), (3, 4), (2, 4), (4,), ()), strict=True):
            size = [1 if axis in axes else length for axis, length in enumerate(shape)]
            latent += share**0.5 * rng.normal(size=size)
        chance = ndtr(latent)
        gold = rng.choice(TOPICS, size=shape[:2], p=SHARES)
        own = np.take_along_axis(
            np.moveaxis(odds, -1, 0), gold.reshape(*shape[:2], 1, 1, 1), axis=0
        )
        wrong = np.minimum((chance - own) / (1 - own), 1 - 1e-9)  # a uniform number where >= 0
        others = np.cumsum(_others(), axis=1)[gold][:, :, None, None, None]
        answer = (wrong[..., None] >= others).sum(-1)
        gold = np.broadcast_to(gold.reshape(*shape[:2], 1, 1, 1), shape)
        answer = np.where(wrong < 0, gold, answer)
        counts = tally(gold.ravel(), answer.ravel(), TOPICS).reshape(*shape, 3, TOPICS)
        if self.missing:
            order = rng.random(shape[:3]).argsort(0).argsort(0)
            counts *= (order >= self.missing)[..., None, None, None, None]
        return counts

    def truth(self, part: Part, score: Part = macro_f1) -> float:
        """Return the score in the population of all verses and all training seeds."""
        return float(self.population(part, score).mean())

    def population(self, part: Part, score: Part = macro_f1) -> Array:
        """Return the score of each of many training seeds over all verses."""
        odds = self.odds(np.random.default_rng(0), 1, 20_000 if self.spread else 1)[0]
        hits = SHARES * odds
        said = hits + (SHARES * (1 - odds)) @ _others()
        whole = np.stack([hits, np.broadcast_to(SHARES, hits.shape), said], axis=-2)
        return part(score(whole))


def _others() -> Array:
    """Return what a wrong answer is, (gold, answer): others by their share."""
    others = np.tile(SHARES, (TOPICS, 1)) * (1 - np.eye(TOPICS))
    return others / others.sum(1, keepdims=True)


def world(languages: int = 1, systems: Sequence[float] = (0.5,), **more: object) -> World:
    """Return a world of languages from hard to easy; systems by their mean log odds."""
    language = np.linspace(-0.6, 0.6, languages) if languages > 1 else np.zeros(1)
    topic = np.linspace(0.4, -0.4, TOPICS)
    right = language[:, None, None] + np.array(systems)[:, None] + topic
    return replace(World(right), **more)


def samples(
    counts: Array, parts: Sequence[Part], weights: Array, score: Part
) -> list[list[Sample]]:
    """Return the sample of each part in each data set."""
    total = counts.sum(0)
    found = score(total), pool(weights, counts, score), score(total - counts)
    made: list[list[Sample]] = []
    for part in parts:
        seeds, replicates, without = (part(scores) for scores in found)
        made.append(
            [
                Sample(seeds[n], replicates[:, n].mean(-1), without[:, n].T)
                for n in range(counts.shape[1])
            ]
        )
    return made


def chunks(law: World, sets: int, seed: int, resamples: int) -> Iterator[tuple[Array, Array]]:
    """Yield tallies of some data sets and weights to resample them, until there are enough."""
    rng = np.random.default_rng([seed, 1])
    size = max(1, min(sets, 400_000 // (law.verses * law.right.shape[0] * law.seeds)))
    for start in range(0, sets, size):
        yield law.draw(rng, min(size, sets - start)), draw(law.verses, resamples, seed + start)


def unlike() -> World:
    """Return a world whose two systems have one true macro-F1, made of different errors."""
    steep, flat = np.linspace(2.0, -1.5, TOPICS), np.zeros(TOPICS)
    goal = World(steep.reshape(1, 1, -1)).truth(one)
    low, high = -4.0, 4.0
    for _ in range(50):
        middle = (low + high) / 2
        under = World((flat + middle).reshape(1, 1, -1)).truth(one) < goal
        low, high = (middle, high) if under else (low, middle)
    return World(np.stack([steep, flat + low])[None])
