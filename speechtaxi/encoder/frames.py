"""What every speech encoder offers, and the frames that it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Frames:
    """What an encoder heard.

    Shape:
        layers: one tensor (B, F, D) per layer, the last layer last; only the last unless all asked
        lengths: (B,) int64, frames that are not padding
    """

    layers: tuple[Tensor, ...]
    lengths: Tensor

    @property
    def last(self) -> Tensor:
        """The last layer, (B, F, D)."""
        return self.layers[-1]

    @property
    def mask(self) -> Tensor:
        """(B, F) bool, True where a frame is not padding."""
        return frame_mask(self.lengths, self.last.shape[1])


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """Return (B, frames) bool, True below each length."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


class SpeechEncoder(nn.Module):
    """What every speech encoder offers.

    Attributes:
        dim: size D of a frame.
        n_layers: how many layers `forward(..., all_layers=True)` returns.
        config: plain values from which `open_encoder(config=...)` builds it again, weights aside.
    """

    dim: int
    n_layers: int
    config: dict[str, Any]

    def forward(self, waveforms: Tensor, lengths: Tensor, all_layers: bool = False) -> Frames:
        """Encode waveforms (B, T), 16 kHz, of which `lengths` (B,) samples are not padding.

        A clip's frames do not depend on the batch it is in.
        """
        raise NotImplementedError

    def frame_count(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of `lengths` (B,) samples give."""
        raise NotImplementedError

    def freeze(self, part: str) -> None:
        """Stop training a part: "none", "front" (before the first layer) or "all".

        A number, as in "6", freezes the front and so many of the lowest layers.
        """
        front, layers = self.parts()
        count = {"none": -1, "front": 0, "all": len(layers)}.get(part)
        count = int(part) if count is None else count
        if count >= 0:
            front.requires_grad_(False)
        for layer in layers[: max(count, 0)]:
            layer.requires_grad_(False)
        if part == "all":
            self.requires_grad_(False)

    def parts(self) -> tuple[nn.Module, list[nn.Module]]:
        """Return the front and the layers, lowest first."""
        raise NotImplementedError
