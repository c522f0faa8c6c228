"""Shared fixtures: where real speech and text lie, and small tones to decode."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest of 56 noisy sweeps in two languages: up or down, 0.5 to 1 s, with text."""
    from speechtaxi.records import write_manifest
    from speechtaxi.types import Utterance

    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 16), ("dev", 4), ("test", 8)):
        for language in ("eng", "fra"):
            for number in range(count):
                label = ("up", "down")[number % 2]
                seconds = random.uniform(0.5, 1.0)
                time = np.arange(round(seconds * 16_000)) / 16_000
                wave = 0.3 * np.sin(2 * np.pi * (300 * time + 850 * time**2 / seconds))
                if label == "down":
                    wave = wave[::-1]
                name = f"{language}-{split}-{number}"
                noise = 0.02 * random.standard_normal(len(time))
                soundfile.write(folder / f"{name}.flac", wave + noise, 16_000)
                rows.append(
                    Utterance(
                        id=name,
                        language=language,
                        audio=str(folder / f"{name}.flac"),
                        split=split,
                        text={"up": "rise and climb", "down": "sink and fall"}[label],
                        label=label,
                        group=f"{split}-{number}",
                    )
                )
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="session")
def fit_arguments(corpus: Path) -> list[str]:
    """Return the arguments of a small, quick training run on the sweeps."""
    return [
        *("-c", "cpu", f"--data.manifest={corpus}", "--data.labels=[up,down]"),
        *("--trainer.max_epochs=4", "--data.batch_size=4"),
    ]


@pytest.fixture(scope="session")
def e2e_run(fit_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a small E2E classifier that tells the sweeps apart."""
    from speechtaxi.cli import main

    run = tmp_path_factory.mktemp("runs") / "e2e"
    assert main(["fit", *fit_arguments, "-c", "e2e_tiny", f"--run={run}"]) == 0
    return run


@pytest.fixture(scope="session")
def sounds(corpus: Path) -> dict[str, bytes]:
    """Return the files of the test clips by their ids."""
    from speechtaxi.records import read_manifest

    rows = [row for row in read_manifest(corpus) if row.split == "test"]
    return {row.id: Path(row.audio or "").read_bytes() for row in rows}


@pytest.fixture
def serving(monkeypatch, tmp_path):
    """Return a function that serves models and returns a client and the worker."""
    from fastapi.testclient import TestClient

    from speechtaxi.serve.app import create_app
    from speechtaxi.serve.models import open_models
    from speechtaxi.serve.upload import Limits
    from speechtaxi.serve.worker import Worker

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clients = []

    def serve(folders, limits=None, token=None, places=16, ensemble=False):
        folders = [str(folder) for folder in folders]
        worker = Worker(lambda private: open_models(folders, private, "cpu", 1, ensemble), places)
        client = TestClient(
            create_app(worker, limits or Limits(), token), raise_server_exceptions=False
        )
        client.__enter__()
        clients.append(client)
        while worker.state != "ready" and not worker.error:
            time.sleep(0.01)
        assert worker.error is None
        return client, worker

    yield serve
    for client in clients:
        client.__exit__(None, None, None)
    assert not list(tmp_path.glob("speechtaxi-serve-*"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Return a browser with a microphone of its own; tests that need one skip where it is not."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not (program := shutil.which("chromium") or shutil.which("chromium-browser")):
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        if not os.geteuid():  # root, as in a container, has no sandbox
            options.append("--no-sandbox")
        browser = driver.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()
