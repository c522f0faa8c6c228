"""What a client sends becomes sound in a folder of ours, within limits."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import numpy as np
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError, create_model
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from speechtaxi import audio
from speechtaxi.errors import InputError
from speechtaxi.results.rows import plain
from speechtaxi.serve.models import CUT_ABOVE
from speechtaxi.serve.shapes import Options, Sound
from speechtaxi.serve.worker import Job, Refusal

ENVELOPE = 4096
"""Bytes of a form that are not the file."""

Asked = TypeVar("Asked", bound=Options)

one_at_a_time = threading.Lock()
"""JSON stands in memory twice while it is read."""


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for."""

    bytes: int = 50_000_000
    seconds: float = 3600.0
    """Of audio."""
    timeout: float = 300.0
    """Seconds until the answer."""


async def save(request: Request, job: Job, asked: Asked, limits: Limits) -> Asked:
    """Hear the recording of a request; return all options.

    It is a form's `file`, `audio` of a JSON body in base64, or the whole body. Form and JSON may
    tell options too.

    Args:
        asked: the options in the address.

    Raises:
        Refusal: too large, too long, of another type, or no file is there.
        RequestValidationError: an option is wrong, unknown or told twice.
        InputError: it cannot be decoded; TimeoutError: not in time.
    """
    deadline = time.monotonic() + limits.timeout
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    json = kind == "application/json"
    most = (limits.bytes * 3 // 2 if json else limits.bytes) + ENVELOPE  # base64: 4/3, and lines
    limited = bounded(request, most, limits.bytes)
    file: UploadFile | None = None

    def hear() -> Asked:
        told = asked
        if file is not None:
            copy(file, job.upload)
        if json:
            told, name = unpack(job.upload, asked, limits.bytes)
            job.name = shown(name)
        try:
            decode(job, limits.seconds, deadline)
        except InputError as error:
            raise InputError(str(error).replace(str(job.upload), job.name)) from None
        return told

    try:
        if kind == "multipart/form-data":
            form = await limited.form(max_files=1, max_fields=8)
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Refusal(422, "no_file", "the form has no file in its field 'file'")
            told = [(name, value) for name, value in form.multi_items() if name != "file"]
            if len(dict(told)) < len(told) or len(form.getlist("file")) > 1:
                raise Refusal(422, "invalid", "a field of the form is there twice")
            asked = merged(asked, validated(type(asked).model_validate, dict(told)))
            job.name = shown(file.filename)
        elif json or kind.startswith(("audio/", "video/")) or kind == "application/octet-stream":
            with job.upload.open("wb") as target:
                async for chunk in limited.stream():
                    target.write(chunk)
        else:
            told = "send JSON, a form with a file, audio/*, video/* or application/octet-stream"
            raise Refusal(415, "unsupported_type", told)
        return await anyio.to_thread.run_sync(hear)
    except ClientDisconnect:
        raise Refusal(400, "incomplete", "the upload broke off") from None
    finally:
        await limited.close()


def unpack(source: Path, asked: Asked, most: int) -> tuple[Asked, str]:
    """Put the recording within JSON in its place; return all options, and what it is called.

    Raises:
        Refusal: 413, more than `most` bytes; RequestValidationError: not as documented.
    """
    form = json_form(type(asked))
    with one_at_a_time:
        told = validated(partial(form.model_validate_json, strict=True), source.read_bytes())
        if len(told.audio) > most:
            raise too_large(most)
        source.write_bytes(told.audio)
    return merged(asked, told), told.name


@cache
def json_form(options: type[Options]) -> type[Options]:
    """Return the model of a JSON body: a recording and options."""
    return create_model(f"{options.__name__}AndSound", __base__=(options, Sound))


def merged(asked: Asked, told: Options) -> Asked:
    """Return the options of the address and those of the body as one.

    Raises:
        RequestValidationError: one is told in both.
    """
    own = told.model_dump(include=told.model_fields_set & type(asked).model_fields.keys())
    if twice := sorted(own.keys() & asked.model_fields_set):
        error = {"loc": (twice[0],), "msg": "is told in the address and in the body; leave one out"}
        raise RequestValidationError([error])
    return asked.model_copy(update=own)


def validated(validate: Callable[[Any], Options], body: Any) -> Any:
    """Return what a body tells.

    Raises:
        RequestValidationError: it is not as documented.
    """
    try:
        return validate(body)
    except ValidationError as error:
        told = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(told) from None


def too_large(most: int) -> Refusal:
    """Return why a recording of more than `most` bytes is refused."""
    return Refusal(413, "too_large", f"more than {most / 1e6:g} MB; send less, or cut it")


def bounded(request: Request, most: int, sound: int) -> Request:
    """Return the request with a body of `most` bytes, refused as soon as it is more.

    Args:
        sound: bytes that the recording within may have, to tell the client.

    Raises:
        Refusal: 413, it says itself that it is.
    """
    refusal = too_large(sound)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise refusal
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most:
            raise refusal
        return message

    return Request(request.scope, receive)


def copy(file: UploadFile, target: Path) -> None:
    """Copy a form's file."""
    with target.open("wb") as out:
        shutil.copyfileobj(file.file, out, 1 << 20)


def decode(job: Job, most: float, deadline: float) -> None:
    """Decode a recording once, for all models: what is short is held, what is long goes to disk.

    Of what is long, only samples are left: the client's bytes are deleted.

    Raises:
        InputError: not audio, or damaged.
        Refusal: 413, longer than `most` seconds, whatever the header says.
        TimeoutError: not done by `deadline` (`time.monotonic`).
    """
    import soundfile

    def blocks() -> Iterator[np.ndarray]:
        samples = 0
        for block in audio.stream(job.upload, block_seconds=CUT_ABOVE):
            samples += len(block)
            job.seconds = samples / audio.SAMPLE_RATE
            if job.seconds > most:
                raise Refusal(413, "too_long", f"more than {most:g} seconds of audio; cut it")
            if time.monotonic() > deadline:
                raise TimeoutError
            yield block

    heard = blocks()
    first = next(heard)
    second = next(heard, None)
    if second is None:
        job.hold(first)
        return
    form = {"samplerate": audio.SAMPLE_RATE, "channels": 1, "subtype": "FLOAT", "format": "WAV"}
    # Given a path, soundfile would wait for the disk
    with job.sound.open("w+b") as file, soundfile.SoundFile(file, "w", **form) as out:
        for block in chain((first, second), heard):
            out.write(block)
    job.upload.unlink()


def shown(name: str | None) -> str:
    r"""Return a client's name for a file as an answer may show it.

    >>> shown("C:\\radio\\a\x00b.mp3"), shown("../../etc/passwd"), shown("")
    ('ab.mp3', 'passwd', 'upload')
    """
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    return plain("".join(letter for letter in last if letter.isprintable())[:200]) or "upload"
