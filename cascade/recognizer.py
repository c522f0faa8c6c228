"""A CTC recogniser that anyone can fit for a language without one."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import SumMetric

from cascade.romanizer import romanizer
from cascade.speller import Speller, letters
from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.batch import Batch
from speechtaxi.checkpoint import class_path
from speechtaxi.errors import InputError
from speechtaxi.types import Utterance

log = logging.getLogger(__name__)


class Recognizer(Speller, LightningModule):
    """Transcribes with CTC: a `Speller` that a Trainer can train."""

    needs = "waveforms"
    monitor = ("dev/cer", "min")
    too_long: Sequence[str] = ()
    """Training clips that teach nothing."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember class and settings, so that `checkpoint.load` builds the model again."""
        checkpoint |= {"class_path": class_path(self), "hyper_parameters": self.settings}

    def target(self, utterance: Utterance) -> str:
        """Return what should be written for a clip.

        Raises:
            InputError: the clip has no text.
        """
        if not utterance.text:
            raise InputError(f"{utterance.id} has no text; a recogniser learns from transcripts")
        if self.spells == "native":
            return letters(utterance.text)
        spelled = letters(romanizer().romanize(utterance.text, utterance.language))
        return " ".join("".join(c for c in spelled if c in self.numbers).split())

    def setup(self, stage: str) -> None:
        """Collect the letters of the training texts, and report targets that are too long."""
        if not hasattr(self, "edits"):
            self.edits = nn.ModuleDict({split: SumMetric() for split in ("dev", "test")})
            self.spelled = nn.ModuleDict({split: SumMetric() for split in ("dev", "test")})
        if stage != "fit":
            return
        clips = self.trainer.datamodule.clips["train"]
        if not hasattr(self, "output"):
            self.build_output(sorted({c for clip in clips.utterances for c in self.target(clip)}))
        self.too_long = self.too_long_for_ctc(clips.utterances, clips.seconds)
        if self.too_long:
            log.warning(
                "%d of %d training clips are spelled with more symbols than they have frames, and "
                "teach nothing; the first: %s. Raise model.upsample to use them",
                len(self.too_long),
                len(clips),
                self.too_long[0],
            )

    def too_long_for_ctc(self, clips: Iterable[Utterance], seconds: Iterable[float]) -> list[str]:
        """Return the ids of clips whose target CTC cannot align: its loss is silently zeroed.

        Each symbol takes a frame, and each repetition a blank more.
        """
        found: list[str] = []
        for clip, length in zip(clips, seconds, strict=True):
            target = self.target(clip)
            needed = len(target) + sum(a == b for a, b in itertools.pairwise(target))
            samples = torch.tensor([round(length * SAMPLE_RATE)])
            if needed > int(self.encoder.frame_count(samples)) * self.upsample:
                found.append(clip.id)
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the CTC loss per symbol of a batch."""
        if not len(batch):
            return None
        scores, counts = self(batch.waveforms, batch.lengths)
        targets = [[self.numbers.get(c, 0) for c in self.target(u)] for u in batch.utterances]
        targets = [[n for n in target if n] for target in targets]
        loss = F.ctc_loss(
            scores.transpose(0, 1),
            torch.tensor(list(itertools.chain.from_iterable(targets)), device=self.device),
            counts,
            torch.tensor([len(target) for target in targets], device=self.device),
            zero_infinity=True,
        )
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the character errors of a batch of dev clips."""
        self._count(batch, "dev")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the character errors of a batch of test clips."""
        self._count(batch, "test")

    def _count(self, batch: Batch, split: str) -> None:
        if not len(batch):
            return
        targets = [self.target(u) for u in batch.utterances]
        written = self.recognize(batch.waveforms, batch.lengths)
        self.edits[split].update(sum(map(Levenshtein.distance, written, targets)))
        self.spelled[split].update(sum(map(len, targets)))

    def on_validation_epoch_end(self) -> None:
        """Log the character error rate, pooled over all dev clips."""
        self._log_cer("dev")

    def on_test_epoch_end(self) -> None:
        """Log the character error rate, pooled over all test clips."""
        self._log_cer("test")

    def _log_cer(self, split: str) -> None:
        edits, spelled = self.edits[split], self.spelled[split]
        self.log(f"{split}/cer", edits.compute() / spelled.compute(), prog_bar=True)
        edits.reset()
        spelled.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW with warm-up, stepped by batch."""
        return self.optimizer.configure(self)
