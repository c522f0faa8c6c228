"""The demo's texts: radio headlines "opener: phrase and phrase" on six topics.

One plan of phrase numbers serves every topic and every language, and a slot of the plan is spoken
in one manner (voice, pitch, rate, noise) in all topics of a language. So opener, neutral phrase,
order, voice and noise tell nothing about the topic, and a group is the same sentence everywhere.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations, product
from typing import Any

from speechtaxi.errors import InputError
from speechtaxi.labels import LABEL_SETS
from speechtaxi.synthesize.voices import Take, take
from speechtaxi.types import Split, Utterance

TOPICS = LABEL_SETS["news6"]
TRAINED = ("eng", "fra", "rus", "hin", "guj", "tam")
HELD_OUT = ("ukr", "urd", "pan", "mar")
CLIPS_PER_TOPIC: dict[Split, int] = {"train": 20, "dev": 4, "test": 8}
"""Sentences of each topic and language."""
TAKES: dict[Split, int] = {"train": 2, "dev": 1, "test": 1}
HELD_OUT_TAKES = 2
MIXED = 1 / 3
"""Share of the sentences with one topical and one neutral phrase."""

Pair = tuple[tuple[str, int], tuple[str, int]]
"""Two phrases: "topic" or "neutral", and the number in its list."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A sentence by the numbers of its phrases, whatever its topic and language."""

    split: Split
    number: int
    opener: int
    phrases: Pair
    """In the order in which they are spoken."""

    def group(self, topic: str) -> str:
        """Return the name of its pair of phrases, as in sport-2-5 or sport-n3-5."""
        numbers = (f"{'n' * (kind == 'neutral')}{number}" for kind, number in sorted(self.phrases))
        return "-".join([topic, *numbers])


def phrases() -> dict[str, dict[str, Any]]:
    """Return the phrases by language and by topic (or open, neutral, and)."""
    path = files("speechtaxi.synthesize") / "news_phrases.json"
    return json.loads(path.read_text(encoding="utf-8"))["languages"]


def news_takes(
    languages: Sequence[str],
    held_out: Sequence[str],
    voices: Mapping[str, Sequence[str]],
    clips_per_topic: Mapping[Split, int],
    seed: int,
) -> list[Take]:
    """Return the takes of the corpus: all splits in `languages`, test only in those `held_out`.

    Raises:
        InputError: a language without phrases or named twice, more sentences than pairs of phrases.
    """
    texts = phrases()
    for code in (*languages, *held_out):
        if code not in texts:
            raise InputError(f"no news in '{code}'; use some of {', '.join(texts)}")
    named_twice = [code for code, n in Counter((*languages, *held_out)).items() if n > 1]
    if named_twice:
        raise InputError(f"language '{named_twice[0]}' is named twice; name it once")
    slots = plan(texts["eng"], clips_per_topic, seed)
    spoken: list[Take] = []
    for code in languages:
        for slot in slots:
            spoken += _takes(slot, TAKES[slot.split], code, texts[code], voices[slot.split], seed)
    for code in held_out:
        for slot in slots:
            if slot.split == "test":
                spoken += _takes(slot, HELD_OUT_TAKES, code, texts[code], voices["test"], seed)
    return spoken


def plan(texts: Mapping[str, Any], clips_per_topic: Mapping[Split, int], seed: int) -> list[Slot]:
    """Draw the sentences: no pair in two of them, each phrase about equally often in each split."""
    draw = random.Random(f"{seed}/plan")
    topical = [("topic", number) for number in range(len(texts[TOPICS[0]]))]
    neutral = [("neutral", number) for number in range(len(texts["neutral"]))]
    free = {"mixed": list(product(topical, neutral)), "topical": list(combinations(topical, 2))}
    slots: list[Slot] = []
    for split, count in clips_per_topic.items():
        mixed = round(count * MIXED)
        kinds = ["mixed"] * mixed + ["topical"] * (count - mixed)
        openers = [number % len(texts["open"]) for number in range(count)]
        draw.shuffle(kinds)
        draw.shuffle(openers)
        used: Counter[tuple[str, int]] = Counter()
        for number, (kind, opener) in enumerate(zip(kinds, openers, strict=True)):
            if not free[kind]:
                most = round(len(list(combinations(topical, 2))) / (1 - MIXED))
                raise InputError(
                    f"--clips_per_topic: {sum(clips_per_topic.values())} sentences, but a pair of "
                    f"phrases is used once and there are enough for about {most}"
                )
            draw.shuffle(free[kind])
            pair = min(free[kind], key=lambda pair: sorted((used[p] for p in pair), reverse=True))
            free[kind].remove(pair)
            used.update(pair)
            first, second = pair if draw.random() < 0.5 else reversed(pair)
            slots.append(Slot(split, number, opener, (first, second)))
    return slots


def _takes(
    slot: Slot, count: int, code: str, texts: Mapping[str, Any], voices: Sequence[str], seed: int
) -> Iterator[Take]:
    """Speak a slot on every topic, `count` times in different voices."""
    order = random.Random(f"{seed}/{code}/{slot.split}").sample(voices, len(voices))
    for topic, number in product(TOPICS, range(count)):
        first, second = (
            texts[topic if kind == "topic" else "neutral"][index] for kind, index in slot.phrases
        )
        row = Utterance(
            id=f"{code}-{slot.group(topic)}-{number + 1}",
            language=code,
            split=slot.split,
            text=f"{texts['open'][slot.opener]}: {first} {texts['and']} {second}",
            label=topic,
            group=slot.group(topic),
            speaker=order[(slot.number + number * len(order) // count) % len(order)],
        )
        yield take(row, f"{seed}/{code}/{slot.split}/{slot.number}/{number}")
