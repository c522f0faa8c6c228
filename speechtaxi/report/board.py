"""All systems' answers on the same clips, resampled once for every finding of a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from speechtaxi.errors import InputError
from speechtaxi.report.runs import Run, groups, setup_order
from speechtaxi.scores import accuracy, character_edits, error_rate, macro_f1, tally, tally_groups
from speechtaxi.statistics import (
    Sample,
    differences_by_chance,
    draw,
    exchange,
    mean,
    pool,
    share_as_extreme,
)
from speechtaxi.types import Prediction

Languages: TypeAlias = tuple[str, ...]
Array: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Arm:
    """A system in a setup: its runs for each language, one for each training seed."""

    system: str
    setup: str
    runs: Mapping[str, Sequence[Run]]
    """By test language; in the order of the seeds."""

    @property
    def languages(self) -> Languages:
        return tuple(self.runs)

    @property
    def first(self) -> Run:
        """A run that speaks for all in what they share: route, view, recogniser."""
        return next(iter(self.runs.values()))[0]

    @property
    def route(self) -> str:
        return self.first.record.route

    @property
    def view(self) -> str | None:
        return self.first.record.view

    @property
    def romanize(self) -> str | None:
        return self.first.record.romanize

    @property
    def reads_gold(self) -> bool:
        return self.first.reads_gold

    def rows(self, language: str, seed: int = 0) -> Sequence[Prediction]:
        """Return a seed's predictions in a language, ordered by id: alike for all arms."""
        return self.runs[language][seed].predictions[language]


@dataclass(frozen=True)
class Gap:
    """One arm's macro-F1 minus another's on the same clips, and what chance would make of it."""

    sample: Sample
    tested: float
    """The difference of those seeds that `null` is of: as many as both arms have."""
    null: Array
    """(R,) differences after exchanging both arms' answers for a random half of the groups."""

    @property
    def p(self) -> float:
        """Two-sided, of "both systems are alike" (see `permutation_test`)."""
        return share_as_extreme(self.tested, self.null)


@dataclass(frozen=True)
class Board:
    """Measures arms. Its draws of groups are the same for all, so that scores can be combined."""

    runs: Sequence[Run]
    labels: tuple[str, ...]
    resamples: int = 2000
    seed: int = 0
    _samples: dict[object, Sample] = field(default_factory=dict[object, Sample], repr=False)
    _gaps: dict[object, Gap] = field(default_factory=dict[object, Gap], repr=False)

    @cached_property
    def arms(self) -> list[Arm]:
        """Every system in every setup, by setup, then in the order of the runs.

        Raises:
            InputError: two runs of a system tell the same: language, training languages and seed.
        """
        found: defaultdict[tuple[str, str], defaultdict[str, list[Run]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for run in self.runs:
            for language in run.predictions:
                found[run.system, run.setup(language)][language].append(run)
        arms = [
            Arm(system, setup, {lang: _by_seed(runs[lang], lang, setup) for lang in sorted(runs)})
            for (system, setup), runs in found.items()
        ]
        return sorted(arms, key=lambda arm: setup_order(arm.setup))

    @cached_property
    def groups(self) -> dict[tuple[str, str], int]:
        """The number of each clip's group, by (language, id)."""
        named = groups(self.runs)
        numbers = {name: number for number, name in enumerate(sorted(set(named.values())))}
        return {clip: numbers[name] for clip, name in named.items()}

    @cached_property
    def n_groups(self) -> int:
        return 1 + max(self.groups.values())

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """How often each resample draws each group, (resamples, groups)."""
        return draw(self.n_groups, self.resamples, self.seed)

    @cached_property
    def swaps(self) -> NDArray[np.float32]:
        """Whose answers each permutation exchanges, (resamples, groups)."""
        return exchange(self.n_groups, self.resamples, self.seed)

    def macro_f1(self, arm: Arm, languages: Languages) -> Sample:
        """Return macro-F1, the mean over languages and seeds."""
        return self._mean(arm, languages, macro_f1)

    def accuracy(self, arm: Arm, languages: Languages) -> Sample:
        """Return accuracy, the mean over languages and seeds."""
        return self._mean(arm, languages, accuracy)

    def error_rate(self, arm: Arm, languages: Languages) -> Sample:
        """Return the CER of what an arm's first seed read, the mean over languages."""
        return mean([self._error_rate(arm, language) for language in languages])

    def gap(self, first: Arm, second: Arm, languages: Languages) -> Gap:
        """Return the paired difference in macro-F1, the mean over languages and seeds."""
        gaps = [self._gap(first, second, language) for language in languages]
        return Gap(
            mean([g.sample for g in gaps]),
            float(np.mean([g.tested for g in gaps])),
            np.mean([g.null for g in gaps], axis=0),
        )

    def tallies(self, arm: Arm, language: str) -> Counts:
        """Return the tallies of an arm by clip, (clips, seeds, 3, topics)."""
        return np.stack(
            [self._tally(run.predictions[language]) for run in arm.runs[language]], axis=1
        )

    def by_group(
        self, clips: Counts, rows: Sequence[Prediction]
    ) -> tuple[Counts, NDArray[np.intp]]:
        """Sum counts of clips (N, ...) by group, and return the groups' numbers beside them."""
        numbers = [self.groups[row.language, row.id] for row in rows]
        present, places = np.unique(numbers, return_inverse=True)
        return tally_groups(clips, places, len(present)), present

    def sample(
        self,
        clips: Counts,
        rows: Sequence[Prediction],
        statistic: Callable[[Counts], Array],
    ) -> Sample:
        """Return the sample of a statistic of one language's counts.

        Args:
            clips: counts by clip, (N, seeds, *shape).
            rows: the clips, in that order.
            statistic: of pooled counts, (..., seeds, *shape) -> (..., seeds).
        """
        counts, present = self.by_group(clips, rows)
        total = counts.sum(0)
        scores = statistic(total)
        jackknife = np.tile(scores[:, None], self.n_groups)
        jackknife[:, present] = statistic(total - counts).T
        return Sample(
            scores,
            pool(self.weights[:, present], counts, lambda c: statistic(c).mean(-1)),
            jackknife,
        )

    def _mean(self, arm: Arm, languages: Languages, statistic: Callable[[Counts], Array]) -> Sample:
        for language in languages:
            if (arm, language, statistic) not in self._samples:
                self._samples[arm, language, statistic] = self.sample(
                    self.tallies(arm, language), arm.rows(language), statistic
                )
        return mean([self._samples[arm, language, statistic] for language in languages])

    def _error_rate(self, arm: Arm, language: str) -> Sample:
        if (arm, language, error_rate) not in self._samples:
            rows = arm.rows(language)
            self._samples[arm, language, error_rate] = self.sample(
                edits(rows)[:, None], rows, error_rate
            )
        return self._samples[arm, language, error_rate]

    def _gap(self, first: Arm, second: Arm, language: str) -> Gap:
        if (first, second, language) not in self._gaps:
            rows = first.rows(language)
            one, two = (self.tallies(arm, language) for arm in (first, second))
            seeds = min(one.shape[1], two.shape[1])  # only as many can change places
            (one, present), (two, _) = (self.by_group(c[:, :seeds], rows) for c in (one, two))
            self._gaps[first, second, language] = Gap(
                self.macro_f1(first, (language,)) - self.macro_f1(second, (language,)),
                float(_over_seeds(one.sum(0)) - _over_seeds(two.sum(0))),
                differences_by_chance(one, two, _over_seeds, self.swaps[:, present]),
            )
        return self._gaps[first, second, language]

    def _tally(self, rows: Sequence[Prediction]) -> Counts:
        number = self._numbers
        return tally(
            [number[row.label] for row in rows if row.label is not None],
            [number[row.prediction] for row in rows],
            len(self.labels),
        )

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}


def _over_seeds(counts: Counts) -> Array:
    """Return the mean macro-F1 over seeds (...,) of tallies (..., seeds, 3, topics)."""
    return macro_f1(counts).mean(-1)


def has_reference(row: Prediction) -> bool:
    """Tell whether a row's transcript can be held against gold text."""
    return row.text is not None and bool(row.reference)


def edits(rows: Sequence[Prediction]) -> Counts:
    """Return edits and reference characters (clips, 2), none for a clip without gold text."""
    pairs = [(row.text or "", row.reference) if has_reference(row) else ("", "") for row in rows]
    return character_edits([text for text, _ in pairs], [gold or "" for _, gold in pairs])


def _by_seed(runs: Sequence[Run], language: str, setup: str) -> list[Run]:
    seeds = [run.record.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        twice = [run for run in runs if seeds.count(run.record.seed) > 1]
        raise InputError(
            f"{len(twice)} runs are called '{twice[0].system}' and tell of {language} ({setup}) "
            f"with seed {twice[0].record.seed} ({', '.join(str(run.source) for run in twice)}); "
            "tell them apart: rename `system` in run.json (or the file, where there is none)"
        )
    return sorted(runs, key=lambda run: -1 if run.record.seed is None else run.record.seed)
