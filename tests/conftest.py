"""Shared fixtures: where real speech and text lie, and small tones to decode."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def assets() -> Path:
    """Return the folder with real data and models, or skip."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SPEECHTAXI_ASSETS", beside))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder}/data is absent; set SPEECHTAXI_ASSETS")
    return folder


@pytest.fixture
def tone(tmp_path: Path):
    """Return a function that writes a tone and returns its path."""

    def write(
        name: str = "tone.wav", seconds: float = 1.0, hertz: float = 440.0, rate: int = 16_000
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
        soundfile.write(path, wave.astype(np.float32), rate)
        return path

    return write
