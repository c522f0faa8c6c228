"""Samples: any audio file, or a segment of one, as mono float32 at 16 kHz."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechtaxi.errors import InputError

SAMPLE_RATE = 16_000
"""Samples per second, everywhere in the house."""

MIN_SECONDS = 0.1
"""Shorter clips are refused: an encoder makes no frame of them."""

END_SLACK = 0.25
"""How many seconds a segment may claim beyond the end of its file: manifests are rounded."""

SILENCE_DBFS = -60.0
"""Clips whose root mean square stays below this are silent."""

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "flac", "mp3", "ogg", "oga", "opus", "aif", "aiff", "au", "caf"),  # libsndfile
        *("m4a", "aac", "wma", "webm", "mp4", "mkv", "mov", "amr", "3gp"),  # FFmpeg
    )
)
"""What a folder is searched for; a file that is named itself may have any suffix."""

PREROLL = 0.1
"""Seconds to decode before a segment: after a seek, codecs with overlapping frames need a run-up
(Opus asks for 0.08 s, RFC 7845)."""

_STREAMED = 0x7FFF_F000  # declared sizes from here on mean "unknown": the writer was a pipe


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of a file tells."""

    seconds: float
    sample_rate: int
    channels: int


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
            `MIN_SECONDS`, samples that are not numbers.
    """
    path = _existing(path)
    wave, rate = _decode(path, start, duration)
    if len(wave) == 0 and start:
        raise InputError(f"{path}: the segment begins at {start} s, after the end of the file")
    seconds = len(wave) / rate
    if duration is not None and seconds + END_SLACK < duration:
        raise InputError(
            f"{path}: the segment from {start} s should last {duration} s, "
            f"but the file ends after {seconds:.2f} s of it"
        )
    if seconds < MIN_SECONDS:
        raise InputError(f"{path}: only {seconds:.3f} s of audio; at least {MIN_SECONDS} s needed")
    if not np.isfinite(wave).all():
        raise InputError(f"{path}: holds samples that are not numbers; export it again")
    mono = wave.mean(axis=1)
    if rate != SAMPLE_RATE:
        import soxr

        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return np.clip(mono, -1.0, 1.0, dtype=np.float32)


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Return length, rate and channels of a file, from its header where that tells them.

    Raises:
        InputError: no such file, empty, not audio, truncated.
    """
    path = _existing(path)
    sound = _open_sound(path)
    if sound is not None:
        with sound:
            return AudioInfo(sound.frames / sound.samplerate, sound.samplerate, sound.channels)
    with _open_container(path) as container:
        stream = container.streams.audio[0]
        rate, channels = stream.rate, stream.channels
        if stream.duration is not None:
            return AudioInfo(float(stream.duration * stream.time_base), rate, channels)
        if container.duration is not None:
            return AudioInfo(container.duration / 1e6, rate, channels)  # in microseconds
    wave, rate = _decode_with_av(path, 0.0, None)
    return AudioInfo(len(wave) / rate, rate, channels)


def digest(path: str | os.PathLike[str], start: float = 0.0, duration: float | None = None) -> str:
    """Return a hash of the file's bytes and the segment: the same wherever the file lies."""
    path = _existing(path)
    hasher = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    hasher.update(f"|{float(start)}|{None if duration is None else float(duration)}".encode())
    return hasher.hexdigest()


def is_silent(waveform: np.ndarray) -> bool:
    """Tell whether a waveform's root mean square is below `SILENCE_DBFS`.

    >>> is_silent(np.zeros(1600)), is_silent(np.full(1600, 0.01))
    (True, False)
    """
    power = np.mean(np.square(waveform, dtype=np.float64))
    return bool(power < 10 ** (SILENCE_DBFS / 10))


def find_audio(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield files as named, folders as their audio files (recursively, sorted), globs as matches.

    Raises:
        InputError: a path that does not exist, a glob that matches nothing, a folder without audio.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from _in_folder(path)
        elif path.exists():
            yield path
        elif found := sorted(glob.glob(str(path), recursive=True)):
            yield from find_audio(found)
        else:
            raise InputError(f"{path}: no such file or folder, and no pattern that matches one")


def _in_folder(folder: Path) -> list[Path]:
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise InputError(
            f"{folder}: holds no audio files (searched for {' '.join(sorted(AUDIO_SUFFIXES))})"
        )
    return found


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an audio file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    return path


def _decode(path: Path, start: float, duration: float | None) -> tuple[np.ndarray, int]:
    """Return the segment as float32 (samples, channels) at the file's own rate, and that rate."""
    sound = _open_sound(path)
    if sound is None:
        return _decode_with_av(path, start, duration)
    import soundfile

    with sound:
        rate = sound.samplerate
        first = min(round(start * rate), sound.frames)
        wanted = sound.frames - first
        if duration is not None:
            wanted = min(wanted, round(duration * rate))
        try:
            sound.seek(first)
            wave = sound.read(wanted, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{path}: damaged or truncated ({error.error_string.strip()})"
            ) from None
        # MP3 headers only estimate the length; WAV and FLAC state it.
        if len(wave) < wanted and sound.format != "MP3":
            raise InputError(
                f"{path}: truncated: {len(wave) / rate:.2f} of {wanted / rate:.2f} s decode"
            )
    return wave, rate


def _open_sound(path: Path):
    """Open with libsndfile; None where it does not know the format or the length."""
    import soundfile

    try:
        sound = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: it takes ".raw" for headerless
        return None
    if sound.frames > 2**40:  # a FLAC written by a pipe
        sound.close()
        return None
    # libsndfile trims a WAV's declared size to what is there, and only its log tells.
    log = sound.extra_info if sound.format.startswith("WAV") else ""
    if sizes := re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        declared, present = map(int, sizes.groups())
        whole = sound.frames * declared / max(present, 1) / sound.samplerate
        there = sound.frames / sound.samplerate
        if declared < _STREAMED and whole - there > MIN_SECONDS:
            sound.close()
            raise InputError(f"{path}: truncated: {there:.2f} of {whole:.2f} s are there")
    return sound


def _open_container(path: Path):
    """Open with FFmpeg; the caller closes it."""
    import av

    try:
        # A file may name others (playlists); only itself may be read.
        container = av.open(str(path), options={"protocol_whitelist": "file"})
    except (av.FFmpegError, UnicodeDecodeError):
        with open(path, "rb") as file:
            head = file.read(24)
        raise InputError(f"{path}: not audio, or damaged; it begins with {head!r}") from None
    if not container.streams.audio:
        found = ", ".join(stream.type for stream in container.streams) or "nothing"
        name = container.format.name
        container.close()
        raise InputError(f"{path}: no audio stream; as {name} it holds {found}")
    return container


def _decode_with_av(
    path: Path, start: float, duration: float | None, seek: bool = True
) -> tuple[np.ndarray, int]:
    import av

    blocks: list[np.ndarray] = []
    begin = decoded = 0  # samples: where blocks[0] lies in the stream, how many there are
    seek = seek and start > PREROLL
    with _open_container(path) as container:
        stream = container.streams.audio[0]
        rate = stream.rate
        first = round(start * rate)
        last = None if duration is None else round((start + duration) * rate)
        # Below zero lies a codec's priming, which the decoder drops.
        origin = max(float((stream.start_time or 0) * stream.time_base), 0.0)
        resampler = av.AudioResampler(format="fltp", rate=rate)
        try:
            if seek:
                target = origin + start - PREROLL
                container.seek(round(target / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if not decoded:
                    begin = round(((frame.time or origin) - origin) * rate)
                blocks += [piece.to_ndarray() for piece in resampler.resample(frame)]
                decoded += frame.samples
                if last is not None and begin + decoded >= last:
                    break
        except av.FFmpegError as error:  # a broken end is tolerated, as everywhere in FFmpeg
            if not blocks and not seek:
                raise InputError(f"{path}: damaged ({error.strerror})") from None
    if seek and (not blocks or begin > first):  # a stream without an index: go there on foot
        return _decode_with_av(path, start, duration, seek=False)
    if not blocks:
        return np.zeros((0, 1), dtype=np.float32), rate
    wave = np.concatenate(blocks, axis=1).T
    return wave[max(first - begin, 0) : None if last is None else max(last - begin, 0)], rate
