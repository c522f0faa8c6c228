"""The floor under all cascades: TF-IDF of character n-grams and logistic regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from cascade.ngrams import NgramEncoder
from speechtaxi.errors import InputError

C = 30.0
"""Inverse strength of the regularisation: large, as an n-gram's weight in a text is small."""


class TfidfEncoder(NgramEncoder):
    """Logistic regression on TF-IDF as scikit-learn fits it, its weights kept as tensors.

    A text's n-grams are those of scikit-learn's `char_wb` analyser, lower case, 2 to 5 characters
    within a word and its blanks, in at least two texts; they are kept as hashes of 64 bits.

    Args:
        topics: C.
        size: how many n-grams there are.

    Shape: B texts -> (B, C), what the n-grams of a text say for each topic; intercepts apart
    """

    def __init__(self, topics: int, size: int = 0) -> None:
        super().__init__(topics, limit=size, drop=0.0)
        self.config = {"kind": "tfidf", "topics": topics, "size": size}

    def solve(self, texts: Sequence[str], topics: Sequence[int]) -> Tensor:
        """Fit vocabulary, idf and weights to training texts, and return the intercepts, (C,).

        Topics without a text are given no chance.

        Raises:
            InputError: all texts are of one topic, or there is nothing to read in them.
        """
        from sklearn.linear_model import LogisticRegression

        vectorizer = _vectorizer()
        model = LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
        try:
            model.fit(vectorizer.fit_transform(texts), topics)
        except ValueError as error:
            raise InputError(f"nothing can be learnt from the training texts: {error}") from error
        coefficients, intercepts = torch.tensor(model.coef_).mT, torch.tensor(model.intercept_)
        if len(model.classes_) == 2:  # scikit-learn then keeps the weights of the second alone
            coefficients = torch.cat([torch.zeros_like(coefficients), coefficients], 1)
            intercepts = torch.cat([torch.zeros_like(intercepts), intercepts])
        known = torch.tensor([_hash(gram) for gram in vectorizer.get_feature_names_out()])
        self.known, order = known.sort()
        self.idf = torch.tensor(vectorizer.idf_, dtype=torch.float32)[order]
        self.vectors.data = torch.zeros(len(known), self.dim)
        self.vectors.data[:, model.classes_] = coefficients[order].float()
        self.config["size"] = len(known)
        never = -1e4  # its probability is 0, and its loss is finite
        return torch.full((self.dim,), never).index_put_(
            (torch.from_numpy(model.classes_),), intercepts.float()
        )

    def count(self, text: str) -> tuple[Tensor, Tensor]:
        counts = Counter(_ngrams()(text))
        tf = torch.tensor(list(counts.values()), dtype=torch.float32)
        return torch.tensor([_hash(gram) for gram in counts], dtype=torch.int64), 1 + tf.log()


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True)


@cache
def _ngrams() -> Callable[[str], list[str]]:
    """Return scikit-learn's own function from a text to its n-grams."""
    return _vectorizer().build_analyzer()


def _hash(gram: str) -> int:
    digest = blake2b(gram.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
