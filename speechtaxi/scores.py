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


def _ratio(part: ArrayLike, whole: ArrayLike, empty: float = 0.0) -> Scores:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0)
