"""Folder runs: flat in memory, and past what kills them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speechtaxi.classifier import AudioClassifier
from speechtaxi.classify import engine
from speechtaxi.cli import main
from speechtaxi.recordings import Teller
from speechtaxi.types import Prediction, Utterance


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Fake(AudioClassifier):
    """Tells topics by the name of the clip, and what happens to it."""

    models = ()

    def __init__(self, heard: Callable[[Utterance], object]) -> None:
        self.told = heard

    def heard(self, utterance: Utterance) -> None:
        return None

    def calibrated_for(self, language: str) -> bool:
        return False

    def classify(self, paths: Any, **_: Any) -> Iterator[Prediction]:
        for clip in paths:
            self.told(clip)
            topic = "up" if len(clip.id) % 2 else "down"
            yield Prediction(clip.id, clip.id, "und", None, topic, {topic: 0.9}, duration=1.0)


def resident() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_recordings(tone, tmp_path, monkeypatch, capsys) -> None:
    count, clip = 20_000, str(tone(seconds=0.1))
    manifest = tmp_path / "many.jsonl"
    lines = ({"id": f"{n:06}", "audio": clip, "language": "eng"} for n in range(count))
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes: list[int] = []
    teller = Teller(Fake(lambda clip: sizes.append(resident())), "fake")
    monkeypatch.setattr(engine, "open_teller", lambda *_: teller)
    monkeypatch.setattr("speechtaxi.classify.fingerprint", lambda model: "")
    out = tmp_path / "out.jsonl"
    assert main(["classify", "model", str(manifest), "--output", str(out), "--segments=none"]) == 0
    assert len(rows(out)) == len(sizes) == count
    early = count // 5
    assert sizes[-1] - sizes[early] < 200 * (count - early)  # bytes: an id and a place in a set


def test_a_recording_that_kills_runs_is_listed_and_the_rest_done(
    tone, tmp_path, monkeypatch, capsys
) -> None:
    for name in ("a", "b", "c", "d"):
        tone(f"archive/{name}.wav", hertz=300 + 10 * ord(name))
    out = tmp_path / "out.jsonl"
    begun: list[list[str]] = []

    def hear(clip: Utterance) -> None:
        if clip.id == "b.wav":
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(engine, "open_teller", lambda *_: Teller(Fake(hear), "fake"))
    monkeypatch.setattr("speechtaxi.classify.fingerprint", lambda model: "")
    command = ["classify", "model", str(tmp_path / "archive"), "--output", str(out)]
    command += ["--segments=none"]
    for _ in range(3):
        if (child := os.fork()) == 0:
            main(command)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert [row["id"] for row in rows(out)] == ["a.wav"]  # what was read ahead goes one by one now
    for _ in range(2):
        assert main(command) == 1
        assert "b.wav: the process died 3 times while this was in hand" in capsys.readouterr().err
        assert [row["id"] for row in rows(out)] == ["a.wav", "c.wav", "d.wav"]
    monkeypatch.setattr(engine, "open_teller", lambda *_: Teller(Fake(begun.append), "fake"))
    assert main([*command, "--retry_crashed"]) == 0
    assert [clip.id for clip in begun] == ["b.wav"]


def test_options_of_engines(tone, capsys, monkeypatch) -> None:
    clip = str(tone())
    monkeypatch.setattr("speechtaxi.classify.fingerprint", lambda model: "")
    for command in (["classify", "model", clip], ["transcribe", clip, "--recognizer=model"]):
        assert main([*command, "--workers=2"]) == 2
        assert "are for --engine ray" in capsys.readouterr().err
        assert main([*command, "--engine=ray", "--workers=0"]) == 2
        assert "--workers must" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["classify", "model", clip, "--engine=ray"]) == 2
    assert capsys.readouterr().err.endswith(
        "--engine ray needs Ray: pip install 'speechtaxi[ray]'\n"
    )
    assert main(["classify", "model", clip, "--engine=ray", "--explain"]) == 2
