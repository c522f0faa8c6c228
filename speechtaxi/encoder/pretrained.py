"""Pretrained speech encoders of transformers, behind the one encoder interface."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    PreTrainedModel,
    SeamlessM4TFeatureExtractor,
    SeamlessM4Tv2Config,
    WhisperConfig,
)

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.encoder.fbank import Fbank
from speechtaxi.encoder.frames import Frames, SpeechEncoder, frame_mask
from speechtaxi.encoder.lora import add_lora, lora, merge_lora
from speechtaxi.encoder.whisper import FRAME, WINDOW, WhisperMel, Window, hear
from speechtaxi.errors import InputError
from speechtaxi.hub import first_line, from_hub, is_allowed, plain, settings_of, weights_from_hub

FBANK_FAMILY = ("seamless_m4t_v2", "wav2vec2-bert")
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
# Encoders that are a part of a larger model: class, configuration, and what its weights are named
PARTS: dict[str, tuple[str, Any, str]] = {
    "seamless_m4t_v2": ("SeamlessM4Tv2SpeechEncoder", SeamlessM4Tv2Config, r"^speech_encoder\."),
    "whisper": ("WhisperEncoder", WhisperConfig, r"^(model\.)?encoder\."),
}
FAMILIES = sorted({*FBANK_FAMILY, *WAVE_FAMILY, *PARTS})
ALIASES = {"seamlessm4t-v2-large-speech_encoder": "seamless_m4t_v2"}
"""Families whose folders name themselves otherwise, and bring code that transformers has too."""


class PretrainedEncoder(SpeechEncoder):
    """A transformers speech encoder: the wav2vec 2.0 family, w2v-BERT 2.0, Seamless', Whisper's.

    An encoder whose modelling code comes with its weights is used too, where that is allowed by
    name; it must take waveforms (B, T) and return `last_hidden_state`.

    Padding changes what a group-norm encoder hears even with a mask, and code from elsewhere
    promises nothing; such encoders are given clips of equal length at a time. Of a whole Seamless
    or Whisper model, only the speech encoder is loaded.

    Whisper's encoder takes windows of 30 s, padded with silence, of which only a clip's own frames
    are kept. With `set_window("clip")` it hears no padding: several times quicker, but its frames
    then attend to no silence, which its weights have always heard. That is right for an encoder
    that is tuned so; frozen weights have not been trained for it.
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
        settings = config["model"] if config else settings_of(name)
        kind = str(settings.get("model_type"))
        family = ALIASES.get(kind, kind)
        remote = family not in PARTS and is_allowed(name, settings, allow_remote_code)
        if not remote and family not in FAMILIES:
            raise InputError(
                f"{name} is a {family} model, not a speech encoder that is known here: "
                f"{', '.join(FAMILIES)}"
            )
        if config is None:
            model, extractor = load(name, family, settings, remote)
        else:
            model, extractor = build(name, family, settings, remote), config["features"]
        self.family, self.remote, self.model = family, remote, model
        hf_config = model.config
        self.config = {"kind": "transformers", "name": name}
        self.config |= {"model": plain(hf_config.to_dict()), "features": plain(extractor)}
        for drop in ("layerdrop", "encoder_layerdrop", "speech_encoder_layerdrop"):
            if hasattr(hf_config, drop):  # a skipped layer has no gradient, which DDP refuses
                setattr(hf_config, drop, 0.0)
        if family == "whisper":
            self.mel, self.window = WhisperMel(hf_config.num_mel_bins), "30s"
            model.layerdrop = 0.0
        if family in FBANK_FAMILY:
            self.fbank = Fbank(extractor["num_mel_bins"], extractor["stride"])
        if family == "seamless_m4t_v2" and model.adapter is not None:
            for norm in ("residual_layer_norm", "self_attn_layer_norm"):
                getattr(model.adapter.layers[0], norm).register_forward_hook(self._hush)
        self.dim = hf_config.hidden_size
        self.n_layers = len(self.parts()[1]) or getattr(hf_config, "num_hidden_layers", 1)
        self.normalize = bool(extractor.get("do_normalize")) and family in WAVE_FAMILY
        self.by_length = remote or getattr(hf_config, "feat_extract_norm", "") == "group"
        self._fix()
        if config and "window" in config:
            self.set_window(config["window"])
        if config and "lora" in config:
            self.add_lora(config["lora"])

    def _fix(self) -> None:
        """Keep what is never trained: what a batch may not need has no gradient (see DDP)."""
        for name, weights in self.model.named_parameters():
            if name.startswith(("masked_spec_embed", "embed_positions")):
                weights.requires_grad_(False)

    def set_window(self, window: Window) -> None:
        if self.family != "whisper":
            return super().set_window(window)
        if window not in ("30s", "clip"):
            raise InputError(f"unknown window '{window}' of Whisper's encoder; use 30s or clip")
        self.window = self.config["window"] = window
        return None

    def add_lora(self, options: dict[str, Any]) -> None:
        settings = lora(options)
        add_lora(self.model, self.parts()[1], self.family, settings)
        self.config["lora"] = asdict(settings)

    def merge_lora(self) -> None:
        if self.config.pop("lora", None):
            merge_lora(self.model)
            self._fix()

    def checkpoint_activations(self) -> None:
        if not self.model.supports_gradient_checkpointing:
            return super().checkpoint_activations()
        # The method's new name, and the one that older releases know
        enable = getattr(self.model, "activation_checkpointing_enable", None)
        (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})
        return None

    def parts(self) -> tuple[nn.Module, list[nn.Module]]:
        if self.remote:
            return nn.ModuleList(), []
        if self.family == "whisper":
            return nn.ModuleList([self.model.conv1, self.model.conv2]), list(self.model.layers)
        front = [self.model.feature_projection]
        if self.family in WAVE_FAMILY:
            front.insert(0, self.model.feature_extractor)
        return nn.ModuleList(front), list(self.model.encoder.layers)

    def forward(self, waveforms: Tensor, lengths: Tensor, all_layers: bool = False) -> Frames:
        if self.family == "whisper":
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
        if self.normalize:
            waveforms = standardized(waveforms, lengths)
        if self.remote:
            return self._remote(waveforms, lengths, options)
        counts = self.frame_count(lengths)
        inputs = waveforms
        if self.family in FBANK_FAMILY:
            inputs, heard = self.fbank(waveforms, lengths)
            self._heard = options["attention_mask"] = frame_mask(heard, inputs.shape[1]).long()
        elif not self.by_length:
            options["attention_mask"] = frame_mask(lengths, waveforms.shape[1]).long()
        settings = self.model.config
        masking = getattr(settings, "apply_spec_augment", False)
        if masking and int(counts.max()) <= settings.mask_time_length:
            settings.apply_spec_augment = False  # it refuses clips shorter than its mask
        out = self.model(inputs, **options)
        settings.apply_spec_augment = masking
        return self._frames(out, counts, all_layers)

    def _hush(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Silence what follows a clip before the strided convolution of Seamless' adapter.

        The convolution takes no mask, so that it would hear there what a clip shares a batch with.
        """
        return output * self._heard[..., None].to(output.dtype)

    def _remote(self, waveforms: Tensor, lengths: Tensor, options: dict[str, Any]) -> Frames:
        """Encode clips of one length by code that came with the weights."""
        try:
            out = self.model(waveforms, **options)
        except RuntimeError as error:
            seconds = waveforms.shape[1] / SAMPLE_RATE
            raise InputError(
                f"{self.config['name']} fails at {seconds:.3f} s: {first_line(error)}; "
                "if that is too short for it, pad with --model.min_seconds"
            ) from error
        counts = torch.full_like(lengths, out.last_hidden_state.shape[1])
        return self._frames(out, counts, options["output_hidden_states"])

    def _windows(self, waveforms: Tensor, lengths: Tensor, all_layers: bool) -> Frames:
        """Encode by Whisper in windows of 30 s, the most that its positions reach."""
        counts = self.frame_count(lengths)
        frames = int(counts.max())
        layers: list[Tensor] = []
        for start in range(0, max(int(lengths.max()), 1), WINDOW):
            rows = torch.nonzero(lengths > start).flatten() if start else slice(None)
            own = (lengths[rows] - start).clamp_max(WINDOW)
            clips = waveforms[rows, start : start + int(own.max())]
            heard = hear(self.model, self.mel, clips, own, self.window)
            heard = heard if all_layers else heard[-1:]
            if frames <= WINDOW // FRAME:
                return Frames(tuple(layer[:, :frames] for layer in heard), counts)
            first = start // FRAME
            layers = layers or [h.new_zeros(len(lengths), frames, self.dim) for h in heard]
            for layer, part in zip(layers, heard, strict=True):
                size = min(part.shape[1], frames - first)
                layer[rows, first : first + size] = part[:, :size]
        return Frames(tuple(layers), counts)

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
        if self.family == "whisper":
            return -(-lengths // FRAME)
        if self.family in FBANK_FAMILY:  # 25 ms windows each 10 ms, two by two, the odd one masked
            counts = (1 + (lengths - 400) // 160) // 2
            if getattr(self.model, "adapter", None) is None:
                return counts
            kernel, stride = self.model.config.adaptor_kernel_size, self.model.config.adaptor_stride
            return (counts + 2 * (stride // 2) - kernel) // stride + 1
        if self.remote:
            return lengths.new_tensor([self._remote_count(int(n)) for n in lengths])
        return self.model._get_feat_extract_output_lengths(lengths).to(torch.int64)

    @lru_cache(maxsize=4096)  # noqa: B019 - lives as long as its one encoder
    def _remote_count(self, samples: int) -> int:
        with torch.inference_mode():
            silence = torch.zeros(1, samples, device=self.model.device)
            return self.model(silence).last_hidden_state.shape[1]


def standardized(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Return zero mean and unit variance a clip, as Wav2Vec2FeatureExtractor; padding stays 0.

    Shape: (B, T), (B,) -> (B, T)
    """
    mask, n = frame_mask(lengths, waveforms.shape[1]), lengths[:, None]
    mean = waveforms.sum(1, keepdim=True) / n
    variance = ((waveforms - mean).square() * mask).sum(1, keepdim=True) / n
    return (waveforms - mean) / (variance + 1e-7).sqrt() * mask


def load(
    name: str, family: str, settings: dict[str, Any], remote: bool
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return an encoder with its weights, and its feature extractor's settings.

    Raises:
        InputError: the folder is incomplete, or the hub cannot be reached or does not know it.
    """
    options: dict[str, Any] = {"dtype": torch.float32}
    if family in PARTS:
        encoder, (_, hf_config, prefix) = part(family), PARTS[family]
        options |= {"config": hf_config.from_dict(own(settings)), "key_mapping": {prefix: ""}}
    else:
        encoder, options["trust_remote_code"] = AutoModel, remote
    spare = ".*" if remote else "masked_spec_embed"
    model = weights_from_hub(encoder, name, spare=spare, **options)
    if family in FBANK_FAMILY:
        extractor = from_hub(SeamlessM4TFeatureExtractor, name)
    else:
        extractor = from_hub(AutoFeatureExtractor, name, trust_remote_code=remote)
    return model, extractor.to_dict()


def build(name: str, family: str, settings: dict[str, Any], remote: bool) -> PreTrainedModel:
    """Return an encoder without weights."""
    if family in PARTS:
        return part(family)(PARTS[family][1].from_dict(own(settings)))
    if remote:
        hf_config = from_hub(AutoConfig, name, trust_remote_code=True)
    else:
        hf_config = AutoConfig.for_model(**settings)
    return AutoModel.from_config(hf_config, trust_remote_code=remote)


def part(family: str) -> type[PreTrainedModel]:
    """Return the class of an encoder that is a part of a larger model; only it is imported."""
    module = import_module(f"transformers.models.{family}.modeling_{family}")
    return getattr(module, PARTS[family][0])


def own(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what names another family and another's code."""
    return {k: v for k, v in settings.items() if k not in ("model_type", "auto_map")}
