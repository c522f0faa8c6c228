"""Damaged and lying files: each ends as samples or as one line, without crash, hang or big memory.

The decoders run in a process of their own, so that a segmentation fault of theirs is seen.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import random
import re
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechtaxi import audio
from speechtaxi.errors import InputError

PATIENCE = 20  # seconds for one file of two seconds of sound; the slowest takes well under one
ADDRESS_SPACE = 3 << 30  # bytes; the decoders' libraries alone map about a third of it
GROWTH = 300 << 20  # bytes that the worst file may add to what the process holds

FORMATS = {  # file name: arguments of soundfile, or codec and rate of FFmpeg
    "pcm.wav": {"subtype": "PCM_16"},
    "float.wav": {"subtype": "FLOAT"},
    "adpcm.wav": {"subtype": "IMA_ADPCM"},
    "a.flac": {},
    "vorbis.ogg": {},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "a.mp3": {},
    "a.aiff": {},
    "a.au": {},
    "a.caf": {},
    "a.w64": {},
    "a.m4a": ("aac", 44_100),
    "a.aac": ("aac", 44_100),
    "video.mp4": ("aac", 48_000),
    "a.webm": ("libopus", 48_000),
    "a.mkv": ("flac", 16_000),
    "a.ts": ("aac", 44_100),
    "a.avi": ("libmp3lame", 44_100),
    "a.wma": ("wmav2", 44_100),
    "a.amr": ("libopencore_amrnb", 8_000),
    "a.3gp": ("libopencore_amrnb", 8_000),
    "a.ac3": ("ac3", 48_000),
}


def voice(seconds: float = 2.0, rate: int = 16_000) -> np.ndarray:
    """A buzz with syllables and breath: (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 12))
    breath = np.random.default_rng(0).standard_normal(len(time))
    return (np.sin(2 * np.pi * 2 * time) ** 2 * (0.15 * buzz + 0.02 * breath)).astype(np.float32)


def encode(path: Path, codec: str, rate: int, seconds: float = 2.0, video: bool = False) -> None:
    """Write the voice with FFmpeg, beside a grey picture if it is to be a video."""
    import av

    with av.open(str(path), "w") as container:
        layout = "mono" if "amr" in codec else "stereo"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if video:
            picture = container.add_stream("mpeg4", rate=5)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
            for number in range(round(seconds * 5)):
                grey = np.full((64, 64, 3), 20 * number % 255, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(grey)
                frame.pts = number
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(voice(seconds)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        context = stream.codec_context
        context.bit_rate = context.bit_rate or 64_000
        context.open(strict=False)
        resampler = av.AudioResampler(context.format, layout, rate, context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))


def write(folder: Path, name: str) -> Path:
    """Write a sound file of one of `FORMATS`."""
    how = FORMATS[name]
    if isinstance(how, dict):
        soundfile.write(folder / name, voice(), 16_000, **how)
    else:
        encode(folder / name, *how, video="video" in name)
    return folder / name


# ------------------------------------------------------------------------------------- damage


def damaged(data: bytes, count: int, rng: random.Random):
    """Yield (what was done, bytes) of a file, in `count` ways of each kind."""
    head = min(len(data), 256)
    for number in range(count):
        cut = [rng.randrange(1, 64), rng.randrange(64, head), rng.randrange(len(data))][number % 3]
        yield "truncated", data[:cut]
        flipped = bytearray(data)
        for _ in range(1 + number):
            flipped[rng.randrange(head)] ^= 1 << rng.randrange(8)
        yield "head", flipped
        flipped = bytearray(data)
        for _ in range(1 + len(data) // 500):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield "body", flipped
        at = rng.randrange(head)
        huge = rng.choice([b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"\xff" * 3 + b"\x7f", bytes(8)])
        yield "size", data[:at] + huge + data[at + len(huge) :]
        at, size = rng.randrange(len(data)), rng.randrange(1, 4096)
        yield "noise", data[:at] + rng.randbytes(size) + data[at + size :]
        yield "hole", data[:at] + data[at + size :]


# --------------------------------------------------------------------------------------- lies


def riff(rate=16_000, channels=1, bits=16, size=None, samples=16_000, form=1) -> bytes:
    """A WAV whose header says what it is told to, over a quiet second."""
    data = np.resize(voice(1.0) * 3e4, samples).astype("<i2").tobytes()
    size = len(data) if size is None else size
    frame = channels * bits // 8
    head = struct.pack(
        "<HHIIHH", form, channels, rate, rate * frame & 0xFFFF_FFFF, frame & 0xFFFF, bits
    )
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFF_FFFF)) + chunks


def floats(*values: float) -> bytes:
    """A float WAV of a second of the voice, some of whose samples are others."""
    wave = voice(1.0)
    wave[8_000 : 8_000 + len(values)] = values
    data = io.BytesIO()
    soundfile.write(data, wave, 16_000, format="WAV", subtype="FLOAT")
    return data.getvalue()


def flac(declared: int) -> bytes:
    """A FLAC of a second that says it has so many samples (36 bits of STREAMINFO)."""
    data = io.BytesIO()
    soundfile.write(data, voice(1.0), 16_000, format="FLAC")
    told = bytearray(data.getvalue())
    told[21] = told[21] & 0xF0 | declared >> 32
    told[22:26] = (declared & 0xFFFF_FFFF).to_bytes(4, "big")
    return bytes(told)


def caf(declared: int) -> bytes:
    """A CAF whose data chunk says it has so many bytes."""
    data = io.BytesIO()
    soundfile.write(data, voice(1.0), 16_000, format="CAF", subtype="PCM_16")
    told = bytearray(data.getvalue())
    at = told.index(b"data") + 4
    told[at : at + 8] = declared.to_bytes(8, "big")
    return bytes(told)


def ogg(granule: int) -> bytes:
    """An Ogg whose last page says that so many samples have passed (its checksum is mended)."""
    data = io.BytesIO()
    soundfile.write(data, voice(1.0), 16_000, format="OGG", subtype="VORBIS")
    told = bytearray(data.getvalue())
    at = told.rindex(b"OggS")
    told[at + 6 : at + 14] = granule.to_bytes(8, "little")
    told[at + 22 : at + 26] = bytes(4)
    remainder = 0  # RFC 3533: CRC-32 of polynomial 0x04c11db7, neither reflected nor inverted
    for byte in told[at:]:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C1_1DB7 if remainder >> 31 else 0)) & 0xFFFF_FFFF
    told[at + 22 : at + 26] = remainder.to_bytes(4, "little")
    return bytes(told)


def zipped() -> bytes:
    """A zip archive with a WAV in it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("inside.wav", riff())
    return data.getvalue()


SECOND = 1.0  # what a file that is well in spite of all lasts
LIES: dict[str, tuple[bytes, float | str]] = {
    # name: its bytes, and the seconds that it gives or the reason that it must
    "empty.wav": (b"", "is empty"),
    "byte.wav": (b"R", "not audio"),
    "header.wav": (riff(samples=0), "only 0.000 s"),
    "sample.wav": (riff(samples=1), "only 0.000 s"),
    "text.wav": (b"some words\n" * 99, "no audio stream|not audio"),
    "page.mp3": (b"<!DOCTYPE html>" * 50, "not audio"),
    "archive.wav": (zipped(), "not audio|only|packets do not decode"),
    "zeros.wav": (bytes(5_000), "not audio|only"),
    "ones.mp3": (b"\xff" * 5_000, "not audio|only|damaged"),
    "nan.wav": (floats(np.nan), "not numbers"),
    "inf.wav": (floats(np.inf, -np.inf), "not numbers"),
    "overflow.wav": (floats(3e38, -3e38), "not numbers"),
    "denormal.wav": (floats(*[1e-42] * 4_000), SECOND),
    "clipped.wav": (floats(*[1e6] * 4_000), SECOND),
    "constant.wav": (floats(*[0.5] * 8_000), SECOND),
    "long.wav": (riff(size=0x7FFF_0000), "truncated: 1.00 of"),
    "piped.wav": (riff(size=0xFFFF_FFFF), SECOND),
    "long.flac": (flac(2**36 - 1), "truncated|damaged"),
    "long.caf": (caf(10**9 * 32_000), SECOND),
    "longest.caf": (caf(2**63 - 1), "not audio"),
    "long.ogg": (ogg(10**7 * 16_000), "truncated: 1.00 of"),
    "longer.ogg": (ogg(10**9 * 16_000), SECOND),
    "longest.ogg": (ogg(2**63 - 2), SECOND),
    "many.wav": (riff(channels=65_535), "not audio|damaged|unknown codec"),
    "1024.wav": (riff(channels=1024), "only"),
    "32.wav": (riff(channels=32, samples=16_000 * 32), SECOND),
    "none.wav": (riff(channels=0), "not audio|damaged|unknown codec"),
    "bits.wav": (riff(bits=0), "not audio|damaged|unknown codec|only"),
    "codec.wav": (riff(form=0x4242), "not audio|damaged|unknown codec"),
    **{
        f"{rate}.wav": (riff(rate, samples=rate), SECOND)
        for rate in (2_000, 8_000, 11_025, 22_050, 44_100, 96_000, 192_000, 384_000, 768_000)
    },
    **{
        f"{rate}.wav": (riff(rate), "speech needs 2000 to 768000 Hz|not audio")
        for rate in (0, 1, 10, 1_000, 1_999, 1_000_000, 2**31, 2**32 - 1)
    },
    # These name other files: a stranger's list must not have the reader's own files heard.
    "list.m3u8": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nmine.ts\n#EXT-X-ENDLIST\n",
        "not audio",
    ),
    "address.m3u8": (b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n", "not audio"),
    "list.m3u": (b"#EXTM3U\nmine.wav\n", "not audio|no audio stream"),
    "list.ffconcat": (b"ffconcat version 1.0\nfile mine.wav\n", "not audio"),
    "concat.wav": (b"ffconcat version 1.0\nfile mine.wav\n", "not audio"),
    "list.pls": (b"[playlist]\nFile1=mine.wav\nNumberOfEntries=1\n", "not audio|no audio stream"),
    "call.sdp": (b"v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n", "not audio"),
    "dash.mpd": (
        b'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        b'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="audio/mp4">'
        b'<Representation id="1"><BaseURL>mine.m4a</BaseURL></Representation></AdaptationSet>'
        b"</Period></MPD>",
        "not audio",
    ),
    # Names that a decoder might take for more than a name.
    "a%03d.wav": (riff(), SECOND),
    "-i.wav": (riff(), SECOND),
    "concat:mine.wav|mine.wav": (riff(), SECOND),
    "mine.raw": (riff(), SECOND),
    os.fsdecode(b"\xff\xfe.wav"): (riff(), SECOND),
    os.fsdecode(b"\xff\xfe.aac"): (b"\xff\xf1garbage" * 99, "not audio|damaged|only|sampled"),
    "मेरी आवाज़ 🎙.wav": (riff(), SECOND),
}


@pytest.fixture
def lies(tmp_path):
    """Return a folder with all `LIES`, what they name, and things that are no files."""
    for name, (data, _) in LIES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "mine.wav").write_bytes(riff())
    encode(tmp_path / "mine.ts", "aac", 44_100)
    encode(tmp_path / "mine.m4a", "aac", 44_100)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    (tmp_path / "device.wav").symlink_to("/dev/zero")
    (tmp_path / "folder.wav").mkdir()
    return tmp_path


NO_FILES = {
    "pipe.wav": "is a pipe or a device",
    "circle.wav": "no such file",
    "dangling.wav": "no such file",
    "device.wav": "is a pipe or a device",
    "folder.wav": "is a folder",
    "x" * 300 + ".wav": "no such file",
    "null\0.wav": "no such file",
}


# ------------------------------------------------------------------------------------- worker


def judge(path: str) -> dict:
    """Stream and probe a file; tell what came of it."""
    outcome: dict = {"samples": 0, "peak": 0.0}
    try:
        for block in audio.stream(path, block_seconds=1.0):
            assert block.dtype == np.float32
            assert np.isfinite(block).all()
            assert 0 < len(block) <= audio.SAMPLE_RATE
            outcome["samples"] += len(block)
            outcome["peak"] = max(outcome["peak"], float(np.abs(block).max()))
    except InputError as error:
        outcome["refused"] = str(error)
    try:
        audio.load(path, 0.5, 0.5)
    except InputError as error:
        outcome["segment"] = str(error)
    try:
        audio.probe(path)
    except InputError as error:
        outcome["probe"] = str(error)
    return outcome


def work(paths: list[str]) -> None:
    """Judge files, one line of JSON each."""
    import av
    import soxr  # noqa: F401

    av.logging.set_level(None)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    faulthandler.enable()
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        outcome = judge(path)
        outcome["grown"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) << 10
        print(json.dumps(outcome), flush=True)
    faulthandler.cancel_dump_traceback_later()


def judged(paths: list[Path]) -> dict[Path, dict]:
    """Judge files in processes of their own; fail where one of these dies."""
    done = subprocess.run(
        [sys.executable, __file__],
        input="\n".join(json.dumps(str(path)) for path in paths),
        capture_output=True,
        text=True,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    if len(outcomes) < len(paths):
        pytest.fail(f"{paths[len(outcomes)]}: exit {done.returncode}: {done.stderr[-3000:]}")
    assert "Traceback" not in done.stderr
    return dict(zip(paths, outcomes, strict=True))


def ends_well(path: Path, outcome: dict) -> None:
    """Check that a file gave samples, or one line that names it."""
    assert outcome["peak"] <= 1
    assert outcome["grown"] < GROWTH
    for way in ("refused", "segment", "probe"):
        if reason := outcome.get(way):
            assert reason.startswith(f"{path}: ")
            assert reason.isprintable() or not str(path).isprintable()
    assert outcome["samples"] or "refused" in outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Path]:
    """Return a sound file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    return [write(folder, name) for name in FORMATS]


def test_whole_files_are_heard(whole):
    for outcome in judged(whole).values():
        assert outcome["samples"] == pytest.approx(32_000, abs=3_000)
        assert not {"refused", "segment", "probe"} & set(outcome)


def sweep(whole: list[Path], folder: Path, count: int, seed: int) -> dict[Path, dict]:
    """Damage every file in six times `count` ways, and judge what becomes of it."""
    rng = random.Random(seed)
    paths: list[Path] = []
    for path in whole:
        for number, (kind, data) in enumerate(damaged(path.read_bytes(), count, rng)):
            paths.append(folder / f"{kind}-{number}-{path.name}")
            paths[-1].write_bytes(data)
    outcomes = judged(paths)
    for path, outcome in outcomes.items():
        ends_well(path, outcome)
    return outcomes


def test_damaged_files_end_well(whole, tmp_path):
    outcomes = sweep(whole, tmp_path, count=5, seed=0)
    assert len(outcomes) >= 600
    refused = sum("refused" in outcome for outcome in outcomes.values())
    assert 150 < refused < 500  # or else the damage is none, or total


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_damaged_files_end_well(whole, tmp_path, seed):
    sweep(whole, tmp_path, count=30, seed=seed)


@pytest.mark.assets
def test_damaged_real_speech_ends_well(assets, tmp_path):
    speech = assets / "data" / "speech" / "fixtures"
    short = [speech / "fairseq_6313-76958-0021.flac", *sorted(speech.glob("*.wav"))]
    sweep(short, tmp_path, count=4, seed=0)


def test_lies_are_seen_through(lies):
    outcomes = judged([lies / name for name in LIES])
    for path, outcome in outcomes.items():
        ends_well(path, outcome)
        expected = LIES[path.name][1]
        if isinstance(expected, str):
            assert re.search(expected, outcome.get("refused", "")), (path, outcome)
        else:
            assert "refused" not in outcome
            assert outcome["samples"] == pytest.approx(expected * 16_000, abs=10)


def test_what_is_no_file_is_named(lies):
    for path, outcome in judged([lies / name for name in NO_FILES]).items():
        ends_well(path, outcome)
        assert NO_FILES[path.name] in outcome["refused"]


if __name__ == "__main__":
    work([json.loads(line) for line in sys.stdin])
