"""Compares systems on the same clips: scores, paired differences, transcripts, topics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from speechtaxi.report.board import Arm, Board, Languages, has_reference
from speechtaxi.report.runs import Run, align, setup_order
from speechtaxi.scores import accuracy, confusion, macro_f1, majority, tally, topic_scores
from speechtaxi.statistics import (
    Discordance,
    Interval,
    benjamini_hochberg,
    cases_needed,
    discordance,
    holm,
)

SIGNIFICANT = 0.05

Track: TypeAlias = Callable[[Sequence[Arm]], Iterable[Arm]]


@dataclass(frozen=True)
class Score:
    """One system in one language, or its mean over the languages of a setup."""

    system: str
    setup: str
    languages: Languages
    clips: int
    groups: int
    macro_f1: Interval
    accuracy: Interval
    seeds: tuple[float, ...] = ()
    """Macro-F1 of each training seed."""
    best: bool = False
    """Not distinguishable from the best system of this setup and these languages."""


@dataclass(frozen=True)
class Difference:
    """Macro-F1 of one system minus that of another, in one language or the mean over several."""

    first: str
    second: str
    setup: str
    languages: Languages
    clips: int
    macro_f1: tuple[float, float]
    difference: Interval
    p: float
    """Approximate randomisation by group."""
    discordance: Discordance
    """What only one of the two has right (of the first seed), and McNemar's p by group."""
    needed: int | None
    """Clips with which a true difference as large as the observed one is found in 8 of 10 samples;
    None where the two are equal."""
    p_holm: float = float("nan")
    """Corrected over the languages of the pair; of a mean, over the pairs of the setup."""
    p_bh: float = float("nan")
    """Corrected by Benjamini and Hochberg over all languages and pairs of the setup."""

    @property
    def better(self) -> Literal["first", "second"] | None:
        """The better system; None where the data cannot tell.

        They can where the corrected p is below .05 and the interval off 0.
        """
        if not self.p_holm < SIGNIFICANT or not self.difference.off_zero:
            return None
        return "first" if self.difference.estimate > 0 else "second"


@dataclass(frozen=True)
class Transcripts:
    """How well a cascade's transcripts are spelt, in one language or the mean over several."""

    system: str
    setup: str
    languages: Languages
    clips: int
    referenced: int
    """Clips with a gold text: those that the error rate is of."""
    flagged: int
    cer: Interval


@dataclass(frozen=True)
class Topics:
    """Answers of one system in one setup, pooled over its languages and seeds."""

    system: str
    setup: str
    confusion: NDArray[np.int64]
    """Gold by predicted, (topics, topics)."""
    scores: NDArray[np.float64]
    """Precision, recall, F1 by topic, (3, topics)."""


@dataclass(frozen=True)
class Comparison:
    """The heart of a report; lists of cells are by language, of means by setup."""

    split: str
    common: bool
    given: Sequence[Run]
    """The runs as they were read, before they were cut to the common clips."""
    board: Board
    cells: Sequence[Score]
    means: Sequence[Score]
    baselines: Mapping[str, tuple[float, float]]
    """By language: macro-F1 and accuracy of always answering its most frequent topic."""
    differences: Sequence[Difference]
    """E2E (first) minus cascade (second)."""
    mean_differences: Sequence[Difference]
    transcripts: Sequence[Transcripts]
    mean_transcripts: Sequence[Transcripts]
    topics: Sequence[Topics]
    notes: Mapping[str, Sequence[str]]
    """What runs say of themselves, such as "synthetic speech": note -> systems."""
    warnings: Sequence[str]

    @property
    def runs(self) -> Sequence[Run]:
        return self.board.runs

    @property
    def labels(self) -> tuple[str, ...]:
        return self.board.labels

    @property
    def languages(self) -> Languages:
        return tuple(sorted({language for run in self.runs for language in run.predictions}))

    @property
    def setups(self) -> tuple[str, ...]:
        """The setups that have scores, in order."""
        return tuple(sorted({mean.setup for mean in self.means}, key=setup_order))

    def baseline(self, languages: Iterable[str]) -> tuple[float, float]:
        """Return the mean macro-F1 and accuracy of the majority baseline."""
        f1, right = np.mean([self.baselines[language] for language in languages], axis=0)
        return float(f1), float(right)


def compare(
    runs: Sequence[Run],
    *,
    split: str = "test",
    common: bool = False,
    resamples: int = 2000,
    seed: int = 0,
    track: Track = iter,
) -> Comparison:
    """Compare runs on the same clips.

    Runs of one name are one system: they may differ in training languages and seed.

    Args:
        common: take the clips that all runs of a language have, where they differ.
        track: wraps the loop over systems, to show progress.

    Raises:
        InputError: runs that cannot be told apart, different clips or label sets (unless `common`),
            other gold labels.
    """
    given = runs
    board, warnings = board_of(runs, common=common, resamples=resamples, seed=seed)
    runs, arms = board.runs, headline(board.arms)
    languages = {language for arm in arms for language in arm.languages}
    if resamples < (least := len(languages) / SIGNIFICANT):
        warnings.append(
            f"{resamples} resamples are too few to find anything in {len(languages)} languages "
            f"after correction; take at least {least:.0f}"
        )
    cells: list[Score] = []
    means: list[Score] = []
    transcripts: list[Transcripts] = []
    mean_transcripts: list[Transcripts] = []
    topics: list[Topics] = []
    for arm in track(arms):
        cells += [_score(board, arm, (language,)) for language in arm.languages]
        means.append(_score(board, arm, arm.languages))
        topics.append(_topics(board, arm))
        if referenced := _referenced(arm):
            transcripts += [_transcripts(board, arm, (lang,)) for lang in referenced]
            mean_transcripts.append(_transcripts(board, arm, referenced))
    differences, mean_differences = _hearing_against_reading(board, arms)
    notes: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for note in run.record.notes:
            if run.system not in notes[note]:
                notes[note].append(run.system)
    return Comparison(
        split=split,
        common=common,
        given=given,
        board=board,
        cells=_with_best(board, arms, cells),
        means=_with_best(board, arms, means),
        baselines={language: _baseline(board, language) for language in sorted(languages)},
        differences=differences,
        mean_differences=mean_differences,
        transcripts=transcripts,
        mean_transcripts=mean_transcripts,
        topics=topics,
        notes=notes,
        warnings=warnings,
    )


def board_of(
    runs: Sequence[Run], *, common: bool, resamples: int, seed: int
) -> tuple[Board, list[str]]:
    """Bring runs to the same clips; return their board, and warnings about what differs.

    Raises:
        InputError: see `compare`.
    """
    runs, warnings = align(runs, common)
    return Board(runs, _labels(runs), resamples, seed), warnings


def headline(arms: Sequence[Arm]) -> list[Arm]:
    """Leave out the many setups of a transfer matrix: of several single sources, English stays."""
    sources = {arm.setup for arm in arms if arm.setup.startswith("zero-shot from ")}
    if len(sources) < 2:
        return list(arms)
    kept = [arm for arm in arms if arm.setup not in sources or arm.setup == "zero-shot from eng"]
    return kept or list(arms)


def difference(board: Board, first: Arm, second: Arm, languages: Languages) -> Difference:
    """Return the paired difference of two arms, the mean over languages."""
    gap = board.gap(first, second, languages)
    clips = sum(len(first.rows(language)) for language in languages)
    right = [
        np.concatenate([board.tallies(arm, lang)[:, 0, 0].sum(-1) for lang in languages])
        for arm in (first, second)
    ]
    groups = [board.groups[lang, row.id] for lang in languages for row in first.rows(lang)]
    one, two = (board.macro_f1(arm, languages).estimate for arm in (first, second))
    return Difference(
        first.system,
        second.system,
        first.setup,
        languages,
        clips,
        (one, two),
        gap.sample.interval(),
        gap.p,
        discordance(right[0], right[1], groups),
        cases_needed(gap.sample.estimate, gap.sample.error, clips),
    )


def corrected(family: Sequence[Difference]) -> list[Difference]:
    """Return the differences with their p corrected for their number (Holm)."""
    return [replace(d, p_holm=p) for d, p in zip(family, holm([d.p for d in family]), strict=True)]


def _hearing_against_reading(
    board: Board, arms: Sequence[Arm]
) -> tuple[list[Difference], list[Difference]]:
    """Return E2E minus cascade by pair and language, and their means by setup."""
    alone: list[Difference] = []
    several: list[Difference] = []
    for setup in sorted({arm.setup for arm in arms}, key=setup_order):
        cells: list[Difference] = []
        means: list[Difference] = []
        heard = [arm for arm in arms if arm.setup == setup and arm.route == "e2e"]
        read = [arm for arm in arms if arm.setup == setup and arm.route == "cascade"]
        for first in heard:
            for second in read:
                shared = tuple(lang for lang in first.languages if lang in second.languages)
                if second.reads_gold or not shared:
                    continue
                pair = corrected([difference(board, first, second, (lang,)) for lang in shared])
                cells += pair
                if len(shared) > 1:
                    means.append(difference(board, first, second, shared))
        rates = benjamini_hochberg([d.p for d in cells])
        cells = [replace(d, p_bh=rate) for d, rate in zip(cells, rates, strict=True)]
        alone += cells
        pairs = {(d.first, d.second) for d in means}
        several += [d for d in cells if (d.first, d.second) not in pairs]
        several += corrected(means)
    return alone, several


def _with_best(board: Board, arms: Sequence[Arm], scores: Sequence[Score]) -> list[Score]:
    """Mark what cannot be told from the best of its setup and languages; gold text is no rival."""
    found = {(arm.system, arm.setup): arm for arm in arms}
    rivals: defaultdict[tuple[str, Languages], list[Score]] = defaultdict(list)
    for score in scores:
        if not found[score.system, score.setup].reads_gold:
            rivals[score.setup, score.languages].append(score)
    best: set[int] = set()
    for (setup, languages), field in rivals.items():
        leader = max(field, key=lambda score: score.macro_f1.estimate)
        rest = [score for score in field if score is not leader]
        behind = corrected(
            [
                difference(board, found[leader.system, setup], found[s.system, setup], languages)
                for s in rest
            ]
        )
        tied = [score for score, d in zip(rest, behind, strict=True) if d.better is None]
        best |= {id(score) for score in (leader, *tied)}
    return [replace(score, best=id(score) in best) for score in scores]


def _labels(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return all labels, in the order of the first run's."""
    return tuple(
        dict.fromkeys(
            label
            for names in (
                *(next(run.rows()).probabilities for run in runs),
                (row.label for run in runs for row in run.rows()),
            )
            for label in names
            if label is not None
        )
    )


def _score(board: Board, arm: Arm, languages: Languages) -> Score:
    f1 = board.macro_f1(arm, languages)
    clips = [(row.language, row.id) for lang in languages for row in arm.rows(lang)]
    return Score(
        arm.system,
        arm.setup,
        languages,
        len(clips),
        len({board.groups[clip] for clip in clips}),
        f1.interval(),
        board.accuracy(arm, languages).interval(),
        tuple(f1.seeds.tolist()),
    )


def _transcripts(board: Board, arm: Arm, languages: Languages) -> Transcripts:
    rows = [row for language in languages for row in arm.rows(language)]
    return Transcripts(
        arm.system,
        arm.setup,
        languages,
        len(rows),
        sum(map(has_reference, rows)),
        sum(bool(row.flags) for row in rows),
        board.error_rate(arm, languages).interval(),
    )


def _topics(board: Board, arm: Arm) -> Topics:
    size = len(board.labels)
    pooled = np.concatenate(
        [board.tallies(arm, lang).reshape(-1, 3, size) for lang in arm.languages]
    )
    gold, answers = pooled[:, 1].argmax(-1), pooled[:, 2].argmax(-1)
    return Topics(
        arm.system, arm.setup, confusion(gold, answers, size), topic_scores(pooled.sum(0))
    )


def _baseline(board: Board, language: str) -> tuple[float, float]:
    run = next(run for run in board.runs if language in run.predictions)
    gold = [board.labels.index(row.label) for row in run.predictions[language] if row.label]
    always = [majority(gold, len(board.labels))] * len(gold)
    pooled = tally(gold, always, len(board.labels)).sum(0)
    return float(macro_f1(pooled)), float(accuracy(pooled))


def _referenced(arm: Arm) -> Languages:
    """Return the languages in which an arm's transcripts can be held against gold text."""
    if arm.reads_gold:
        return ()
    return tuple(lang for lang in arm.languages if any(map(has_reference, arm.rows(lang))))
