"""Whisper's encoder: windows of 30 s as it was trained, or no longer than the clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.encoder.frames import frame_mask

if TYPE_CHECKING:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

Window = Literal["30s", "clip"]

WINDOW = 30 * SAMPLE_RATE
"""Samples that Whisper's positions reach."""
FRAME = 320
"""Samples of one frame: two mel frames."""


class WhisperMel(nn.Module):
    """Whisper's log-mel input, as its feature extractor computes it (arXiv 2212.04356, 2.2).

    Silence follows a clip up to `samples`, or just as far as windows reach beyond its end, so that
    a clip has the same mel frames whatever it shares a batch with.

    Shape: (B, T) with T up to 480,000 -> (B, bands, 3000), or (B, bands, 2 * frames) without 30 s
    """

    FFT, HOP = 400, 160

    def __init__(self, bands: int) -> None:
        super().__init__()
        filters = mel_filter_bank(
            1 + self.FFT // 2, bands, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32), False)
        self.register_buffer("window", torch.hann_window(self.FFT), False)

    def forward(self, waveforms: Tensor, window: Window = "30s") -> Tensor:
        frames = -(-waveforms.shape[1] // FRAME)
        samples = min(WINDOW, frames * FRAME + self.FFT)
        with torch.autocast(waveforms.device.type, enabled=False):  # bf16 would blur the spectrum
            waveforms = F.pad(waveforms.float(), (0, samples - waveforms.shape[1]))
            spectrum = torch.stft(
                waveforms, self.FFT, self.HOP, window=self.window.float(), return_complex=True
            )
            mels = self.filters.float().T @ spectrum[..., :-1].abs().square()
            log = mels.clamp_min(1e-10).log10()
            quiet = (log.amax((1, 2), keepdim=True) - 8.0).clamp_min(-10.0)
            log = torch.maximum(log, quiet)
            if window == "30s":  # one frame of silence is as another
                silence = quiet.expand(-1, log.shape[1], WINDOW // self.HOP - log.shape[2])
                log = torch.cat([log, silence], 2)
        return ((log + 4.0) / 4.0)[..., : 2 * frames if window == "clip" else None]


def hear(
    encoder: WhisperEncoder, mel: WhisperMel, waveforms: Tensor, lengths: Tensor, window: Window
) -> tuple[Tensor, ...]:
    """Return all layers of clips of up to 30 s, each (B, F, D), the last with its norm.

    With "30s" this is transformers' forward pass, 1,500 frames of which a clip's own are the first.
    With "clip" the encoder has as many positions as the longest clip needs. transformers' own
    forward pass takes no mask and no other length, so its layers are called here; the frames of
    shorter clips do not attend to what follows them, and no mask is made where lengths are equal.
    """
    counts = -(-lengths // FRAME)
    mels = mel(waveforms, window).to(encoder.conv1.weight.dtype)
    frames = mels.shape[2] // 2
    attend = None
    if window == "clip" and not bool((counts == frames).all()):
        mask = frame_mask(counts, frames)
        attend = mask[:, None, None]
        mels = mels * mask.repeat_interleave(2, 1)[:, None]  # zeros, as at a convolution's edge
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mels)))).mT
    x = x + encoder.embed_positions.weight[:frames]
    x = F.dropout(x, encoder.dropout, encoder.training)
    layers: list[Tensor] = []
    for layer in encoder.layers:
        x = layer(x, attend)
        layers.append(x)
    return (*layers[:-1], encoder.layer_norm(x))
