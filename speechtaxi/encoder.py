"""Speech encoders: a waveform becomes frames. Both routes hear through these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import mask_along_axis_iid, melscale_fbanks

from speechtaxi import checkpoint
from speechtaxi.audio import SAMPLE_RATE


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


class LogMel(nn.Module):
    """Log-mel spectrogram, normalised per clip and band, the same under any padding.

    Windows of 25 ms every 10 ms, no padding at the edges: a clip gives 1 + (samples - 400) // 160
    frames, at least one.

    Shape: (B, T), (B,) -> (B, F, bands), (B,)
    """

    WINDOW, HOP = 400, 160

    def __init__(self, bands: int = 40) -> None:
        super().__init__()
        filters = melscale_fbanks(self.WINDOW // 2 + 1, 20.0, 8000.0, bands, SAMPLE_RATE)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.WINDOW), persistent=False)

    def frame_count(self, lengths: Tensor) -> Tensor:
        """Return frames for samples."""
        return 1 + (lengths.clamp_min(self.WINDOW) - self.WINDOW) // self.HOP

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        waveforms = F.pad(waveforms.float(), (0, max(0, self.WINDOW - waveforms.shape[1])))
        windows = waveforms.unfold(1, self.WINDOW, self.HOP) * self.window
        power = torch.fft.rfft(windows).abs().square()  # (batch, frames, bins)
        mels = (power @ self.filters + 1e-6).log()
        counts = self.frame_count(lengths)
        mask = frame_mask(counts, mels.shape[1])[..., None]
        n = counts[:, None, None]
        mean = (mels * mask).sum(1, keepdim=True) / n
        variance = ((mels - mean).square() * mask).sum(1, keepdim=True) / n
        return (mels - mean) / (variance + 0.1).sqrt() * mask, counts


class ConvBlock(nn.Module):
    """Pre-norm residual convolution over time, then a residual feed-forward part.

    Shape: (B, F, D), mask (B, F, 1) -> (B, F, D)
    """

    def __init__(self, dim: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2)
        self.feed = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, dim),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        heard = self.conv((self.norm(x) * mask).mT).mT
        x = x + self.dropout(F.gelu(heard))
        return x + self.dropout(self.feed(x))


class SmallEncoder(SpeechEncoder):
    """A convolutional encoder that trains from scratch on a CPU: 0.8M weights, 25 frames a second.

    Log-mels are stacked four by four, so that all layers run at 40 ms. In training it drops bands
    and stretches of time (SpecAugment, Park et al. 2019, arXiv 1904.08779).
    """

    def __init__(
        self,
        dim: int = 128,
        layers: int = 5,
        kernel: int = 5,
        bands: int = 40,
        stack: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.config = {"kind": "small", "dim": dim, "layers": layers, "kernel": kernel}
        self.config |= {"bands": bands, "stack": stack, "dropout": dropout}
        self.dim, self.n_layers, self.stack = dim, layers, stack
        self.mel = LogMel(bands)
        self.front = nn.Linear(bands * stack, dim)
        self.blocks = nn.ModuleList(ConvBlock(dim, kernel, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def parts(self) -> tuple[nn.Module, list[nn.Module]]:
        return self.front, list(self.blocks)

    def frame_count(self, lengths: Tensor) -> Tensor:
        return -(-self.mel.frame_count(lengths) // self.stack)

    def forward(self, waveforms: Tensor, lengths: Tensor, all_layers: bool = False) -> Frames:
        mels, counts = self.mel(waveforms, lengths)
        if self.training:
            mels = self.augment(mels)
        mels = F.pad(mels, (0, 0, 0, -mels.shape[1] % self.stack))
        counts = -(-counts // self.stack)
        mask = frame_mask(counts, mels.shape[1] // self.stack)[..., None]  # (batch, frames, 1)
        x = self.front(mels.unflatten(1, (-1, self.stack)).flatten(2))
        layers = []
        for block in self.blocks:
            x = block(x, mask)
            layers.append(x)
        layers[-1] = self.norm(x)
        return Frames(tuple(layers) if all_layers else (layers[-1],), counts)

    @staticmethod
    def augment(mels: Tensor) -> Tensor:
        """Silence up to two stretches of 0.2 s and two of 8 bands in each clip (B, F, bands)."""
        x = mels[:, None]  # (batch, 1, frames, bands)
        for _ in range(2):
            x = mask_along_axis_iid(x, mask_param=20, mask_value=0.0, axis=2, p=0.2)
            x = mask_along_axis_iid(x, mask_param=8, mask_value=0.0, axis=3)
        return x[:, 0]


def open_encoder(
    name: str = "small",
    *,
    config: dict[str, Any] | None = None,
    allow_remote_code: tuple[str, ...] | list[str] = (),
) -> SpeechEncoder:
    """Return a speech encoder by name, or built from the `config` of one that was saved.

    Args:
        name: "small"; a hub id or local folder of a transformers speech encoder; or a run folder or
            model folder of ours, whose encoder is taken with its weights (a warm start).
        config: an encoder's `config`: builds it without weights and without looking at `name`.
        allow_remote_code: names of encoders whose own modelling code may be run.

    Raises:
        InputError: there is no such encoder, it cannot be reached, or its code is not allowed.
    """
    if config is None and checkpoint.is_model(name):
        saved = checkpoint.read(name)
        encoder = open_encoder(
            config=saved.settings["encoder_config"], allow_remote_code=allow_remote_code
        )
        prefix = "encoder."
        state = {k[len(prefix) :]: v for k, v in saved.state.items() if k.startswith(prefix)}
        encoder.load_state_dict(state)
        return encoder
    if config is not None and config["kind"] == "small":
        return SmallEncoder(**{k: v for k, v in config.items() if k != "kind"})
    if config is None and name == "small":
        return SmallEncoder()
    from speechtaxi.pretrained import PretrainedEncoder  # transformers takes seconds to import

    return PretrainedEncoder(name, config=config, allow_remote_code=allow_remote_code)
