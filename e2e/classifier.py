"""The E2E route, trainable: what a frozen encoder heard is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from e2e.frozen import condense
from e2e.model import SpeechModel
from speechtaxi.batch import Batch
from speechtaxi.data import Clips
from speechtaxi.features import Features, fingerprint
from speechtaxi.trainable import Trainable


class SpeechClassifier(SpeechModel, Trainable):
    """Hears a clip and tells its topic: a `SpeechModel` that a Trainer can train."""

    _features: Features | None = None

    def setup(self, stage: str) -> None:
        """Encode the clips of the stage, where the encoder is frozen and nobody did before."""
        super().setup(stage)
        data = self.trainer.datamodule
        if data is None:
            return
        data.bring = None  # another model may have been here
        for clips in data.clips.values():
            clips.hear = True
        tuned = any(weights.requires_grad for weights in self.encoder.parameters())
        if tuned or self.features is None or self.kept is None:
            return
        self.to(self.trainer.strategy.root_device)
        heard = (self.kept, self.settings["pooling"], self.min_samples, self.trainer.precision)
        self._features = Features(self.features, fingerprint(self.encoder, *heard))
        size = data.batch_size if self.at_once > 1 else 1
        for clips in data.clips.values():
            self._features.fill(
                clips, self._encode, batch_seconds=data.batch_seconds, batch_size=size
            )
        data.bring = self._features.bring

    def encoding_seconds(self, clips: Clips) -> float:
        """Return how long it took to encode clips whose features are kept, whenever that was."""
        return 0.0 if self._features is None else self._features.seconds(clips)

    @torch.inference_mode()
    def _encode(self, batch: Batch) -> list[Tensor]:
        with self.trainer.precision_plugin.forward_context():
            return condense(self._hear(batch.to(self.device)), self.kept, self.pooling)
