"""The records that travel through the house: what was said, what was read, what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "dev", "test", "predict"]
Flag = Literal[
    "empty",
    "looping",
    "truncated",
    "silent",
    "unlikely",  # by a guard of decoding, as the next two
    "no_speech",
    "retried",
    "unsupported_language",
    "related_language",  # transcribed in one that the recogniser knows
    "fallback",  # another recogniser's, romanised
]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip: a manifest row, or a file to classify."""

    id: str
    """Unique in its manifest."""
    language: str
    """ISO 639-3 (the two Twi varieties keep their corpus codes); "und" where it is not known."""
    audio: str | None = None
    """Path of the file that holds the clip; None for text-only corpora."""
    split: Split = "predict"
    start: float = 0.0
    """Where the clip begins in the file, in seconds."""
    duration: float | None = None
    """Length in seconds; None reads to the end of the file."""
    text: str | None = None
    """Gold transcript in the native script."""
    label: str | None = None
    group: str | None = None
    """The verse or sentence behind the clip, the same across languages and recordings."""
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a recogniser wrote for one clip: a row of the transcript store."""

    key: str
    """Hash of the audio bytes and segment, plus the recogniser's fingerprint."""
    text: str
    """Native or romanised, as the recogniser wrote it."""
    language: str | None = None
    """The language that the recogniser was told to expect."""
    heard: str | None = None
    """The language that it recognised (ISO 639-3), where it was to tell."""
    heard_probability: float | None = None
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    flags: tuple[Flag, ...] = ()
    seconds: float = 0.0
    """Processing time spent."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One system's answer for one clip: a row of predictions-<split>.jsonl."""

    id: str
    group: str
    language: str
    label: str | None
    """Gold label, where known."""
    prediction: str
    probabilities: Mapping[str, float]
    """By label, in the order of the label set; sums to 1."""
    text: str | None = None
    """What a text classifier read; None for E2E."""
    reference: str | None = None
    """The gold text in the same view as `text`, where known: the two give the CER."""
    duration: float | None = None
    """Seconds of audio."""
    flags: tuple[Flag, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Where predictions come from: run.json in a run folder.

    Only `system` and `route` are required, so that other people's predictions can be compared too.
    """

    system: str
    """The name that reports print, unique among the runs compared."""
    route: Literal["e2e", "cascade", "baseline"]
    view: str | None = None
    """What a text classifier reads: native, romanized, english, gold or gold_romanized."""
    romanize: str | None = None
    """What a romanised view spells in Latin letters: all, or words that are non_latin."""
    recognizer: str | None = None
    """Fingerprint of the recogniser behind the transcripts."""
    train_languages: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    setup: str | None = None
    """in-language, all-languages or zero-shot, where a run is only one of them."""
    seed: int | None = None
    data_fingerprint: str | None = None
    parameters: int | None = None
    """Number of weights that the route needs to answer, trained here or not."""
    audio_hours: float | None = None
    """Hours of training audio."""
    clips: Mapping[str, int] = field(default_factory=dict[str, int])
    """Clips by split."""
    skipped: int = 0
    flagged: Mapping[str, int] = field(default_factory=dict[str, int])
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Wall-clock seconds by stage (fit, predict, transcribe)."""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    git_commit: str | None = None
    hardware: Mapping[str, str] = field(default_factory=dict[str, str])
    temperature: float | None = None
    """What logits were divided by, as fitted to dev clips; None: probabilities are as they came."""
    notes: tuple[str, ...] = ()
    """What a reader must know, such as "synthetic speech"; reports repeat it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a recording, in seconds from its beginning."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told of a recording, or of a stretch of it: a row of `speechtaxi classify`."""

    id: str
    """The recording: its path below the folder that was named, or its id in a manifest."""
    path: str
    kind: Literal["recording", "segment"]
    """The whole, or one of the stretches that a long recording was cut into."""
    span: Span
    language: str
    topic: str
    """A label, `UNKNOWN_TOPIC` or `NO_SPEECH`."""
    probability: float | None
    """Of the most probable label; None where there is no speech."""
    probabilities: Mapping[str, float]
    """By label; of a recording in segments the mean over them, by their length."""
    calibrated: bool
    """Whether the probabilities were fitted to dev clips (temperature scaling)."""
    system: str
    """Who answered, as reports print it."""
    heard: float | None = None
    """How sure the recogniser is of the language, where it was to tell it."""
    text: str | None = None
    """What was read; None for E2E."""
    romanized: str | None = None
    flags: tuple[Flag, ...] = ()


UNKNOWN_TOPIC = "unknown"
"""Told in place of a label that is not probable enough."""

NO_SPEECH = "no speech"
"""Told of silence, noise and music."""
