"""Kaldi's filter banks, as w2v-BERT 2.0 and Seamless M4T hear them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank, window_function

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.encoder.frames import frame_mask

FRAME, HOP, FFT = 400, 160, 512
"""Samples of a frame, between frames, and of a spectrum."""
PREEMPHASIS = 0.97
FLOOR = 1.1920928955078125e-07
"""Of a band's energy: the float32 epsilon, as in Kaldi."""


class Fbank(nn.Module):
    """Log-mel bands, standardised a clip and band, frames stacked in pairs: 20 ms each.

    As `SeamlessM4TFeatureExtractor` computes them in NumPy, for a batch and on its device. An odd
    last frame is left out, which the extractor's mask hides.

    Shape: (B, T), (B,) -> (B, F, stride * bands), frames (B,)
    """

    def __init__(self, bands: int = 80, stride: int = 2) -> None:
        super().__init__()
        # No buffers: a model in bf16 would blur them
        self.filters = mel_filter_bank(
            1 + FFT // 2, bands, 20.0, SAMPLE_RATE / 2, SAMPLE_RATE,
            mel_scale="kaldi", triangularize_in_mel_space=True,
        )  # fmt: skip
        self.window = window_function(FRAME, "povey", periodic=False)
        self.stride = stride

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        kind = waveforms.device.type
        precise = torch.float32 if kind == "mps" else torch.float64  # quiet bands beside loud ones
        with torch.autocast(kind, enabled=False):
            frames = (waveforms.to(precise) * 2**15).unfold(1, FRAME, HOP)  # of 16 bits, as Kaldi
            frames = frames - frames.mean(-1, keepdim=True)
            before = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
            window, filters = (
                torch.as_tensor(table, dtype=precise, device=waveforms.device)
                for table in (self.window, self.filters)
            )
            spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * window, FFT)
            energies = spectrum.abs().square() @ filters
            bands = energies.clamp_min(FLOOR).log().float()
        counts = 1 + (lengths - FRAME) // HOP
        mask = frame_mask(counts, bands.shape[1])[..., None]
        total = counts[:, None, None]
        mean = (bands * mask).sum(1, keepdim=True) / total
        centred = (bands - mean) * mask
        variance = centred.square().sum(1, keepdim=True) / (total - 1).clamp_min(1)
        pairs = counts // self.stride
        longest = int(pairs.max())
        bands = (centred / (variance + 1e-7).sqrt())[:, : longest * self.stride]
        bands = bands.unflatten(1, (longest, self.stride)).flatten(2)
        return bands * frame_mask(pairs, longest)[..., None], pairs
