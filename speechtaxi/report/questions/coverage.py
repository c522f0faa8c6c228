"""Clips that a system skipped or could not use, scored both ways that can be defended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from speechtaxi.languages import name_of
from speechtaxi.report import charts
from speechtaxi.report.board import Arm, Board, Counts, Languages
from speechtaxi.report.comparison import Comparison, Difference, corrected, difference, headline
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Row, Table
from speechtaxi.types import Prediction

Mask: TypeAlias = NDArray[np.bool_]

UNUSABLE = frozenset({"empty", "unsupported_language", "silent", "no_speech"})
"""Flags of clips of which a system had nothing to go by: its answer is a guess."""


def usable(row: Prediction) -> bool:
    """Tell whether a row is an answer: not the stand-in of a missing one, nor a blind guess."""
    return bool(row.probabilities) and not UNUSABLE.intersection(row.flags)


def whole(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with every clip that any run has in a language.

    Where label sets differ, clips of other than the common labels are left out. The stand-in of a
    clip that a run misses has no probabilities.
    """
    sets = [frozenset(next(run.rows()).probabilities) for run in runs]
    common = frozenset[str].intersection(*sets)
    alike = all(labels == common for labels in sets)
    clips: defaultdict[str, dict[str, Prediction]] = defaultdict(dict)
    for run in runs:
        for row in run.rows():
            if row.label is not None and (alike or row.label in common):
                stand_in = replace(row, prediction=row.label, probabilities={}, flags=())
                clips[row.language].setdefault(row.id, stand_in)
    filled: list[Run] = []
    for run in runs:
        predictions: dict[str, list[Prediction]] = {}
        for language, rows in run.predictions.items():
            own = {row.id: row for row in rows}
            every = clips[language]
            if any(name in own for name in every):
                predictions[language] = [own.get(name, every[name]) for name in sorted(every)]
        filled.append(replace(run, predictions=predictions))
    return filled


@dataclass(frozen=True)
class WholeBoard(Board):
    """Measures arms on `whole` runs.

    A clip without a usable answer is left out for all, or it counts as wrong: its topic is missed,
    and no topic is predicted.
    """

    dropping: bool = False

    def tallies(self, arm: Arm, language: str) -> Counts:
        counts = super().tallies(arm, language)
        if self.dropping:
            return counts * self.shared[language][:, None, None, None]
        answered = np.stack([_mask(run, language) for run in arm.runs[language]], axis=1)
        counts[:, :, ::2] *= answered[:, :, None, None]  # hits and predictions; gold stays
        return counts

    @cached_property
    def shared(self) -> dict[str, Mask]:
        """Which clips of a language all runs have a usable answer for."""
        masks: defaultdict[str, list[Mask]] = defaultdict(list)
        for run in self.runs:
            for language in run.predictions:
                masks[language].append(_mask(run, language))
        return {language: np.all(several, axis=0) for language, several in masks.items()}


def coverage(found: Comparison, given: Sequence[Run]) -> tuple[list[str], list[Table]]:
    """Return words and tables on skipped and flagged clips.

    Args:
        given: the runs as they were read, before they were brought to the same clips.
    """
    runs = whole(given)
    rows = [row for run in runs for row in run.rows()]
    if all(row.probabilities and not row.flags for row in rows):
        return ["Every system answered every clip, and none is flagged."], []
    wrong, dropping = (
        WholeBoard(runs, found.labels, found.board.resamples, found.board.seed, dropping=way)
        for way in (False, True)
    )
    arms = headline(wrong.arms)
    left = {language for language, mask in dropping.shared.items() if mask.any()}
    means: list[Row] = []
    cells: list[Row] = []
    for arm in arms:
        means.append(_row(wrong, dropping, arm, arm.languages, left))
        cells += [_row(wrong, dropping, arm, (lang,), left) for lang in arm.languages]
    words = [*_words(arms, dropping)]
    tables = [
        Table("coverage", "Skipped and flagged clips, mean over languages", means),
        Table("coverage-languages", "Skipped and flagged clips by language", cells, folded=True),
    ]
    if not all(map(usable, rows)) and found.mean_differences:
        told, table = _findings(found, wrong, dropping, left)
        words.append(told)
        tables.append(table)
    return words, tables


def _words(arms: Sequence[Arm], dropping: WholeBoard) -> Iterator[str]:
    shares = {arm: _share(arm, arm.languages, usable) for arm in arms}
    least = min(arms, key=lambda arm: shares[arm])
    if shares[least] == 1:
        yield (
            "Every system has an answer for every clip, and none was blind; some transcripts are "
            "flagged as doubtful."
        )
        return
    lost = sum(int((~mask).sum()) for mask in dropping.shared.values())
    total = sum(map(len, dropping.shared.values()))
    yield (
        "Coverage is the share of clips with a usable answer: neither missing, though another run "
        "has the clip, nor flagged as empty, silent or of an unsupported language. "
        f"It is least for {least.system} ({least.setup}): {shares[least]:.1%}. "
        f"Of {total:,} clips {lost:,} lack a usable answer of some run. They are scored both ways: "
        "dropped for all systems, and counted as wrong for those that lack it."
    )
    if gone := sorted(name_of(lang) for lang, mask in dropping.shared.items() if not mask.any()):
        yield f"Dropped for all, no clip is left in {', '.join(gone)}: those scores are without it."


def _row(
    wrong: WholeBoard, dropping: WholeBoard, arm: Arm, languages: Languages, left: set[str]
) -> Row:
    alone = len(languages) == 1
    flags = Counter(flag for row in _answers(arm, languages) for flag in row.flags)
    kept = tuple(language for language in languages if language in left)
    return {
        "setup": arm.setup,
        "system": arm.system,
        "language": name_of(languages[0]) if alone else f"mean of {len(languages)}",
        "clips": sum(len(arm.rows(language)) for language in languages),
        "missing": _share(arm, languages, lambda row: not row.probabilities),
        "flagged": _share(arm, languages, lambda row: bool(row.flags)),
        "flags": ", ".join(f"{flag} {count}" for flag, count in sorted(flags.items())) or None,
        "coverage": _share(arm, languages, usable),
        "macro-F1, dropped for all": dropping.macro_f1(arm, kept).interval() if kept else None,
        "macro-F1, counted as wrong": wrong.macro_f1(arm, languages).interval(),
    }


def _findings(
    found: Comparison, wrong: WholeBoard, dropping: WholeBoard, left: set[str]
) -> tuple[str, Table]:
    """Tell whether hearing against reading comes out alike both ways."""
    dropped = _again(dropping, wrong.arms, found.mean_differences, left)
    counted = _again(wrong, wrong.arms, found.mean_differences, set(found.languages))
    rows: list[Row] = []
    changed: list[str] = []
    for known, *others in zip(found.mean_differences, dropped, counted, strict=True):
        usual = charts.finding(known)
        ways = zip(("dropped", "counted as wrong"), others, strict=True)
        other = [
            f"{charts.finding(d)} when {way}" for way, d in ways if d and d.better != known.better
        ]
        rows.append(
            {
                "setup": known.setup,
                "E2E": known.first,
                "cascade": known.second,
                "as compared": known.difference,
                "dropped for all": others[0].difference if others[0] else None,
                "counted as wrong": others[1].difference if others[1] else None,
                "finding": "; ".join([usual, *other]),
            }
        )
        if other:
            changed.append(
                f"{known.first} against {known.second}, {known.setup}: {usual} as compared, "
                + ", ".join(other)
            )
    told = (
        f"Beware: what is found depends on the way. {'; '.join(changed)}."
        if changed
        else "Neither way changes what is found of hearing against reading."
    )
    title = "E2E minus cascade, macro-F1, by what becomes of clips without a usable answer"
    return told, Table("coverage-differences", title, rows)


def _again(
    board: WholeBoard, arms: Sequence[Arm], known: Sequence[Difference], left: set[str]
) -> list[Difference | None]:
    """Return differences anew, corrected in the same families; None where no language is left."""
    named = {(arm.system, arm.setup): arm for arm in arms}
    families: defaultdict[object, dict[int, Difference]] = defaultdict(dict)
    for place, d in enumerate(known):
        if languages := tuple(language for language in d.languages if language in left):
            pair = named[d.first, d.setup], named[d.second, d.setup]
            family = d.setup if len(d.languages) > 1 else place
            families[family][place] = difference(board, *pair, languages)
    again: dict[int, Difference] = {}
    for family in families.values():
        again |= dict(zip(family, corrected([*family.values()]), strict=True))
    return [again.get(place) for place in range(len(known))]


def _answers(arm: Arm, languages: Languages) -> Iterator[Prediction]:
    """Yield the rows of all seeds."""
    for language in languages:
        for run in arm.runs[language]:
            yield from run.predictions[language]


def _share(arm: Arm, languages: Languages, of: Callable[[Prediction], bool]) -> float:
    """Return a share of clips, the mean over languages and seeds."""
    return float(
        np.mean([np.mean([of(row) for row in _answers(arm, (lang,))]) for lang in languages])
    )


def _mask(run: Run, language: str) -> Mask:
    return np.array([usable(row) for row in run.predictions[language]])
