"""What watches over a training: its progress, its randomness, its end; and its metrics.csv."""

from __future__ import annotations

import csv
import os
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from speechtaxi.errors import InputError


class MetricsLog(CSVLogger):
    """metrics.csv of a run, which a resumed run goes on with; Lightning's would begin anew."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, name="", version="")
        self.path = Path(folder) / "metrics.csv"
        self.past = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""

    def go_on(self, epoch: int) -> None:
        """Put back the rows of epochs before the one that begins."""
        rows = [row for row in csv.DictReader(StringIO(self.past)) if int(row["epoch"]) < epoch]
        writer = self.experiment
        for row in rows:
            scores = {name: float(value) for name, value in row.items() if value}
            step = int(scores.pop("step"))
            writer.log_metrics(scores | {"epoch": int(scores["epoch"])}, step)
        self.save()


class Interruption(Callback):
    """Remembers that Ctrl-C ended a run, which Lightning turns into a plain exit."""

    def __init__(self) -> None:
        self.seen = False

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.seen = isinstance(exception, KeyboardInterrupt)


class EpochSeed(Callback):
    """Draws each epoch's dropout and augmentation from the seed and the epoch alone.

    A run that is resumed then ends with the numbers of one that was never interrupted: Lightning
    keeps no random state, and skips `on_train_epoch_start` after a resume.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            torch.manual_seed(
                hash(
                    (
                        int(os.environ.get("PL_GLOBAL_SEED", 0)),
                        trainer.current_epoch,
                        trainer.global_rank,
                    )
                )
            )


class FiniteLoss(Callback):
    """Ends a run whose loss is no number any more, before it spoils the weights."""

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        if not loss.isfinite():
            raise InputError(
                f"the loss is {loss.item()} in epoch {trainer.current_epoch + 1}; lower --model.lr "
                "or train in --trainer.precision 32-true; the epochs before are kept"
            )


class EpochLines(Callback):
    """Prints a line per epoch to stderr: the progress of a run whose output is a file."""

    def __init__(self) -> None:
        self.started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = "  ".join(
            f"{name} {float(value):.3f}"
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("dev/", "train/"))
        )
        if trainer.is_global_zero:
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {scores}  "
                f"{time.monotonic() - self.started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
