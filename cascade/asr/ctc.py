"""Connectionist Temporal Classification (Graves et al. 2006) with models of transformers.

MMS-1b-all (arXiv 2305.13516) has an adapter and a vocabulary for each language; MMS-ZeroShot
(arXiv 2407.17852) spells every language in the letters of uroman.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

from cascade.asr.decoding import ANY
from cascade.asr.interface import PretrainedRecognizer
from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.batch import LONGEST
from speechtaxi.encoder.fbank import FRAME, HOP, Fbank
from speechtaxi.encoder.frames import frame_mask
from speechtaxi.encoder.pretrained import FBANK_FAMILY, WAVE_FAMILY
from speechtaxi.errors import InputError
from speechtaxi.hub import OFFLINE, first_line, from_hub, weights_from_hub
from speechtaxi.languages import mms_code
from speechtaxi.types import Transcript

FAMILIES = WAVE_FAMILY + FBANK_FAMILY

UROMAN = frozenset("abcdefghijklmnopqrstuvwxyz'| ")


class CTCRecognizer(PretrainedRecognizer):
    """A CTC model by folder or hub id, decoded greedily; its blank is the tokenizer's padding."""

    longest, takes = LONGEST, ANY

    @cached_property
    def _config(self) -> Any:
        return from_hub(AutoConfig, self.name)

    @cached_property
    def _tokenizer(self) -> Any:
        return from_hub(AutoTokenizer, self.name)

    @cached_property
    def _extractor(self) -> Any:
        return from_hub(AutoFeatureExtractor, self.name)

    @cached_property
    def _fbank(self) -> Fbank:
        return Fbank(self._extractor.num_mel_bins, self._extractor.stride)

    @cached_property
    def _model(self) -> Any:
        spare = "masked_spec_embed" + "|adapter_layer|lm_head" * self._adapts  # of no language yet
        dtype = getattr(torch, self.dtype)
        model = weights_from_hub(AutoModelForCTC, self.name, spare=spare, dtype=dtype)
        return model.eval().to(self.device)

    @property
    def _adapts(self) -> bool:
        """Whether a language is an adapter."""
        return getattr(self._config, "adapter_attn_dim", None) is not None

    @property
    def spells(self) -> Literal["native", "uroman"]:
        if self._adapts:
            return "native"
        letters = {token for token in self._tokenizer.get_vocab() if len(token) == 1}
        return "uroman" if letters <= UROMAN else "native"

    def supports(self, language: str) -> bool:
        if not self._adapts:
            return True  # it knows what it was trained on, and does not tell
        code = mms_code(language)
        folder = Path(self.name)
        return code in self._tokenizer.vocab and (
            not folder.is_dir() or any(folder.glob(f"adapter.{code}.*"))
        )

    def transcribe(self, waveforms: list[np.ndarray], language: str) -> list[Transcript]:
        if self._adapts:
            self._adapt(mms_code(language))
        # Padding changes what a group-norm encoder hears, and a mask does not undo it.
        alone = getattr(self._config, "feat_extract_norm", "") == "group"
        groups = [[wave] for wave in waveforms] if alone else [waveforms]
        return [Transcript("", text) for group in groups for text in self._read(group)]

    def _adapt(self, code: str | None) -> None:
        if code == self._model.target_lang:
            return
        self._tokenizer.set_target_lang(code)
        try:
            self._model.load_adapter(code)
        except OSError as error:
            raise InputError(
                f"{self.name} has no adapter for {code}: {first_line(error)}; {OFFLINE}"
            ) from error
        self._model.to(self.device)  # the new output layer comes from the CPU

    @torch.inference_mode()
    def _read(self, waves: list[np.ndarray]) -> list[str]:
        model, inputs = self._model, self._inputs(waves)
        best = model(**inputs).logits.argmax(-1).tolist()
        counts = model._get_feat_extract_output_lengths(inputs["attention_mask"].sum(1)).tolist()
        texts = (self._tokenizer.decode(row[: int(n)]) for row, n in zip(best, counts, strict=True))
        return [" ".join(text.replace("|", " ").split()) for text in texts]

    def _inputs(self, waves: list[np.ndarray]) -> dict[str, Tensor]:
        """Return what the model hears, and its mask, as the extractor has them."""
        if self._config.model_type not in FBANK_FAMILY:
            return self._extractor(
                waves,
                sampling_rate=SAMPLE_RATE,
                padding=True,
                return_attention_mask=True,
                return_tensors="pt",
            ).to(self.device, self._model.dtype)
        shortest = torch.zeros(HOP + FRAME)  # a pair of frames
        clips = pad_sequence([shortest, *map(torch.from_numpy, waves)], batch_first=True)[1:]
        lengths = torch.tensor([max(len(wave), len(shortest)) for wave in waves])
        bands, counts = self._fbank(clips.to(self.device), lengths.to(self.device))
        mask = frame_mask(counts, bands.shape[1]).long()
        return {"input_features": bands.to(self._model.dtype), "attention_mask": mask}
