"""Two decoders, libsndfile and FFmpeg: blocks of a file's samples at its own rate, mono."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtaxi.errors import InputError

PREROLL = 0.1
"""Seconds to decode before a segment: after a seek, codecs with overlapping frames need a run-up
(Opus asks for 0.08 s, RFC 7845)."""

RATES = (2_000, 768_000)
"""Least and most samples per second: below is no speech, and a few bytes would last for days."""

HOLE = (0.5, 10.0)
"""Seconds that time stamps may run ahead of the samples before silence stands for what is lost, so
that a segment lies where it was heard; and beyond which the clock is wrong, not the sound (as
FFmpeg's -dts_delta_threshold)."""

MAX_HOLES = 3600.0
"""Seconds of such silence in a recording."""

BROKEN = 0.1
"""Share of packets that may fail to decode, as on a bad radio link or at a cut end."""

_VALUES = 1 << 16  # to decode at once, over all channels: what breaks in a block is lost with it
_STREAMED = 0x7FFF_F000  # declared sizes from here on mean "unknown": the writer was a pipe
_UNKNOWN = 1 << 40  # declared frames from here on too: a FLAC from a pipe
_ROUNDED = 0.1  # seconds that a WAV may promise too much


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of a file tells."""

    seconds: float
    sample_rate: int
    channels: int


def blocks(path: Path, start: float, duration: float | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the rate (the same each time) and float32 (samples,), the mean of the channels.

    Raises:
        InputError: not audio, or damaged; after what decodes.
    """
    sound = _open_sound(path)
    if sound is None:
        return _from_ffmpeg(path, start, duration)
    return _from_sndfile(path, sound, start, duration)


def info(path: Path) -> AudioInfo:
    """Tell length, rate and channels from the header, or else by decoding.

    Raises:
        InputError: not audio, or truncated.
    """
    sound = _open_sound(path)
    if sound is not None:
        with sound:
            declared, rate = _declared_frames(sound), sound.samplerate
            if declared > sound.frames:
                raise _truncated(path, sound.frames, declared, rate)
            return AudioInfo(declared / rate, rate, sound.channels)
    with _container(path) as container:
        stream = container.streams.audio[0]
        rate, channels = stream.rate, stream.channels
        if stream.duration is not None and stream.duration > 0:
            return AudioInfo(float(stream.duration * stream.time_base), rate, channels)
        if container.duration is not None and container.duration > 0:
            return AudioInfo(container.duration / 1e6, rate, channels)  # in microseconds
    samples = sum(len(block) for _, block in _from_ffmpeg(path, 0.0, None))
    return AudioInfo(samples / rate, rate, channels)


# --------------------------------------------------------------------------------- libsndfile


def _open_sound(path: Path) -> Any:
    """Open with libsndfile; None where it does not know the format or the length."""
    import soundfile

    try:
        sound = soundfile.SoundFile(os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError):  # TypeError: it takes ".raw" for headerless
        return None
    if sound.frames >= _UNKNOWN:
        sound.close()
        return None
    _check_rate(path, sound.samplerate)
    # Or else it seeks after each read to where it is, and an MP3 of 24 kHz clicks there.
    sound.seekable = lambda: False
    return sound


def _from_sndfile(
    path: Path, sound: Any, start: float, duration: float | None
) -> Iterator[tuple[int, np.ndarray]]:
    import soundfile

    with sound:
        rate = sound.samplerate
        declared = _declared_frames(sound)
        first = min(round(start * rate), declared)
        last = declared if duration is None else min(first + round(duration * rate), declared)
        at, step = first, max(_VALUES // sound.channels, 1)
        try:
            if first:  # a damaged FLAC may decode, and not seek
                sound.seek(min(first, sound.frames))
            while at < last:
                block = sound.read(min(step, last - at), dtype="float32", always_2d=True)
                if not len(block):
                    break
                at += len(block)
                yield rate, _mean(block, axis=1)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip()
            raise InputError(f"{path}: damaged or truncated ({reason})") from None
        # MP3 headers only estimate the length; WAV and FLAC state it.
        if at < last and sound.format != "MP3":
            raise _truncated(path, at, declared, rate)


def _declared_frames(sound: Any) -> int:
    """Return how many frames the header promises."""
    # libsndfile trims a WAV's declared size to what is there, and only its log tells.
    log = sound.extra_info if sound.format.startswith("WAV") else ""
    if sizes := re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        declared, present = map(int, sizes.groups())
        whole = round(sound.frames * declared / max(present, 1))
        if declared < _STREAMED and whole - sound.frames > _ROUNDED * sound.samplerate:
            return whole
    return sound.frames


def _truncated(path: Path, there: int, declared: int, rate: int) -> InputError:
    return InputError(f"{path}: truncated: {there / rate:.2f} of {declared / rate:.2f} s are there")


# ------------------------------------------------------------------------------------- FFmpeg


@contextmanager
def _container(path: Path) -> Generator[Any]:
    """Open with FFmpeg a file whose first audio stream can be decoded."""
    import av

    with _File(path) as file:
        try:
            # A playlist names other files: through an open file, without protocols, FFmpeg
            # reads this one and can open no other.
            container = av.open(
                file, options={"protocol_whitelist": "none"}, metadata_errors="replace"
            )
        except _faults():
            file.seek(0)
            head = file.read(24)
            raise InputError(f"{path}: not audio, or damaged; it begins with {head!r}") from None
        with container:
            name = container.format.name
            if not container.streams.audio:
                found = ", ".join(stream.type for stream in container.streams) or "nothing"
                raise InputError(f"{path}: no audio stream; as {name} it holds {found}")
            if container.streams.audio[0].codec_context is None:
                raise InputError(f"{path}: the audio in this {name} is of an unknown codec")
            _check_rate(path, container.streams.audio[0].rate)
            yield container


def _from_ffmpeg(
    path: Path, start: float, duration: float | None, seek: bool = True
) -> Iterator[tuple[int, np.ndarray]]:
    with _container(path) as container:
        rate = container.streams.audio[0].rate
        first = round(start * rate)
        last = None if duration is None else first + round(duration * rate)
        seek, found = seek and start > PREROLL, False
        origin = _seek(path, container, start - PREROLL) if seek else None
        for at, block in _placed(path, container, origin) if origin is not None or not seek else ():
            if seek and not found and at > first:
                break
            found = True
            piece = block[max(first - at, 0) : None if last is None else max(last - at, 0)]
            if len(piece):
                yield rate, piece
            if last is not None and at + len(block) >= last:
                break
    if seek and not found:  # a stream without an index: go there on foot
        yield from _from_ffmpeg(path, start, duration, seek=False)


def _seek(path: Path, container: Any, seconds: float) -> float | None:
    """Go some seconds from the first sample, and return its time stamp; None: there is no way."""
    stream = container.streams.audio[0]
    try:
        # Not what the header says: some codecs' delay is in the stamps, and their priming too.
        origin = next((time or 0.0 for time, _ in _frames(path, container)), None)
        if origin is not None:
            container.seek(round((origin + seconds) / stream.time_base), stream=stream)
    except (*_faults(), OverflowError, InputError):
        return None
    return origin


def _placed(path: Path, container: Any, origin: float | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield where a block begins, in samples from the stream's first, and (samples,).

    `origin` is the time stamp of the first sample in seconds; None, where this begins with it.
    """
    rate = container.streams.audio[0].rate
    at, patience = None, round(MAX_HOLES * rate)
    for time, block in _frames(path, container):
        if origin is None:
            origin = time or 0.0
        begin = (at or 0) if time is None else round((time - origin) * rate)
        at = begin if at is None else at
        hole = begin - at
        if HOLE[0] * rate < hole <= min(HOLE[1] * rate, patience):
            patience -= hole
            for size in [_VALUES] * (hole // _VALUES) + [hole % _VALUES]:
                yield at, np.zeros(size, dtype=np.float32)
                at += size
        yield at, block
        at += len(block)


def _frames(path: Path, container: Any) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yield each frame's time stamp in seconds and its samples (samples,)."""
    stream = container.streams.audio[0]
    mix = _Mixer(stream.rate)
    packets = broken = 0
    try:
        for packet in container.demux(stream):
            packets += 1
            try:
                frames = [(frame.time, mix(frame)) for frame in packet.decode()]
            except _faults():
                broken += 1
            else:
                yield from frames
    except IndexError:  # PyAV's, after the last packet, of streams that appear on the way (MPEG-TS)
        pass
    except _faults() as error:
        raise InputError(f"{path}: damaged or truncated ({_reason(error)})") from None
    if broken > BROKEN * packets:
        raise InputError(f"{path}: damaged: {broken} of {packets} packets do not decode")


class _File(io.FileIO):
    """A file to read; a damaged one may send FFmpeg to before its beginning."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:
            return -1  # what FFmpeg expects; PyAV would print a traceback


class _Mixer:
    """Turns frames of any format into float32 (samples,) at one rate, the mean of the channels."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.key: tuple[object, ...] = ()

    def __call__(self, frame: Any) -> np.ndarray:
        import av

        channels = frame.layout.nb_channels
        packed = channels > 8  # of a plane for each channel PyAV sees eight, and reads beyond
        key = (frame.format.name, frame.layout.name, frame.sample_rate)
        if key != self.key:  # damage, or another programme, may change them in mid-stream
            self.resampler = av.AudioResampler("flt" if packed else "fltp", rate=self.rate)
            self.key = key
        pieces = [piece.to_ndarray() for piece in self.resampler.resample(frame)]
        if packed:
            pieces = [piece.reshape(-1, channels).T for piece in pieces]
        blocks = [_mean(piece, axis=0) for piece in pieces]
        return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, "f4"), *blocks])


def _faults() -> tuple[type[Exception], ...]:
    """Return what PyAV raises of a bad file; OSError also comes from reading it for FFmpeg."""
    from av.error import FFmpegError

    return FFmpegError, OSError, ValueError


# --------------------------------------------------------------------------------------- both


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _mean(block: np.ndarray, axis: int) -> np.ndarray:
    """Average the channels, which lie along `axis`."""
    if block.shape[axis] == 1:
        return block.squeeze(axis)
    with np.errstate(all="ignore"):  # whoever reads the samples looks for infinity
        return block.mean(axis=axis)


def _check_rate(path: Path, rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"{path}: sampled at {rate} Hz; speech needs {RATES[0]} to {RATES[1]} Hz")
