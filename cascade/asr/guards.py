"""Guards against what recognisers make up: loops, unlikely texts, speech in silence."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from cascade.asr.decoding import WINDOW_SECONDS, Decoding
from cascade.asr.interface import SpeechRecognizer
from speechtaxi.types import Transcript


class Guarded:
    """A recogniser under guards: what does not pass is decoded again, or emptied, and flagged.

    Whatever the recogniser, clips above 30 s are cut where it is quiet, and each piece is guarded
    by itself. A retry is seeded by what was said: it does not depend on the batch.
    """

    def __init__(self, recognizer: SpeechRecognizer, decoding: Decoding) -> None:
        self.recognizer, self.decoding = recognizer, decoding
        self.fingerprint, self.takes = recognizer.fingerprint, recognizer.takes
        self.longest = min(recognizer.longest or WINDOW_SECONDS, WINDOW_SECONDS)

    @property
    def spells(self) -> Literal["native", "uroman"]:
        return self.recognizer.spells

    @property
    def parameters(self) -> int:
        return self.recognizer.parameters

    def supports(self, language: str) -> bool:
        return self.recognizer.supports(language)

    def transcribe(self, waveforms: list[np.ndarray], language: str) -> list[Transcript]:
        results = self.recognizer.transcribe(waveforms, language)
        return [
            self._guard(wave, language, result)
            for wave, result in zip(waveforms, results, strict=True)
        ]

    def _guard(self, wave: np.ndarray, language: str, first: Transcript) -> Transcript:
        fired = self.decoding.fired(first)
        if not fired:
            return first
        for temperature in self.decoding.temperatures if fired != ("no_speech",) else ():
            with _seeded(zlib.crc32(wave.tobytes())):
                (again,) = self.recognizer.transcribe([wave], language, temperature=temperature)
            if not self.decoding.fired(again):
                return replace(again, flags=(*again.flags, "retried"))
        return replace(first, text="", flags=(*first.flags, *fired))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
