"""From frames that are speech or not to spans: what every segmenter by activity shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.errors import InputError
from speechtaxi.types import Span

PAD = SAMPLE_RATE // 10
"""Samples of context before and after a stretch of speech, where there is room."""

QUIET = SAMPLE_RATE // 10
"""Samples of the quiet that a long stretch is cut in."""


class Heard(NamedTuple):
    """Some frames of a recording, in order."""

    speech: np.ndarray
    """(frames,) bool."""
    power: np.ndarray
    """(frames,) mean square: where to cut what is too long."""
    samples: int
    """How much of the recording they are; the last frame may be only partly there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a span may be, in samples."""

    longest: int
    shortest: int
    pause: int


def chunks(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the samples of blocks of any size as (size,), the last one shorter, in [-1, 1].

    Raises:
        InputError: samples that are not numbers.
    """
    kept: list[np.ndarray] = []
    count = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise InputError("the audio holds samples that are not numbers; export it again")
        kept.append(np.clip(block, -1, 1).astype(np.float32, copy=False))
        count += len(block)
        if count < size:
            continue
        wave = np.concatenate(kept)
        whole = count // size * size
        yield from wave[:whole].reshape(-1, size)
        kept, count = [wave[whole:]], count - whole
    if count:
        yield np.concatenate(kept)


def mean_square(wave: np.ndarray, hop: int) -> np.ndarray:
    """Return the power (frames,) of (frames * hop,)."""
    return np.square(wave.reshape(-1, hop), dtype=np.float64).mean(1)


def spans(heard: Iterable[Heard], hop: int, limits: Limits) -> Iterator[Span]:
    """Yield stretches of speech, each as soon as `pause` without speech has followed it.

    One that is longer than `longest` is cut in the quietest tenth of a second of the last quarter
    of what could be taken. One that is shorter than `shortest`, context included, is widened to it
    if half of it is speech, and left out if not.
    """
    longest, shortest, pause = limits.longest, limits.shortest, limits.pause
    pad = min(PAD, pause // 2)  # so that the context of two neighbours never overlaps
    most = longest - shortest - pad - hop  # so that what is left is not too short
    now = free = 0  # samples: how many were heard, where the last span ended
    opened = first = last = 0  # where the open stretch begins, without and with context, and ends
    powers: list[float] = []  # of its frames; empty where none is open

    def closed() -> Iterator[Span]:
        nonlocal free
        end = min(last + pad, now)
        enough = 2 * (last - opened) >= shortest
        start = max(free, min(first, end - shortest)) if enough else first
        if end - start >= shortest:
            free = end
            yield span(start, end)

    for speech, power, samples in heard:
        past, now = now, now + samples
        for frame, (voiced, loudness) in enumerate(
            zip(speech.tolist(), power.tolist(), strict=True)
        ):
            end = past + (frame + 1) * hop
            if not powers:
                if not voiced:
                    continue
                opened = end - hop
                first = max(free, opened - pad)
            powers.append(loudness)
            if voiced:
                last = end
                while last + pad - first > longest:
                    low, high = first + most * 3 // 4 - opened, first + most - opened
                    cut = _quietest(powers, low, high, hop)
                    free = opened = opened + cut * hop
                    yield span(first, free)
                    first, powers = free, powers[cut:]
            elif end - last >= pause:
                yield from closed()
                powers = []
    if powers:
        yield from closed()


def span(first: int, end: int) -> Span:
    """Return samples as seconds."""
    return Span(first / SAMPLE_RATE, end / SAMPLE_RATE)


def _quietest(powers: list[float], low: int, high: int, hop: int) -> int:
    """Return the frame in the middle of the quietest `QUIET` between two samples."""
    low, high, width = -(-low // hop), high // hop, max(QUIET // hop, 1)
    sums = np.convolve(powers[low:high], np.ones(width), "valid")
    return low + int(sums.argmin()) + width // 2
