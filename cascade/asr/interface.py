"""What every recogniser can do, and what those with published weights have in common."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, Protocol

import numpy as np

from cascade.asr.decoding import Decoding
from speechtaxi.types import Transcript


class SpeechRecognizer(Protocol):
    """What every recogniser can do; it loads its weights when they are first needed."""

    fingerprint: str
    """Model, weights, task and decoding options: two that are equal write the same."""

    longest: float | None
    """Seconds that it hears at once: longer clips are cut for it; None where it does so itself."""

    @property
    def spells(self) -> Literal["native", "uroman"]:
        """Whether it writes native script, or the Latin letters of uroman for every language."""
        ...

    @property
    def parameters(self) -> int:
        """The number of its weights."""
        ...

    takes: Collection[str]
    """The options of `Decoding` that it follows."""

    def supports(self, language: str) -> bool:
        """Tell whether it can be asked for a language (ISO 639-3 or "und")."""
        ...

    def transcribe(self, waveforms: list[np.ndarray], language: str) -> list[Transcript]:
        """Write what is said in float32 waveforms (samples,) at 16 kHz, all in one language.

        Key, language, compression ratio, seconds and all flags but "truncated" and those of guards
        are left out. The language heard, and its probability, are told of "und" alone, by those
        that can tell. Who takes temperatures has one more argument, `temperature`, to sample at.
        """
        ...


class PretrainedRecognizer:
    """A recogniser by the name of its weights, told once how to decode.

    Args:
        name: of a model, a file of one, a folder or a hub id.
        device, dtype: as torch names them; where and in what it computes.
        fingerprint, decoding: see `SpeechRecognizer` and `Decoding`.
    """

    longest: float | None = None

    _model: Any

    def __init__(
        self, name: str, device: str, dtype: str, fingerprint: str, decoding: Decoding
    ) -> None:
        self.name, self.device, self.dtype, self.fingerprint = name, device, dtype, fingerprint
        self.decoding = decoding

    @property
    def parameters(self) -> int:
        return sum(weights.numel() for weights in self._model.parameters())
