"""Compares runs on the same clips: scores, paired differences, transcripts, topics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from speechtaxi.report.runs import SETUPS, Run, align, groups
from speechtaxi.scores import (
    accuracy,
    character_edits,
    confusion,
    error_rate,
    macro_f1,
    majority,
    tally,
    tally_groups,
    topic_scores,
)
from speechtaxi.statistics import Interval, Statistic, bootstrap, holm, permutation_test
from speechtaxi.types import Prediction

SIGNIFICANT = 0.05

Languages = tuple[str, ...]
Counts = NDArray[np.float64]


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


@dataclass(frozen=True)
class Difference:
    """Macro-F1 of an E2E run minus that of a cascade, in one language or the mean over several."""

    e2e: str
    cascade: str
    setup: str
    languages: Languages
    clips: int
    macro_f1: tuple[float, float]
    difference: Interval
    p: float
    p_holm: float = float("nan")
    """Corrected over the languages of the pair; of a mean, over the pairs of the setup."""

    @property
    def better(self) -> Literal["e2e", "cascade"] | None:
        """The better route; None where the data cannot tell.

        They can where the corrected p is below .05 and the interval off 0.
        """
        if not self.p_holm < SIGNIFICANT or self.difference.low <= 0 <= self.difference.high:
            return None
        return "e2e" if self.difference.estimate > 0 else "cascade"


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
    """Answers of one system in one setup, pooled over its languages."""

    system: str
    setup: str
    confusion: NDArray[np.int64]
    """Gold by predicted, (topics, topics)."""
    scores: NDArray[np.float64]
    """Precision, recall, F1 by topic, (3, topics)."""


@dataclass(frozen=True)
class Comparison:
    """Everything that a report tells; lists of cells are by language, of means by setup."""

    split: str
    resamples: int
    seed: int
    runs: Sequence[Run]
    labels: tuple[str, ...]
    languages: Languages
    cells: Sequence[Score]
    means: Sequence[Score]
    baselines: Mapping[str, tuple[float, float]]
    """By language: macro-F1 and accuracy of always answering its most frequent topic."""
    differences: Sequence[Difference]
    mean_differences: Sequence[Difference]
    transcripts: Sequence[Transcripts]
    mean_transcripts: Sequence[Transcripts]
    topics: Sequence[Topics]
    notes: Mapping[str, Sequence[str]]
    """What runs say of themselves, such as "synthetic speech": note -> systems."""
    warnings: Sequence[str]

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
    track: Callable[[Sequence[Run]], Iterable[Run]] = iter,
) -> Comparison:
    """Compare runs on the same clips.

    Args:
        common: take the clips that all runs of a language have, where they differ.
        track: wraps the loop over runs, to show progress.

    Raises:
        InputError: two runs of one name, different clips (unless `common`), other gold labels.
    """
    runs, warnings = align(runs, common)
    labels = tuple(
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
    languages = tuple(sorted({language for run in runs for language in run.predictions}))
    if resamples < (least := len(languages) / SIGNIFICANT):
        warnings.append(
            f"{resamples} resamples are too few to find anything in {len(languages)} languages "
            f"after correction; take at least {least:.0f}"
        )
    bench = _Bench(groups(runs), labels, resamples, seed)
    cells: list[Score] = []
    means: list[Score] = []
    transcripts: list[Transcripts] = []
    mean_transcripts: list[Transcripts] = []
    topics: list[Topics] = []
    differences: list[Difference] = []
    mean_differences: list[Difference] = []
    notes: dict[str, list[str]] = defaultdict(list)
    for run in track(runs):
        for setup, known in _by_setup(run, languages):
            cells += [bench.score(run, (language,)) for language in known]
            means.append(bench.score(run, known))
            topics.append(bench.topics(run, setup, known))
            if referenced := _referenced(run, known):
                transcripts += [bench.transcripts(run, (lang,)) for lang in referenced]
                mean_transcripts.append(bench.transcripts(run, referenced))
        for other in runs:
            if run.record.route != "e2e" or other.record.route != "cascade" or other.reads_gold:
                continue
            shared = [
                (setup, tuple(lang for lang in known if _setup(other, lang) == setup))
                for setup, known in _by_setup(run, languages)
            ]
            pair = [bench.difference(run, other, (lang,)) for _, known in shared for lang in known]
            differences += (pair := _corrected(pair))
            alone = {difference.languages: difference for difference in pair}
            mean_differences += [
                alone.get(known) or bench.difference(run, other, known)
                for _, known in shared
                if known
            ]
        for note in run.record.notes:
            notes[note].append(run.system)
    return Comparison(
        split=split,
        resamples=resamples,
        seed=seed,
        runs=runs,
        labels=labels,
        languages=languages,
        cells=cells,
        means=means,
        baselines={language: bench.baseline(runs, language) for language in languages},
        differences=differences,
        mean_differences=[
            *(d for d in mean_differences if len(d.languages) == 1),
            *(
                mean
                for setup in SETUPS
                for mean in _corrected(
                    [d for d in mean_differences if d.setup == setup and len(d.languages) > 1]
                )
            ),
        ],
        transcripts=transcripts,
        mean_transcripts=mean_transcripts,
        topics=topics,
        notes=notes,
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Bench:
    """Measures runs; a language is a slice of the counts, so a single one is a mean over one."""

    groups: Mapping[tuple[str, str], str]
    labels: tuple[str, ...]
    resamples: int
    seed: int

    def score(self, run: Run, languages: Languages) -> Score:
        counts = self._counts(run, languages, self._tally)
        return Score(
            run.system,
            run.setup(languages[0]),
            languages,
            len(_rows(run, languages)),
            len(counts),
            self._bootstrap(counts, _mean_f1),
            self._bootstrap(counts, lambda c: accuracy(c).mean(-1)),
        )

    def difference(self, e2e: Run, cascade: Run, languages: Languages) -> Difference:
        first, second = (self._counts(run, languages, self._tally) for run in (e2e, cascade))
        return Difference(
            e2e.system,
            cascade.system,
            e2e.setup(languages[0]),
            languages,
            len(_rows(e2e, languages)),
            (float(_mean_f1(first.sum(0))), float(_mean_f1(second.sum(0)))),
            self._bootstrap(
                np.stack([first, second]).swapaxes(0, 1),
                lambda c: _mean_f1(c[..., 0, :, :, :]) - _mean_f1(c[..., 1, :, :, :]),
            ),
            permutation_test(first, second, _mean_f1, resamples=self.resamples, seed=self.seed),
        )

    def transcripts(self, run: Run, languages: Languages) -> Transcripts:
        rows = _rows(run, languages)
        counts = self._counts(run, languages, _edits)
        return Transcripts(
            run.system,
            run.setup(languages[0]),
            languages,
            len(rows),
            sum(map(_has_reference, rows)),
            sum(bool(row.flags) for row in rows),
            self._bootstrap(counts, lambda c: error_rate(c).mean(-1)),
        )

    def topics(self, run: Run, setup: str, languages: Languages) -> Topics:
        rows = _rows(run, languages)
        return Topics(
            run.system,
            setup,
            confusion(self._gold(rows), self._answers(rows), len(self.labels)),
            topic_scores(self._tally(rows).sum(0)),
        )

    def baseline(self, runs: Sequence[Run], language: str) -> tuple[float, float]:
        rows = next(run.predictions[language] for run in runs if language in run.predictions)
        gold = self._gold(rows)
        always = [majority(gold, len(self.labels))] * len(gold)
        pooled = tally(gold, always, len(self.labels)).sum(0)
        return float(macro_f1(pooled)), float(accuracy(pooled))

    def _bootstrap(self, counts: Counts, statistic: Statistic) -> Interval:
        return bootstrap(counts, statistic, resamples=self.resamples, seed=self.seed)

    def _counts(
        self, run: Run, languages: Languages, count: Callable[[Sequence[Prediction]], Counts]
    ) -> Counts:
        """Return counts by group and language, (groups, languages, ...)."""
        named = {
            language: [self.groups[language, row.id] for row in run.predictions[language]]
            for language in languages
        }
        order = sorted({name for names in named.values() for name in names})
        number = {name: n for n, name in enumerate(order)}
        return np.stack(
            [
                tally_groups(
                    count(run.predictions[language]), [number[name] for name in names], len(order)
                )
                for language, names in named.items()
            ],
            axis=1,
        )

    def _tally(self, rows: Sequence[Prediction]) -> Counts:
        return tally(self._gold(rows), self._answers(rows), len(self.labels))

    def _gold(self, rows: Sequence[Prediction]) -> list[int]:
        return [self.labels.index(row.label) for row in rows if row.label is not None]

    def _answers(self, rows: Sequence[Prediction]) -> list[int]:
        return [self.labels.index(row.prediction) for row in rows]


def _corrected(family: Sequence[Difference]) -> list[Difference]:
    """Return the differences with their p corrected for their number."""
    corrected = holm([difference.p for difference in family])
    return [replace(d, p_holm=p) for d, p in zip(family, corrected, strict=True)]


def _mean_f1(counts: Counts) -> NDArray[np.float64]:
    """Return the mean macro-F1 over languages (...,) of tallies (..., languages, 3, topics)."""
    return macro_f1(counts).mean(-1)


def _setup(run: Run, language: str) -> str | None:
    return run.setup(language) if language in run.predictions else None


def _by_setup(run: Run, languages: Languages) -> list[tuple[str, Languages]]:
    found = [
        (setup, tuple(lang for lang in languages if _setup(run, lang) == setup)) for setup in SETUPS
    ]
    return [(setup, known) for setup, known in found if known]


def _rows(run: Run, languages: Languages) -> list[Prediction]:
    return [row for language in languages for row in run.predictions[language]]


def _has_reference(row: Prediction) -> bool:
    return row.text is not None and bool(row.reference)


def _referenced(run: Run, languages: Languages) -> Languages:
    """Return the languages in which a run's transcripts can be held against gold text."""
    if run.reads_gold:
        return ()
    return tuple(lang for lang in languages if any(map(_has_reference, run.predictions[lang])))


def _edits(rows: Sequence[Prediction]) -> Counts:
    """Return edits and reference characters (clips, 2), none for a clip without gold text."""
    pairs = [(row.text or "", row.reference) if _has_reference(row) else ("", "") for row in rows]
    return character_edits([text for text, _ in pairs], [gold or "" for _, gold in pairs])
