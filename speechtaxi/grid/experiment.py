"""What a grid is asked to do: systems x setups x languages x seeds, read from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from speechtaxi.errors import InputError
from speechtaxi.languages import LANGUAGES
from speechtaxi.records import record

IN_LANGUAGE, ALL_LANGUAGES = "in-language", "all-languages"
LEAVE_ONE_LANGUAGE_OUT, LEAVE_ONE_FAMILY_OUT = "leave-one-language-out", "leave-one-family-out"
FROM = "zero-shot from "
WITHOUT_FAMILY = "zero-shot without its family"
"""What a report calls the transfer to a language whose relatives were left out too."""
SETUPS = (IN_LANGUAGE, ALL_LANGUAGES, LEAVE_ONE_LANGUAGE_OUT, LEAVE_ONE_FAMILY_OUT)
"""And "zero-shot from CODE", and "zero-shot from each" for the whole matrix of transfer."""


@dataclass(frozen=True)
class System:
    """A system of an experiment: configs and options of `speechtaxi fit`."""

    config: tuple[str, ...] = ()
    """Model configs, by short name or path, after those that all systems share."""
    options: tuple[str, ...] = ()
    """As in "--model.lr=1e-4"; {NAME} stands for the run folder of another system, with the same
    training languages or else all of them, and {output} for the grid's folder."""
    setups: tuple[str, ...] = ()
    """Those of the experiment that it takes part in; none: all."""
    seeds: tuple[int, ...] = ()
    tested: bool = True
    """False for a recogniser: it is there for others."""
    gflop_per_second: float | None = None
    """Of a second of audio in one pass forwards (with its source in a comment)."""
    parameters: float | None = None
    """Number of weights that a checkpoint holds."""


@dataclass(frozen=True)
class Device:
    """What estimates rest on until runs are measured."""

    name: str
    tflops: float
    """Peak, at the precision of the training."""
    share: float
    """Of the peak that is used."""


@dataclass(frozen=True)
class Experiment:
    """A grid, as its file says it."""

    systems: Mapping[str, object]
    setups: tuple[str, ...]
    base: tuple[str, ...] = ()
    """Configs that every run begins with: trainer, data."""
    options: tuple[str, ...] = ()
    """Of every run."""
    languages: tuple[str, ...] = ()
    """To train on, in turn or together; none: all that have training clips."""
    targets: tuple[str, ...] = ()
    """Tested too, though no system trains on them."""
    seeds: tuple[int, ...] = (0,)
    limit: Mapping[str, int] = field(default_factory=dict[str, int])
    """At most so many clips of a language, by split: an experiment with little data."""
    notes: tuple[str, ...] = ()
    """What a reader of the report must know."""
    device: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True)
class Fold:
    """Languages to train on, and those that the result is tested on."""

    name: str
    languages: tuple[str, ...]
    targets: tuple[str, ...]
    setup: str | None = None
    """What a report is to call its transfer, where that is a variant of zero-shot."""


def read_experiment(path: str | Path) -> tuple[Experiment, dict[str, System]]:
    """Read an experiment and its systems.

    Raises:
        InputError: not YAML, an unknown or ill-typed setting, an unknown setup or system.
    """
    try:
        values: object = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    experiment = _checked(Experiment, values, str(path))
    systems = {
        name: _checked(System, settings, f"{path}: system '{name}'")
        for name, settings in experiment.systems.items()
    }
    if experiment.device:
        _checked(Device, experiment.device, f"{path}: device")
    for setup in experiment.setups:
        if setup not in SETUPS and not setup.startswith(FROM):
            raise InputError(
                f"{path}: no setup '{setup}'; there are {', '.join(SETUPS)}, '{FROM}CODE' and "
                f"'{FROM}each'"
            )
    for name, system in systems.items():
        for setup in system.setups:
            if setup not in experiment.setups:
                raise InputError(
                    f"{path}: system '{name}' takes part in '{setup}', which is none of the "
                    f"experiment's setups: {', '.join(experiment.setups)}"
                )
    return experiment, systems


def folds(setups: Sequence[str], languages: Sequence[str], targets: Sequence[str]) -> list[Fold]:
    """Return what to train on: once for each set of languages, however many setups need it.

    A family of one language is left out as that language is: the run counts as plain zero-shot.

    Args:
        languages: to train on.
        targets: further languages to test on.

    Raises:
        InputError: a source that is no training language, or nothing left to train on.
    """
    found: dict[frozenset[str], Fold] = {}

    def add(name: str, train: Sequence[str], test: Sequence[str], setup: str | None = None) -> None:
        if not train:
            raise InputError(f"nothing is left to train on for '{name}'; give more languages")
        known = found.get(frozenset(train))
        if known is not None:
            name, setup, test = known.name, known.setup, dict.fromkeys((*known.targets, *test))
        found[frozenset(train)] = Fold(name, tuple(train), tuple(test), setup)

    def without(gone: Sequence[str]) -> list[str]:
        return [language for language in languages if language not in gone]

    for setup in setups:
        if setup == IN_LANGUAGE:
            for language in languages:
                add(language, [language], [language])
        elif setup == ALL_LANGUAGES:
            add("all", languages, [*languages, *targets])
        elif setup == LEAVE_ONE_LANGUAGE_OUT:
            for language in languages:
                add(f"without-{language}", without([language]), [language])
        elif setup == LEAVE_ONE_FAMILY_OUT:
            for family, members in families(languages).items():
                add(
                    f"without-{family}",
                    without(members),
                    members,
                    WITHOUT_FAMILY if len(members) > 1 else None,
                )
        else:
            source = setup.removeprefix(FROM)
            for language in languages if source == "each" else [source]:
                if language not in languages:
                    raise InputError(
                        f"'{setup}': {language} is none of the training languages "
                        f"{', '.join(languages)}"
                    )
                add(language, [language], [*without([language]), *targets])
    return list(found.values())


def families(languages: Sequence[str]) -> dict[str, list[str]]:
    """Return languages by family, or the branch of a large one, as in `languages.LANGUAGES`.

    Raises:
        InputError: a language that the table does not have.
    """
    found: dict[str, list[str]] = {}
    for language in languages:
        if language not in LANGUAGES:
            raise InputError(
                f"the family of '{language}' is not known; {LEAVE_ONE_FAMILY_OUT} needs languages "
                "of `speechtaxi languages --all`"
            )
        found.setdefault(LANGUAGES[language].family.split(": ")[-1], []).append(language)
    return found


def _checked(kind: type[Any], values: object, where: str) -> Any:
    """Return a dataclass of settings; one word stands for a list of one."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: give settings, as in `setups: [in-language]`")
    known = list(kind.__dataclass_fields__)
    rows = dict(cast("dict[str, Any]", values))
    for name, value in rows.items():
        if name not in known:
            raise InputError(f"{where}: no setting '{name}'; there are {', '.join(known)}")
        if "tuple" in str(kind.__dataclass_fields__[name].type) and not isinstance(value, list):
            rows[name] = [value]
    return record(kind, rows, where)
