"""Whether features tell a score in groups that a regression has not seen, and which of them do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from speechtaxi.statistics.intervals import Interval, bootstrap
from speechtaxi.statistics.resampling import Array

PENALTY = 1.0
SHUFFLES = 50
LEVEL = 0.05
"""The chance that any interval of an importance misses, divided by their number."""


@dataclass(frozen=True)
class Fit:
    """How well a regression predicts languages that it has not seen, and by what."""

    rmse: float
    """Of macro-F1 in held-out target languages."""
    rmse_of_mean: float
    """Of the mean over all pairs with other targets, in its place."""
    r2: Interval
    """1 - squared error / that of the mean; drawn are target languages."""
    importances: Mapping[str, Interval]
    """By feature: what shuffling it among all pairs adds to `rmse`; drawn are target languages. All
    hold together with 95 % (Bonferroni)."""
    effects: Mapping[str, float]
    """By feature: change in macro-F1 with one standard deviation of it, of the fit to all pairs."""

    @property
    def explains(self) -> bool:
        return self.r2.low > 0


def fit(features: Array, scores: Array, targets: Sequence[str], names: Sequence[str]) -> Fit:
    """Predict the scores of each target language from pairs with other targets.

    Permutation importance: Breiman, "Random forests", Machine Learning 2001, by the models that
    have not seen the target; a feature that is the same for all pairs of a target is shuffled too.

    Args:
        features: (N, K).
        scores: (N,).
        targets: (N,), at least two different ones.
        names: (K,).
    """
    _, places = np.unique(targets, return_inverse=True)
    others = [places != place for place in range(places.max() + 1)]
    models = [ridge(features[rest], scores[rest]) for rest in others]
    weights = np.array([model[0] for model in models])[places]
    expected = (weights * features).sum(1) + np.array([model[1] for model in models])[places]
    means = np.array([scores[rest].mean() for rest in others])[places]

    def by_target(*values: Array) -> Array:
        """Return sums by target, (targets, len(values))."""
        table = np.zeros((len(others), len(values)))
        np.add.at(table, places, np.stack(values, -1))
        return table

    def added(sums: Array) -> Array:
        """Return what shuffling adds to the RMSE, of sums of (shuffled, errors, ones)."""
        return np.sqrt(sums[..., 0] / sums[..., 2]) - np.sqrt(sums[..., 1] / sums[..., 2])

    errors, flat = (expected - scores) ** 2, (means - scores) ** 2
    ones = np.ones(len(scores))
    orders = np.random.default_rng(0).permuted(
        np.tile(np.arange(len(scores)), (SHUFFLES, 1)), axis=1
    )
    importances: dict[str, Interval] = {}
    for k, name in enumerate(names):
        moved = expected + weights[:, k] * (features[orders, k] - features[:, k])
        shuffled = ((moved - scores) ** 2).mean(0)
        importances[name] = bootstrap(
            by_target(shuffled, errors, ones),
            added,
            level=1 - LEVEL / len(names),
        )
    return Fit(
        float(errors.mean() ** 0.5),
        float(flat.mean() ** 0.5),
        bootstrap(by_target(errors, flat), lambda sums: 1 - sums[..., 0] / sums[..., 1]),
        importances,
        dict(zip(names, ridge(features, scores)[0] * features.std(0), strict=True)),
    )


def ridge(features: Array, scores: Array) -> tuple[Array, float]:
    """Return the weights (K,) and the offset of a ridge regression on standardised features.

    Scikit-learn's `Ridge(alpha=PENALTY)` after `StandardScaler`, whose import takes seconds.
    """
    centre, spread = features.mean(0), features.std(0)
    spread[spread == 0] = 1  # does not vary among these pairs, so its weight becomes 0
    unit = (features - centre) / spread
    gram = unit.T @ unit + PENALTY * np.eye(len(centre))
    weights = np.asarray(np.linalg.solve(gram, unit.T @ (scores - scores.mean())), float) / spread
    return weights, float(scores.mean() - centre @ weights)
