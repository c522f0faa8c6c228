"""The clips of an experiment: one manifest, which every run reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from speechtaxi.errors import InputError
from speechtaxi.grid.estimate import Corpus, count, published
from speechtaxi.grid.experiment import Experiment
from speechtaxi.grid.plan import Settings, merged
from speechtaxi.languages import LANGUAGES
from speechtaxi.records import read_manifest, write_manifest
from speechtaxi.splits import with_splits
from speechtaxi.types import Split, Utterance


def prepare(
    experiment: Experiment, output: Path, limit: int | None, dry_run: bool
) -> tuple[Corpus, Path, list[str], tuple[str, ...]]:
    """Write the clips of the experiment as one manifest, which every run reads.

    Returns:
        what the corpus holds, the manifest, the languages to train on, and a note for the report.

    Raises:
        InputError: a manifest is not there (but for a dry run, which then takes SpeechTaxi's
            published counts), or has no clip in a language.
    """
    data = merged(experiment.base, experiment.options).get("data", {})
    named = data.get("manifest")
    if not named:
        raise InputError("no config or option of the experiment names data.manifest")
    manifests: list[str] = [named] if isinstance(named, str) else named
    if dry_run and not all(map(os.path.exists, manifests)):
        languages = [*experiment.languages] or [c for c, r in LANGUAGES.items() if r.in_speechtaxi]
        print(f"{manifests[0]} is not there: counted by what is published of SpeechTaxi")
        corpus = published([*languages, *experiment.targets])
        return corpus, output / "clips-unknown.jsonl", languages, ()
    rows = read_clips(data, manifests)
    there = sorted({row.language for row in rows if row.split == "train"})
    languages = [*experiment.languages] or [c for c in there if c not in experiment.targets]
    rows = choose(rows, [*languages, *experiment.targets])
    note = (f"a rehearsal: at most {limit} clips of a language and split",) if limit else ()
    rows = limited(rows, dict.fromkeys(get_args(Split), limit) if limit else experiment.limit)
    decides = [(row.id, row.text, row.label, row.split, row.duration) for row in rows]
    digest = hashlib.blake2b(json.dumps(decides).encode(), digest_size=4).hexdigest()
    clips = output / f"clips-{digest}.jsonl"
    if not dry_run and not clips.exists():
        write_manifest(clips, rows)
    return count(rows), clips, languages, note


def choose(rows: Iterable[Utterance], languages: Sequence[str]) -> list[Utterance]:
    """Return the clips in some languages.

    Raises:
        InputError: a language has no clip.
    """
    rows = list(rows)
    there = sorted({row.language for row in rows})
    for language in languages:
        if language not in there:
            raise InputError(f"no clip is in '{language}'; there are {', '.join(there)}")
    return [row for row in rows if row.language in languages]


def read_clips(data: Settings, manifests: Sequence[str]) -> list[Utterance]:
    """Return the clips of manifests as the data module with these settings would take them.

    Raises:
        InputError: a manifest is not there, or broken.
    """
    rows = [
        row
        for path in manifests
        for row in read_manifest(
            path,
            columns=data.get("columns"),
            labels=data.get("label_names"),
            language=data.get("language"),
        )
    ]
    shares: dict[Split, float] = {"dev": data.get("dev_share", 0.0)}
    return with_splits(rows, shares | {"test": data.get("test_share", 0.0)})


def limited(rows: Iterable[Utterance], limit: Mapping[str, int]) -> list[Utterance]:
    """Return at most so many clips of a language and split: those of the same groups in all.

    Which groups is decided by their hash, so that a higher limit takes all of a lower one's.

    Args:
        limit: clips of a language, by split; a split that is not named stays whole.
    """
    parts: dict[tuple[str, str], list[Utterance]] = {}
    for row in rows:
        parts.setdefault((row.language, row.split), []).append(row)
    return [
        row
        for (_, split), part in parts.items()
        for row in sorted(part, key=lambda row: (_hash(row.group or row.id), row.id))[
            : limit.get(split)
        ]
    ]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
