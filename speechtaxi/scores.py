"""Scores of pooled predictions: never a mean over batches, files or folds.

Everything starts from tallies, three counts per topic: hits, gold, predicted. Tallies add up, so
the same functions score a sample, each of its groups, and thousands of bootstrap replicates.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.float64]
Scores = NDArray[np.float64]
Indices = NDArray[np.int64]

LEAST = 1e-7
"""In log loss a smaller probability counts as this, about the least that single precision tells
from 0 beside 1: a certain answer that is wrong costs 16.1 nats, not infinitely many."""


def tally(gold: ArrayLike, predicted: ArrayLike, n_topics: int) -> Counts:
    """Return the tallies (N, 3, n_topics) of N clips: hits, gold, predicted.

    Args:
        gold: topic numbers (N,), 0 <= number < n_topics.
        predicted: topic numbers (N,), likewise.
    """
    gold, predicted = np.asarray(gold, np.int64), np.asarray(predicted, np.int64)
    one_hot = np.eye(n_topics)
    truth, guess = one_hot[gold], one_hot[predicted]
    return np.stack([truth * guess, truth, guess], axis=1)


def tally_groups(clips: NDArray[np.float64], groups: ArrayLike, n_groups: int) -> Counts:
    """Sum counts of clips (N, ...) into counts of groups (n_groups, ...); groups are numbered."""
    total = np.zeros((n_groups, *clips.shape[1:]))
    np.add.at(total, np.asarray(groups, np.int64), clips)
    return total


def topic_scores(tallies: Counts) -> Scores:
    """Return precision, recall, F1 (..., 3, topics) of pooled tallies (..., 3, topics).

    A ratio without cases (0/0) is 0, as in scikit-learn's `zero_division=0`.
    """
    hits, gold, predicted = np.moveaxis(tallies, -2, 0)
    return np.stack(
        [_ratio(hits, predicted), _ratio(hits, gold), _ratio(2 * hits, gold + predicted)], axis=-2
    )


def macro_f1(tallies: Counts) -> Scores:
    """Return macro-F1 (...,) of pooled tallies (..., 3, topics); NaN where there are no clips.

    The mean of F1 over the topics that occur in gold or prediction: scikit-learn's
    `f1_score(average="macro", zero_division=0)`. A bootstrap replicate keeps its own such topics,
    as a new sample of clips would.
    """
    hits, gold, predicted = np.moveaxis(tallies, -2, 0)
    occurring = gold + predicted
    n_topics = (occurring > 0).sum(-1)
    return _ratio(_ratio(2 * hits, occurring).sum(-1), n_topics, empty=np.nan)


def accuracy(tallies: Counts) -> Scores:
    """Return the share of right answers (...,) of tallies (..., 3, topics); NaN: no clips."""
    return _ratio(tallies[..., 0, :].sum(-1), tallies[..., 1, :].sum(-1), empty=np.nan)


def confusion(gold: ArrayLike, predicted: ArrayLike, n_topics: int) -> Indices:
    """Return how often gold (row) was called predicted (column): (n_topics, n_topics)."""
    cells = np.asarray(gold, np.int64) * n_topics + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=n_topics**2).reshape(n_topics, n_topics)


def majority(gold: ArrayLike, n_topics: int) -> int:
    """Return the most frequent topic, the first of equals: what the majority baseline answers."""
    return int(np.bincount(np.asarray(gold, np.int64), minlength=n_topics).argmax())


def log_loss(probabilities: ArrayLike, gold: ArrayLike) -> Scores:
    """Return the log loss of clips (N,): -ln of the gold topic's probability, in nats.

    Probabilities below `LEAST` count as that.

    Args:
        probabilities: of the topics, (N, n_topics).
        gold: topic numbers (N,).
    """
    return np.log(1 / np.maximum(_of(probabilities, gold), LEAST))


def brier(probabilities: ArrayLike, gold: ArrayLike) -> Scores:
    """Return the Brier score of clips (N,), from 0 to 2: the squared error over all topics.

    Brier, "Verification of forecasts expressed in terms of probability", Mon. Weather Rev. 1950.
    Arguments are those of `log_loss`.
    """
    odds = np.asarray(probabilities, float)
    return (odds**2).sum(-1) - 2 * _of(odds, gold) + 1


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> Counts:
    """Return counts (N, 3, bins) of clips by confidence: clips, their confidence, hits.

    Bins are equally wide; what lies between two is in the lower one.

    Args:
        confidence: probability of the answer, (N,).
        right: whether the answer is the gold topic, (N,).
    """
    confidence = np.asarray(confidence, float)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    told = np.stack([np.ones_like(confidence), confidence, np.asarray(right, float)], axis=-1)
    return told[:, :, None] * np.eye(bins)[place][:, None]


def calibration_error(pooled: Counts) -> Scores:
    """Return the expected calibration error (...,) of pooled `reliability` (..., 3, bins).

    The distance of mean confidence and accuracy in a bin, averaged over clips (Guo et al., "On
    calibration of modern neural networks", ICML 2017, arXiv 1706.04599, equation 3); NaN: no clips.
    """
    clips, confidence, hits = np.moveaxis(pooled, -2, 0)
    return _ratio(np.abs(confidence - hits).sum(-1), clips.sum(-1), empty=np.nan)


def spelling(text: str) -> str:
    """Return what of a text the character error rate compares.

    Case-folded, NFC, without punctuation (Unicode categories P*), one space between words. Marks
    and vowel signs stay: they are letters in many scripts.

    >>> spelling("  Ọ̀rọ̀, «Été»! ")
    'ọ̀rọ̀ été'
    """
    folded = unicodedata.normalize("NFC", text.casefold())
    kept = "".join(letter for letter in folded if unicodedata.category(letter)[0] != "P")
    return " ".join(kept.split())


def character_edits(texts: Sequence[str], references: Sequence[str]) -> Counts:
    """Return edits and reference characters (N, 2) of each text after `spelling` (Levenshtein)."""
    from rapidfuzz.distance import Levenshtein

    pairs = [(spelling(t), spelling(r)) for t, r in zip(texts, references, strict=True)]
    return np.array([(Levenshtein.distance(t, r), len(r)) for t, r in pairs], float).reshape(-1, 2)


def error_rate(edits: Counts) -> Scores:
    """Return edits / reference characters (...,) of sums (..., 2); NaN where nothing was said."""
    return _ratio(edits[..., 0], edits[..., 1], empty=np.nan)


def _of(values: ArrayLike, places: ArrayLike) -> Scores:
    """Return the value at one place of each row."""
    values, places = np.asarray(values, float), np.asarray(places, np.int64)
    return np.take_along_axis(values, places[:, None], axis=1)[:, 0]


def _ratio(part: ArrayLike, whole: ArrayLike, empty: float = 0.0) -> Scores:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0)
