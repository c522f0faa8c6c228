"""Which model answers for which language: the part of a report that machines read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN

REPORT = "report.json"


def is_report(path: str | Path) -> bool:
    """Tell whether a path is a report folder, or its report.json."""
    path = Path(path)
    return path.name == REPORT or (path / REPORT).is_file()


def routed(report: str | Path, language: str) -> Path:
    """Return the run folder that a report chose for a language.

    A language that the report does not cover gets the model chosen for unseen languages, where the
    report has one. Runs are looked for where the report was made, then beside it.

    Args:
        report: a report folder, or its report.json.
        language: ISO 639-3.

    Raises:
        InputError: no such report, no model for the language, or the run is not there any more.
    """
    path = Path(report) if Path(report).name == REPORT else Path(report) / REPORT
    try:
        router: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["router"]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: no report that chooses models; write it with `speechtaxi report`"
        ) from None
    choice = router.get(language) or router.get(UNKNOWN)
    if choice is None:
        asked = f"no model for {language}" if language != UNKNOWN else "models by language only"
        raise InputError(
            f"{path} has {asked}; give --language, one of {', '.join(sorted(router))}, or name a "
            "run folder instead of the report"
        )
    run = Path(choice["run"])
    places = [run, *(folder / run for folder in path.resolve().parents[:3])]
    for place in places:
        if place.exists():
            return place if place.is_dir() else place.parent
    raise InputError(
        f"{path} chose the run {run} for {language}, which is not there; run the command in the "
        "folder where the report was made, or name the run folder"
    )
