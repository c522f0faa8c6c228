"""The small text encoder: a bag of character n-grams, trained in seconds."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, TEXTS = 100_000, 20_000
"""How many words and texts are remembered: hashing costs more than the rest of a step."""

_MIX = 2654435761  # Knuth's multiplicative hash: spreads CRCs that differ in few bits


class NgramEncoder(nn.Module):
    """Maps a text in any script to the sum of its character n-grams' vectors, by TF-IDF.

    A word's n-grams (with a blank on either side, as scikit-learn's char_wb) are hashed to buckets,
    so that there is no vocabulary (Weinberger et al. 2009, arXiv 0902.2206), and a bucket has a
    vector (as in fastText, Joulin et al. 2016, arXiv 1607.01759). A text's weights are
    (1 + log tf) idf, scaled to length 1. Under a linear head this is logistic regression on TF-IDF
    of low rank.

    Letters are case-folded, combining marks kept, apostrophes dropped, and all else parts words, so
    that punctuated text and a recogniser's output look alike.

    Args:
        size: D of the vectors.
        buckets: how many n-grams can be told apart.
        shortest, longest: lengths of n-grams in characters, blanks included.
        min_texts: n-grams in fewer training texts are left out.
        drop: share of a text's n-grams that is left out in training.

    Attributes:
        dim: D.
        config: plain values from which `open_text_encoder(config=...)` builds it again.

    Shape: B texts -> (B, D), a text without a known n-gram gives zeros
    """

    idf: Tensor

    def __init__(
        self,
        size: int = 16,
        buckets: int = 2**17,
        shortest: int = 2,
        longest: int = 5,
        min_texts: int = 2,
        drop: float = 0.3,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"kind": "ngrams", "size": size, "buckets": buckets}
        self.config |= {"shortest": shortest, "longest": longest}
        self.config |= {"min_texts": min_texts, "drop": drop}
        self.dim, self.min_texts, self.drop = size, min_texts, drop
        self.hashing = (shortest, longest, buckets)
        self.register_buffer("idf", torch.ones(buckets))
        # Zeros: n-grams that training never meets stay silent. The head's weights break the tie.
        self.vectors = nn.Parameter(torch.zeros(buckets, size))

    def fit(self, texts: Sequence[str]) -> None:
        """Count in how many of the training texts each n-gram occurs: its idf."""
        counts = torch.zeros_like(self.idf)
        for text in texts:
            counts[count_ngrams(text, *self.hashing)[0].to(counts.device)] += 1
        idf = 1 + ((1 + len(texts)) / (1 + counts)).log()
        self.idf.copy_(torch.where(counts >= self.min_texts, idf, 0.0))

    def forward(self, texts: Sequence[str]) -> Tensor:
        device = self.idf.device
        counted = [count_ngrams(text, *self.hashing) for text in texts]
        sizes = torch.tensor([len(buckets) for buckets, _ in counted], dtype=torch.int64)
        rows = torch.arange(len(texts)).repeat_interleave(sizes).to(device)
        empty = torch.zeros(0, dtype=torch.int64)
        buckets = torch.cat([empty, *(buckets for buckets, _ in counted)]).to(device)
        tf = torch.cat([empty.float(), *(tf for _, tf in counted)]).to(device)
        weights = tf * self.idf[buckets]
        squares = weights.new_zeros(len(texts)).index_add_(0, rows, weights.square())
        weights = weights / squares.sqrt().clamp_min(1e-9)[rows]
        weights = F.dropout(weights, self.drop, self.training)
        starts = (sizes.cumsum(0) - sizes).to(device)
        return F.embedding_bag(
            buckets, self.vectors, starts, mode="sum", per_sample_weights=weights
        )


@lru_cache(TEXTS)
def count_ngrams(text: str, shortest: int, longest: int, buckets: int) -> tuple[Tensor, Tensor]:
    """Return the buckets of a text's n-grams and their 1 + log tf, (n,) each."""
    counts: Counter[int] = Counter()
    for word in words(text):
        counts.update(hash_ngrams(word, shortest, longest, buckets))
    tf = torch.tensor(list(counts.values()), dtype=torch.float32)
    return torch.tensor(list(counts), dtype=torch.int64), 1 + tf.log()


@lru_cache(WORDS)
def hash_ngrams(word: str, shortest: int, longest: int, buckets: int) -> tuple[int, ...]:
    """Return the bucket of each n-gram of a word, the same everywhere and always.

    A word with its blanks that is shorter than all n has itself.
    """
    padded = f" {word} "
    return tuple(
        crc32(padded[start : start + n].encode()) * _MIX % 2**32 * buckets >> 32
        for n in range(shortest, longest + 1)
        if n <= len(padded) or n == shortest
        for start in range(max(1, len(padded) - n + 1))
    )


def words(text: str) -> list[str]:
    """Return the words of a text as the encoder sees them.

    >>> words("Wasn't it GOOD (ही)?")
    ['wasnt', 'it', 'good', 'ही']
    """
    return unicodedata.normalize("NFC", text).casefold().translate(_LETTERS).split()


class _Letters(dict[int, str]):
    """Keeps letters, marks and digits, drops apostrophes, and turns all else into blanks."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in "'’ʼ`":
            kept = ""
        else:
            kept = character if unicodedata.category(character)[0] in "LMN" else " "
        self[code] = kept
        return kept


_LETTERS = _Letters()
