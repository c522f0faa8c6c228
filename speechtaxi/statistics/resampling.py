"""Draws of groups, and the sums over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Counts], Array]

CELLS = 4_000_000
"""How many numbers a block of sums may hold: 32 MB."""


def draw(groups: int, resamples: int, seed: int = 0) -> NDArray[np.float32]:
    """Return how often each group is drawn with replacement, (resamples, groups)."""
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, groups), np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
    return weights


def exchange(groups: int, resamples: int, seed: int = 0) -> NDArray[np.float32]:
    """Return whose answers are exchanged, 0 or 1 by even chance, (resamples, groups)."""
    rng = np.random.default_rng(seed)
    return rng.integers(2, size=(resamples, groups), dtype=np.int8).astype(np.float32)


def pool(weights: NDArray[np.float32], counts: Counts, statistic: Statistic) -> Array:
    """Return a statistic of weighted sums over groups, (resamples, ...), in bounded memory.

    Args:
        weights: (resamples, groups).
        counts: (groups, *shape), whole numbers: their sums are exact in single precision.
        statistic: of pooled counts, (resamples, *shape) -> (resamples, ...).
    """
    flat = np.ascontiguousarray(counts.reshape(len(counts), -1), np.float32)
    shape, rows = counts.shape[1:], max(1, CELLS // max(1, flat.shape[1]))
    return np.concatenate(
        [
            statistic((weights[start : start + rows] @ flat).astype(float).reshape(-1, *shape))
            for start in range(0, len(weights), rows)
        ]
    )
