"""The E2E route: speech encoder, pooling, shared head."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e2e.pooling import LayerMix, open_pooling
from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.batch import Batch
from speechtaxi.classifier import Classifier
from speechtaxi.encoder import open_encoder


class Standardize(nn.BatchNorm1d):
    """Zero mean and unit variance in each dimension, by running statistics of training clips.

    Never by a batch's own: batches hold clips of similar length, and so differ from each other.

    Shape: (B, D) -> (B, D)
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, momentum=None, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 1:
            super().forward(x)
        return (x - self.running_mean) / (self.running_var + self.eps).sqrt()


class SpeechClassifier(Classifier):
    """Hears a clip and tells its topic.

    Args:
        labels: see `Classifier`.
        encoder: "small", a hub id or folder of a transformers encoder, or a run folder of ours (an
            E2E classifier's or a recogniser's) for a warm start; see `open_encoder`.
        encoder_config: builds the encoder without weights; set by checkpoints.
        allow_remote_code: encoders whose own modelling code may be run, by name.
        pooling: mean, max, attention or statistics.
        layers: "last", or "weighted" to learn a mix of all layers.
        freeze: "none", "front", "all", or how many of the lowest layers, as in "6". With "all" the
            vectors are standardised, which a linear head on fixed features needs.
        min_seconds: shorter clips are set amid silence of this length, for encoders that look at
            a stretch of time as a whole, or refuse less.
        training: see `Classifier`.
    """

    route = "e2e"

    def __init__(
        self,
        labels: str | list[str],
        *,
        encoder: str = "small",
        encoder_config: dict[str, Any] | None = None,
        allow_remote_code: list[str] | None = None,
        pooling: Literal["mean", "max", "attention", "statistics"] = "mean",
        layers: Literal["last", "weighted"] = "last",
        freeze: str = "none",
        min_seconds: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(labels, **training)
        allowed = allow_remote_code or []
        self.encoder = open_encoder(encoder, config=encoder_config, allow_remote_code=allowed)
        self.save_hyperparameters(
            {
                "labels": self.labels,
                "encoder": encoder,
                "encoder_config": self.encoder.config,
                "allow_remote_code": allowed,
                "pooling": pooling,
                "layers": layers,
                "freeze": freeze,
                "min_seconds": min_seconds,
                **training,
            },
            logger=False,
        )
        self.frozen = freeze == "all"
        self.min_samples = round(min_seconds * SAMPLE_RATE)
        self.encoder.freeze(freeze)
        self.mix = LayerMix(self.encoder.n_layers) if layers == "weighted" else None
        self.pooling = open_pooling(pooling, self.encoder.dim)
        self.standardize = Standardize(self.pooling.dim) if self.frozen else nn.Identity()
        self.build_head(self.pooling.dim)

    def train(self, mode: bool = True) -> SpeechClassifier:
        """Switch modes; a frozen encoder stays as it was trained, without dropout."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def embed(self, batch: Batch) -> Tensor:
        waveforms, lengths = self._surround(batch.waveforms, batch.lengths)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            frames = self.encoder(waveforms, lengths, all_layers=self.mix is not None)
        heard = self.mix(frames.layers) if self.mix is not None else frames.last
        return self.standardize(self.pooling(heard, frames.mask))

    def _surround(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Set clips shorter than `min_samples` amid silence."""
        missing = (self.min_samples - lengths).clamp_min(0)
        if not bool(missing.any()):
            return waveforms, lengths
        padded = F.pad(waveforms, (0, max(0, self.min_samples - waveforms.shape[1])))
        shifts = (missing // 2).tolist()
        rows = [row.roll(shift) for row, shift in zip(padded, shifts, strict=True)]
        return torch.stack(rows), lengths + missing
