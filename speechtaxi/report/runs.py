"""The runs that a report compares: read, and brought to the same clips and gold labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from speechtaxi.errors import InputError
from speechtaxi.records import read_predictions, read_run
from speechtaxi.types import Prediction, RunRecord

SETUPS = ("in-language", "all-languages", "zero-shot", "unknown")
"""What a language can be to a run, from the languages that the run was trained on."""


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
        """Tell which of `SETUPS` a language is to this run."""
        trained = self.record.train_languages
        if not trained:
            return self.record.setup if self.record.setup in SETUPS else "unknown"
        if language not in trained:
            return "zero-shot"
        return "in-language" if len(trained) == 1 else "all-languages"


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
        InputError: two runs of one name, different clips (unless `common`), other gold labels.
    """
    _refuse_namesakes(runs)
    runs, dropped = _same_clips(runs, common)
    _check_gold(runs)
    return runs, [*dropped, *_record_warnings(runs)]


def _refuse_namesakes(runs: Sequence[Run]) -> None:
    for system, count in Counter(run.system for run in runs).items():
        if count > 1:
            sources = ", ".join(str(run.source) for run in runs if run.system == system)
            raise InputError(
                f"{count} runs are called '{system}' ({sources}); tell them apart: "
                "rename `system` in run.json (or the file, where there is no run.json)"
            )


def _same_clips(runs: Sequence[Run], common: bool) -> tuple[list[Run], list[str]]:
    kept: dict[str, set[str]] = {}
    warnings: list[str] = []
    for language in sorted({language for run in runs for language in run.predictions}):
        ids = {
            run.system: {row.id for row in run.predictions[language]}
            for run in runs
            if language in run.predictions
        }
        kept[language] = shared = set[str].intersection(*ids.values())
        if all(clips == shared for clips in ids.values()):
            continue
        counts = ", ".join(f"'{system}' {len(clips)}" for system, clips in ids.items())
        told = f"clips of {language} differ between runs: {counts}, {len(shared)} in common"
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
    for what, values in (
        ("label sets", [", ".join(sorted(next(run.rows()).probabilities)) for run in runs]),
        ("training data (fingerprints)", [run.record.data_fingerprint for run in runs]),
        ("seeds", [run.record.seed for run in runs]),
    ):
        systems: dict[str, list[str]] = defaultdict(list)
        for run, value in zip(runs, values, strict=True):
            if value is not None:
                systems[str(value)].append(run.system)
        if len(systems) > 1:
            yield f"{what} differ: " + "; ".join(
                f"{value} ({', '.join(names)})" for value, names in systems.items()
            )
    if unknown := [run.system for run in runs if not run.record.train_languages]:
        yield (
            "training languages unknown, so that seen and unseen ones cannot be told apart: "
            + ", ".join(unknown)
        )
    for run in runs:
        if run.unlabelled:
            yield f"{run.system}: {run.unlabelled} clips without a gold label left out"
        if run.record.skipped:
            yield f"{run.system}: {run.record.skipped} clips skipped (see its run folder)"
