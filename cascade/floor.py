"""The floor under all cascades: a classifier that is solved, not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from cascade.classifier import TextClassifier
from cascade.tfidf import TfidfEncoder
from speechtaxi.batch import Batch
from speechtaxi.labels import label_set
from speechtaxi.types import Utterance


class TfidfClassifier(TextClassifier):
    """Tells the topic by TF-IDF and logistic regression, which scikit-learn fits at set-up.

    The encoder gives what a text's n-grams say for each topic, and the head, the identity, adds the
    intercepts. Nothing is learnt from batches: one epoch scores the dev clips, for the temperature.

    Args:
        labels: see `Classifier`.
        settings: see `TextClassifier`.
    """

    encoder: TfidfEncoder

    def __init__(
        self,
        labels: str | list[str],
        *,
        encoder: Literal["tfidf"] = "tfidf",
        encoder_config: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        config = encoder_config or {"kind": "tfidf", "topics": len(label_set(labels))}
        super().__init__(labels, encoder=encoder, encoder_config=config, **settings)
        torch.nn.init.eye_(self.head.weight)
        self.requires_grad_(False)

    def fit_texts(self, clips: Sequence[Utterance]) -> None:
        """Solve for the weights and the intercepts."""
        texts = [text for text, _ in self.read(clips)]
        topics = [self.labels.index(str(clip.label)) for clip in clips]
        self.head.bias.copy_(self.encoder.solve(texts, topics))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of a batch, from which nothing is learnt."""
        super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        """Stop: a further epoch would change nothing."""
        self.trainer.should_stop = True

    def configure_optimizers(self) -> None:
        """There is nothing to optimise."""
