"""The way of a recording: found, cut where it is long, classified, told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from speechtaxi import audio
from speechtaxi.classifier import AudioClassifier
from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN, find, is_code
from speechtaxi.records import read_manifest
from speechtaxi.segment import Segmenter, silero
from speechtaxi.timeline import summarize
from speechtaxi.types import NO_SPEECH, UNKNOWN_TOPIC, Answer, Prediction, Span, Utterance

MANIFESTS = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet"})

AHEAD = 64
"""Clips that are read before they are classified, those of similar length together."""

CUT_OFF = 0.8
"""A recording with no more than this share of its promised length is cut off."""

Fail = Callable[[Utterance, str], None]
"""Is told of a recording that cannot be used, and why."""

Romanize = Callable[[str, str], str]
"""Spells a text in a language (ISO 639-3) in Latin letters."""


def gather(
    inputs: Iterable[str],
    fail: Fail,
    *,
    language: str = UNKNOWN,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[Utterance]:
    """Return the recordings that files, folders, patterns and manifests name, each once.

    Args:
        fail: is told of a path that names nothing.
        language: ISO 639-3 of what does not say; "folder" takes the first folder whose name is a
            code: below the one that was named, else that one, or the one that a named file lies in.
        include, exclude: see `audio.find_recordings`.
    """
    paths: list[str] = []
    recordings: list[Utterance] = []
    spoken = UNKNOWN if language == "folder" else language
    for name in inputs:
        try:
            if Path(name).suffix.lower() in MANIFESTS:
                rows = read_manifest(name, language=None if spoken == UNKNOWN else spoken)
                recordings += [row for row in rows if row.audio]
            elif any(audio.find_audio([name])):
                paths.append(name)
        except InputError as error:
            fail(Utterance(name, spoken, audio=name), str(error))
    for id, path in audio.find_recordings(paths, include, exclude):
        if language == "folder":
            *below, _ = id.split("/")
            above = Path(os.path.abspath(path)).parents[len(below)].name
            spoken = next(filter(is_code, [*below, above]), UNKNOWN)
        recordings.append(Utterance(id, spoken, audio=str(path)))
    return recordings


@dataclass(frozen=True)
class Cut:
    """A recording, and the stretches of speech that it was cut into; None where it is whole."""

    recording: Utterance
    seconds: float
    spans: Sequence[Span] | None
    promised: float
    """Seconds that the file's header tells; an MP3 that is cut off holds fewer."""
    waveform: np.ndarray | None = field(default=None, repr=False, compare=False)
    """What the gate heard: held, so that the model is given it (see `audio.hold`)."""

    @property
    def clips(self) -> list[Utterance]:
        """What the model classifies."""
        if self.spans is None:
            return [self.recording]
        first = self.recording.start
        return [
            replace(
                self.recording,
                id=f"{self.recording.id}#{number}",
                start=first + span.start,
                duration=span.end - span.start,
            )
            for number, span in enumerate(self.spans)
        ]


def cut(recording: Utterance, segmenter: Segmenter | None, above: float, gate: bool = True) -> Cut:
    """Cut a recording that lasts more than `above` seconds, in one pass through it.

    A shorter one stays whole, and scores as it always would; but where the segmenter is by voice
    activity (the extra `vad`), one without any speech has no stretch, unless `gate` is off. Energy
    does not tell music from speech, so that without the extra a short piece of music has a topic.

    Raises:
        InputError: it cannot be read.
    """
    path, start = recording.audio, recording.start
    if path is None:
        raise InputError(f"{recording.id} names no audio file")
    seconds = recording.duration or audio.probe(path).seconds - start
    if segmenter is None or seconds <= above:
        if not gate or segmenter is None or segmenter.name != "vad":
            return Cut(recording, seconds, None, seconds)
        wave = audio.load(path, start, recording.duration)
        # What is silent says so itself, with its flag
        if not audio.is_silent(wave) and not silero.speaks(wave):
            return Cut(recording, seconds, (), seconds)
        audio.hold(wave, path, start, recording.duration)
        return Cut(recording, seconds, None, seconds, wave)
    heard = 0.0

    def counted() -> Iterator[np.ndarray]:
        nonlocal heard
        for block in audio.stream(path, start, recording.duration):
            heard += len(block) / audio.SAMPLE_RATE
            yield block

    spans = list(segmenter.spans(counted()))
    return Cut(recording, heard, spans, seconds)  # headers only estimate the length of some formats


@dataclass(frozen=True)
class Teller:
    """Turns predictions into answers.

    Args:
        system: see `Answer`.
        min_probability: below it a topic is unknown.
        romanize: spells what was read in Latin letters; None leaves that out.
    """

    model: AudioClassifier
    system: str
    min_probability: float = 0.0
    romanize: Romanize | None = None

    def answers(
        self,
        recordings: Iterable[Utterance],
        fail: Fail,
        *,
        segmenter: Segmenter | None = None,
        above: float = 30.0,
        gate: bool = True,
        batch_seconds: float = 60.0,
        batch_size: int | None = None,
    ) -> Iterator[tuple[Utterance, list[Answer]]]:
        """Yield each recording with its answers: its segments' in order, then its own.

        Recordings come in the order given, in bounded memory; those that cannot be used do not.

        Args:
            segmenter: cuts recordings of more than `above` seconds.
            gate: whether shorter ones without speech have no topic; see `cut`.
            batch_seconds, batch_size: the most audio and clips that the model is given at once.
        """

        classified = partial(
            self.classified, fail=fail, batch_seconds=batch_seconds, batch_size=batch_size
        )
        waiting: list[Cut] = []
        for recording in recordings:
            try:
                waiting.append(cut(recording, segmenter, above, gate))
            except InputError as error:
                fail(recording, str(error))
            if sum(len(one.spans or "1") for one in waiting) >= AHEAD:
                yield from classified(waiting)
                waiting = []
        yield from classified(waiting)

    def classified(
        self,
        cuts: Sequence[Cut],
        fail: Fail,
        *,
        batch_seconds: float = 60.0,
        batch_size: int | None = None,
    ) -> Iterator[tuple[Utterance, list[Answer]]]:
        """Yield what `answers` yields, of recordings that are cut already."""
        failed: list[tuple[str, str]] = []
        clips = [clip for one in cuts for clip in one.clips]
        rows = self.model.classify(
            clips, batch_seconds=batch_seconds, batch_size=batch_size, failed=failed
        )
        told = {row.id: row for row in rows}
        reasons = dict(failed)
        for one in cuts:
            names = [clip.id for clip in one.clips]
            if why := next((reasons[name] for name in names if name in reasons), None):
                fail(one.recording, why)
            else:
                clips_told = zip(one.clips, (told[name] for name in names), strict=True)
                yield one.recording, self._told(one, list(clips_told))

    def _told(self, one: Cut, rows: Sequence[tuple[Utterance, Prediction]]) -> list[Answer]:
        first = one.recording.start
        if one.spans is None:
            [(clip, row)] = rows
            length = one.seconds if row.duration is None else row.duration
            span = Span(first, first + length)
            whole = self._answer(one.recording, clip, row, span, "recording")
            return [_flagged(whole, length, one.promised)]
        segments = [
            self._answer(
                one.recording, clip, row, Span(first + span.start, first + span.end), "segment"
            )
            for span, (clip, row) in zip(one.spans, rows, strict=True)
        ]
        whole = summarize(
            segments,
            path=str(one.recording.audio),
            id=one.recording.id,
            seconds=one.seconds,
            min_probability=self.min_probability,
            system=self.system,
        )
        whole = replace(whole, span=Span(first, first + one.seconds))
        if not segments:
            whole = replace(whole, language=one.recording.language)
        return [*segments, _flagged(whole, one.seconds, one.promised)]

    def _answer(
        self, recording: Utterance, clip: Utterance, row: Prediction, span: Span, kind: str
    ) -> Answer:
        chance = row.probabilities[row.prediction]
        silent = "silent" in row.flags
        heard = self.model.heard(clip)
        language = heard[0] if heard and row.language == UNKNOWN else row.language
        topic = row.prediction if chance >= self.min_probability else UNKNOWN_TOPIC
        return Answer(
            id=recording.id,
            path=str(recording.audio),
            kind="segment" if kind == "segment" else "recording",
            span=span,
            language=language,
            topic=NO_SPEECH if silent else topic,
            probability=None if silent else chance,
            probabilities={} if silent else row.probabilities,
            calibrated=self.model.calibrated_for(row.language),
            system=self.system,
            heard=heard[1] if heard else None,
            text=row.text,
            romanized=self.romanize(row.text, language) if self.romanize and row.text else None,
            flags=row.flags,
        )


def _flagged(whole: Answer, seconds: float, promised: float) -> Answer:
    """Flag a recording of which much is missing; a header that estimates is near enough."""
    if seconds > CUT_OFF * promised or "truncated" in whole.flags:
        return whole
    return replace(whole, flags=(*whole.flags, "truncated"))


def code_of(language: str) -> str:
    """Return the code of a language by any of its names; "auto" is not determined.

    Raises:
        InputError: no such language.
    """
    if language in ("auto", UNKNOWN):
        return UNKNOWN
    try:
        return find(language)
    except InputError as error:
        raise InputError(f"--language {language}: {error}") from None


def name_of(model: str) -> str:
    """Return a model's name: its run's system, or its folder's."""
    try:
        record = json.loads((Path(model) / "run.json").read_text(encoding="utf-8"))
        return str(record["system"])
    except (OSError, ValueError, KeyError, TypeError):
        return Path(model).resolve().name
