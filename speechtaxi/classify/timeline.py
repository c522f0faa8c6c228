"""Answers as a timeline: a page for all recordings, and files that other programs read."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from speechtaxi import timeline
from speechtaxi.records import replacing
from speechtaxi.types import Answer, Span


def write_timeline(
    answers: Sequence[Answer],
    folder: Path,
    min_probability: float,
    marks: Mapping[tuple[str, Span], Sequence[tuple[str, float]]],
) -> None:
    """Write index.html for all recordings, and for each Audacity labels, RTTM and WebVTT."""
    folder.mkdir(parents=True, exist_ok=True)
    by_id: dict[str, list[Answer]] = {}
    for answer in answers:
        by_id.setdefault(answer.id, []).append(answer)
    where = {id: os.path.relpath(rows[0].path, folder) for id, rows in by_id.items()}
    page = timeline.as_html(
        answers,
        audio={id: path.replace(os.sep, "/") for id, path in where.items()},
        marks=marks,
        min_probability=min_probability,
    )
    for id, rows in by_id.items():
        stem = folder / Path(*(part for part in Path(id).parts if part not in ("/", "..")))
        segments = [row for row in rows if row.kind == "segment"]
        stories = timeline.stories(segments, min_probability=min_probability) or rows
        for suffix, text in (
            ("audacity.txt", timeline.as_audacity(stories)),
            ("rttm", timeline.as_rttm(stories)),
            ("vtt", timeline.as_webvtt(rows)),
        ):
            with replacing(stem.with_name(f"{stem.name}.{suffix}")) as file:
                file.write(text)
    with replacing(folder / "index.html") as file:
        file.write(page)
    print(folder / "index.html", file=sys.stderr)
