"""AdamW with warm-up, the same for every model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


@dataclass
class Schedule:
    """Share of the peak learning rate by step: a linear rise, then a fall to zero.

    An object rather than a function, so that checkpoints keep it and a resumed run goes on with
    the same number of steps.

    >>> [Schedule(steps=3, warmup=0.5)(step) for step in range(3)]
    [0.5, 1.0, 0.5]
    """

    steps: int
    warmup: float = 0.1
    shape: Literal["linear", "cosine"] = "linear"

    def __call__(self, step: int) -> float:
        done = min(1.0, (step + 1) / (self.steps + 1))
        if done < self.warmup:
            return done / self.warmup
        left = (1 - done) / (1 - self.warmup) if self.warmup < 1 else 0.0
        return left if self.shape == "linear" else (1 - math.cos(math.pi * left)) / 2


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

    def configure(self, module: LightningModule) -> OptimizerLRSchedulerConfig:
        """Return what `LightningModule.configure_optimizers` must."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                lr = self.lr
                if name.startswith("encoder.") and self.encoder_lr is not None:
                    lr = self.encoder_lr
                decay = self.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((lr, decay), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()],
            # On a CPU several times quicker; on a GPU it does not go with float16 and clipping.
            fused=True if module.device.type == "cpu" else None,
        )
        steps = max(1, int(module.trainer.estimated_stepping_batches))
        schedule = Schedule(steps, self.warmup, self.schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        by_step = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": by_step}
