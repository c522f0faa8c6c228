"""The manifests behind runs, split as the runs did, and what they tell of the compared clips."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias, cast

from speechtaxi.errors import InputError
from speechtaxi.records import fingerprint, read_manifest
from speechtaxi.report.comparison import Comparison
from speechtaxi.report.runs import Run
from speechtaxi.splits import with_splits
from speechtaxi.types import Split, Utterance

Clips: TypeAlias = Mapping[str, Sequence[Utterance]]
Pairs: TypeAlias = tuple[tuple[str, str], ...]

UNTOLD = "what training shares with the compared clips cannot be told"


@dataclass(frozen=True)
class Recipe:
    """How a run came by its clips: what of the `data` part of its config.yaml decides that."""

    manifests: tuple[str, ...]
    columns: Pairs = ()
    label_names: Pairs = ()
    language: str | None = None
    shares: tuple[tuple[Split, float], ...] = ()
    drops_leaks: bool = False


def read_sources(
    runs: Sequence[Run], manifests: Sequence[str | os.PathLike[str]] = ()
) -> tuple[list[Utterance], list[str]]:
    """Read the manifests behind runs, each once.

    They are those given, else those that the run folders' config.yaml name (relative to the working
    directory). Splits that a run made by hash are made again, and training clips that it left out
    as leaks are left out.

    Returns:
        The clips of all manifests, and a line for each thing that therefore cannot be told.

    Raises:
        InputError: a manifest that was given cannot be read.
    """
    followers: defaultdict[Recipe, list[Run]] = defaultdict(list)
    silent: list[Run] = []
    gaps: list[str] = []
    given = tuple(map(str, manifests))
    for run in runs:
        try:
            recipe = _recipe(run)
        except InputError as error:
            if not given:
                gaps.append(f"{error}; {UNTOLD}")
                continue
            recipe = None
        if given:
            recipe = replace(recipe or Recipe(given), manifests=given, columns=(), label_names=())
        if recipe is None:
            silent.append(run)
        else:
            followers[recipe].append(run)
    if silent:
        gaps.append(
            f"no config.yaml names the manifest of {_systems(silent)}: give it; without, {UNTOLD}"
        )
    read = cache(_read)
    clips: dict[Utterance, None] = {}
    for recipe, users in followers.items():
        try:
            rows = [
                row
                for path in recipe.manifests
                for row in read(path, recipe.columns, recipe.label_names, recipe.language)
            ]
        except InputError as error:
            if given:
                raise
            gaps.append(f"{error} (the manifest of {_systems(users)}); {UNTOLD}")
            continue
        rows = with_splits(rows, dict(recipe.shares))
        now = fingerprint(rows)
        others = [run for run in users if run.record.data_fingerprint not in (None, now)]
        if others:
            gaps.append(
                f"{', '.join(recipe.manifests)}: not the clips that {_systems(others)} had "
                f"(fingerprint {now}, not {others[0].record.data_fingerprint}); leaks and "
                "baselines are told of the manifest as it is now"
            )
        clips |= dict.fromkeys(_without_leaks(rows) if recipe.drops_leaks else rows)
    return list(clips), gaps


def compared_clips(found: Comparison, utterances: Sequence[Utterance]) -> Clips:
    """Return the compared clips by language, in the order of the rows.

    A group that is the clip's own id is none, unless the manifest says so.
    """
    known = {(u.language, u.id): u for u in utterances if u.split != found.split}
    known |= {(u.language, u.id): u for u in utterances if u.split == found.split}
    clips: dict[str, list[Utterance]] = {}
    for language in found.languages:
        run = next(run for run in found.runs if language in run.predictions)
        clips[language] = [
            replace(
                (u := known.get((language, row.id), Utterance(row.id, language))),
                label=row.label,
                group=u.group if row.group == row.id else row.group,
                duration=row.duration or u.duration,
            )
            for row in run.predictions[language]
        ]
    return clips


def trained_on(found: Comparison, language: str | None = None) -> set[str]:
    """Return the languages that the runs (tested on a language) saw; empty: some do not tell."""
    runs = [run for run in found.runs if language is None or language in run.predictions]
    if not all(run.record.train_languages for run in runs):
        return set()
    return {trained for run in runs for trained in run.record.train_languages}


def _without_leaks(rows: Sequence[Utterance]) -> Iterable[Utterance]:
    held_out = {row.group for row in rows if row.split in ("dev", "test")} - {None}
    return (row for row in rows if row.split != "train" or row.group not in held_out)


def _read(path: str, columns: Pairs, label_names: Pairs, language: str | None) -> list[Utterance]:
    return read_manifest(path, columns=dict(columns), labels=dict(label_names), language=language)


def _recipe(run: Run) -> Recipe | None:
    """Return what a run folder's config.yaml says of its data; None where there is none."""
    folder = run.source if run.source.is_dir() else run.source.parent
    path = folder / "config.yaml"
    if not (folder / "run.json").exists() or not path.exists():
        return None
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where there
    try:
        config: Any = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    data = _mapping(_mapping(config).get("data"))
    named = data.get("manifest")
    names = cast("list[Any]", named if isinstance(named, list) else [named])
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: data.manifest names no manifest")
    language = data.get("language")
    return Recipe(
        tuple(names),
        _pairs(data.get("columns")),
        _pairs(data.get("label_names")),
        language if isinstance(language, str) else None,
        (("dev", _share(data.get("dev_share"))), ("test", _share(data.get("test_share")))),
        data.get("leakage") == "drop",
    )


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _pairs(value: Any) -> Pairs:
    return tuple((str(ours), str(theirs)) for ours, theirs in _mapping(value).items())


def _share(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _systems(runs: Iterable[Run]) -> str:
    return ", ".join(dict.fromkeys(run.system for run in runs))
