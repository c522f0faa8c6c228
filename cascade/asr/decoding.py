"""How recognisers decode: the same options for all."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.errors import InputError
from speechtaxi.types import Flag, Transcript

Task = Literal["transcribe", "translate"]

VERSION = "greedy-2"
"""Part of every fingerprint; to be raised when a change here changes what is written."""

LOOPING = 2.4
"""Texts that compress better repeat themselves (Whisper's threshold, arXiv 2212.04356, 4.5)."""

WINDOW_SECONDS = 30.0
"""What Whisper hears at once, and the longest piece that is guarded by itself."""

WINDOW = round(WINDOW_SECONDS * SAMPLE_RATE)
"""The same in samples."""

ANY = frozenset({"compression_ratio_threshold"})
"""Options that every recogniser takes: those that look at nothing but the text."""

GENERATING = ANY | {"task", "beam_size", "max_new_tokens", "logprob_threshold", "temperatures"}
"""Options of models that write token by token."""

WHISPER = GENERATING | {"no_speech_threshold"}


def compression_ratio(text: str) -> float:
    """Return how well a text compresses: letters / compressed size.

    Whisper divides UTF-8 bytes, which calls a third of ordinary Tamil verses loops, since letters
    beyond Latin take two or three similar bytes each; here every letter takes one, in any script.

    >>> compression_ratio("और फिर " * 30) > LOOPING > compression_ratio("और फिर वह चला गया")
    True
    """
    numbers = {letter: number % 256 for number, letter in enumerate(dict.fromkeys(text))}
    return len(text) / len(zlib.compress(bytes(numbers[letter] for letter in text)))


@dataclass(frozen=True)
class Decoding:
    """What is asked of a recogniser: greedy transcription without guards, unless told otherwise.

    A threshold is a guard (arXiv 2212.04356, 4.5): where it is crossed, the clip is decoded again
    at each temperature in turn until none is; where none helps, its text is emptied.
    """

    task: Task = "transcribe"
    """Or "translate", into English."""
    beam_size: int = 1
    max_new_tokens: int | None = None
    """Most tokens of a clip, or of a window of one; None is the model's own limit."""
    compression_ratio_threshold: float | None = None
    """Texts that compress better loop; Whisper's own is 2.4."""
    logprob_threshold: float | None = None
    """Texts of a lower mean log-probability per token are unlikely; Whisper's own is -1."""
    no_speech_threshold: float | None = None
    """Where Whisper calls silence more probable (its own: 0.6), and the text is unlikely by
    `logprob_threshold`, if there is one, nothing was said."""
    temperatures: tuple[float, ...] = ()
    """To sample at where the text loops or is unlikely, such as 0.2, 0.4, 0.6, 0.8, 1."""

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, task: Task = "transcribe") -> Decoding:
        """Read options as configs and command lines give them; None is no option.

        Raises:
            InputError: there is no such option, or not such a value of it.
        """
        given = {name: value for name, value in (options or {}).items() if value is not None}
        known = [field.name for field in fields(cls) if field.name != "task"]
        if unknown := sorted(given.keys() - set(known)):
            raise InputError(f"decoding: no option {unknown[0]}; there are {', '.join(known)}")
        for name in ("beam_size", "max_new_tokens"):
            if type(given.get(name, 1)) is not int or given.get(name, 1) < 1:
                raise InputError(f"decoding: {name} {given[name]} is not a whole number from 1 on")
        try:
            for name in known[2:5]:
                given |= {name: float(given[name])} if name in given else {}
            given["temperatures"] = tuple(map(float, given.get("temperatures", ())))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"decoding: thresholds and temperatures are numbers: {error}"
            ) from None
        decoding = cls(task, **given)
        if any(temperature <= 0 for temperature in decoding.temperatures):
            raise InputError("decoding: the first try is at temperature 0; give those above 0")
        if decoding.temperatures and not decoding.guards & {"looping", "unlikely"}:
            raise InputError(
                "decoding: temperatures are for texts that loop or are unlikely; give "
                "compression_ratio_threshold or logprob_threshold too"
            )
        return decoding

    @property
    def guards(self) -> set[Flag]:
        """The flags that may be raised."""
        found: dict[Flag, float | None] = {
            "looping": self.compression_ratio_threshold,
            "unlikely": self.logprob_threshold,
            "no_speech": self.no_speech_threshold,
        }
        return {flag for flag, threshold in found.items() if threshold is not None}

    @property
    def fingerprint(self) -> str:
        """Task and options: two that are equal write the same."""
        default = asdict(Decoding())
        told = {k: v for k, v in asdict(self).items() if k != "task" and v != default[k]}
        options = f" {json.dumps(told)}" if told else ""
        return f"{self.task} {VERSION}{options}"

    def refuse(self, name: str, takes: Collection[str]) -> None:
        """Tell what a recogniser is asked for and cannot do.

        Raises:
            InputError: there is such an option.
        """
        default = Decoding()
        for field in fields(self):
            if getattr(self, field.name) == getattr(default, field.name) or field.name in takes:
                continue
            if field.name == "task":
                raise InputError(
                    f"{name} cannot translate into English; Whisper and Seamless M4T can"
                )
            able = ", ".join(option for option in sorted(takes) if option != "task")
            raise InputError(f"{name} does not take {field.name}: of decoding it takes {able}")

    def fired(self, transcript: Transcript) -> tuple[Flag, ...]:
        """Return the guards that a transcript does not pass."""
        logprob, silence = transcript.avg_logprob, transcript.no_speech_prob
        unlikely = (
            None not in (self.logprob_threshold, logprob) and logprob < self.logprob_threshold
        )
        quiet = (
            None not in (self.no_speech_threshold, silence) and silence > self.no_speech_threshold
        )
        if quiet and (unlikely or self.logprob_threshold is None):
            return ("no_speech",)
        found: dict[Flag, bool] = {
            "looping": self.compression_ratio_threshold is not None
            and compression_ratio(transcript.text) > self.compression_ratio_threshold,
            "unlikely": unlikely,
        }
        return tuple(flag for flag, raised in found.items() if raised)
