"""Clips of noise of SpeechTaxi's lengths, to time what does not depend on what is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from speechtaxi import audio


def clips(folder: Path, count: int, kinds: Sequence[str] = ("wav", "mp3")) -> list[Path]:
    """Write noise of 2 to 25 s, median 10 s, in these kinds of files in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths: list[Path] = []
    for number, seconds in enumerate(np.clip(rng.lognormal(np.log(10), 0.5, count), 2, 25)):
        path = folder / f"{number:03}.{kinds[number % len(kinds)]}"
        wave = 0.1 * rng.standard_normal(round(seconds * audio.SAMPLE_RATE))
        soundfile.write(path, wave, audio.SAMPLE_RATE)
        paths.append(path)
    return paths
