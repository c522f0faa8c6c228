"""Baselines that neither hear nor read: what metadata alone tell of the topic."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechtaxi.report.board import Arm, Array, Counts
from speechtaxi.report.comparison import SIGNIFICANT, Comparison, corrected, difference, headline
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Row, Table
from speechtaxi.report.sources import Clips, trained_on
from speechtaxi.scores import macro_f1, majority
from speechtaxi.statistics import mean
from speechtaxi.types import RunRecord, Utterance

FOLDS = 5
PARTS = 10
"""Durations are told apart as tenths of their language's clips."""

VERSE = re.compile(r"(\d\d)\d{6}|([1-4A-Z][A-Z]{2})[\W_]*\d+[\W_]+\d+")
"""A verse's id, as Taxi1500 has it (62003016) or with the code of a book (1JN 3:16)."""


def book(u: Utterance) -> str | None:
    """Return the book of a verse; None for groups that are no verses.

    >>> [book(Utterance("x", "eng", group=name)) for name in ("62003016", "1JN 3:16", "news-3-16")]
    ['62', '1JN', None]
    """
    match = VERSE.fullmatch(u.group or "")
    return match and (match[1] or match[2])


HINTS: Mapping[str, Callable[[Utterance], object]] = {
    "duration": lambda u: u.duration,
    "speaker": lambda u: u.speaker,
    "book": book,
}
"""What neither hears nor reads, and could still tell the topic."""


@dataclass(frozen=True)
class Blind:
    """A baseline that neither hears nor reads."""

    arm: Arm
    learnt: str
    """What it was trained on."""


def chance(tallies: Counts) -> Array:
    """Return the macro-F1 (...,) to expect if the same answers were dealt out at random.

    Macro-F1 is linear in the hits of each topic, and dealing n answers out at random makes
    gold x predicted / n hits on average, so this is exact.
    """
    _, gold, predicted = np.moveaxis(tallies, -2, 0)
    clips = np.maximum(gold.sum(-1, keepdims=True), 1)
    return macro_f1(np.stack([gold * predicted / clips, gold, predicted], axis=-2))


def above_chance(tallies: Counts) -> Array:
    """Return macro-F1 (...,) minus `chance`: 0 on average for answers that know nothing."""
    return macro_f1(tallies) - chance(tallies)


def blind(found: Comparison, compared: Clips, utterances: Sequence[Utterance]) -> list[Blind]:
    """Return the baselines for which there are data, the majority first.

    Each learns from the manifest's training clips in the runs' languages, else from the compared
    clips, cross-validated by group; speakers only from a manifest that has them in both.
    """
    taught = trained_on(found)
    train = [
        u
        for u in utterances
        if u.split == "train" and u.label in found.labels and (u.language in taught or not taught)
    ]
    clips = [u for of_language in compared.values() for u in of_language]
    most: dict[str, str] = {}
    for language, known in compared.items():
        gold = [found.labels.index(u.label) for u in known if u.label]
        most[language] = found.labels[majority(gold, len(found.labels))]
    made = [Blind(_arm(found, "majority", [most[u.language] for u in clips]), "compared clips")]
    groups = np.array([found.board.groups[u.language, u.id] for u in clips])
    shuffled = np.random.default_rng(found.board.seed).permutation(found.board.n_groups)
    fold = shuffled[groups] % FOLDS
    for hint, of in HINTS.items():
        if any(of(u) is None for u in clips):
            continue
        teachers = [u for u in train if of(u) is not None]
        values = np.array(_values(hint, [*teachers, *clips]))
        known, asked = values[: len(teachers)], values[len(teachers) :]
        if len(set(asked.tolist()).intersection(known.tolist())) > 1:
            answers = guess(known, [u.label or "" for u in teachers], asked)
            learnt = f"{len(teachers):,} training clips"
        elif hint != "speaker" and min(len(np.unique(fold)), len(np.unique(asked))) > 1:
            labels = np.array([u.label for u in clips])
            answers = np.empty_like(labels)
            for part in set(fold.tolist()):
                answers[fold == part] = guess(
                    asked[fold != part], labels[fold != part].tolist(), asked[fold == part]
                )
            learnt = "compared clips, cross-validated"
        else:
            continue
        made.append(Blind(_arm(found, f"{hint} alone", list(answers)), learnt))
    return made


def guess(known: NDArray[Any], labels: Sequence[str], asked: NDArray[Any]) -> list[str]:
    """Return for each value the label that makes it likeliest, whatever the labels' shares.

    P(value | label) is counted, and drawn to P(value) with the weight of one clip. It answers as a
    class-balanced logistic regression does on one indicator for each value.

    Args:
        known: values (N,) of clips with labels (N,).
        asked: values (M,).
    """
    values, of_known = np.unique(known, return_inverse=True)
    names, of_labels = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(values), len(names)))
    np.add.at(counts, (of_known, of_labels), 1)
    likely = (counts + counts.sum(1, keepdims=True) / len(known)) / (counts.sum(0) + 1)
    best = dict(zip(values.tolist(), names[likely.argmax(1)].tolist(), strict=True))
    most = names[counts.sum(0).argmax()].item()
    return [best.get(value, most) for value in asked.tolist()]


def _values(hint: str, clips: Sequence[Utterance]) -> Sequence[object]:
    """Return what a baseline sees of clips; of durations the part of their language's range."""
    if hint != "duration":
        return [str(HINTS[hint](u)) for u in clips]
    seconds = np.array([u.duration or 0.0 for u in clips])
    languages = np.array([u.language for u in clips])
    parts = np.zeros(len(clips), int)
    for language in set(languages.tolist()):
        here = languages == language
        limits = np.quantile(seconds[here], np.arange(1, PARTS) / PARTS)
        parts[here] = np.searchsorted(limits, seconds[here])
    return parts.tolist()


def _arm(found: Comparison, name: str, answers: Sequence[str]) -> Arm:
    """Return an arm that gives these answers to the compared clips, language by language."""
    remaining = iter(answers)
    predictions = {
        language: [
            replace(row, prediction=next(remaining))
            for row in next(
                r.predictions[language] for r in found.runs if language in r.predictions
            )
        ]
        for language in found.languages
    }
    run = Run(RunRecord(name, "baseline"), Path(), predictions)
    return Arm(name, "unknown", {language: [run] for language in found.languages})


def baselines(
    found: Comparison, compared: Clips, utterances: Sequence[Utterance]
) -> tuple[list[str], list[Table]]:
    """Return words and a table on what metadata alone tell of the topic.

    They are held against chance and not against the majority baseline, whose macro-F1 the blindest
    mixture of answers surpasses.
    """
    board, languages = found.board, found.languages
    made = blind(found, compared, utterances)
    level = 1 - SIGNIFICANT / max(1, len(made) - 1)  # Bonferroni's
    rows: list[Row] = []
    telling: list[Blind] = []
    for baseline in made:
        arm = baseline.arm
        above = mean(
            [board.sample(board.tallies(arm, x), arm.rows(x), above_chance) for x in languages]
        )
        score = board.macro_f1(arm, languages)
        if above.interval(level).low > 0:
            telling.append(baseline)
        rows.append(
            {
                "baseline": arm.system,
                "learnt from": baseline.learnt,
                "macro-F1": score.interval(),
                "by chance": score.estimate - above.estimate,
                "above chance": above.interval(),
                "accuracy": board.accuracy(arm, languages).interval(),
                "tells the topic": "yes" if baseline in telling else "not shown",
            }
        )
    words = [*_words(found, made, telling)]
    return words, [Table("blind", "Baselines that neither hear nor read", rows)]


def _words(found: Comparison, made: Sequence[Blind], telling: Sequence[Blind]) -> Iterator[str]:
    board = found.board
    scores = [f"{b.arm.system} {board.macro_f1(b.arm, found.languages).estimate:.2f}" for b in made]
    yield (
        "Baselines that neither hear nor read reach, in macro-F1, mean over languages: "
        f"{', '.join(scores)}. Each is held against chance: the same answers, dealt out at random."
    )
    if dumb := [b.arm.system for b in made[1:] if b not in telling]:
        yield f"Not shown to tell the topic: {', '.join(dumb)}."
    tried = {b.arm.system for b in made}
    if untried := [hint for hint in HINTS if f"{hint} alone" not in tried]:
        yield f"Not tried, as the data do not tell it or it never varies: {', '.join(untried)}."
    arms = [arm for arm in headline(board.arms) if not arm.reads_gold and arm.route != "baseline"]
    for b in telling:
        beaten = corrected([difference(board, arm, b.arm, arm.languages) for arm in arms])
        short = [
            f"{arm.system} ({arm.setup})"
            for arm, d in zip(arms, beaten, strict=True)
            if d.better != "first"
        ]
        yield f"Beware: {b.arm.system} tells something of the topic. " + (
            f"Not shown to beat it: {', '.join(short)}."
            if short
            else "Every system is shown to beat it."
        )
