"""Seamless M4T v2 (arXiv 2312.05187): transcription, and translation into English.

What is to be written is told by its language: the spoken one, or English. The speech encoder is
told nothing. Clips are encoded one by one, as the adapter's convolution would hear the padding of a
batch, and decoded together.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    SeamlessM4Tv2ForSpeechToText,
)
from transformers.modeling_outputs import BaseModelOutput

from cascade.asr.decoding import GENERATING, WINDOW_SECONDS
from cascade.asr.generation import Confidence, scores_of
from cascade.asr.interface import PretrainedRecognizer
from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.hub import from_hub, weights_from_hub
from speechtaxi.languages import UNKNOWN, seamless_code
from speechtaxi.types import Transcript


class Seamless(PretrainedRecognizer):
    """A Seamless M4T v2 of transformers, by folder or hub id."""

    spells: Literal["native"] = "native"
    longest = WINDOW_SECONDS
    takes = GENERATING

    @cached_property
    def _tokenizer(self) -> Any:
        return from_hub(AutoTokenizer, self.name)

    @cached_property
    def _extractor(self) -> Any:
        return from_hub(AutoFeatureExtractor, self.name)

    @cached_property
    def _writes(self) -> dict[str, int]:
        """The languages that it can write."""
        settings = from_hub(GenerationConfig, self.name)
        return getattr(settings, "text_decoder_lang_to_code_id", {})

    @cached_property
    def _model(self) -> Any:
        dtype = getattr(torch, self.dtype)
        model = weights_from_hub(SeamlessM4Tv2ForSpeechToText, self.name, dtype=dtype)
        return model.eval().to(self.device)

    def supports(self, language: str) -> bool:
        code = seamless_code(language)
        if self.decoding.task == "translate":  # it need not be told what it hears
            return language == UNKNOWN or code is not None
        return code in self._writes

    @torch.inference_mode()
    def transcribe(
        self, waveforms: list[np.ndarray], language: str, temperature: float = 0.0
    ) -> list[Transcript]:
        model = self._model
        heard, masks = zip(*map(self._encode, waveforms), strict=True)
        confidence = Confidence(model.config.eos_token_id)
        beams = 1 if temperature else self.decoding.beam_size
        search: dict[str, Any] = {"do_sample": False, "num_beams": beams}
        # The scores of beams come with those of all tokens, which take much memory
        if beams > 1 and self.decoding.logprob_threshold is not None:
            search["output_scores"] = True
        if temperature:
            search = {"do_sample": True, "temperature": temperature, "top_k": 0, "num_beams": 1}
        if self.decoding.max_new_tokens:
            search["max_new_tokens"] = self.decoding.max_new_tokens
        out = model.generate(
            torch.empty(len(heard), 0, device=self.device),  # heard already
            encoder_outputs=BaseModelOutput(pad_sequence(heard, batch_first=True)),
            attention_mask=pad_sequence(masks, batch_first=True),
            tgt_lang="eng" if self.decoding.task == "translate" else seamless_code(language),
            output_logits=temperature > 0,
            return_dict_in_generate=True,
            logits_processor=LogitsProcessorList([confidence]) if beams == 1 else None,
            **search,
        )
        tokens = out.sequences[:, 2:]  # after the start and the language
        if temperature:  # one clip, that a guard has retried
            each = model.compute_transition_scores(tokens, out.logits, normalize_logits=True)
            logprobs = each.mean(1).tolist()
        else:
            logprobs = confidence.averages() if beams == 1 else scores_of(out, len(heard))
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ended = (tokens == model.config.eos_token_id).any(1).tolist()
        return [
            Transcript("", text.strip(), avg_logprob=logprob, flags=() if end else ("truncated",))
            for text, logprob, end in zip(texts, logprobs, ended, strict=True)
        ]

    def _encode(self, wave: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is heard (frames, size), and the mask (features,) that it is counted by."""
        inputs = self._extractor(
            wave, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt"
        ).to(self.device)
        mask = inputs["attention_mask"]
        features = inputs["input_features"].to(self._model.dtype)
        return self._model.speech_encoder(features, attention_mask=mask)[0][0], mask[0]
