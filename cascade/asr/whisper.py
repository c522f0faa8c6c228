"""Whisper by transformers: the same windows, search and figures as `cascade.asr.openai`."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TASK_IDS

from cascade.asr.decoding import WHISPER, WINDOW
from cascade.asr.generation import greedy, is_plain, search
from cascade.asr.interface import PretrainedRecognizer
from cascade.asr.openai import likeliest
from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.encoder.whisper import WhisperMel
from speechtaxi.errors import InputError
from speechtaxi.hub import from_hub, weights_from_hub
from speechtaxi.languages import UNKNOWN, whisper_code
from speechtaxi.types import Transcript


class TransformersWhisper(PretrainedRecognizer):
    """A Whisper of transformers, official or fine-tuned, by folder or hub id."""

    spells: Literal["native"] = "native"
    takes = WHISPER

    @cached_property
    def _tokenizer(self):
        return from_hub(AutoTokenizer, self.name)

    @cached_property
    def _languages(self) -> dict[str, int]:
        """The languages that the vocabulary has a token for; none in an English-only model."""
        vocabulary = self._tokenizer.get_vocab()
        known = {code: vocabulary.get(f"<|{code}|>") for code in LANGUAGES}
        return {code: number for code, number in known.items() if number is not None}

    @cached_property
    def _multilingual(self) -> bool:
        try:
            settings = GenerationConfig.from_pretrained(self.name)
        except OSError:  # older fine-tuned models have none
            return bool(self._languages)
        return getattr(settings, "is_multilingual", bool(self._languages))

    @cached_property
    def _extractor(self) -> WhisperFeatureExtractor:
        return from_hub(WhisperFeatureExtractor, self.name)

    @cached_property
    def _mel(self) -> WhisperMel:
        return WhisperMel(self._model.config.num_mel_bins).to(self.device)

    @cached_property
    def _model(self) -> WhisperForConditionalGeneration:
        model = weights_from_hub(
            WhisperForConditionalGeneration, self.name, dtype=getattr(torch, self.dtype)
        )
        settings = model.generation_config
        settings.forced_decoder_ids = None  # what older models force instead of a language
        settings.max_length = model.config.max_target_positions // 2  # as in openai's package
        if self.decoding.max_new_tokens:
            settings.max_length = self.decoding.max_new_tokens  # the prompt is not counted
        if self._multilingual:
            token = self._tokenizer.convert_tokens_to_ids
            settings.is_multilingual = True
            settings.lang_to_id = {f"<|{code}|>": n for code, n in self._languages.items()}
            settings.task_to_id = {task: token(f"<|{task}|>") for task in TASK_IDS}
            settings.no_timestamps_token_id = token("<|notimestamps|>")
        return model.eval().to(self.device)

    def supports(self, language: str) -> bool:
        known = self._languages if self._multilingual else {"en"}
        return language == UNKNOWN or whisper_code(language) in known

    def transcribe(
        self, waveforms: list[np.ndarray], language: str, temperature: float = 0.0
    ) -> list[Transcript]:
        if max(map(len, waveforms)) > WINDOW:
            return [self._generate([w], language, temperature, long=True)[0] for w in waveforms]
        return self._generate(waveforms, language, temperature, long=False)

    @torch.inference_mode()
    def _generate(
        self, waves: list[np.ndarray], language: str, temperature: float, long: bool
    ) -> list[Transcript]:
        features, mask = self._long_features(waves) if long else (self._features(waves), None)
        codes = [whisper_code(language)] * len(waves)
        heard: list[tuple[str | None, float | None]] = [(None, None)] * len(waves)
        silence: list[float | None] = [None] * len(waves)
        identified = self._multilingual and language == UNKNOWN
        guarded = self.decoding.no_speech_threshold is not None
        fast = self._fast and not temperature and not long
        encoded = self._encode(features) if fast or identified or guarded else None  # just once
        if identified:
            heard = [likeliest(chances) for chances in self._identify(encoded)]
            codes = [whisper_code(code) for code, _ in heard]
        if guarded:
            silence = self._silence(encoded)
        if fast:
            tokens, logprobs = greedy(self._model, encoded, self._prompts(codes))
        else:
            forced = {"language": codes, "task": self.decoding.task} if self._multilingual else {}
            tokens, logprobs = search(
                self._model, features, mask, self.decoding, temperature, long, forced
            )
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ended = (tokens == self._tokenizer.eos_token_id).any(1).tolist()
        return [
            Transcript(
                "",
                text.strip(),
                heard=code,
                heard_probability=probability,
                avg_logprob=logprob,
                no_speech_prob=no_speech,
                flags=() if long or end else ("truncated",),
            )
            for text, (code, probability), logprob, no_speech, end in zip(
                texts, heard, logprobs, silence, ended, strict=True
            )
        ]

    def _features(self, waves: list[np.ndarray]) -> Tensor:
        """Return log-mels (B, bands, 3000) of clips up to 30 s: the extractor's, for less."""
        padded = pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
        return self._mel(padded.to(self.device)).to(self._model.dtype)

    def _long_features(self, waves: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        inputs = self._extractor(
            waves,
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            truncation=False,
            padding="longest",
        ).to(self.device)
        return inputs["input_features"].to(self._model.dtype), inputs["attention_mask"]

    def _encode(self, features: Tensor) -> Tensor:
        """Return the encoder's frames (B, 1500, D) of the first window.

        On a CPU clip by clip: a batch does not fit its cache.
        """
        first = features[..., : 2 * self._model.config.max_source_positions]
        parts = first.split(1 if first.device.type == "cpu" else len(first))
        encoder = self._model.get_encoder()
        return torch.cat([encoder(part).last_hidden_state for part in parts])

    @cached_property
    def _fast(self) -> bool:
        """Whether `greedy` writes what `generate` would."""
        plain = is_plain(self._model.generation_config)
        return plain and self._multilingual and self.decoding.beam_size == 1

    def _prompts(self, codes: list[str | None]) -> Tensor:
        """Return what each clip's text begins with (B, 4): language, task, no time stamps."""
        settings = self._model.generation_config
        start, end = settings.decoder_start_token_id, settings.no_timestamps_token_id
        task = settings.task_to_id[self.decoding.task]
        rows = [[start, settings.lang_to_id[f"<|{code}|>"], task, end] for code in codes]
        return torch.tensor(rows, device=self.device)

    def _identify(self, encoded: Tensor) -> list[dict[str, float]]:
        """Return each clip's probabilities of all languages, from frames (B, F, D).

        The decoder's first step, over the languages' tokens: as openai's `detect_language` has it,
        and with the winners of transformers', which tells no probabilities.
        """
        tags = list(self._languages)
        logits = self._first_step(encoded)[:, [self._languages[tag] for tag in tags]]
        return [dict(zip(tags, row, strict=True)) for row in logits.softmax(-1).tolist()]

    def _silence(self, encoded: Tensor) -> list[float | None]:
        """Return how probable it is that nothing is said, as openai's package has it."""
        vocabulary = self._tokenizer.get_vocab()
        names = [name for name in ("<|nospeech|>", "<|nocaptions|>") if name in vocabulary]
        if not names:
            raise InputError(f"{self.name} has no token for silence; leave no_speech_threshold out")
        return self._first_step(encoded).softmax(-1)[:, vocabulary[names[0]]].tolist()

    def _first_step(self, encoded: Tensor) -> Tensor:
        """Return the decoder's first logits (B, vocabulary)."""
        model = self._model
        start = model.generation_config.decoder_start_token_id
        first = torch.full((len(encoded), 1), start, device=encoded.device)
        states = model.model.decoder(input_ids=first, encoder_hidden_states=encoded)
        return model.proj_out(states.last_hidden_state[:, -1]).float()
