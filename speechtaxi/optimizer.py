"""AdamW with warm-up, the same for every model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


@dataclass(frozen=True)
class Optimizer:
    """Peak learning rates, decay and schedule.

    The encoder has a rate of its own where `encoder_lr` is given. Biases, norms and other vectors
    do not decay.
    """

    lr: float
    encoder_lr: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Literal["linear", "cosine"] = "linear"

    def factor(self, done: float) -> float:
        """Return the share of the peak rate when a share `done` of the steps is done.

        >>> [Optimizer(1.0, warmup=0.5).factor(done) for done in (0.25, 0.5, 0.75, 1.0)]
        [0.5, 1.0, 0.5, 0.0]
        """
        if done < self.warmup:
            return done / self.warmup
        left = (1 - done) / (1 - self.warmup) if self.warmup < 1 else 0.0
        return max(left, 0.0) if self.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2

    def configure(self, module: LightningModule) -> OptimizerLRSchedulerConfig:
        """Return what `LightningModule.configure_optimizers` must."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                encoder = name.startswith("encoder.") and self.encoder_lr is not None
                lr = self.encoder_lr if encoder else self.lr
                decay = self.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((lr, decay), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()]
        )
        steps = max(1, int(module.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.factor(min(1.0, (step + 1) / (steps + 1)))
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
