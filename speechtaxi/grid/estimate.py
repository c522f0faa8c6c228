"""What a grid will take: clips, hours of audio, hours of a device, disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtaxi.errors import InputError
from speechtaxi.grid.experiment import Device, System
from speechtaxi.grid.plan import Run
from speechtaxi.languages import LANGUAGES
from speechtaxi.types import Utterance

PUBLISHED_CLIPS, PUBLISHED_HOURS = 25_300, 80.0
"""Of all 28 languages of SpeechTaxi (arXiv 2409.06372): five have no counts of their own."""

BACKWARD = 2.0
"""A pass backwards costs about two forwards."""

BYTES_PER_WEIGHT = 12
"""float32 weights, and the two moments of Adam."""

MARK = "grid.json"
"""Of a run folder: what the grid knows of it."""


@dataclass(frozen=True)
class Part:
    """Clips of one language and split; hours are None where the manifest does not tell."""

    clips: int
    hours: float | None


Corpus = Mapping[tuple[str, str], Part]


@dataclass(frozen=True)
class Load:
    """Audio that a run goes through; hours are None where they are not known."""

    clips: int
    """To train on, validate and test."""
    hours: float | None
    """Of those clips."""
    passes: float | None
    """Hours of audio times passes of the model, a training step counted as three forwards."""


@dataclass(frozen=True)
class Estimate:
    """Of the runs of one system; None is what cannot be told yet."""

    runs: int
    done: int
    clips: int
    hours: float | None
    device_hours: float | None
    measured: bool
    """Whether device hours come from runs that are finished, or from GFLOP."""
    disk: float | None
    """GiB."""


def count(rows: Iterable[Utterance]) -> Corpus:
    """Count clips and hours by language and split."""
    parts: dict[tuple[str, str], Part] = {}
    for row in rows:
        before = parts.get((row.language, row.split), Part(0, 0.0))
        known = before.hours is not None and row.duration is not None
        hours = before.hours + row.duration / 3600 if known else None  # type: ignore[operator]
        parts[row.language, row.split] = Part(before.clips + 1, hours)
    return parts


def published(languages: Sequence[str]) -> Corpus:
    """Return SpeechTaxi's published clips; its hours, and what is not told, are spread evenly."""
    known = {code: row.clips for code, row in LANGUAGES.items() if row.in_speechtaxi}
    counted = [clips for clips in known.values() if clips]
    rest = PUBLISHED_CLIPS - sum(map(sum, counted))
    shares = [sum(split) / sum(map(sum, counted)) for split in zip(*counted, strict=True)]
    average = [round(rest * share / (len(known) - len(counted))) for share in shares]
    if unknown := [code for code in languages if code not in known]:
        raise InputError(
            f"the manifest is not there, and SpeechTaxi has no {', '.join(unknown)}; make the "
            "manifest first"
        )
    return {
        (code, split): Part(clips, clips * PUBLISHED_HOURS / PUBLISHED_CLIPS)
        for code in languages
        for split, clips in zip(("train", "dev", "test"), known[code] or average, strict=True)
    }


def load(run: Run, corpus: Corpus) -> Load:
    """Return what a run goes through, at most: it may stop early."""
    epochs = run.settings.get("trainer", {}).get("max_epochs") or 1
    parts = {
        split: [corpus[code, split] for code in codes if (code, split) in corpus]
        for split, codes in (
            ("train", run.fold.languages),
            ("dev", run.fold.languages),
            ("test", run.fold.targets if run.tested else ()),
        )
    }
    hours = {split: _sum(part.hours for part in some) for split, some in parts.items()}
    train, dev, test = hours["train"], hours["dev"], hours["test"]
    passes = None
    if train is not None and dev is not None and test is not None:
        passes = (train * (1 + BACKWARD) + dev) * epochs + test
    clips = sum(part.clips for some in parts.values() for part in some)
    return Load(clips, _sum(hours.values()), passes)


def estimate(
    runs: Sequence[Run],
    system: System,
    corpus: Corpus,
    output: Path,
    device: Device | None,
    done: int,
) -> Estimate:
    """Return what the runs of one system take."""
    loads = [load(run, corpus) for run in runs]
    passes = _sum(one.passes for one in loads)
    rate, size = measured(output / runs[0].system)
    seconds = None if rate is None or passes is None else rate * passes
    if seconds is None and device is not None and system.gflop_per_second is not None:
        speed = device.tflops * 1000 * device.share  # GFLOP a second
        seconds = passes and passes * 3600 * system.gflop_per_second / speed
    if size is None and system.parameters is not None:
        size = system.parameters * BYTES_PER_WEIGHT
    return Estimate(
        len(runs),
        done,
        sum(one.clips for one in loads),
        _sum(one.hours for one in loads),
        None if seconds is None else seconds / 3600,
        rate is not None,
        None if size is None else size * len(runs) / 2**30,
    )


def measured(folder: Path) -> tuple[float | None, float | None]:
    """Return seconds for an hour of audio and pass, and bytes of a run, from finished runs."""
    seconds, passes, sizes = 0.0, 0.0, list[int]()
    for mark in folder.glob(f"*/*/{MARK}"):
        told = read_mark(mark.parent)
        run = mark.parent / "run.json"
        if told.get("passes") and run.is_file():
            spent: dict[str, float] = json.loads(run.read_text(encoding="utf-8"))["seconds"]
            seconds += spent.get("fit", 0.0) + spent.get("test", 0.0)
            passes += told["passes"]
            sizes.append(sum(file.stat().st_size for file in mark.parent.rglob("*.ckpt")))
    return (seconds / passes if passes else None, sum(sizes) / len(sizes) if sizes else None)


def read_mark(folder: Path) -> dict[str, Any]:
    """Return what the grid noted in a run folder; nothing where it did not."""
    path = folder / MARK
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _sum(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total
