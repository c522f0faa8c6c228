"""Temperature scaling: how sure a model may be, fitted to dev clips.

Logits are divided by one number, the temperature (Guo et al., "On calibration of modern neural
networks", ICML 2017, arXiv 1706.04599, section 4.2). No answer changes, only its probability.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speechtaxi.errors import InputError
from speechtaxi.records import replacing
from speechtaxi.scores import calibration_error, reliability

FILE = "calibration.json"
"""In a run folder that is calibrated."""

LEAST_CLIPS = 20
"""Fewer clips say next to nothing of a probability."""

LOWEST, HIGHEST = 0.01, 100.0
"""Between which a temperature is sought."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and what it is worth on the clips that it was fitted to."""

    temperature: float
    clips: int
    log_loss_before: float
    """In nats, the mean over clips."""
    log_loss_after: float
    ece_before: float
    """Expected calibration error, see `scores.calibration_error`."""
    ece_after: float
    languages: tuple[str, ...] = ()
    split: str = "dev"

    def __str__(self) -> str:
        return (
            f"calibrated on {self.clips} {self.split} clips: temperature {self.temperature:.3f}, "
            f"log loss {self.log_loss_before:.3f} -> {self.log_loss_after:.3f}, "
            f"ECE {self.ece_before:.3f} -> {self.ece_after:.3f}"
        )


def calibrate(logits: ArrayLike, labels: ArrayLike, languages: Iterable[str] = ()) -> Calibration:
    """Fit a temperature, and score the probabilities without and with it.

    Arguments and errors are those of `fit_temperature`; `languages` are those of the clips.
    """
    temperature = fit_temperature(logits, labels)
    z, gold = np.asarray(logits, float), np.asarray(labels, np.int64)
    loss_before, ece_before = _scores(z, gold)
    loss_after, ece_after = _scores(z / temperature, gold)
    return Calibration(
        temperature,
        len(gold),
        loss_before,
        loss_after,
        ece_before,
        ece_after,
        tuple(sorted(set(languages))),
    )


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature at which logits / temperature have the least log loss.

    The log loss is convex in the inverse temperature: its slope, the mean logit that the model
    expects minus the mean logit of the gold topic, has one root.

    Args:
        logits: (N, C).
        labels: gold topics (N,), 0 <= number < C.

    Raises:
        InputError: there is no such temperature, or too little to find it by: fewer than
            `LEAST_CLIPS` clips, one topic, all right, no better than chance, no numbers.
    """
    from scipy.optimize import brentq  # pyright: ignore
    from scipy.special import softmax  # pyright: ignore

    z, gold = np.asarray(logits, float), np.asarray(labels, np.int64)
    n_topics = len(np.unique(gold))
    if len(gold) < LEAST_CLIPS:
        raise InputError(f"{len(gold)} dev clips; at least {LEAST_CLIPS} are needed")
    if n_topics == 1:
        raise InputError(f"all {len(gold)} dev clips are of one topic; more than one is needed")
    if not np.isfinite(z).all():
        raise InputError("the model's answers to dev clips are not numbers; train it again")
    z = z - z.max(-1, keepdims=True)
    hits = np.take_along_axis(z, gold[:, None], -1)[:, 0]
    if not hits.any():
        raise InputError(f"all {len(gold)} dev clips are right; a temperature is fitted to errors")

    def slope(inverse: float) -> float:
        return float(((softmax(z * inverse, -1) * z).sum(-1) - hits).mean())

    if slope(0.0) >= 0:
        raise InputError("the model is no better than chance on dev clips; train it longer")
    if slope(1 / HIGHEST) >= 0:
        return HIGHEST
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    return 1 / cast(float, brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-9))


def write(folder: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write calibration.json into a run folder, atomically."""
    with replacing(Path(folder) / FILE) as file:
        json.dump(asdict(calibration), file, ensure_ascii=False, indent=2)
        file.write("\n")


def read(folder: str | os.PathLike[str]) -> Calibration | None:
    """Read calibration.json of a run folder; None where there is none.

    Raises:
        InputError: the file is damaged, or holds no temperature above 0.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        data = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        found = Calibration(**{field.name: data[field.name] for field in fields(Calibration)})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}); remove it, and `speechtaxi validate` writes it again"
        ) from None
    checked(found.temperature, str(path))
    return replace(found, languages=tuple(found.languages))


def checked(value: object, where: str) -> float:
    """Return a temperature that was read from a file.

    Raises:
        InputError: it is not a number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{where}: temperature must be a number above 0, not {value!r}")
    return float(value)


def _scores(z: NDArray[np.float64], gold: NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean log loss and the ECE of logits (N, C)."""
    from scipy.special import log_softmax  # pyright: ignore

    logs = np.asarray(log_softmax(z, -1), float)
    told = reliability(np.exp(logs.max(-1)), logs.argmax(-1) == gold).sum(0)
    loss = -np.take_along_axis(logs, gold[:, None], -1).mean()
    return float(loss), float(calibration_error(told))
