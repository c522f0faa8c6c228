"""What a client sends becomes sound in a folder of ours, within limits."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from speechtaxi import audio
from speechtaxi.errors import InputError
from speechtaxi.results.rows import plain
from speechtaxi.serve.worker import Job, Refusal

ENVELOPE = 4096
"""Bytes of a form that are not the file."""


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for."""

    bytes: int = 50_000_000
    seconds: float = 3600.0
    """Of audio."""
    timeout: float = 300.0
    """Seconds until the answer."""


async def save(request: Request, job: Job, limits: Limits) -> None:
    """Write the recording of a request to the job's folder: a form's `file`, or the whole body.

    It is decoded once, for all models, and only samples are left: the client's bytes are deleted.

    Raises:
        Refusal: too large, too long, of another type, or no file is there.
        InputError: it cannot be decoded; TimeoutError: not in time.
    """
    deadline = time.monotonic() + limits.timeout
    source = job.folder / "upload"
    limited = bounded(request, limits.bytes + ENVELOPE)
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            async with limited.form(max_files=1, max_fields=8) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise Refusal(422, "no_file", "the form has no file in its field 'file'")
                job.name = shown(file.filename)
                await anyio.to_thread.run_sync(copy, file, source)
        elif kind.startswith(("audio/", "video/")) or kind == "application/octet-stream":
            with source.open("wb") as target:
                async for chunk in limited.stream():
                    target.write(chunk)
        else:
            told = "send a form with a file, or audio/*, video/* or application/octet-stream"
            raise Refusal(415, "unsupported_type", told)
    except ClientDisconnect:
        raise Refusal(400, "incomplete", "the upload broke off") from None
    try:
        job.seconds = await anyio.to_thread.run_sync(
            decode, source, job.sound, limits.seconds, deadline
        )
    except InputError as error:
        raise InputError(str(error).replace(str(source), job.name)) from None


def bounded(request: Request, most: int) -> Request:
    """Return the request with a body that is refused as soon as it is too large.

    Raises:
        Refusal: 413, it says itself that it is.
    """
    refusal = Refusal(413, "too_large", f"more than {most // 1_000_000} MB; send less, or cut it")
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
        shutil.copyfileobj(file.file, out)


def decode(source: Path, target: Path, most: float, deadline: float) -> float:
    """Write samples as `audio.load` returns them, delete the source, return seconds.

    Raises:
        InputError: not audio, or damaged.
        Refusal: 413, longer than `most` seconds, whatever the header says.
        TimeoutError: not done by `deadline` (`time.monotonic`).
    """
    import soundfile

    samples = 0
    form = {"samplerate": audio.SAMPLE_RATE, "channels": 1, "subtype": "FLOAT", "format": "WAV"}
    with soundfile.SoundFile(target, "w", **form) as out:
        for block in audio.stream(source, block_seconds=5.0):
            samples += len(block)
            if samples > most * audio.SAMPLE_RATE:
                raise Refusal(413, "too_long", f"more than {most:g} seconds of audio; cut it")
            if time.monotonic() > deadline:
                raise TimeoutError
            out.write(block)
    source.unlink()
    return samples / audio.SAMPLE_RATE


def shown(name: str | None) -> str:
    r"""Return a client's name for a file as an answer may show it.

    >>> shown("C:\\radio\\a\x00b.mp3"), shown("../../etc/passwd"), shown("")
    ('ab.mp3', 'passwd', 'upload')
    """
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    return plain("".join(letter for letter in last if letter.isprintable())[:200]) or "upload"
