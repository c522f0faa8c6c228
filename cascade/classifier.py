"""The cascade route, trainable: what reads only learns from transcripts that are there first."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cascade.model import RECENT, TextModel
from speechtaxi.trainable import Trainable
from speechtaxi.types import Utterance


class TextClassifier(TextModel, Trainable):
    """Reads what was said and tells the topic: a `TextModel` that a Trainer can train."""

    @property
    def reading_device(self) -> torch.device:
        """Where a recogniser computes: where the model is to be trained."""
        return self._trainer.strategy.root_device if self._trainer else self.device

    def setup(self, stage: str) -> None:
        """Transcribe all clips of the stage, once for all processes, and fit what needs texts."""
        super().setup(stage)
        clips = [u for c in self.trainer.datamodule.clips.values() for u in c.utterances]
        if not self.trainer.is_global_zero:  # the first process transcribes, the others look up
            self.trainer.strategy.barrier("transcribe")
        self._remembered = len(clips) + RECENT
        self._read(clips)
        if self.trainer.is_global_zero:
            self.trainer.strategy.barrier("transcribe")
        if stage == "fit":
            self.fit_texts(self.trainer.datamodule.clips["train"].utterances)

    def fit_texts(self, clips: Sequence[Utterance]) -> None:
        """Fit what learns from all training clips at once: a vocabulary."""
        if hasattr(self.encoder, "fit"):
            self.encoder.fit([text for text, _ in self.read(clips)])

    def teardown(self, stage: str) -> None:
        """Forget the clips of the stage."""
        self._readings, self._remembered = {}, RECENT
