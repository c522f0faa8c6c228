"""What every speech encoder offers, and the frames that it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from speechtaxi.errors import InputError


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

        A number, as in "6", freezes the front and so many of the lowest layers; "all-6" freezes
        all but the top six.

        Raises:
            InputError: there is no such part.
        """
        front, layers = self.parts()
        named = {"none": -1, "front": 0, "all": len(layers)}
        number = part.removeprefix("all-")
        if part in named:
            count = named[part]
        elif number.isdecimal() and int(number) <= len(layers):
            count = int(number) if number == part else len(layers) - int(number)
        else:
            raise InputError(
                f"cannot freeze '{part}'; use none, front, all, how many of the lowest layers, as "
                f"in 6, or all but how many, as in all-6; this encoder has {len(layers)}"
            )
        if count >= 0:
            front.requires_grad_(False)
        for layer in layers[: max(count, 0)]:
            layer.requires_grad_(False)
        if part == "all":
            self.requires_grad_(False)

    def add_lora(self, options: dict[str, Any]) -> None:
        """Train small matrices beside the layers' own, which are frozen: `encoder.lora.Lora`.

        Raises:
            InputError: the options are wrong, peft is absent, or the encoder is not for it.
        """
        raise InputError("LoRA is for pretrained encoders; train this one whole")

    def merge_lora(self) -> None:
        """Add what LoRA has learned to the layers' own matrices; without LoRA, do nothing."""

    def set_window(self, window: Literal["30s", "clip"]) -> None:
        """Let Whisper's encoder hear 30 s at a time, or no longer than a clip.

        Raises:
            InputError: this is another encoder.
        """
        raise InputError("only Whisper's encoder has a window; leave out whisper_window")

    def checkpoint_activations(self) -> None:
        """Compute a layer's activations again in the backward pass instead of keeping them.

        Raises:
            InputError: the encoder cannot do so.
        """
        raise InputError("this encoder keeps its activations; leave out checkpoint_activations")

    def parts(self) -> tuple[nn.Module, list[nn.Module]]:
        """Return the front and the layers, lowest first."""
        raise NotImplementedError
