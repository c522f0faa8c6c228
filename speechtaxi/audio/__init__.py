"""Samples: any recording, or a segment of one, as mono float32 at 16 kHz, whole or streamed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from speechtaxi.audio.decode import AudioInfo, blocks, info
from speechtaxi.audio.find import AUDIO_SUFFIXES, find_audio, find_recordings
from speechtaxi.errors import InputError

__all__ = [
    "AUDIO_SUFFIXES",
    "MIN_SECONDS",
    "SAMPLE_RATE",
    "AudioInfo",
    "digest",
    "find_audio",
    "find_recordings",
    "hold",
    "is_silent",
    "load",
    "probe",
    "stream",
]

SAMPLE_RATE = 16_000
"""Samples per second, everywhere in the house."""

MIN_SECONDS = 0.1
"""Shorter clips are refused: an encoder makes no frame of them."""

MAX_SECONDS = 6 * 3600.0
"""The most that `load` holds at once (1.3 GiB); a small file may unfold to years of zeros."""

END_SLACK = 0.25
"""How many seconds a segment may claim beyond the end of its file: manifests are rounded."""

SILENCE_DBFS = -60.0
"""Clips whose root mean square stays below this are silent."""

_LOUDEST = 2.0**31  # float files may hold integers; beyond, only damage

Clip = tuple[str | bytes, float, float | None]
_held: WeakValueDictionary[Clip, np.ndarray] = WeakValueDictionary()


def hold(
    waveform: np.ndarray,
    path: str | os.PathLike[str],
    start: float = 0.0,
    duration: float | None = None,
) -> None:
    """Let `load` return a clip's waveform (samples,) again, as long as the caller holds that array.

    So that what was decoded to listen for speech, or to measure, is not decoded again.
    """
    _held[os.fspath(path), start, duration] = waveform


def load(
    path: str | os.PathLike[str], start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """Return a clip as float32 (samples,), mono, 16 kHz, in [-1, 1].

    libsndfile decodes WAV, FLAC, Ogg, Opus and MP3; FFmpeg (inside PyAV) the rest. Only the segment
    is decoded. Channels are averaged.

    Args:
        start: where the clip begins, in seconds.
        duration: its length in seconds; None reads to the end.

    Raises:
        InputError: no such file, empty, not audio, damaged, segment beyond the end, under
            `MIN_SECONDS` or over `MAX_SECONDS`, samples that are not numbers.
    """
    if (known := _held.get((os.fspath(path), start, duration))) is not None:
        return known
    held: list[np.ndarray] = []
    seconds = 0.0
    for block in stream(path, start, duration):
        held.append(block)
        seconds += len(block) / SAMPLE_RATE
        if seconds > MAX_SECONDS:
            raise InputError(
                f"{path}: more than {MAX_SECONDS / 3600:g} hours of audio in one clip; cut it"
            )
    return held[0] if len(held) == 1 else np.concatenate(held)


def stream(
    path: str | os.PathLike[str],
    start: float = 0.0,
    duration: float | None = None,
    block_seconds: float = 30.0,
) -> Iterator[np.ndarray]:
    """Yield what `load` returns in blocks (samples,), of any length of recording in bounded memory.

    All blocks but the last last `block_seconds`. A file that breaks in the middle yields what
    decodes, then raises.

    Raises:
        InputError: as `load`, but for `MAX_SECONDS`.
    """
    path = _existing(path)
    if not 0 <= start < np.inf or not (duration is None or 0 < duration < np.inf):
        raise InputError(f"{path}: no segment begins at {start} s and lasts {duration} s")
    failed: list[InputError] = []
    decoded = 0
    for block in _regroup(_resample(path, start, duration, failed), block_seconds):
        decoded += len(block)
        yield np.clip(block, -1.0, 1.0, out=block)
    if failed:
        raise failed[0]
    seconds = decoded / SAMPLE_RATE
    if not decoded and start:
        raise InputError(f"{path}: the segment begins at {start} s, after the end of the file")
    if duration is not None and seconds + END_SLACK < duration:
        raise InputError(
            f"{path}: the segment from {start} s should last {duration} s, "
            f"but the file ends after {seconds:.2f} s of it"
        )
    if seconds < MIN_SECONDS:
        raise InputError(f"{path}: only {seconds:.3f} s of audio; at least {MIN_SECONDS} s needed")


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Return length, rate and channels of a file, from its header where that tells them.

    Raises:
        InputError: no such file, empty, not audio, truncated.
    """
    return info(_existing(path))


def digest(path: str | os.PathLike[str], start: float = 0.0, duration: float | None = None) -> str:
    """Return a hash of the file's bytes and the segment: the same wherever the file lies."""
    hasher = hashlib.blake2b(digest_size=16)
    with open(_existing(path), "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    hasher.update(f"|{float(start)}|{None if duration is None else float(duration)}".encode())
    return hasher.hexdigest()


def is_silent(waveform: np.ndarray) -> bool:
    """Tell whether a waveform's root mean square is below `SILENCE_DBFS`.

    >>> is_silent(np.zeros(1600)), is_silent(np.full(1600, 0.01))
    (True, False)
    """
    power = np.vdot(waveform, waveform) / len(waveform)
    return bool(power < 10 ** (SILENCE_DBFS / 10))


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: no such file ({reason})") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a folder, not an audio file")
    if not stat.S_ISREG(status.st_mode):  # to open a pipe may wait for ever
        raise InputError(f"{path}: is a pipe or a device, not a file; save the audio first")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions")
    if status.st_size == 0:
        raise InputError(f"{path}: the file is empty")
    return path


def _resample(
    path: Path, start: float, duration: float | None, failed: list[InputError]
) -> Iterator[np.ndarray]:
    """Yield float32 (samples,) at 16 kHz; what stops it goes to `failed`, after what decodes."""
    resampler = None
    try:
        for rate, block in blocks(path, start, duration):
            if not (np.abs(block) < _LOUDEST).all():
                raise InputError(f"{path}: holds samples that are not numbers; export it again")
            if rate != SAMPLE_RATE:
                import soxr

                resampler = resampler or soxr.ResampleStream(rate, SAMPLE_RATE, 1)
                block = resampler.resample_chunk(block)
            yield block
    except InputError as error:
        failed.append(error)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _regroup(blocks: Iterable[np.ndarray], seconds: float) -> Iterator[np.ndarray]:
    """Yield the same samples in blocks of so many seconds; the last may be shorter."""
    size = max(round(seconds * SAMPLE_RATE), 1)
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        while count + len(block) >= size:
            cut = size - count
            yield np.concatenate([*held, block[:cut]])
            held, count, block = [], 0, block[cut:]
        held.append(block)
        count += len(block)
    if count:
        yield np.concatenate(held)
