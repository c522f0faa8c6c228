"""What the server is asked and answers with, as its OpenAPI document tells it."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from speechtaxi.languages import UNKNOWN


class Options(BaseModel):
    """How a recording is to be heard; told in the address, in the form or in the JSON body."""

    model_config = ConfigDict(extra="forbid")

    language: str = Field(
        UNKNOWN,
        max_length=100,
        description="of the speech: code or name; und: the recogniser tells",
    )
    segments: Literal["auto", "vad", "energy", "fixed", "none"] = Field(
        "auto", description="how to cut what is long"
    )
    gate: bool = Field(
        True, description="what is short and without speech (to vad) has no topic and no text"
    )


class Topics(Options):
    """How topics are to be told."""

    top_k: int = Field(3, ge=1, le=1000, description="topics to tell")
    romanize: bool = Field(False, description="also in Latin letters")


def decoded(value: Any) -> bytes:
    r"""Return what base64 (RFC 4648, lines allowed) stands for.

    >>> decoded("UklG\r\nRg=="), decoded("")
    (b'RIFF', b'')
    """
    if not isinstance(value, str):
        raise ValueError("must be a string of base64")
    try:
        plain = value.encode("ascii").translate(None, b" \t\r\n")
        return base64.b64decode(plain, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("is no base64 of a file (RFC 4648, with its padding)") from None


class Sound(BaseModel):
    """A recording within JSON; no path and no address is ever opened."""

    audio: Annotated[
        bytes,
        BeforeValidator(decoded),
        WithJsonSchema(
            {
                "type": "string",
                "format": "byte",
                "contentEncoding": "base64",
                "description": "the file's bytes in base64: WAV, FLAC, MP3, Ogg, WebM, MP4 ...",
            }
        ),
    ]
    name: str = Field("", max_length=1000, description="what the answer calls it")


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
