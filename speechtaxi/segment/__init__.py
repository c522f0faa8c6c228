"""Long recordings become utterances: by voice activity, by energy, or by the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.errors import InputError
from speechtaxi.segment import energy, silero
from speechtaxi.segment.stretches import Heard, Limits, chunks, span, spans
from speechtaxi.types import Span

__all__ = ["METHODS", "Method", "Segmenter", "open_segmenter"]

Method = Literal["auto", "vad", "energy", "fixed"]
METHODS = ("auto", "vad", "energy", "fixed")


class Segmenter(Protocol):
    """What finds the utterances of a recording; it keeps nothing between recordings."""

    @property
    def name(self) -> str:
        """Which it is: vad, energy or fixed."""
        ...

    def spans(self, blocks: Iterable[np.ndarray]) -> Iterator[Span]:
        """Yield the spans of a recording, in order, each as soon as its end is certain.

        Args:
            blocks: float32 (samples,) of any sizes, mono, 16 kHz, in [-1, 1]; how the recording is
                cut into blocks changes nothing. Only seconds of it are held.

        Raises:
            InputError: samples that are not numbers.
        """
        ...


def open_segmenter(
    name: str = "auto",
    *,
    longest: float = 30.0,
    shortest: float = 0.5,
    pause: float = 0.5,
    overlap: float = 0.0,
    window: float = 10.0,
) -> Segmenter:
    """Return a segmenter by name.

    Args:
        name: "vad" is Silero's network (extra `vad`), "energy" needs nothing, "fixed" cuts by the
            clock and hears nothing, "auto" is vad where it is installed and energy elsewhere.
        longest: seconds that a span may last; longer speech is cut where it is quietest.
        shortest: seconds that a span must last; speech of half of it is widened, less is left out.
        pause: seconds without speech that end a span.
        window, overlap: seconds of fixed windows, and of what two neighbours share.

    Raises:
        InputError: no such segmenter, not installed, or limits that contradict each other.
    """
    if name not in METHODS:
        raise InputError(f"there is no segmenter {name}; there are {', '.join(METHODS)}")
    if not (shortest >= 0 and pause >= 0 and max(1.0, 3 * shortest) <= longest < float("inf")):
        raise InputError(
            f"spans of {shortest} to {longest} s, ended by {pause} s of pause, cannot be: the "
            "longest must be at least 1 s and three times the shortest, and none negative"
        )
    if name == "fixed":
        if not max(1.0, 3 * shortest) <= window <= longest:
            raise InputError(
                f"windows of {window} s cannot be: give at least 1 s, three times the shortest "
                f"span ({shortest} s), and at most the longest ({longest} s)"
            )
        if not 0 <= overlap <= window / 2:
            raise InputError(f"windows of {window} s cannot overlap by {overlap} s; at most half")
        return Windows(_samples(window), _samples(overlap), _samples(shortest))
    limits = Limits(_samples(longest), _samples(shortest), _samples(pause))
    if name == "vad" or (name == "auto" and silero.installed()):
        silero.weights()  # where they are missing, tell now
        return Activity("vad", silero.heard, silero.HOP, limits)
    return Activity("energy", energy.heard, energy.HOP, limits)


@dataclass(frozen=True)
class Activity:
    """A segmenter that listens."""

    name: str
    heard: Callable[[Iterable[np.ndarray]], Iterator[Heard]]
    hop: int
    limits: Limits

    def spans(self, blocks: Iterable[np.ndarray]) -> Iterator[Span]:
        """Yield the stretches of speech."""
        return spans(self.heard(blocks), self.hop, self.limits)


@dataclass(frozen=True)
class Windows:
    """A segmenter that does not listen: windows of one length, in samples."""

    window: int
    overlap: int
    shortest: int
    name: str = "fixed"

    def spans(self, blocks: Iterable[np.ndarray]) -> Iterator[Span]:
        """Yield windows; the last is shorter, and takes from its neighbour if it is too short."""
        step = self.window - self.overlap
        start = now = 0
        for chunk in chunks(blocks, SAMPLE_RATE):
            now += len(chunk)
            while now - start - step >= self.window:  # the next window will be whole
                yield span(start, start + self.window)
                start += step
        if now - start > self.window:
            last = min(start + step, now - self.shortest)
            yield span(start, last + self.overlap)
            start = last
        if now - start >= self.shortest and now:
            yield span(start, now)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
