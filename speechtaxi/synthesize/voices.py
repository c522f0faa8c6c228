"""How texts are spoken: the voices of each split, and how pitch, rate, level and noise vary."""

from __future__ import annotations

import random
from dataclasses import dataclass

from speechtaxi.languages import espeak_voice
from speechtaxi.types import Utterance

VOICES: dict[str, tuple[str, ...]] = {
    # eSpeak NG's variants that really differ: many others are near-duplicates of each other
    "train": ("m1", "m3", "m7", "Andy", "f1", "f3", "f5", "Annie"),
    "dev": ("m2", "f4"),
    "test": ("m4", "Mario", "f2", "linda"),
}
"""Variants by split: no voice is heard in two of them. Rows to predict are spoken as test."""

PITCH = (35, 65)
"""eSpeak's scale from 0 to 99; 50 is a voice's own."""
RATE = (150, 190)
"""Words a minute."""
PEAK_DBFS = (-12.0, -1.0)
"""The loudest sample of a clip, noise included."""
SNR_DB = (25.0, 40.0)
"""Speech over white noise."""


@dataclass(frozen=True, slots=True)
class Take:
    """One clip to be spoken: a row (its `speaker` is the variant) and how it sounds."""

    row: Utterance
    voice: str
    """eSpeak's language and variant, as in en-us+m1."""
    pitch: int
    rate: int
    peak: float
    """In dBFS."""
    snr: float
    """In dB."""
    noise: int
    """Seed of the noise."""


def take(row: Utterance, manner: str) -> Take:
    """Draw how `row` is spoken; takes of one `manner` share everything but the noise's samples."""
    draw = random.Random(manner)
    return Take(
        row=row,
        voice=f"{espeak_voice(row.language)}+{row.speaker}",
        pitch=draw.randint(*PITCH),
        rate=draw.randint(*RATE),
        peak=round(draw.uniform(*PEAK_DBFS), 2),
        snr=round(draw.uniform(*SNR_DB), 2),
        noise=random.Random(f"{manner}/{row.id}").getrandbits(32),
    )
