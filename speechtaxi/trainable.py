"""Training of a classifier with Lightning: loss, optimiser, scores of an epoch."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional as F

from speechtaxi.batch import Batch
from speechtaxi.checkpoint import class_path
from speechtaxi.metrics import epoch_scores
from speechtaxi.types import Prediction


class Trainable(LightningModule):
    """Makes a `Classifier` trainable, as its second base: the same lines for both routes."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember class and settings, so that `checkpoint.load` builds the model again."""
        checkpoint |= {"class_path": class_path(self), "hyper_parameters": self.settings}

    def setup(self, stage: str) -> None:
        """Make the scores, and take the topics' weights from the training clips."""
        if not hasattr(self, "dev_scores"):
            self.dev_scores = epoch_scores(len(self.labels), "dev/")
            self.test_scores = epoch_scores(len(self.labels), "test/")
        if stage == "fit":
            data, even = self.trainer.datamodule, torch.ones(len(self.labels))
            weights = data.class_weights() if self.class_weights else even
            self.register_buffer("loss_weights", weights, persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the loss of a batch."""
        if not len(batch):  # all its files were damaged
            return None
        loss = F.cross_entropy(
            self(batch), batch.labels, self.loss_weights, label_smoothing=self.label_smoothing
        )
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Score a batch of dev clips and return its logits, (B, C)."""
        if not len(batch):
            return None
        logits = self(batch)
        loss = F.cross_entropy(logits, batch.labels)
        self.dev_scores.update(logits, batch.labels)
        self.log("dev/loss", loss, batch_size=len(batch), sync_dist=True)
        self.log_dict(self.dev_scores, prog_bar=True, on_epoch=True, batch_size=len(batch))
        return logits

    def test_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """Score a batch of test clips and return its predictions."""
        if not len(batch):
            return []
        logits = self(batch)
        known = batch.labels >= 0
        if known.any():
            self.test_scores.update(logits[known], batch.labels[known])
            self.log_dict(self.test_scores, on_epoch=True, batch_size=len(batch))
        return self.predictions(batch, logits)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW with warm-up, stepped by batch."""
        return self.optimizer.configure(self)
