"""A quick look at why: the words, or the seconds, that decided.

Occlusion (Zeiler & Fergus 2014, arXiv 1311.2901; of words Li et al. 2016, arXiv 1612.08220): one
piece is taken away at a time, and the topic's log-odds are compared with what they were. Where two
pieces say the same, either alone weighs little; where they count only together, each weighs it all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
from rich.text import Text

from speechtaxi import audio
from speechtaxi.errors import InputError
from speechtaxi.types import Utterance

if TYPE_CHECKING:
    from torch import Tensor

    from speechtaxi.classifier import Classifier

PASSES = 64
"""How often a model is asked at most, the question as a whole among them."""

WINDOW = 1.0
"""Seconds that are silenced at once: a quarter of shorter clips, a 32nd of clips above 32 s."""

FADE = audio.SAMPLE_RATE // 100
"""Samples on either side of a silence: its edges would click."""

BATCH_SIZE, BATCH_SECONDS = 16, 60.0
"""The most texts or clips, and the most audio, that a model is given at once."""

FAINT = 0.5
"""Below this no weight is shaded in full, however little the others weigh."""

SLIGHT = 0.1
"""Weights below this share of the strongest are not marked."""

BARS = "▁▂▃▄▅▆▇█"

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class Explanation:
    """How much each piece of a clip speaks for a topic.

    A weight is what the topic's log-odds lose, in nats, when the piece is taken away; below 0 the
    piece speaks against it. (Probabilities near 1 hardly move, whatever is taken away.)
    """

    topic: str
    probability: float
    """Of the topic, all pieces in place: as `classify` tells it."""
    words: Sequence[tuple[str, float]] | None = None
    """What was read, in order and as the view spells it, with weights; None where it was heard.

    Words stand between blanks: what is written without them is one word. Long texts are taken away
    by several words at once, which share their weight evenly.
    """
    seconds: Sequence[tuple[float, float, float]] | None = None
    """(start, end, weight) of each stretch that was silenced, by half a stretch from one to the
    next, in seconds of the file; None where the clip was read."""


def explain(model: Classifier, utterance: Utterance, *, topic: str | None = None) -> Explanation:
    """Tell what decided, in at most `PASSES` passes through the model, without transcribing again.

    Args:
        model: of either route; one that reads is asked by its `logits_of`.
        topic: which to explain; None explains the most probable.

    Raises:
        InputError: the model knows no such topic, or the clip's audio cannot be used.
    """
    if topic is not None and topic not in model.labels:
        raise InputError(f"there is no topic '{topic}'; the model knows {', '.join(model.labels)}")
    model.eval()
    ((text, _),) = model.read([utterance])
    if text is None:
        return _explain_heard(model, utterance, topic)
    return _explain_read(model, text, topic, utterance.language)


def _explain_read(model: Classifier, text: str, topic: str | None, language: str) -> Explanation:
    words = text.split()
    size = max(1, ceil(len(words) / (PASSES - 1)))
    starts = range(0, len(words), size)
    texts = [text, *(" ".join(words[:n] + words[n + size :]) for n in starts)]
    ask = cast("Callable[[Sequence[str]], Tensor]", model.logits_of)
    topic, probability, weights = _weigh(model, ask, texts, BATCH_SIZE, topic, language)
    shares: list[tuple[str, float]] = []
    for start, weight in zip(starts, weights, strict=True):
        piece = words[start : start + size]
        shares += [(word, weight / len(piece)) for word in piece]
    return Explanation(topic, probability, words=shares)


def _explain_heard(model: Classifier, utterance: Utterance, topic: str | None) -> Explanation:
    from speechtaxi.batch import collate

    if utterance.audio is None:
        raise InputError(f"{utterance.id} names no audio file")
    wave = audio.load(utterance.audio, utterance.start, utterance.duration)

    def hear(silences: Sequence[tuple[int, int]]) -> Tensor:
        waves = [silence(wave, start, stop) for start, stop in silences]
        batch = collate([utterance] * len(waves), waves, [-1] * len(waves))
        return model(batch.to(model.device))

    spans = stretches(len(wave))
    size = max(1, min(BATCH_SIZE, int(BATCH_SECONDS * audio.SAMPLE_RATE / len(wave))))
    topic, probability, weights = _weigh(
        model, hear, [(0, 0), *spans], size, topic, utterance.language
    )
    seconds = [
        (
            utterance.start + start / audio.SAMPLE_RATE,
            utterance.start + stop / audio.SAMPLE_RATE,
            weight,
        )
        for (start, stop), weight in zip(spans, weights, strict=True)
    ]
    return Explanation(topic, probability, seconds=seconds)


def _weigh(
    model: Classifier,
    logits_of: Callable[[Sequence[Piece]], Tensor],
    variants: Sequence[Piece],
    size: int,
    topic: str | None,
    language: str,
) -> tuple[str, float, list[float]]:
    """Return topic, probability and weights, from the whole and then the whole without a piece."""
    import torch

    with torch.inference_mode():
        parts = [logits_of(variants[n : n + size]) for n in range(0, len(variants), size)]
    logits = torch.cat(parts).double().cpu() / model.temperature_for(language)
    number = int(logits[0].argmax()) if topic is None else model.labels.index(topic)
    others = torch.cat([logits[:, :number], logits[:, number + 1 :]], 1)
    odds = logits[:, number] - others.logsumexp(1)
    return model.labels[number], float(odds[0].sigmoid()), list(map(float, odds[0] - odds[1:]))


def stretches(length: int) -> list[tuple[int, int]]:
    """Return (start, stop) in samples of stretches that overlap by half and cover a clip."""
    window = round(max(min(WINDOW * audio.SAMPLE_RATE, length / 4), length / 32))
    count = min(PASSES - 1, ceil((length - window) / (window / 2)) + 1)
    starts = np.linspace(0, length - window, count).round().astype(int).tolist()
    return [(start, start + window) for start in starts]


def silence(wave: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return a waveform (samples,) that is silent from `start` to `stop`, and fades around it."""
    if start == stop:
        return wave
    corners = (start - FADE, start, stop, stop + FADE)
    gain = np.interp(np.arange(len(wave)), corners, (1.0, 0.0, 0.0, 1.0))
    return wave * gain.astype(np.float32)


def marked(explanation: Explanation) -> Text:
    """Return an explanation for the terminal: words, or a bar for each stretch of sound.

    Blue speaks for the topic, orange against it. Without colour: words underlined or high bars for
    it, words in italics or "-" against it, and the strongest words in bold.
    """
    if explanation.words is not None:
        strongest = max((abs(weight) for _, weight in explanation.words), default=0.0)
        words = [
            Text(word, _shade(weight / max(strongest, FAINT), emphasis=True))
            for word, weight in explanation.words
        ]
        return Text(" ").join(words)
    seconds = explanation.seconds or []
    if not seconds:
        return Text()
    start, stop, weight = max(seconds, key=lambda row: abs(row[2]))
    scale = max(abs(weight), FAINT)
    text = Text(f"{seconds[0][0]:.1f} s ")
    for *_, each in seconds:
        share = each / scale
        bar = "-" if share <= -SLIGHT else BARS[min(int(max(share, 0.0) * 8), 7)]
        text.append(bar, _shade(share))
    text.append(f" {seconds[-1][1]:.1f} s")
    if abs(weight) >= SLIGHT * scale:
        text.append(f"  most from {start:.1f} to {stop:.1f} s")
    return text


def _shade(share: float, *, emphasis: bool = False) -> str:
    """Return a style for a weight's share of the strongest, between -1 and 1.

    The colours are the blue and the orange of Okabe & Ito, which colour-blind people tell apart.
    """
    size = min(abs(share), 1.0)
    if size < SLIGHT:
        return ""
    red, green, blue = (
        round(255 + (full - 255) * size)
        for full in ((86, 180, 233) if share > 0 else (230, 159, 0))
    )
    shade = f"#000000 on #{red:02x}{green:02x}{blue:02x}"
    if not emphasis or size < 1 / 3:
        return shade
    return f"{'bold ' * (size >= 2 / 3)}{'underline' if share > 0 else 'italic'} {shade}"
