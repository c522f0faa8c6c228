"""What hears: speech encoder, pooling, shared head."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e2e.frozen import keeps, recall
from e2e.pooling import LayerMix, open_pooling
from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.batch import Batch
from speechtaxi.classifier import Classifier
from speechtaxi.encoder import Frames, open_encoder
from speechtaxi.errors import InputError


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


class SpeechModel(Classifier):
    """Hears a clip and tells its topic.

    Args:
        labels: see `Classifier`.
        encoder: "small", a hub id or folder of a transformers encoder, or a run folder of ours (an
            E2E classifier's or a recogniser's) for a warm start; see `open_encoder`.
        encoder_config: builds the encoder without weights; set by checkpoints.
        allow_remote_code: encoders whose own modelling code may be run, by name.
        pooling: mean, max, attention or statistics.
        layers: "last", or "weighted" to learn a mix of all layers.
        freeze: "none", "front", "all", how many of the lowest layers, as in "6", or all but how
            many of the top ones, as in "all-6". With "all" the vectors are standardised, which a
            linear head on fixed features needs.
        lora: trains small matrices beside the encoder's own: r (8), alpha (16), targets
            ("attention" or "all"), dropout (0); see `speechtaxi.encoder.lora`. An encoder_lr of
            about 2e-4 suits them. A model that is loaded to classify has them merged.
        checkpoint_activations: less memory for a third more time, in training.
        whisper_window: what Whisper's encoder hears at a time: "30s" as it was trained, "clip" no
            longer than the clip, which is several times quicker and right where it is tuned.
        min_seconds: shorter clips are set amid silence of this length, for encoders that look at
            a stretch of time as a whole, or refuse less.
        features: SQLite file of what a frozen encoder heard, so that no run over the same clips
            encodes them again; "cache" is the user's, None keeps none. See `e2e.frozen.keeps`.
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
        lora: dict[str, Any] | None = None,
        checkpoint_activations: bool = False,
        whisper_window: Literal["30s", "clip"] | None = None,
        min_seconds: float = 0.0,
        features: str | None = "cache",
        **training: Any,
    ) -> None:
        super().__init__(labels, **training)
        allowed = allow_remote_code or []
        self.encoder = open_encoder(
            encoder,
            config=encoder_config,
            allow_remote_code=allowed,
            lora=lora,
            whisper_window=whisper_window,
        )
        self.settings = {
            "labels": self.labels,
            "encoder": encoder,
            "encoder_config": self.encoder.config,
            "allow_remote_code": allowed,
            "pooling": pooling,
            "layers": layers,
            "freeze": freeze,
            "lora": lora,
            "checkpoint_activations": checkpoint_activations,
            "whisper_window": whisper_window,
            "min_seconds": min_seconds,
            "features": features,
            **training,
        }
        self.frozen = freeze == "all"
        if self.frozen and lora is not None:
            raise InputError("LoRA trains an encoder that freeze: all keeps; leave out one of them")
        if checkpoint_activations and not self.frozen:
            self.encoder.checkpoint_activations()
        self.min_samples = round(min_seconds * SAMPLE_RATE)
        self.encoder.freeze(freeze)
        self.mix = LayerMix(self.encoder.n_layers) if layers == "weighted" else None
        self.pooling = open_pooling(pooling, self.encoder.dim)
        self.standardize = Standardize(self.pooling.dim) if self.frozen else nn.Identity()
        self.build_head(self.pooling.dim)
        self.train()
        self.kept = keeps(pooling, layers)
        self.features = features

    def merge_lora(self) -> None:
        """Add what LoRA has learned to the encoder's own weights; without LoRA, do nothing."""
        self.encoder.merge_lora()
        self.settings.update(lora=None, encoder_config=self.encoder.config)

    def train(self, mode: bool = True) -> SpeechModel:
        """Switch modes; a frozen encoder stays as it was trained, without dropout."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def embed(self, batch: Batch) -> Tensor:
        if batch.features is not None and self.kept == "vector":
            return self.standardize(torch.cat(batch.features))
        frames = self._hear(batch) if batch.features is None else recall(batch.features, self.kept)
        heard = self.mix(frames.layers) if self.mix is not None else frames.last
        return self.standardize(self.pooling(heard, frames.mask))

    def _hear(self, batch: Batch) -> Frames:
        waveforms, lengths = self._surround(batch.waveforms, batch.lengths)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder(waveforms, lengths, all_layers=self.mix is not None)

    def _surround(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Set clips shorter than `min_samples` amid silence."""
        missing = (self.min_samples - lengths).clamp_min(0)
        if not bool(missing.any()):
            return waveforms, lengths
        padded = F.pad(waveforms, (0, max(0, self.min_samples - waveforms.shape[1])))
        shifts = (missing // 2).tolist()
        rows = [row.roll(shift) for row, shift in zip(padded, shifts, strict=True)]
        return torch.stack(rows), lengths + missing
