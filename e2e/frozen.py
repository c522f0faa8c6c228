"""What is kept of a frozen encoder, so that it hears a clip once and never again."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from e2e.pooling import weighted_mean
from speechtaxi.encoder import Frames

Kept = Literal["vector", "layers", "frames"]


def keeps(pooling: str, layers: str) -> Kept | None:
    """Return what of a frozen encoder decides a clip's vector; None: all frames of all layers.

    A pooling without weights gives one vector. The mean of a mix of layers is the mix of their
    means, so those are enough. Attention needs the frames of the last layer. What any other pooling
    needs of a learned mix is too much to keep (700 GB for 80 h of 24 layers of 1,024).
    """
    if layers == "last":
        return "frames" if pooling == "attention" else "vector"
    return "layers" if pooling == "mean" else None


def condense(frames: Frames, kept: Kept, pooling: nn.Module) -> list[Tensor]:
    """Return what is kept of each clip: a vector (1, D), layers' means (L, D) or frames (F, D)."""
    if kept == "frames":
        return [clip[:n] for clip, n in zip(frames.last, frames.lengths.tolist(), strict=True)]
    if kept == "vector":
        return list(pooling(frames.last, frames.mask)[:, None])
    mask = frames.mask.to(frames.last.dtype)
    return list(torch.stack([weighted_mean(layer, mask) for layer in frames.layers], 1))


def recall(features: tuple[Tensor, ...], kept: Kept) -> Frames:
    """Return the frames of clips as they were kept; layers' means are layers of one frame."""
    if kept == "frames":
        counts = torch.tensor([len(clip) for clip in features], device=features[0].device)
        return Frames((pad_sequence(list(features), batch_first=True),), counts)
    means = torch.stack(features)  # (batch, layers, size)
    return Frames(means[:, :, None].unbind(1), torch.ones_like(means[:, 0, 0], dtype=torch.int64))
