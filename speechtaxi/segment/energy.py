"""Speech by its energy and its rhythm, without a model.

A frame is speech if, in five bands that telephones pass too, it stands above the noise, and if the
level around it rises and falls as syllables do. The noise is the minimum of the smoothed level
nearby, as any talker pauses (minimum statistics: R. Martin, IEEE Trans. Speech Audio Process. 9(5),
2001). The level of speech is modulated most around 4 to 5 Hz, that of music around 2 Hz, that of
steady noise hardly (E. Scheirer and M. Slaney, ICASSP 1997; N. Ding et al., Neurosci. Biobehav.
Rev. 81, 2017). Quick music, drums and song may therefore still pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.segment.stretches import Heard, chunks, mean_square

HOP = 320
"""Samples in a frame: 20 ms."""

CHUNK = 250 * HOP
"""Samples judged at once, with as many before and after in view; no filter looks that far."""

EDGES = (200, 400, 700, 1200, 2000, 4000)
"""Hertz between the bands; mains hum and rumble lie below."""

FAINT = 1e-8
"""Power of a band, of a full scale of 1, below which all is silence (-80 dB)."""

NEARBY = 150
"""Frames, 3 s, in which the minimum is the noise."""

RANGE = 30.0
"""dB that count: above the noise, so that an onset is no rhythm, and, as the clearest recordings
lie wholly above these, below the loudest nearby."""

ABOVE = 3.5
"""dB above the noise, mean over the bands, from which a frame may be speech."""

RHYTHM = 1.1
"""dB by which the level must swing in two fifths of a second's frames, within a second."""

_SECOND = SAMPLE_RATE // HOP
_WINDOW = np.hanning(HOP)
_BINS = np.fft.rfftfreq(HOP, 1 / SAMPLE_RATE)
_BANDS = np.searchsorted(EDGES, _BINS, "right")[:, None] == np.arange(1, len(EDGES))
_SCALE = 2 / (HOP * np.square(_WINDOW).sum())


def heard(blocks: Iterable[np.ndarray]) -> Iterator[Heard]:
    """Yield which frames of a recording are speech."""
    waiting: list[tuple[np.ndarray, np.ndarray, int]] = []  # one that is judged, one before it
    for chunk in chunks(blocks, CHUNK):
        padded = np.pad(chunk, (0, -len(chunk) % HOP))
        waiting.append((_levels(padded), mean_square(padded, HOP), len(chunk)))
        if len(waiting) > 1:
            yield _judge(waiting, len(waiting) - 2)
        waiting = waiting[-2:]
    if waiting:
        yield _judge(waiting, len(waiting) - 1)


def _judge(chunks: list[tuple[np.ndarray, np.ndarray, int]], which: int) -> Heard:
    levels = np.concatenate([levels for levels, _, _ in chunks])
    first = sum(len(levels) for levels, _, _ in chunks[:which])
    _, power, samples = chunks[which]
    return Heard(is_speech(levels)[first : first + len(power)], power, samples)


def _levels(wave: np.ndarray) -> np.ndarray:
    """Return the level of each band, (frames, bands), in dB of full scale."""
    spectrum = np.fft.rfft(wave.reshape(-1, HOP) * _WINDOW)
    return 10 * np.log10((spectrum.real**2 + spectrum.imag**2) @ _BANDS * _SCALE + FAINT)


def is_speech(levels: np.ndarray) -> np.ndarray:
    """Tell (frames,) from the levels of the bands (frames, bands)."""
    nearby = _around(_around(levels, 5).mean(-1), NEARBY)
    noise, loud = nearby.min(-1), nearby.max(-1)
    above = np.clip(levels - noise, 0, RANGE).mean(1)
    peaks = np.maximum(levels - np.maximum(noise, loud - RANGE), 0).mean(1)
    swing = np.maximum(_swing(above), _swing(peaks))
    rhythm = np.quantile(_around(swing, _SECOND), 0.6, axis=-1)
    return (_around(above, 5).mean(-1) > ABOVE) & (_around(rhythm, 2 * _SECOND).max(-1) > RHYTHM)


def _swing(level: np.ndarray) -> np.ndarray:
    """Return how far a level (frames,) is from its course, at 3 to 9 Hz."""
    return np.abs(_around(level, 3).mean(-1) - _around(level, 11).mean(-1))


def _around(x: np.ndarray, frames: int) -> np.ndarray:
    """Return what lies around each frame of (frames, ...), (frames, ..., n); ends are mirrored."""
    before = frames // 2
    ends = [(before, frames - 1 - before)] + [(0, 0)] * (x.ndim - 1)
    return sliding_window_view(np.pad(x, ends, "symmetric"), frames, axis=0)
