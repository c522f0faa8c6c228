"""Damaged files: each ends as samples or as one line, without crash, hang or big memory.

The decoders run in a process of their own, so that a segmentation fault of theirs is seen.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_audio_stream import encode

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


def write(folder: Path, name: str) -> Path:
    """Write a sound file of one of `FORMATS`."""
    how = FORMATS[name]
    if isinstance(how, dict):
        soundfile.write(folder / name, voice(), 16_000, **how)
    else:
        codec, rate = how
        layout = "mono" if "amr" in codec else "stereo"
        encode(folder / name, codec, rate, layout, voice(rate=rate))
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
@pytest.mark.parametrize("seed", range(1, 3))
def test_many_damaged_files_end_well(whole, tmp_path, seed):
    sweep(whole, tmp_path, count=30, seed=seed)


@pytest.mark.assets
def test_damaged_real_speech_ends_well(assets, tmp_path):
    speech = assets / "data" / "speech" / "fixtures"
    short = [speech / "fairseq_6313-76958-0021.flac", *sorted(speech.glob("*.wav"))]
    sweep(short, tmp_path, count=4, seed=0)


if __name__ == "__main__":
    work([json.loads(line) for line in sys.stdin])
