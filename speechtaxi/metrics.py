"""Scores of an epoch in training, pooled over all its clips and over processes."""

from __future__ import annotations

from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score


def epoch_scores(n_labels: int, prefix: str) -> MetricCollection:
    """Return macro-F1 and accuracy, counted over an epoch (never a mean over batches).

    Macro-F1 is the mean over the topics that occur in gold or prediction, as in
    `speechtaxi.scores.macro_f1`.
    """
    return MetricCollection(
        {
            "macro_f1": MulticlassF1Score(n_labels, average="macro"),
            "accuracy": MulticlassAccuracy(n_labels, average="micro"),
        },
        prefix=prefix,
    )
