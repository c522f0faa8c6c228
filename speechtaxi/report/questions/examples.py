"""The clips on which systems disagree most, to be listened to and judged."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import langcodes
import numpy as np

from speechtaxi.audio import SAMPLE_RATE, load
from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN, name_of
from speechtaxi.report.board import Arm, Array, Board
from speechtaxi.report.comparison import Comparison, headline
from speechtaxi.report.section import Row, Section, Table
from speechtaxi.types import Utterance

SIDES = {"e2e": "E2E", "cascade": "cascade"}

TOP = 3
"""Topics whose probability an answer tells."""

TOO_LONG = 40
"""A table of more rows is folded away."""

READ_ME: Sequence[str] = (
    "The clips on which the systems disagree most: listen, and judge. They were chosen for that, "
    "and tell nothing of how often a system is right.",
    "Disagreement is the Jensen-Shannon divergence of the systems' probabilities, each the mean "
    "over its seeds, in bits; E2E and cascade weigh the same, however many systems each has. "
    "Clips that only one of the two has right, by most of its answers, have places of their own, "
    "as many for either.",
)


@dataclass(frozen=True)
class Answer:
    """What one system said of a clip; probabilities are means over its seeds."""

    system: str
    topic: str
    """The answer of most seeds."""
    right: bool
    probability: float
    seeds: tuple[int, int]
    """How many seeds gave this answer, of how many."""
    top: Sequence[tuple[str, float]]
    """The most probable topics."""
    flags: Sequence[str]


@dataclass(frozen=True)
class Text:
    """What was said in a clip, or what systems read of it."""

    title: str
    words: str
    tag: str
    """Of the language and, where romanised, the script (BCP 47)."""
    systems: Sequence[str] = ()
    """Who read it; nobody where it is gold."""


@dataclass(frozen=True)
class Choice:
    """A clip that was chosen in a setup."""

    language: str
    setup: str
    place: int
    """Among the rows of the language."""
    bits: float
    """How much the systems disagree (see `disagreement`)."""
    alone: str
    """The side (E2E, cascade) that has it right where the other has it wrong, each by most of its
    answers; else empty."""


@dataclass(frozen=True)
class Example:
    """A clip that was chosen, and what it takes to judge the answers to it."""

    choice: Choice
    id: str
    language: str
    """English name."""
    gold: str
    answers: Sequence[Answer]
    texts: Sequence[Text]
    seconds: float | None
    audio: str | None
    """File, relative to the report's folder."""


@dataclass(frozen=True)
class Examples(Section):
    """A section with clips to listen to; forms that cannot play them print its tables."""

    clips: Sequence[Example] = ()
    """Those of a language beside each other."""


def examples(
    found: Comparison, utterances: Iterable[Utterance], folder: Path, limit: int = 5
) -> Examples | None:
    """Return the clips on which systems disagree most, for each language and setup.

    Args:
        utterances: rows of the manifests behind the runs; they tell audio and gold text.
        folder: of the report; audio that its folder "audio" lacks is written there.
        limit: clips of a language and setup.
    """
    chosen = list(choose(found, limit))
    if not chosen:
        return None
    arms = found.board.arms
    rows = {lang: arm.rows(lang) for arm in arms for lang in arm.languages}
    keys = [(choice.language, rows[choice.language][choice.place].id) for choice in chosen]
    once = list(dict.fromkeys(keys))  # a clip may be chosen in several setups
    known = {(u.language, u.id): u for u in utterances}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # codecs let go of the interpreter
        written = pool.map(_sound, map(known.get, once), repeat(folder))
        sounds = dict(zip(once, written, strict=True))
    clips = [
        _example(choice, arms, known.get(key), sounds[key][0])
        for choice, key in zip(chosen, keys, strict=True)
    ]
    words = list(READ_ME)
    if silent := [(key, why) for key, (name, why) in sounds.items() if not name]:
        (language, id), why = silent[0]
        words.append(
            f"{len(silent)} of {len(sounds)} clips cannot be played, "
            f"such as {id} ({name_of(language)}): {why}."
        )
    table = Table("examples", "Answers to them", _rows(clips), folded=len(clips) > TOO_LONG)
    return Examples("examples", "Examples", words, tables=[table], clips=clips)


def choose(found: Comparison, limit: int) -> Iterator[Choice]:
    """Yield the clips on which E2E and cascades disagree most, up to `limit` of a setup.

    Of clips that only one side has right, each side gets `limit` // 2 places, where there are as
    many; the most disputed of all others fill up. Gold text and baselines have no say. By language
    (English name), setup, disagreement, and id.
    """
    arms = [a for a in headline(found.board.arms) if a.route in SIDES and not a.reads_gold]
    labels = list(
        dict.fromkeys(label for run in found.runs for label in next(run.rows()).probabilities)
    )
    for language in sorted(found.languages, key=name_of):
        for setup in found.setups:
            here = [arm for arm in arms if arm.setup == setup and language in arm.languages]
            if len(here) < 2:
                continue
            routes = [arm.route for arm in here]
            weights = np.array([1 / routes.count(route) / len({*routes}) for route in routes])
            bits = disagreement(np.stack([_odds(arm, language, labels) for arm in here]), weights)
            alone = _alone(found.board, here, language)
            order = [int(n) for n in np.argsort(-bits, kind="stable") if bits[n] > 0]
            kept: list[int] = []
            for side in SIDES.values():
                kept += [n for n in order if alone[n] == side][: limit // 2]
            kept += [n for n in order if n not in kept][: limit - len(kept)]
            for n in sorted(kept, key=order.index):
                yield Choice(language, setup, n, float(bits[n]), alone[n])


def disagreement(probabilities: Array, weights: Array) -> Array:
    """Return how much systems disagree on each clip, in bits.

    The Jensen-Shannon divergence of several distributions: the entropy of their weighted mean less
    the weighted mean of their entropies (Lin 1991, doi.org/10.1109/18.61115). With half of the
    weight on either route, it is the divergence of the routes' means plus the mean of the
    divergences within the routes.

    Args:
        probabilities: (systems, clips, topics).
        weights: (systems,), of sum 1.

    Returns:
        (clips,), rounded, so that ties do not hang on the order of systems.
    """

    def entropy(p: Array) -> Array:
        return -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(-1)

    mean = np.tensordot(weights, probabilities, 1)
    return np.round(entropy(mean) - weights @ entropy(probabilities), 9)


def _odds(arm: Arm, language: str, labels: Sequence[str]) -> Array:
    """Return probabilities (clips, topics), the mean over seeds."""
    seeds = [run.predictions[language] for run in arm.runs[language]]
    return np.mean(
        [[[row.probabilities.get(label, 0) for label in labels] for row in rows] for rows in seeds],
        axis=0,
    )


def _alone(board: Board, arms: Sequence[Arm], language: str) -> list[str]:
    """Tell of each clip which side alone has it right; systems weigh the same, and their seeds."""
    right: dict[str, list[Array]] = {}
    for arm in arms:
        hits = board.tallies(arm, language)[:, :, 0].sum(-1)  # (clips, seeds)
        right.setdefault(arm.route, []).append(hits.mean(1))
    if len(right) < len(SIDES):
        return [""] * len(arms[0].rows(language))
    heard, read = (np.mean(right[route], axis=0).tolist() for route in SIDES)
    return [
        SIDES["e2e"] if h > 0.5 > r else SIDES["cascade"] if r > 0.5 > h else ""
        for h, r in zip(heard, read, strict=True)
    ]


def _example(
    choice: Choice, arms: Sequence[Arm], utterance: Utterance | None, audio: str | None
) -> Example:
    here = [arm for arm in arms if choice.language in arm.languages]
    row = here[0].rows(choice.language)[choice.place]
    return Example(
        choice,
        row.id,
        name_of(choice.language),
        row.label or "",
        [_answer(arm, choice) for arm in here if arm.setup == choice.setup and arm.route in SIDES],
        list(_texts(here, choice, utterance.text if utterance else None)),
        row.duration or (utterance.duration if utterance else None),
        audio,
    )


def _answer(arm: Arm, choice: Choice) -> Answer:
    rows = [run.predictions[choice.language][choice.place] for run in arm.runs[choice.language]]
    odds = {
        label: float(np.mean([row.probabilities.get(label, 0) for row in rows]))
        for label in rows[0].probabilities
    }
    votes = Counter(row.prediction for row in rows)
    topic = max(votes, key=lambda label: (votes[label], odds.get(label, 0), label))
    return Answer(
        arm.system,
        topic,
        topic == rows[0].label,
        odds.get(topic, 0.0),
        (votes[topic], len(rows)),
        sorted(odds.items(), key=lambda item: -item[1])[:TOP],
        rows[0].flags,
    )


def _texts(arms: Sequence[Arm], choice: Choice, gold: str | None) -> Iterator[Text]:
    """Yield the gold text and what was read, in each script that a system of any setup reads.

    A system's text is that of the clip's own setup, where it has one.
    """
    golds = {"native": gold} if gold else {}
    read: dict[str, dict[str, list[str]]] = {}
    seen: set[str] = set()
    for arm in sorted(arms, key=lambda arm: arm.setup != choice.setup):
        row = arm.rows(choice.language)[choice.place]
        if row.text is None or arm.system in seen:
            continue
        seen.add(arm.system)
        view = "romanized" if "romanized" in (arm.view or "") else "native"
        view = "english" if arm.view == "english" else view
        if reference := row.text if arm.reads_gold else row.reference:
            golds.setdefault(view, reference)
        if not arm.reads_gold:
            read.setdefault(view, {}).setdefault(row.text, []).append(arm.system)
    for view, script in (("native", ""), ("romanized", ", romanised")):
        tag = _tag(choice.language, romanised=bool(script))
        if view in golds and (view == "native" or golds[view] != golds.get("native")):
            yield Text(f"Gold text{script}", golds[view], tag)
        for words, systems in read.get(view, {}).items():
            yield Text(f"Transcript{script}", words, tag, systems)
    for words, systems in read.get("english", {}).items():
        yield Text("Translation into English", words, _tag("eng", romanised=False), systems)


def _tag(language: str, romanised: bool) -> str:
    known = langcodes.Language.get(language if langcodes.tag_is_valid(language) else UNKNOWN)
    if romanised:
        known = langcodes.Language.make(known.language, script="Latn", variants=known.variants)
    return known.to_tag()


def _rows(clips: Sequence[Example]) -> list[Row]:
    systems = dict.fromkeys(answer.system for clip in clips for answer in clip.answers)
    return [
        {
            "language": clip.language,
            "setup": clip.choice.setup,
            "clip": clip.id,
            "gold": clip.gold,
            "disagreement": clip.choice.bits,
            "right alone": clip.choice.alone or None,
            **dict.fromkeys(systems),
            **{a.system: f"{a.topic} {a.probability:.2f}" for a in clip.answers},
        }
        for clip in clips
    ]


def _sound(utterance: Utterance | None, folder: Path) -> tuple[str | None, str]:
    """Return the name of a clip's audio file in the report's folder; if there is none, say why."""
    if utterance is None:
        return None, "in no manifest that was given"
    if utterance.audio is None:
        return None, "its manifest names no audio"
    try:
        return save(utterance, folder), ""
    except InputError as error:  # a report may be shown to others: no paths
        path = Path(utterance.audio)
        return None, str(error).replace(str(path), path.name)


def save(utterance: Utterance, folder: Path) -> str:
    """Write a clip into the folder "audio" of a report, unless it is there; return its name.

    As Opus in Ogg (about 25 kbit/s of speech), or FLAC where libsndfile was built without Opus;
    16 kHz, mono. The name changes with the segment and with the file's size and time.

    Raises:
        InputError: the clip cannot be read.
    """
    source = Path(utterance.audio or "")
    try:
        found = source.stat()
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}") from None
    soundfile = cast(Any, import_module("soundfile"))
    kind = ("OGG", "OPUS") if "OPUS" in soundfile.available_subtypes("OGG") else ("FLAC", "PCM_16")
    of = [utterance.id, utterance.start, utterance.duration, found.st_size, found.st_mtime_ns]
    digest = hashlib.blake2b(repr(of).encode(errors="replace"), digest_size=6).hexdigest()
    plain = re.sub(r"[^A-Za-z0-9]+", "-", f"{utterance.language}-{utterance.id}")[:60].strip("-")
    name = f"audio/{plain}-{digest}.{kind[0].lower()}"
    target = folder / name
    if not target.exists():
        wave = load(source, utterance.start, utterance.duration)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            soundfile.write(draft, wave, SAMPLE_RATE, format=kind[0], subtype=kind[1])
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
    return name
