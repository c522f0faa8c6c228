"""An archive as a radio monitor has it, made of real recordings: many formats, and one long file.

    python benchmarks/archive.py --assets ../shared/data --output runs/archive

writes `clips/` (recordings in ten containers, some in folders named by language, a few damaged) and
`hour.mp3`: recordings with silence and noise between them, one hour in all; `hour.tsv` tells where
they lie. Then

    speechtaxi classify MODEL runs/archive/clips runs/archive/hour.mp3 --language folder \\
        --output runs/archive/topics.csv --timeline runs/archive/timeline
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from speechtaxi import audio

CONTAINERS = {
    "mp3": "libmp3lame",
    "m4a": "aac",
    "ogg": "libopus",
    "opus": "libopus",
    "webm": "libopus",
    "mkv": "libmp3lame",
    "mp4": "aac",
    "3gp": "aac",
}
RATES = (8_000, 16_000, 22_050, 44_100, 48_000)


def encode(path: Path, wave: np.ndarray, codec: str, rate: int) -> None:
    """Write a waveform (samples,) at 16 kHz with FFmpeg's encoders; Opus keeps to 48 kHz."""
    rate = 48_000 if codec == "libopus" else rate
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (np.clip(wave, -1, 1) * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = audio.SAMPLE_RATE, 0
        frame.time_base = Fraction(1, audio.SAMPLE_RATE)
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate, frame_size=size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def recordings(assets: Path) -> Iterator[tuple[str, Path]]:
    """Yield real recordings with the code of their language, the long ones first."""
    speech = assets / "speech"
    codes = {"twi-aku": "tw-akuapem", "twi-asa": "tw-asante"}
    for path in sorted((speech / "bibletts_samples").glob("*.flac")):
        yield codes.get(path.stem, path.stem), path
    for path in sorted((speech / "fixtures").iterdir()):
        yield "eng", path
    for path in sorted((speech / "yoruba_speech_project").rglob("*.flac"))[:120]:
        yield "yor", path
    for path in sorted((speech / "speech_to_intent_eng").glob("*.flac"))[:120]:
        yield "eng", path


def main() -> None:
    """Write the folder and the long file."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--assets", type=Path, required=True, help="folder that holds speech/")
    p.add_argument("--output", type=Path, required=True)
    p.add_argument("--minutes", type=float, default=60, help="of the long file (60)")
    args = p.parse_args()
    dice = random.Random(0)
    noise = np.random.default_rng(0)
    found = list(recordings(args.assets))
    for number, (language, path) in enumerate(found[:60]):
        suffix, codec = list(CONTAINERS.items())[number % len(CONTAINERS)]
        folder = args.output / "clips" / language
        folder.mkdir(parents=True, exist_ok=True)
        encode(folder / f"{path.stem}.{suffix}", audio.load(path), codec, dice.choice(RATES))
    whole = (args.output / "clips" / "eng" / "jfk.flac").with_suffix(".wav")
    wave = audio.load(args.assets / "speech" / "fixtures" / "jfk.flac")
    soundfile.write(whole, np.stack([wave, wave], 1), audio.SAMPLE_RATE, "PCM_24")
    whole.with_name("cut.wav").write_bytes(whole.read_bytes()[:200_000])
    whole.with_name("text.mp3").write_text("no audio")
    whole.with_name("empty.ogg").touch()

    parts: list[np.ndarray] = []
    rows = ["start\tend\tlanguage\trecording"]
    at = 0.0

    def add(piece: np.ndarray) -> None:
        nonlocal at
        parts.append(piece.astype(np.float32))
        at += len(piece) / audio.SAMPLE_RATE

    while at < 60 * args.minutes:
        gap = round(dice.uniform(2, 12) * audio.SAMPLE_RATE)
        level = dice.choice((0.0, 3e-4, 3e-3))
        add(level * noise.standard_normal(gap))
        language, path = dice.choice(found)
        wave = audio.load(path)[: 60 * audio.SAMPLE_RATE]
        rows.append(f"{at:.2f}\t{at + len(wave) / audio.SAMPLE_RATE:.2f}\t{language}\t{path.stem}")
        add(wave + level * noise.standard_normal(len(wave)))
    encode(args.output / "hour.mp3", np.concatenate(parts), "libmp3lame", 44_100)
    (args.output / "hour.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(args.output)


if __name__ == "__main__":
    main()
