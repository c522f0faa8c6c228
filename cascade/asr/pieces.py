"""Long clips for recognisers that hear little at once: cut where it is quiet, and joined again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from speechtaxi import audio
from speechtaxi.types import Transcript


def pieces(wave: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """Cut a waveform (samples,) into pieces of at most `longest` samples, where it is quiet.

    A cut is made before the quietest tenth of a second in the last quarter of what could be taken.
    """
    frame = audio.SAMPLE_RATE // 10
    while len(wave) > longest:
        first = longest * 3 // 4
        count = (longest - first) // frame
        frames = wave[first : first + count * frame].reshape(count, frame)
        cut = first + int(np.square(frames).sum(1).argmin()) * frame
        yield wave[:cut]
        wave = wave[cut:]
    yield wave


def joined(parts: list[Transcript]) -> Transcript:
    """Return one transcript of the pieces of a clip: all flags, mean figures, first language."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return replace(
        parts[0],
        text=" ".join(part.text for part in parts if part.text),
        avg_logprob=mean(part.avg_logprob for part in parts),
        no_speech_prob=mean(part.no_speech_prob for part in parts),
        flags=tuple(dict.fromkeys(flag for part in parts for flag in part.flags)),
    )
