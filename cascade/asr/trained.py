"""Recognisers that were fitted here."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from cascade.asr.decoding import ANY
from speechtaxi import checkpoint
from speechtaxi.batch import LONGEST
from speechtaxi.errors import InputError
from speechtaxi.types import Transcript


class TrainedRecognizer:
    """A `cascade.Recognizer` that was fitted here: it needs no language, and tries any."""

    longest, takes = LONGEST, ANY

    def __init__(
        self, folder: str, device: str, fingerprint: str, allow_remote_code: tuple[str, ...]
    ) -> None:
        self.folder, self.device, self.fingerprint = folder, device, fingerprint
        self.allow_remote_code = allow_remote_code

    @cached_property
    def _model(self):
        model = checkpoint.load(self.folder, allow_remote_code=self.allow_remote_code)
        if not hasattr(model, "recognize"):
            raise InputError(f"{self.folder} is a {type(model).__name__}, not a recogniser")
        return model.to(self.device)

    @property
    def spells(self) -> Literal["native", "uroman"]:
        return self._model.spells

    @property
    def parameters(self) -> int:
        return sum(weights.numel() for weights in self._model.parameters())

    def supports(self, language: str) -> bool:
        return True

    def transcribe(self, waveforms: list[np.ndarray], language: str) -> list[Transcript]:
        padded = pad_sequence([torch.from_numpy(wave) for wave in waveforms], batch_first=True)
        lengths = torch.tensor([len(wave) for wave in waveforms])
        texts = self._model.recognize(padded.to(self.device), lengths.to(self.device))
        return [Transcript("", text) for text in texts]
