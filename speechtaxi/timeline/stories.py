"""What a recording is about: as a whole, and story by story."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN
from speechtaxi.types import NO_SPEECH, UNKNOWN_TOPIC, Answer, Span

Array: TypeAlias = npt.NDArray[np.float64]

CHANGE = 10.0
"""Seconds of certainty that a change of topic must bring."""

PAUSE = 30.0
"""Seconds without speech that end a story."""


def summarize(
    segments: Sequence[Answer],
    *,
    path: str,
    id: str,
    seconds: float,
    min_probability: float = 0.0,
    system: str = "",
) -> Answer:
    """Return what is told of a recording as a whole.

    Probabilities are the mean over its speech, by length; text and flags are those of all segments;
    the language is that of most speech, and `heard` the mean where that language was told.

    Args:
        segments: of the recording; those without speech add only their flags.
        seconds: length of the recording.
        min_probability: a topic less probable is `UNKNOWN_TOPIC`.
        system: who would have answered, where there is no segment.
    """
    whole = Span(0.0, seconds)
    if segments:
        told = _joined(segments, min_probability)
        return replace(told, id=id, path=path, kind="recording", span=whole)
    return Answer(id, path, "recording", whole, UNKNOWN, NO_SPEECH, None, {}, False, system)


def stories(
    segments: Iterable[Answer],
    *,
    min_probability: float = 0.0,
    change: float = CHANGE,
    pause: float = PAUSE,
) -> list[Answer]:
    """Return the stretches of one topic each, in order.

    Of all ways to part the recording into stories, the one with the greatest sum of length times
    mean probability of the topic, less `change` for each story that follows another without a
    pause. So a fragment within a story must bring twice that, and the topic of a story is that of
    the mean of its segments, as in `summarize`. This is an additive fitness over the blocks of an
    interval (Jackson et al. 2005, arXiv math/0309285), found in linear time, as a block is worth
    the sum of its segments (Viterbi 1967, doi.org/10.1109/TIT.1967.1054010). In simulated
    bulletins a hidden Markov model over log-probabilities found more of the truth where the
    classifier was weak and knew it, and less where it was surer than right.

    Args:
        segments: of one recording; those without speech are left out.
        min_probability: what a second of `UNKNOWN_TOPIC` is worth.
        change: in seconds; 0 only joins neighbours of the same topic.
        pause: in seconds; after a longer stretch without speech a new story begins.

    Raises:
        InputError: `change` or `pause` is negative.
    """
    if not (change >= 0 and pause >= 0):
        raise InputError(f"change and pause are seconds, 0 or more, not {change} and {pause}")
    spoken = sorted(_spoken(segments), key=lambda segment: segment.span.start)
    if not spoken:
        return []
    ends = np.maximum.accumulate([s.span.end for s in spoken])  # windows may lie within others
    starts = np.array([s.span.start for s in spoken])
    breaks = np.append(False, starts[1:] - ends[:-1] > pause)
    odds = _odds(spoken)[1]
    worth = np.column_stack([odds, np.full(len(odds), min_probability)])
    topics = _topics(worth * _lengths(spoken)[:, None], change * ~breaks)
    first = np.flatnonzero(np.append(True, (np.diff(topics) != 0) | breaks[1:]))
    told = [
        _joined(spoken[start:stop], min_probability)
        for start, stop in pairwise([*first.tolist(), len(spoken)])
    ]
    for n, (one, other) in enumerate(pairwise(told)):
        if one.span.end > other.span.start:  # overlapping windows: each story gets half
            middle = (max(one.span.start, other.span.start) + min(one.span.end, other.span.end)) / 2
            told[n] = replace(one, span=Span(one.span.start, middle))
            told[n + 1] = replace(other, span=Span(middle, other.span.end))
    return told


def _topics(worth: Array, change: Array) -> npt.NDArray[np.intp]:
    """Return the topic of each segment, of the greatest worth in all less the cost of changes.

    Args:
        worth: (segments, topics).
        change: (segments,), cost of another topic than the segment before.
    """
    best = worth[0]
    before = np.indices(worth.shape)[1]
    for n in range(1, len(worth)):
        top = int(best.argmax())
        moved = best[top] - change[n]
        before[n, best < moved] = top
        best = np.maximum(best, moved) + worth[n]
    path = [int(best.argmax())]
    for n in range(len(worth) - 1, 0, -1):
        path.append(int(before[n, path[-1]]))
    return np.array(path[::-1], np.intp)


def _joined(segments: Sequence[Answer], min_probability: float) -> Answer:
    """Return one answer for several segments, from the start of the first to the last end."""
    spoken = _spoken(segments)
    flags = tuple(dict.fromkeys(flag for segment in segments for flag in segment.flags))
    span = Span(segments[0].span.start, max(segment.span.end for segment in segments))
    if not spoken:
        nothing = replace(segments[0], topic=NO_SPEECH, probability=None, probabilities={})
        return replace(nothing, kind="segment", span=span, flags=flags)
    lengths = _lengths(spoken)
    labels, odds = _odds(spoken)
    mean: list[float] = np.average(odds, axis=0, weights=lengths).tolist()
    probability = max(mean)
    topic = labels[mean.index(probability)] if probability >= min_probability else UNKNOWN_TOPIC
    speech: dict[str, float] = {}
    for segment, length in zip(spoken, lengths.tolist(), strict=True):
        speech[segment.language] = speech.get(segment.language, 0.0) + length
    language = max(speech, key=lambda code: speech[code])
    heard = [
        (segment.heard, length)
        for segment, length in zip(spoken, lengths.tolist(), strict=True)
        if segment.heard is not None and segment.language == language
    ]
    return replace(
        spoken[0],
        kind="segment",
        span=span,
        language=language,
        topic=topic,
        probability=probability,
        probabilities=dict(zip(labels, mean, strict=True)),
        calibrated=all(segment.calibrated for segment in spoken),
        system=" + ".join(dict.fromkeys(segment.system for segment in spoken)),
        heard=sum(h * n for h, n in heard) / sum(n for _, n in heard) if heard else None,
        text=_text(segment.text for segment in spoken),
        romanized=_text(segment.romanized for segment in spoken),
        flags=flags,
    )


def _spoken(segments: Iterable[Answer]) -> list[Answer]:
    return [s for s in segments if s.topic != NO_SPEECH and s.probabilities]


def _odds(segments: Sequence[Answer]) -> tuple[list[str], Array]:
    """Return the labels of all segments, and probabilities (segments, labels)."""
    labels = list(dict.fromkeys(label for segment in segments for label in segment.probabilities))
    return labels, np.array(
        [[segment.probabilities.get(label, 0.0) for label in labels] for segment in segments]
    )


def _lengths(segments: Sequence[Answer]) -> Array:
    """Return seconds (segments,), a millisecond at least, so that an empty one has a say too."""
    return np.array([max(segment.span.end - segment.span.start, 1e-3) for segment in segments])


def _text(parts: Iterable[str | None]) -> str | None:
    known = [part for part in parts if part is not None]
    return " ".join(part.strip() for part in known if part.strip()) if known else None
