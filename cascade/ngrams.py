"""The small text encoder: a bag of character n-grams, trained in seconds."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from heapq import nlargest
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, TEXTS = 30_000, 20_000
"""How many words, and texts in training, are remembered: hashing costs more than all else."""

_NONE = 2**32  # above every CRC: fills the table's unused places


class NgramEncoder(nn.Module):
    """Maps a text in any script to the sum of its character n-grams' vectors, by TF-IDF.

    A word's n-grams (with a blank on either side, as scikit-learn's char_wb) have a vector each (as
    in fastText, Joulin et al. 2016, arXiv 1607.01759). The vocabulary is kept as hashes: small,
    whatever the script, and what training never met stays silent. A text's weights are
    (1 + log tf) idf, scaled to length 1. Under a linear head this is logistic regression on TF-IDF
    of low rank.

    Letters are case-folded, combining marks kept, apostrophes dropped, and all else parts words, so
    that punctuated text and a recogniser's output look alike.

    Args:
        size: D of the vectors.
        limit: how many n-grams there are at most: those in the most training texts.
        shortest, longest: lengths of n-grams in characters, blanks included.
        min_texts: n-grams in fewer training texts are left out.
        drop: share of a text's n-grams that is left out in training.

    Attributes:
        dim: D.
        config: plain values from which `open_text_encoder(config=...)` builds it again.

    Shape: B texts -> (B, D), a text without a known n-gram gives zeros
    """

    known: Tensor  # (limit,) hashes in order
    idf: Tensor  # (limit,)

    def __init__(
        self,
        size: int = 16,
        limit: int = 2**17,
        shortest: int = 2,
        longest: int = 5,
        min_texts: int = 2,
        drop: float = 0.3,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"kind": "ngrams", "size": size, "limit": limit}
        self.config |= {"shortest": shortest, "longest": longest}
        self.config |= {"min_texts": min_texts, "drop": drop}
        self.dim, self.min_texts, self.drop = size, min_texts, drop
        self.lengths = (shortest, longest)
        self.register_buffer("known", torch.full((limit,), _NONE))
        self.register_buffer("idf", torch.zeros(limit))
        # Zeros, as in logistic regression. The head's weights break the tie.
        self.vectors = nn.Parameter(torch.zeros(limit, size))

    def fit(self, texts: Sequence[str]) -> None:
        """Set the vocabulary and, by how many of the training texts have an n-gram, its idf."""
        counts = Counter(h for text in texts for h in count_ngrams(text, *self.lengths)[0].tolist())
        often = ((count, h) for h, count in counts.items() if count >= self.min_texts)
        kept = sorted(h for _, h in nlargest(len(self.known), often))
        self.known.fill_(_NONE)[: len(kept)] = torch.tensor(kept, dtype=torch.int64)
        texts_with = torch.tensor([counts[h] for h in kept], dtype=torch.float32)
        self.idf.zero_()[: len(kept)] = 1 + ((1 + len(texts)) / (1 + texts_with)).log()

    def count(self, text: str) -> tuple[Tensor, Tensor]:
        """Return the hashes of a text's n-grams and how much each counts, (n,) each."""
        count = count_ngrams if self.training else count_ngrams.__wrapped__
        return count(text, *self.lengths)

    def forward(self, texts: Sequence[str]) -> Tensor:
        counted = [self.count(text) for text in texts]
        sizes = torch.tensor([len(hashes) for hashes, _ in counted], dtype=torch.int64)
        rows = torch.arange(len(texts)).repeat_interleave(sizes).to(self.idf.device)
        empty = torch.zeros(0, dtype=torch.int64)
        hashes = torch.cat([empty, *(hashes for hashes, _ in counted)]).to(rows.device)
        tf = torch.cat([empty.float(), *(tf for _, tf in counted)]).to(rows.device)
        places = torch.searchsorted(self.known, hashes).clamp_max(len(self.known) - 1)
        met = self.known[places] == hashes
        rows, places = rows[met], places[met]
        weights = tf[met] * self.idf[places]
        squares = weights.new_zeros(len(texts)).index_add_(0, rows, weights.square())
        weights = F.dropout(weights / squares.sqrt()[rows], self.drop, self.training)
        starts = torch.searchsorted(rows, torch.arange(len(texts), device=rows.device))
        return F.embedding_bag(places, self.vectors, starts, mode="sum", per_sample_weights=weights)


@lru_cache(TEXTS)
def count_ngrams(text: str, shortest: int, longest: int) -> tuple[Tensor, Tensor]:
    """Return the hashes of a text's n-grams and their 1 + log tf, (n,) each."""
    counts: Counter[int] = Counter()
    for word in words(text):
        counts.update(hash_ngrams(word, shortest, longest))
    tf = torch.tensor(list(counts.values()), dtype=torch.float32)
    return torch.tensor(list(counts), dtype=torch.int64), 1 + tf.log()


@lru_cache(WORDS)
def hash_ngrams(word: str, shortest: int, longest: int) -> tuple[int, ...]:
    """Return the CRC-32 of each n-gram of a word, the same everywhere and always.

    A word with its blanks that is shorter than all n has itself.
    """
    padded = f" {word} "
    return tuple(
        crc32(padded[start : start + n].encode())
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
