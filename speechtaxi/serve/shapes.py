"""What the server answers with, as its OpenAPI document tells it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Row(BaseModel):
    """What is told of a recording or a stretch of it: a row of `speechtaxi classify`."""

    id: str
    path: str
    kind: Literal["recording", "segment"]
    start: float
    end: float
    language: str
    topic: str
    probability: float | None
    probabilities: dict[str, float]
    calibrated: bool
    system: str
    heard: float | None
    text: str | None
    romanized: str | None
    flags: list[str]


class Result(BaseModel):
    """One model's answers: segments in order, then the recording."""

    system: str
    route: Literal["e2e", "cascade", "ensemble"]
    calibrated: bool
    answers: list[Row]
    stories: list[Row]


class Classified(BaseModel):
    """All models' answers, and whether they tell the same topic."""

    name: str
    seconds: float
    results: list[Result]
    agree: bool


class Read(BaseModel):
    """A stretch of a transcript."""

    start: float
    end: float
    text: str
    romanized: str
    language: str
    heard: float | None
    flags: list[str]


class Transcript(BaseModel):
    """What one model's recogniser wrote; segments where the recording was cut."""

    system: str
    text: str
    romanized: str
    language: str
    heard: float | None
    """How sure it is of the language, where it was to tell it."""
    flags: list[str]
    segments: list[Read]


class Transcribed(BaseModel):
    """All transcripts."""

    name: str
    seconds: float
    results: list[Transcript]


class Model(BaseModel):
    """A model that is served."""

    name: str
    route: Literal["e2e", "cascade", "ensemble"]
    labels: list[str]
    languages: list[str]
    calibrated: bool
    reads: bool


class Models(BaseModel):
    """All models that are served."""

    models: list[Model]


class Health(BaseModel):
    """Whether requests are taken."""

    status: Literal["loading", "ready", "stopping"]


class Fault(BaseModel):
    """Why not: a word for machines, a line for people."""

    code: str
    message: str


class Refused(BaseModel):
    """What every error looks like."""

    error: Fault
