"""From an experiment to runs, and from runs to public commands."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from speechtaxi.errors import InputError
from speechtaxi.grid.experiment import Experiment, Fold, System, folds
from speechtaxi.train import config_path

OUTPUT = "{output}"
"""Stands for the grid's folder: what a run is called does not depend on where it lies."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One training, and the languages that it is tested on."""

    system: str
    fold: Fold
    seed: int
    folder: Path
    fit: tuple[str, ...]
    """The options of `speechtaxi fit`, but for what tells where data and run lie."""
    settings: Settings
    """All that the configs and options say, merged."""
    needs: tuple[Path, ...] = ()
    """Folders of the runs that it builds on."""
    tested: bool = True

    @property
    def name(self) -> str:
        return f"{self.system}/{self.fold.name}/{self.seed}"

    @property
    def recognizer(self) -> str | None:
        """Who transcribes for it, if anyone."""
        return self.settings.get("model", {}).get("init_args", {}).get("recognizer")

    @property
    def frozen(self) -> bool:
        """Whether it hears by an encoder that stays as it was."""
        return self.settings.get("model", {}).get("init_args", {}).get("freeze") == "all"


def plan(
    experiment: Experiment,
    systems: Mapping[str, System],
    languages: Sequence[str],
    output: Path,
    clips: str,
) -> list[Run]:
    """Return the runs, each after those that it needs.

    The folder of a run ends in a digest of all that decides on it (configs, options, languages,
    seed, clips, and the runs that it builds on), so that a changed setting makes another run.

    Args:
        languages: to train on.
        clips: digest of the clips.

    Raises:
        InputError: an unknown config or system, an option that cannot be read, a circle.
    """
    planned: dict[str, list[Run]] = {}

    def build(name: str, path: tuple[str, ...] = ()) -> list[Run]:
        if name in path:
            raise InputError(f"systems need each other in a circle: {' -> '.join((*path, name))}")
        if name not in planned:
            system = systems[name]
            taken = folds(system.setups or experiment.setups, languages, experiment.targets)
            seeds = system.seeds or experiment.seeds
            planned[name] = [one(name, system, f, seed, path) for seed in seeds for f in taken]
        return planned[name]

    def one(name: str, system: System, fold: Fold, seed: int, path: tuple[str, ...]) -> Run:
        needs: list[Run] = []

        def named(found: re.Match[str]) -> str:
            other = found.group(1)
            if found.group(0) == OUTPUT:
                return OUTPUT
            if other not in systems:
                raise InputError(
                    f"system '{name}' names {{{other}}}, which is no system: {', '.join(systems)}"
                )
            needs.append(closest(build(other, (*path, name)), fold, seed, name))
            return f"{OUTPUT}/{needs[-1].folder.as_posix()}"

        configs = (*experiment.base, *system.config)
        options = [
            re.sub(r"\{([\w.-]+)\}", named, option)
            for option in (*experiment.options, *system.options)
        ]
        settings = merged(configs, options)
        decides = [settings, fold.languages, seed, clips]
        digest = hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=4)
        folder = Path(name) / fold.name / f"{seed}-{digest.hexdigest()}"
        words = [word for config in configs for word in ("-c", config)]
        return Run(
            name,
            fold,
            seed,
            folder,
            tuple(word.replace(OUTPUT, str(output)) for word in (*words, *options)),
            settings,
            tuple(dict.fromkeys(run.folder for run in needs)),
            system.tested,
        )

    return [run for name in sorted_by_need(systems) for run in build(name)]


def sorted_by_need(systems: Mapping[str, System]) -> list[str]:
    """Return systems, those that others are built on first, else in the file's order."""
    order: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in order or name not in systems or name in path:
            return
        for option in systems[name].options:
            for other in re.findall(r"\{([\w.-]+)\}", option):
                visit(other, (*path, name))
        order[name] = None

    for name in systems:
        visit(name, ())
    return list(order)


def closest(runs: Sequence[Run], fold: Fold, seed: int, wanted_by: str) -> Run:
    """Return the run with the same training languages, else with all; of the same seed, or else
    of the first."""
    for same in (
        [run for run in runs if set(run.fold.languages) == set(fold.languages)],
        [run for run in runs if set(run.fold.languages) >= set(fold.languages)],
    ):
        if same:
            return next((run for run in same if run.seed == seed), same[0])
    raise InputError(
        f"'{wanted_by}' trained on {', '.join(fold.languages)} needs '{runs[0].system}', which "
        "is not trained on these or more; give it the same setups, or all-languages"
    )


def merged(configs: Iterable[str], options: Iterable[str]) -> Settings:
    """Return the settings of configs and options, the later ones over the earlier.

    Raises:
        InputError: an unknown config, or an option that is not "--name=value".
    """
    settings: dict[str, Any] = {}
    for config in configs:
        path = config_path("-c", config)
        try:
            read: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f"{path}: {' '.join(str(error).split())}") from None
        _merge(settings, read or {})
    for option in options:
        name, equals, value = option.partition("=")
        if not name.startswith("--") or not equals:
            raise InputError(f"the option '{option}' is not of the form --name=value")
        keys = name[2:].split(".")
        if keys[0] == "model" and len(keys) > 1 and keys[1] not in ("class_path", "init_args"):
            keys.insert(1, "init_args")
        parsed: Any = yaml.safe_load(value) if not value.startswith(OUTPUT) else value
        for key in reversed(keys):
            parsed = {key: parsed}
        _merge(settings, parsed)
    return settings


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value
