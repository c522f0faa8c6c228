"""Whisper (Radford et al. 2022, arXiv 2212.04356) by openai's package.

Greedy decoding of windows of 30 s, the length that Whisper was trained on, in a forced language;
"und" lets Whisper tell the language, and how probable it is among all that it knows, by the first
window. Longer clips go window by window.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cascade.asr.decoding import WHISPER, WINDOW, Decoding
from cascade.asr.interface import PretrainedRecognizer
from speechtaxi.errors import InputError
from speechtaxi.hub import OFFLINE, first_line
from speechtaxi.languages import UNKNOWN, from_whisper, whisper_code
from speechtaxi.types import Transcript


def openai_revision(name: str) -> str | None:
    """Return name and hash of an official model; None for a file.

    Raises:
        InputError: neither an official name nor a file.
    """
    import whisper

    if name in whisper._MODELS:  # the addresses hold the hash of the weights
        return f"{name}@{whisper._MODELS[name].split('/')[-2][:16]}"
    if Path(name).is_file():
        return None
    raise InputError(
        f"whisper:{name} is neither a file nor one of {', '.join(whisper.available_models())}"
    )


class OpenAIWhisper(PretrainedRecognizer):
    """The package openai-whisper, by model name or .pt file."""

    spells: Literal["native"] = "native"
    takes = WHISPER

    def __init__(
        self, name: str, device: str, dtype: str, fingerprint: str, decoding: Decoding
    ) -> None:
        if dtype == "bfloat16":
            raise InputError("openai-whisper computes in float32 or float16, not in bfloat16")
        super().__init__(name, device, dtype, fingerprint, decoding)

    @cached_property
    def _model(self):
        import whisper

        try:
            return whisper.load_model(self.name, device=self.device).eval()
        except (OSError, RuntimeError, KeyError, EOFError, UnpicklingError) as error:
            raise InputError(
                f"cannot load whisper:{self.name}: {first_line(error)}; {OFFLINE}"
            ) from error

    @cached_property
    def _languages(self) -> set[str]:
        from whisper.tokenizer import LANGUAGES

        model = self._model
        return set(list(LANGUAGES)[: model.num_languages]) if model.is_multilingual else {"en"}

    def supports(self, language: str) -> bool:
        return language == UNKNOWN or whisper_code(language) in self._languages

    def transcribe(
        self, waveforms: list[np.ndarray], language: str, temperature: float = 0.0
    ) -> list[Transcript]:
        import whisper

        model, code = self._model, whisper_code(language)
        if not model.is_multilingual:
            code = "en"
        options = {"language": code, "temperature": temperature, "fp16": self.dtype == "float16"}
        options |= {"task": self.decoding.task, "sample_len": self.decoding.max_new_tokens}
        if self.decoding.beam_size > 1 and not temperature:
            options["beam_size"] = self.decoding.beam_size
        if max(map(len, waveforms)) > WINDOW:
            return [self._long(wave, options) for wave in waveforms]
        # One by one: the loudness that clips a spectrogram is that of the whole array.
        mels = torch.stack(
            [
                whisper.log_mel_spectrogram(whisper.pad_or_trim(wave), model.dims.n_mels)
                for wave in waveforms
            ]
        ).to(self.device)
        heard: list[tuple[str | None, float | None]] = [(None, None)] * len(waveforms)
        mels = mels.half() if options["fp16"] else mels
        parts = mels.split(1 if mels.device.type == "cpu" else len(mels))
        with torch.no_grad():  # once, for the language and for the text
            encoded = torch.cat([model.encoder(part) for part in parts])
        if code is None:
            heard = [likeliest(chances) for chances in whisper.detect_language(model, encoded)[1]]
        settings = whisper.DecodingOptions(**options, without_timestamps=True)
        longest = self.decoding.max_new_tokens or model.dims.n_text_ctx // 2
        return [
            Transcript(
                "",
                result.text,
                heard=language,
                heard_probability=probability,
                avg_logprob=float(result.avg_logprob),
                no_speech_prob=float(result.no_speech_prob),
                flags=("truncated",) if len(result.tokens) >= longest else (),
            )
            for result, (language, probability) in zip(
                self._decode(encoded, settings), heard, strict=True
            )
        ]

    def _decode(self, encoded: Tensor, settings: Any) -> list[Any]:
        import whisper

        if not settings.beam_size:
            return whisper.decode(self._model, encoded, settings)
        # Of a batch, the package repeats the texts for each beam, and not what was heard
        return [whisper.decode(self._model, one, settings) for one in encoded]

    def _long(self, wave: np.ndarray, options: dict) -> Transcript:
        import whisper

        model, language, probability = self._model, None, None
        if options["language"] is None:  # as `transcribe` itself would tell it
            mel = whisper.log_mel_spectrogram(wave, model.dims.n_mels, padding=WINDOW)
            mel = whisper.pad_or_trim(mel, whisper.audio.N_FRAMES).to(self.device)
            language, probability = likeliest(model.detect_language(mel)[1])
            options = options | {"language": whisper_code(language)}
        options |= {"compression_ratio_threshold": None, "logprob_threshold": None}
        options |= {"no_speech_threshold": None, "condition_on_previous_text": False}
        result = model.transcribe(wave, verbose=None, **options)
        parts = result["segments"]
        return Transcript(
            "",
            result["text"].strip(),
            heard=language,
            heard_probability=probability,
            avg_logprob=float(np.mean([p["avg_logprob"] for p in parts])) if parts else None,
            no_speech_prob=float(np.mean([p["no_speech_prob"] for p in parts])) if parts else None,
        )


def likeliest(chances: dict[str, float]) -> tuple[str, float]:
    """Return the language (ISO 639-3) of the most probable tag, and its probability."""
    tag = max(chances, key=chances.__getitem__)
    return from_whisper(tag), chances[tag]
