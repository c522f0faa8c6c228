"""Run folders: the rows that a system predicted, and where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from speechtaxi.errors import InputError
from speechtaxi.languages import is_code
from speechtaxi.records.files import json_rows, refuse_repeated, replacing, text
from speechtaxi.records.manifest import bad_language
from speechtaxi.records.typed import record
from speechtaxi.types import Prediction, RunRecord

SUM_TOLERANCE = 1e-3
"""How far the sum of probabilities may be from 1: other people's files are rounded."""


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """Read prediction rows (JSONL); a row without a group is its own group.

    Raises:
        InputError: no such file, a missing or ill-typed field, probabilities that are none, a
            prediction or labels that do not fit them, a repeated id.
    """
    predictions: list[Prediction] = []
    places: list[str] = []
    for where, row in json_rows(Path(path)):
        prediction = record(Prediction, {"group": row.get("id"), "label": None} | row, where)
        odds = prediction.probabilities
        bad = [p for p in odds.values() if not 0 <= p <= 1]  # also what is not a number
        if bad:
            raise InputError(f"{where}: probabilities must lie in [0, 1], not {bad[0]}")
        if abs(sum(odds.values()) - 1) > SUM_TOLERANCE:
            raise InputError(f"{where}: probabilities must sum to 1, not {sum(odds.values()):.4f}")
        if prediction.prediction not in odds:
            raise InputError(
                f"{where}: prediction '{prediction.prediction}' has no probability; "
                f"the labels are {', '.join(odds)}"
            )
        if prediction.label is not None and prediction.label not in odds:
            raise InputError(
                f"{where}: gold label '{prediction.label}' is none of the labels: {', '.join(odds)}"
            )
        if not is_code(prediction.language):
            raise InputError(f"{where}: {bad_language(prediction.language)}")
        if predictions and odds.keys() != predictions[0].probabilities.keys():
            raise InputError(
                f"{where}: probabilities of {', '.join(odds)}, but {places[0]} has "
                f"{', '.join(predictions[0].probabilities)}; a file has one label set"
            )
        predictions.append(prediction)
        places.append(where)
    if not predictions:
        raise InputError(f"{path}: holds no predictions")
    refuse_repeated(zip(places, (item.id for item in predictions), strict=True))
    return predictions


def write_predictions(path: str | os.PathLike[str], rows: Iterable[Prediction]) -> None:
    """Write prediction rows (JSONL), atomically."""
    with replacing(path) as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def read_run(folder: str | os.PathLike[str]) -> RunRecord:
    """Read run.json of a run folder; unknown keys are ignored.

    Raises:
        InputError: no such file, not JSON, `system` or `route` missing, an ill-typed field.
    """
    path = Path(folder) / "run.json"
    try:
        data: object = json.loads(text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: broken JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path}: not what a run's record holds ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a JSON object")
    return record(RunRecord, cast("dict[str, Any]", data), str(path))


def write_run(folder: str | os.PathLike[str], record: RunRecord) -> None:
    """Write run.json into a run folder, atomically."""
    with replacing(Path(folder) / "run.json") as file:
        json.dump(asdict(record), file, ensure_ascii=False, indent=2)
        file.write("\n")
