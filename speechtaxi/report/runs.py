"""The runs that a report compares: read, and brought to the same clips and gold labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from speechtaxi.errors import InputError
from speechtaxi.records import read_predictions, read_run
from speechtaxi.types import Prediction, RunRecord

SETUPS = ("in-language", "all-languages", "zero-shot", "unknown")
"""What a language can be to a run, from the languages that the run was trained on. From a single
other language it is "zero-shot from eng"."""


def setup_order(setup: str) -> tuple[int, str]:
    """Return a key that sorts setups as `SETUPS` does, variants after their kind."""
    kind = next((kind for kind in SETUPS if setup.startswith(kind)), SETUPS[-1])
    return SETUPS.index(kind), setup


@dataclass(frozen=True)
class Run:
    """A run: its record, and its labelled predictions by language, ordered by id."""

    record: RunRecord
    source: Path
    predictions: Mapping[str, Sequence[Prediction]]
    unlabelled: int = 0

    @property
    def system(self) -> str:
        return self.record.system

    @property
    def reads_gold(self) -> bool:
        return (self.record.view or "").startswith("gold")

    def rows(self) -> Iterator[Prediction]:
        for rows in self.predictions.values():
            yield from rows

    def setup(self, language: str) -> str:
        """Tell which of `SETUPS` a language is to this run.

        What the record says counts where the training languages are unknown, and as a variant of
        what they tell ("zero-shot without its family").
        """
        trained, said = self.record.train_languages, self.record.setup or ""
        if not trained:
            return said if said in SETUPS else "unknown"
        if language in trained:
            setup = "in-language" if len(trained) == 1 else "all-languages"
        else:
            setup = "zero-shot" if len(trained) > 1 else f"zero-shot from {', '.join(trained)}"
        return said if said.startswith(setup) else setup


def read(path: Path, split: str) -> Run:
    """Read a run folder, or a file of predictions.

    A file without run.json beside it is a system of the file's name, taken for a cascade where any
    row tells what was read.

    Raises:
        InputError: nothing there, broken, or without any gold label.
    """
    file = path
    if path.is_dir():
        file = path / f"predictions-{split}.jsonl"
        if not file.exists():
            there = ", ".join(sorted(p.name for p in path.glob("predictions-*.jsonl")))
            raise InputError(
                f"{path}: no predictions for the split '{split}'; "
                + (f"there are {there}" if there else "run `speechtaxi test` there first")
            )
    predictions = read_predictions(file)
    if path.is_dir() or (file.parent / "run.json").exists():
        record = read_run(file.parent)
    else:
        reads = any(row.text is not None for row in predictions)
        record = RunRecord(system=file.stem, route="cascade" if reads else "e2e")
    labelled = [row for row in predictions if row.label is not None]
    if not labelled:
        raise InputError(f"{file}: no row has a gold label, so there is nothing to score")
    by_language: dict[str, list[Prediction]] = defaultdict(list)
    for row in sorted(labelled, key=lambda row: row.id):
        by_language[row.language].append(row)
    return Run(record, path, by_language, len(predictions) - len(labelled))


def align(runs: Sequence[Run], common: bool) -> tuple[list[Run], list[str]]:
    """Return the runs on the same clips, and warnings about what else differs.

    Args:
        common: take the clips that all runs of a language have, where they differ.

    Raises:
        InputError: one system of two kinds, different clips or label sets (unless `common`), other
            gold labels.
    """
    _refuse_mixtures(runs)
    runs, relabelled = _same_labels(runs, common)
    runs, dropped = _same_clips(runs, common)
    _check_gold(runs)
    return runs, [*relabelled, *dropped, *_record_warnings(runs)]


def _refuse_mixtures(runs: Sequence[Run]) -> None:
    """Runs of one system may differ in seed and training languages, in nothing else."""
    firsts: dict[str, Run] = {}
    for run in runs:
        first = firsts.setdefault(run.system, run)
        for what in ("route", "view", "romanize", "recognizer"):
            one, other = getattr(first.record, what), getattr(run.record, what)
            if one != other:
                raise InputError(
                    f"two runs are called '{run.system}' ({first.source}, {run.source}), but "
                    f"their {what} differs ({one}, {other}); tell them apart: rename `system` in "
                    "run.json (or the file, where there is none)"
                )


def _same_labels(runs: Sequence[Run], common: bool) -> tuple[list[Run], list[str]]:
    """Cut to clips whose gold label all runs know."""
    known = [frozenset(next(run.rows()).probabilities) for run in runs]
    shared = frozenset[str].intersection(*known)
    if all(labels == shared for labels in known):
        return list(runs), []
    run, labels = next((r, k) for r, k in zip(runs, known, strict=True) if k != known[0])
    told = (
        f"label sets differ: '{runs[0].system}' has {', '.join(sorted(known[0]))}; "
        f"'{run.system}' has {', '.join(sorted(labels))}"
    )
    if not shared or not common:
        raise InputError(
            f"{told}; "
            + ("--common compares on clips of the common labels" if shared else "leave out a run")
        )
    cut = [
        replace(
            run,
            predictions={
                language: kept
                for language, rows in run.predictions.items()
                if (kept := [row for row in rows if row.label in shared])
            },
        )
        for run in runs
    ]
    if empty := [run.system for run in cut if not run.predictions]:
        raise InputError(f"{told}; no clip of '{empty[0]}' has a common label: leave out a run")
    lost = max(len(list(a.rows())) - len(list(b.rows())) for a, b in zip(runs, cut, strict=True))
    return cut, [f"{told}; up to {lost} clips of other labels are left out"]


def _same_clips(runs: Sequence[Run], common: bool) -> tuple[list[Run], list[str]]:
    kept: dict[str, set[str]] = {}
    warnings: list[str] = []
    for language in sorted({language for run in runs for language in run.predictions}):
        clips = [
            (run.system, {row.id for row in run.predictions[language]})
            for run in runs
            if language in run.predictions
        ]
        kept[language] = shared = set[str].intersection(*(ids for _, ids in clips))
        if all(ids == shared for _, ids in clips):
            continue
        counts = dict.fromkeys(f"'{system}' {len(ids)}" for system, ids in clips)
        told = (
            f"clips of {language} differ between runs: {', '.join(counts)}, {len(shared)} in common"
        )
        if not shared:
            raise InputError(f"{told}; leave out a run, or predict the same split with each")
        if not common:
            raise InputError(f"{told}; --common compares on the common clips")
        warnings.append(f"{told}, which are compared")
    same = [
        replace(
            run,
            predictions={
                language: [row for row in rows if row.id in kept[language]]
                for language, rows in run.predictions.items()
            },
        )
        for run in runs
    ]
    return same, warnings


def _check_gold(runs: Sequence[Run]) -> None:
    seen: dict[tuple[str, str], tuple[str | None, str]] = {}
    for run in runs:
        for row in run.rows():
            label, system = seen.setdefault((row.language, row.id), (row.label, run.system))
            if label != row.label:
                raise InputError(
                    f"clip '{row.id}' ({row.language}) has the gold label '{label}' in '{system}', "
                    f"but '{row.label}' in '{run.system}'; predict the same manifest with both"
                )


def groups(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """Return the group of each clip by (language, id); where runs disagree, the coarsest."""
    chosen: dict[tuple[str, str], str] = {}
    for run in sorted(runs, key=_clips_per_group):
        chosen |= {(row.language, row.id): row.group for row in run.rows()}
    return chosen


def _clips_per_group(run: Run) -> float:
    named = [row.group for row in run.rows()]
    return len(named) / len(set(named))


def _record_warnings(runs: Sequence[Run]) -> Iterator[str]:
    """Tell where runs differ in what should be the same, and what they left out."""
    chosen = groups(runs)
    if any(chosen[row.language, row.id] != row.group for run in runs for row in run.rows()):
        yield "runs group the clips differently; the coarsest groups are used"
    data: dict[tuple[str, ...], dict[str, list[str]]] = {}
    seeds: dict[str, set[str]] = defaultdict(set)
    recognizers: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        record = run.record
        seeds[run.system].add("none" if record.seed is None else str(record.seed))
        if record.data_fingerprint:  # on other languages it cannot be the same
            prints = data.setdefault(tuple(sorted(record.train_languages)), defaultdict(list))
            prints[record.data_fingerprint].append(run.system)
        if record.recognizer:
            recognizers[record.recognizer].append(run.system)
    by_seeds: dict[str, list[str]] = defaultdict(list)
    for system, numbers in seeds.items():
        by_seeds[", ".join(sorted(numbers))].append(system)
    for what, found in (
        *(("training data (fingerprints)", prints) for prints in data.values()),
        ("recognisers", recognizers),
        ("seeds", by_seeds),
    ):
        if len(found) > 1:
            yield f"{what} differ: " + "; ".join(
                f"{value} ({', '.join(dict.fromkeys(names))})" for value, names in found.items()
            )
    if unknown := {run.system: 1 for run in runs if not run.record.train_languages}:
        yield (
            "training languages unknown, so that seen and unseen ones cannot be told apart: "
            + ", ".join(unknown)
        )
    for run in runs:
        if run.unlabelled:
            yield f"{run.system}: {run.unlabelled} clips without a gold label left out"
        if run.record.skipped:
            yield f"{run.system}: {run.record.skipped} clips skipped (see its run folder)"
