"""Whisper by faster-whisper (CTranslate2): windows, search and figures as in `cascade.asr.openai`.

Clips up to 30 s go to CTranslate2 in batches; longer ones window by window, as the package has it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cascade.asr.decoding import WHISPER, WINDOW
from cascade.asr.interface import PretrainedRecognizer
from speechtaxi import reach
from speechtaxi.errors import InputError
from speechtaxi.hub import OFFLINE, first_line
from speechtaxi.languages import UNKNOWN, from_whisper, whisper_code
from speechtaxi.types import Transcript

MOST_TOKENS = 224
"""Of a window: half of what Whisper's decoder has positions for."""

TOGETHER = 4
"""Clips that a CPU decodes at once: of more, CTranslate2's tensors outgrow what malloc keeps."""

ENGLISH_END = 50256
"""The end of text in GPT-2's vocabulary, which Whisper's English-only models have."""


def faster_revision(name: str) -> str | None:
    """Return name and commit of a model on the hub; None for a folder.

    Raises:
        InputError: the package is not installed, the model cannot be reached, or is none.
    """
    package = _package()
    folder = Path(name)
    if folder.is_dir():
        if absent := [f for f in ("model.bin", "tokenizer.json") if not (folder / f).is_file()]:
            raise InputError(
                f"{name} is no model of faster-whisper: it holds no {absent[0]}; convert one with "
                "ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json"
            )
        return None
    repository = package.utils._MODELS.get(name, name)
    if repository.count("/") != 1 or folder.is_absolute() or name.startswith("."):
        raise InputError(
            f"faster-whisper:{name} is neither a folder, a hub id, nor one of "
            f"{', '.join(package.available_models())}"
        )
    from huggingface_hub import hf_hub_download

    reach.hub()
    try:
        config = hf_hub_download(repository, "config.json")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load {repository}: {first_line(error)}; {OFFLINE}") from error
    return f"{repository}@{Path(config).parent.name}"


def _package() -> Any:
    try:
        import faster_whisper
    except ImportError as error:
        raise InputError(
            "faster-whisper is not installed; pip install 'speechtaxi[faster]'"
        ) from error
    return faster_whisper


class FasterWhisper(PretrainedRecognizer):
    """A Whisper that was converted for CTranslate2, by name, hub id or folder."""

    spells: Literal["native"] = "native"
    takes = WHISPER

    @cached_property
    def _model(self) -> Any:
        device = torch.device(self.device)
        try:
            return _package().WhisperModel(
                self.name,
                device=device.type,
                device_index=device.index or 0,
                compute_type=self.dtype,
                cpu_threads=torch.get_num_threads(),
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"cannot load faster-whisper:{self.name}: {first_line(error)}; {OFFLINE}"
            ) from error

    @cached_property
    def _multilingual(self) -> bool:
        return self._model.hf_tokenizer.token_to_id("<|endoftext|>") != ENGLISH_END

    @cached_property
    def _languages(self) -> set[str]:
        from faster_whisper.tokenizer import _LANGUAGE_CODES

        number = self._model.hf_tokenizer.token_to_id
        known = _LANGUAGE_CODES if self._multilingual else ["en"]
        return {code for code in known if number(f"<|{code}|>") is not None}

    @property
    def parameters(self) -> int:
        """Raises InputError: CTranslate2 does not tell the number of its weights."""
        raise InputError(f"faster-whisper:{self.name} does not tell the number of its weights")

    def supports(self, language: str) -> bool:
        return language == UNKNOWN or whisper_code(language) in self._languages

    def transcribe(
        self, waveforms: list[np.ndarray], language: str, temperature: float = 0.0
    ) -> list[Transcript]:
        if max(map(len, waveforms)) > WINDOW:
            return [self._long(wave, language) for wave in waveforms]
        model, count = self._model, len(waveforms)
        if model.model.device == "cpu" and count > TOGETHER:
            parts = (waveforms[n : n + TOGETHER] for n in range(0, count, TOGETHER))
            return [t for part in parts for t in self.transcribe(part, language, temperature)]
        encoded = self._encode(waveforms)
        codes, sure = [whisper_code(language)] * count, [None] * count
        if language == UNKNOWN and self._multilingual:
            best = [chances[0] for chances in model.model.detect_language(encoded)]
            codes, sure = [tag[2:-2] for tag, _ in best], [chance for _, chance in best]
        tokenizers = [self._tokenizer(code) for code in codes]
        prompts = [[*one.sot_sequence, one.no_timestamps] for one in tokenizers]
        limit = self.decoding.max_new_tokens or MOST_TOKENS
        search: dict[str, Any] = {"beam_size": self.decoding.beam_size}
        if temperature:
            import ctranslate2

            ctranslate2.set_random_seed(torch.initial_seed() % 2**32)
            search = {"beam_size": 1, "sampling_topk": 0, "sampling_temperature": temperature}
        found = model.model.generate(
            encoded,
            prompts,
            max_length=2 * limit,  # CTranslate2 generates half of it at most
            return_scores=True,
            return_no_speech_prob=True,
            **search,
        )
        transcripts: list[Transcript] = []
        for tokenizer, code, chance, result in zip(tokenizers, codes, sure, found, strict=True):
            tokens = result.sequences_ids[0]
            cut = len(tokens) >= limit
            transcripts.append(
                Transcript(
                    "",
                    tokenizer.decode(tokens).strip(),
                    heard=None if chance is None else from_whisper(code),
                    heard_probability=chance,
                    avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + (not cut)),
                    no_speech_prob=result.no_speech_prob,
                    flags=("truncated",) if cut else (),
                )
            )
        return transcripts

    def _encode(self, waveforms: list[np.ndarray]) -> Any:
        """Return the encoder's frames (B, 1500, D), as CTranslate2 has them.

        On a CPU clip by clip: a batch does not fit its cache.
        """
        mels = np.stack([self._mel(wave) for wave in waveforms])
        if self._model.model.device != "cpu":
            return self._model.encode(mels)
        from ctranslate2 import StorageView

        parts = [np.asarray(self._model.encode(mel)) for mel in mels]  # not a copy
        return StorageView.from_array(np.concatenate(parts))

    def _mel(self, wave: np.ndarray) -> np.ndarray:
        """Return the log-mel (bands, 3000) of a clip and silence up to 30 s.

        It is the package's of a clip so padded, for less: one frame of silence is as another.
        Of the clip alone the package's would end in zeros, as no other Whisper's does.
        """
        extract = self._model.feature_extractor
        frames = extract.nb_max_frames
        mel = extract(wave, padding=extract.n_fft + extract.hop_length)[:, :frames]
        return np.pad(mel, ((0, 0), (0, frames - mel.shape[1])), mode="edge")

    def _tokenizer(self, code: str | None) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        return Tokenizer(self._model.hf_tokenizer, self._multilingual, self.decoding.task, code)

    def _long(self, wave: np.ndarray, language: str) -> Transcript:
        segments, told = self._model.transcribe(
            wave,
            language=whisper_code(language),
            task=self.decoding.task,
            beam_size=self.decoding.beam_size,
            max_new_tokens=self.decoding.max_new_tokens,
            temperature=0.0,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
            condition_on_previous_text=False,
        )
        parts = list(segments)
        asked = language == UNKNOWN and self._multilingual
        return Transcript(
            "",
            " ".join(part.text.strip() for part in parts),
            heard=from_whisper(told.language) if asked else None,
            heard_probability=told.language_probability if asked else None,
            avg_logprob=float(np.mean([p.avg_logprob for p in parts])) if parts else None,
            no_speech_prob=float(np.mean([p.no_speech_prob for p in parts])) if parts else None,
        )
