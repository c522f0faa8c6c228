"""Timelines as one HTML page that loads nothing but the recordings beside it."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeAlias
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from speechtaxi.languages import UNKNOWN, name_of
from speechtaxi.timeline.formats import speech, tag
from speechtaxi.timeline.stories import CHANGE, PAUSE, stories, summarize
from speechtaxi.types import UNKNOWN_TOPIC, Answer, Span

Mark: TypeAlias = tuple[str, float]
"""A word, and how much it speaks for the topic (less than 0: against it)."""

Marks: TypeAlias = Mapping[tuple[str, Span], Sequence[Mark]]
"""By recording and segment; a word is parted from the next by a blank."""

COLOURS, PATTERNS = 6, 7
"""How many page.css and page.html hold; a topic has one of each."""

LONG = 400
"""Characters of a transcript that is folded away."""

TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
"""Seconds between the times below a bar."""


@dataclass(frozen=True)
class Story:
    told: Answer
    segments: Sequence[Answer]

    @property
    def words(self) -> str:
        """The transcript, where it is too long to stand open."""
        text = self.told.text or ""
        return text if len(text) > LONG else ""

    @property
    def others(self) -> list[Mark]:
        """The next topics that are not improbable."""
        ranked = sorted(self.told.probabilities.items(), key=lambda item: -item[1])
        return [(label, p) for label, p in ranked[:3] if label != self.told.topic and p >= 0.1]


@dataclass(frozen=True)
class Recording:
    told: Answer
    stories: Sequence[Story]
    audio: str | None
    strongest: float
    """The greatest weight of its marks."""

    @property
    def seconds(self) -> float:
        return max([self.told.span.end, *(story.told.span.end for story in self.stories)])

    def place(self, seconds: float) -> str:
        """Return where a time lies on the bar."""
        return f"{100 * seconds / (self.seconds or 1):.3f}%"

    @property
    def ticks(self) -> list[float]:
        step = next((tick for tick in TICKS if self.seconds / tick <= 6), TICKS[-1])
        return [n * step for n in range(math.floor(self.seconds / step) + 1)]


def as_html(
    answers: Iterable[Answer],
    *,
    audio: Mapping[str, str] | None = None,
    marks: Marks | None = None,
    min_probability: float = 0.0,
    change: float = CHANGE,
    pause: float = PAUSE,
    title: str = "Topics over time",
) -> str:
    """Return a page: each recording as a bar of its topics, its stories, and what was said.

    It loads nothing but audio, and runs no script but its own (each allowed by its hash); without
    scripts all can be read, and recordings played. To be written with newline="".

    Args:
        answers: segments and, where known, recordings; one that has no segments is one story.
        audio: by id, the path of a recording relative to the page, parted by "/"; without it there
            is no player.
        marks: what speaks for a segment's topic; shown in place of its text.
        min_probability: as told to `stories`, with `change` and `pause`.
    """
    grouped: dict[str, list[Answer]] = {}
    for answer in answers:
        grouped.setdefault(answer.id, []).append(answer)
    recordings = [
        _recording(rows, audio or {}, marks or {}, min_probability, change, pause)
        for rows in grouped.values()
    ]
    told = [recording.told for recording in recordings]
    shown = [s.told for recording in recordings for s in recording.stories] + told
    known = dict.fromkeys(label for answer in shown for label in answer.probabilities)
    looks = {
        topic: (f"c{n % COLOURS}", f"p{(n + n // COLOURS) % PATTERNS}")
        for n, topic in enumerate(known)
    }
    looks[UNKNOWN_TOPIC] = ("unsure", "p1")
    topics = {answer.topic for answer in shown}
    environment = Environment(
        loader=PackageLoader("speechtaxi.timeline", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_own(name) for name in ("page.css", "page.js"))
    page = environment.get_template("page.html").render(
        title=title,
        recordings=recordings,
        hours=clock(sum(recording.seconds for recording in recordings)),
        systems=[system for system in dict.fromkeys(a.system for a in told) if system],
        calibrated=any(a.calibrated for a in told),
        uncalibrated=sorted(
            {name_of(a.language) for a in told if a.probability is not None and not a.calibrated}
        ),
        marked=any(recording.strongest for recording in recordings),
        marks=marks or {},
        looks=looks,
        legend=[topic for topic in looks if topic in topics],
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'",
        clock=clock,
        strength=strength,
        tag=tag,
        name_of=name_of,
        not_known=UNKNOWN,
    )
    return page.encode("utf-8", "replace").decode() + "\n"


def _recording(
    rows: Sequence[Answer],
    audio: Mapping[str, str],
    marks: Marks,
    min_probability: float,
    change: float,
    pause: float,
) -> Recording:
    segments = [row for row in rows if row.kind == "segment"]
    whole = next((row for row in rows if row.kind == "recording"), None) or summarize(
        segments,
        path=rows[0].path,
        id=rows[0].id,
        seconds=max(row.span.end for row in rows),
        min_probability=min_probability,
    )
    spoken = speech(rows)
    told = stories(spoken, min_probability=min_probability, change=change, pause=pause)
    parts: list[list[Answer]] = [[] for _ in told]
    for segment in spoken:  # the story that holds its middle
        middle = (segment.span.start + segment.span.end) / 2
        place = sum(middle >= story.span.start for story in told)
        parts[max(place - 1, 0)].append(segment)
    weights = [abs(w) for row in spoken for _, w in marks.get((row.id, row.span), ())]
    return Recording(
        whole,
        [Story(story, part) for story, part in zip(told, parts, strict=True)],
        # Behind "./" no path is taken for a scheme or a host
        "./" + quote(audio[whole.id].encode("utf-8", "surrogateescape"))
        if whole.id in audio
        else None,
        max(weights, default=0.0),
    )


def clock(seconds: float) -> str:
    """Return a time for people.

    >>> clock(7.9), clock(3661)
    ('0:07', '1:01:01')
    """
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def strength(weight: float, strongest: float) -> str:
    """Return the class of a word's shade, none where it hardly counts.

    >>> strength(0.5, 0.5), strength(-0.2, 0.5), strength(0.01, 0.5)
    ('for4', 'against2', '')
    """
    step = round(4 * abs(weight) / strongest) if strongest else 0
    return f"{'for' if weight > 0 else 'against'}{step}" if step else ""


def _own(name: str) -> str:
    return (files("speechtaxi.timeline") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
