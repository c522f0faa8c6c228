"""The small encoder, which trains from scratch on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import mask_along_axis_iid, melscale_fbanks

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.encoder.frames import Frames, SpeechEncoder, frame_mask


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


class ChannelDropout(nn.Module):
    """Drops a channel for a whole clip: far cheaper on a CPU than a mask for every frame.

    Shape: (B, F, D) -> (B, F, D)
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.p)


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
            nn.Linear(2 * dim, dim),
        )
        self.dropout = ChannelDropout(dropout)

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
        """Silence up to two stretches of 0.1 s and two of 4 bands in each clip (B, F, bands)."""
        x = mels[:, None]  # (batch, 1, frames, bands)
        for _ in range(2):
            x = mask_along_axis_iid(x, mask_param=10, mask_value=0.0, axis=2, p=0.2)
            x = mask_along_axis_iid(x, mask_param=4, mask_value=0.0, axis=3)
        return x[:, 0]
