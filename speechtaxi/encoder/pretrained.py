"""Pretrained speech encoders of transformers, behind the one encoder interface."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    PreTrainedModel,
    SeamlessM4TFeatureExtractor,
)
from transformers.audio_utils import mel_filter_bank

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.encoder.frames import Frames, SpeechEncoder, frame_mask
from speechtaxi.errors import InputError
from speechtaxi.hub import first_line, from_hub, is_allowed, plain

MEL_FAMILY = ("whisper",)
FBANK_FAMILY = ("wav2vec2-bert",)
WAVE_FAMILY = (
    "data2vec-audio",
    "hubert",
    "sew",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-conformer",
    "wavlm",
)


class PretrainedEncoder(SpeechEncoder):
    """A transformers speech encoder: the wav2vec 2.0 family, w2v-BERT 2.0, Whisper's encoder.

    An encoder whose modelling code comes with its weights is used too, where that is allowed by
    name; it must take waveforms (B, T) and return `last_hidden_state`.

    Padding changes what a group-norm encoder hears even with a mask, and code from elsewhere
    promises nothing; such encoders are given clips of equal length at a time. Whisper's encoder
    takes windows of 30 s, padded with silence, of which only a clip's own frames are kept.
    """

    def __init__(
        self,
        name: str,
        *,
        config: dict[str, Any] | None = None,
        allow_remote_code: tuple[str, ...] | list[str] = (),
    ) -> None:
        super().__init__()
        name = config["name"] if config else name
        remote = is_allowed(name, config and config["model"], allow_remote_code)
        if config is None:
            model = from_hub(AutoModel, name, trust_remote_code=remote, dtype=torch.float32)
            extractor = from_hub(AutoFeatureExtractor, name, trust_remote_code=remote).to_dict()
        else:
            hf_config = (
                from_hub(AutoConfig, name, trust_remote_code=True)
                if remote
                else AutoConfig.for_model(**config["model"])
            )
            model = AutoModel.from_config(hf_config, trust_remote_code=remote)
            extractor = config["features"]
        hf_config = model.config
        self.family: str = hf_config.model_type
        if not remote and self.family not in MEL_FAMILY + FBANK_FAMILY + WAVE_FAMILY:
            raise InputError(
                f"{name} is a {self.family} model, not a speech encoder that is known here: "
                f"{', '.join(sorted(MEL_FAMILY + FBANK_FAMILY + WAVE_FAMILY))}"
            )
        self.config = {"kind": "transformers", "name": name}
        self.config |= {"model": plain(hf_config.to_dict()), "features": plain(extractor)}
        if self.family in MEL_FAMILY:
            model = model.get_encoder()
        if hasattr(hf_config, "layerdrop"):
            hf_config.layerdrop = 0.0  # a skipped layer has no gradient, which DDP refuses
        self.model: PreTrainedModel = model
        self.dim = hf_config.hidden_size
        self.n_layers = getattr(hf_config, "num_hidden_layers", 1)
        self.remote = remote
        self.normalize = bool(extractor.get("do_normalize")) and self.family in WAVE_FAMILY
        self.by_length = remote or getattr(hf_config, "feat_extract_norm", "") == "group"
        if self.family in MEL_FAMILY:
            self.hear = WhisperMel(hf_config.num_mel_bins)
        if self.family in FBANK_FAMILY:
            self.extractor = SeamlessM4TFeatureExtractor.from_dict(extractor)

    def parts(self) -> tuple[nn.Module, list[nn.Module]]:
        if self.remote:
            return nn.ModuleList(), []
        if self.family in MEL_FAMILY:
            return nn.ModuleList([self.model.conv1, self.model.conv2]), list(self.model.layers)
        front = [self.model.feature_projection]
        if self.family in WAVE_FAMILY:
            front.insert(0, self.model.feature_extractor)
        return nn.ModuleList(front), list(self.model.encoder.layers)

    def forward(self, waveforms: Tensor, lengths: Tensor, all_layers: bool = False) -> Frames:
        if self.family in MEL_FAMILY:
            return self._windows(waveforms, lengths, all_layers)
        if not self.by_length or bool((lengths == lengths[0]).all()):
            return self._encode(waveforms[:, : int(lengths.max())], lengths, all_layers)
        rows = {int(n): torch.nonzero(lengths == n).flatten() for n in lengths.unique()}
        parts = {
            n: self._encode(waveforms[own, :n], lengths[own], all_layers) for n, own in rows.items()
        }
        frames = max(part.last.shape[1] for part in parts.values())
        n_layers = len(next(iter(parts.values())).layers)
        layers = [waveforms.new_zeros(len(lengths), frames, self.dim) for _ in range(n_layers)]
        counts = torch.zeros_like(lengths)
        for n, own in rows.items():
            counts[own] = parts[n].lengths
            for layer, part in zip(layers, parts[n].layers, strict=True):
                layer[own, : part.shape[1]] = part.to(layer.dtype)
        return Frames(tuple(layers), counts)

    def _encode(self, waveforms: Tensor, lengths: Tensor, all_layers: bool) -> Frames:
        """Encode clips that may share a batch."""
        options: dict[str, Any] = {"output_hidden_states": all_layers, "return_dict": True}
        if self.family in FBANK_FAMILY:
            clips = [w[:n].cpu().numpy() for w, n in zip(waveforms, lengths, strict=True)]
            features = self.extractor(clips, sampling_rate=SAMPLE_RATE, return_tensors="pt")
            mask = features["attention_mask"].to(waveforms.device)
            out = self.model(
                features["input_features"].to(waveforms.device), attention_mask=mask, **options
            )
            return self._frames(out, mask.sum(1), all_layers)
        mask = frame_mask(lengths, waveforms.shape[1])
        if self.normalize:  # Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm
            n = lengths[:, None]
            mean = waveforms.sum(1, keepdim=True) / n
            variance = ((waveforms - mean).square() * mask).sum(1, keepdim=True) / n
            waveforms = (waveforms - mean) / (variance + 1e-7).sqrt() * mask
        if self.remote:
            try:
                out = self.model(waveforms, **options)
            except RuntimeError as error:
                seconds = waveforms.shape[1] / SAMPLE_RATE
                raise InputError(
                    f"{self.config['name']} fails at {seconds:.3f} s: {first_line(error)}; "
                    "if that is too short for it, pad with --model.min_seconds"
                ) from error
            counts = torch.full_like(lengths, out.last_hidden_state.shape[1])
            return self._frames(out, counts, all_layers)
        if not self.by_length:
            options["attention_mask"] = mask.long()
        counts = self.frame_count(lengths)
        masking = self.model.config.apply_spec_augment
        if int(counts.max()) <= self.model.config.mask_time_length:
            self.model.config.apply_spec_augment = False  # it refuses clips shorter than its mask
        out = self.model(waveforms, **options)
        self.model.config.apply_spec_augment = masking
        return self._frames(out, counts, all_layers)

    def _windows(self, waveforms: Tensor, lengths: Tensor, all_layers: bool) -> Frames:
        """Encode in windows of 30 s, the most that Whisper's positions reach."""
        size = WhisperMel.SECONDS * SAMPLE_RATE
        parts: list[Frames] = []
        for start in range(0, max(int(lengths.max()), 1), size):
            mels = self.hear(waveforms[:, start : start + size])
            out = self.model(mels, output_hidden_states=all_layers, return_dict=True)
            parts.append(self._frames(out, lengths, all_layers))
        counts = self.frame_count(lengths)
        frames = int(counts.max())
        layers = zip(*(part.layers for part in parts), strict=True)
        return Frames(tuple(torch.cat(layer, 1)[:, :frames] for layer in layers), counts)

    def _frames(self, out: Any, counts: Tensor, all_layers: bool) -> Frames:
        last = out.last_hidden_state
        if not all_layers:
            return Frames((last,), counts)
        layers = (*out.hidden_states[1:-1], last)
        if any(layer.shape != last.shape for layer in layers):
            raise InputError(
                f"the layers of {self.config['name']} differ in shape and cannot be mixed; "
                "use --model.layers last"
            )
        return Frames(layers, counts)

    def frame_count(self, lengths: Tensor) -> Tensor:
        if self.family in MEL_FAMILY:
            return -(-lengths // 320)
        if self.family in FBANK_FAMILY:  # 25 ms windows each 10 ms, two by two, the odd one masked
            return (1 + (lengths - 400) // 160) // 2
        if self.remote:
            return lengths.new_tensor([self._remote_count(int(n)) for n in lengths])
        return self.model._get_feat_extract_output_lengths(lengths).to(torch.int64)

    @lru_cache(maxsize=4096)  # noqa: B019 - lives as long as its one encoder
    def _remote_count(self, samples: int) -> int:
        with torch.inference_mode():
            silence = torch.zeros(1, samples, device=self.model.device)
            return self.model(silence).last_hidden_state.shape[1]


class WhisperMel(nn.Module):
    """Whisper's log-mel input, as its feature extractor computes it (arXiv 2212.04356, 2.2).

    Shape: (B, T) with T up to 480,000 -> (B, bands, 3000)
    """

    SECONDS = 30
    FFT, HOP = 400, 160

    def __init__(self, bands: int) -> None:
        super().__init__()
        filters = mel_filter_bank(
            1 + self.FFT // 2, bands, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32), False)
        self.register_buffer("window", torch.hann_window(self.FFT), False)

    def forward(self, waveforms: Tensor) -> Tensor:
        waveforms = F.pad(waveforms.float(), (0, self.SECONDS * SAMPLE_RATE - waveforms.shape[1]))
        spectrum = torch.stft(
            waveforms, self.FFT, self.HOP, window=self.window, return_complex=True
        )
        mels = self.filters.T @ spectrum[..., :-1].abs().square()
        log = mels.clamp_min(1e-10).log10()
        log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0
