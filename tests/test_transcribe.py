"""`speechtaxi transcribe`: rows, filters, resumption after a kill, exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from speechtaxi.cli import main
from speechtaxi.records import read_manifest
from speechtaxi.store import TranscriptStore
from speechtaxi.transcribe import summary
from speechtaxi.types import Transcript, Utterance


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the model folder of a small recogniser with random weights."""
    from cascade.recognizer import Recognizer
    from speechtaxi import checkpoint

    torch.manual_seed(0)
    model = Recognizer(spells="uroman").eval()
    torch.nn.init.normal_(model.output.weight, std=1.0)
    folder = tmp_path_factory.mktemp("models") / "own"
    checkpoint.save(model, folder, "card")
    return str(folder)


@pytest.fixture
def common(recognizer: str, tmp_path: Path) -> list[str]:
    return [f"--recognizer={recognizer}", f"--store={tmp_path / 'store.sqlite'}", "--device=cpu"]


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_row_for_each_clip(corpus: Path, common: list[str], capsys, monkeypatch) -> None:
    assert main(["transcribe", str(corpus), *common]) == 0
    out, err = capsys.readouterr()
    clips = read_manifest(corpus)
    assert [row["id"] for row in rows(out)] == [clip.id for clip in clips]
    assert {row["language"] for row in rows(out)} == {"eng", "fra"}
    assert all(isinstance(row["text"], str) and row["flags"] is not None for row in rows(out))
    assert "CER eng" in err
    assert "CER fra" in err
    assert "(28 clips)" in err
    monkeypatch.setattr(
        "cascade.asr.trained.TrainedRecognizer.transcribe", lambda *_: pytest.fail("done twice")
    )
    assert main(["transcribe", str(corpus), *common]) == 0
    assert capsys.readouterr().out == out


def test_filters_and_tables(corpus: Path, common: list[str], tmp_path: Path, capsys) -> None:
    output = tmp_path / "some.tsv"
    chosen = ["--languages", "fra", "--splits", "dev", "test", f"--output={output}"]
    assert main(["transcribe", str(corpus), *common, *chosen]) == 0
    assert capsys.readouterr().out == ""
    with output.open(newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert len(table) == 12
    assert all(row["id"].startswith("fra-") and "train" not in row["id"] for row in table)
    capsys.readouterr()
    for wrong, told in (("--languages=deu", "eng, fra"), ("--splits=predict", "dev, test, train")):
        assert main(["transcribe", str(corpus), *common, wrong]) == 2
        assert told in capsys.readouterr().err


def test_audio_files_and_bad_ones(tone, common: list[str], tmp_path: Path, capsys) -> None:
    good = tone("good.wav")
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio at all")
    assert main(["transcribe", str(good), str(bad), "--language=swh", *common]) == 1
    out, err = capsys.readouterr()
    assert [(row["id"], row["language"]) for row in rows(out)] == [(str(good), "swh")]
    assert "bad.wav: not audio" in err
    assert "1 done, 1 failed" in err
    assert main(["transcribe", str(bad), *common]) == 2
    assert main(["transcribe", str(tmp_path / "absent.wav"), *common]) == 2
    assert "no such file" in capsys.readouterr().err


def test_column_names_and_bad_arguments(corpus: Path, common: list[str], tmp_path: Path, capsys):
    lines = [json.loads(line) for line in corpus.read_text().splitlines()[:2]]
    manifest = corpus.with_name("renamed.jsonl")
    renamed = [{"sound" if k == "audio" else k: v for k, v in line.items()} for line in lines]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in renamed))
    assert main(["transcribe", str(manifest), "--column", "audio=sound", *common]) == 0
    assert len(rows(capsys.readouterr().out)) == 2
    for wrong, told in (
        (["--column", "audio"], "--column audio: write our name"),
        (["--language", "German"], "--language German"),
        (["--output", "rows.xml"], "name it .jsonl, .csv or .tsv"),
        (["--store", str(corpus)], "file is not a database"),
        (["--recognizer", str(tmp_path)], "is no recogniser"),
    ):
        assert main(["transcribe", str(corpus), *common, *wrong]) == 2
        assert told in capsys.readouterr().err


def test_killed_and_resumed_equals_undisturbed(
    corpus: Path, recognizer: str, common: list[str], tmp_path: Path, capsys, monkeypatch
) -> None:
    assert main(["transcribe", str(corpus), *common]) == 0
    undisturbed = [(row["id"], row["text"]) for row in rows(capsys.readouterr().out)]
    slow = """
import sys, time
import cascade.asr as t
real = t.TrainedRecognizer.transcribe
def transcribe(self, *given):
    print("batch", flush=True)
    time.sleep(0.05)
    return real(self, *given)
t.TrainedRecognizer.transcribe = transcribe
from speechtaxi.cli import main
sys.exit(main(sys.argv[1:]))
"""
    path = tmp_path / "killed.sqlite"
    arguments = ["transcribe", str(corpus), f"--recognizer={recognizer}", f"--store={path}"]
    arguments += ["--batch_size=2", "--device=cpu"]
    killed = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for _ in range(6):  # five batches are finished when the sixth begins
        assert killed.stdout.readline() == "batch\n"
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(20) == -signal.SIGKILL
    database = TranscriptStore(path)._database
    (kept,) = database.execute("SELECT count(*) FROM transcripts").fetchone()
    assert 10 <= kept < 56
    from cascade.asr import TrainedRecognizer

    batches: list[int] = []
    real = TrainedRecognizer.transcribe
    monkeypatch.setattr(
        TrainedRecognizer,
        "transcribe",
        lambda self, waves, language: batches.append(len(waves)) or real(self, waves, language),
    )
    assert main(arguments) == 0
    assert sum(batches) == 56 - kept
    found = [(row["id"], row["text"]) for row in rows(capsys.readouterr().out)]
    assert found == undisturbed


def test_options_of_decoding(corpus: Path, common: list[str], recognizer: str, capsys) -> None:
    folder = recognizer
    guard = ["--compression_ratio_threshold", "0.01", "--splits", "dev"]
    assert main(["transcribe", str(corpus), *common, *guard]) == 0
    out, err = capsys.readouterr()
    assert {(row["text"], *row["flags"]) for row in rows(out)} == {("", "empty", "looping")}
    assert "8 looping" in err
    for options, words in (
        (["--task", "translate"], f"{folder} cannot translate into English"),
        (["--beam_size", "5"], "does not take beam_size"),
        (["--beam_size", "0"], "beam_size 0 is not a whole number"),
        (["--unsupported", "bgc=Hindi"], "Hindi is no ISO 639-3 code"),
        (["--unsupported", "romanized"], "name it in fallback"),
        (["--fallback", folder], "give unsupported: romanized"),
        (["--dtype", "int8"], "does not compute in int8"),
    ):
        assert main(["transcribe", str(corpus), *common, *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_a_translation_has_no_character_error_rate() -> None:
    clip = Utterance("a", "rus", text="дождь")
    told = [(clip, Transcript("k", "rain"))]
    assert list(summary(told, "english")) == []
    latin = [(clip, Transcript("k", "dozhd", flags=("fallback",)))]
    assert list(summary(latin, "native")) == ["flagged: 1 fallback", "CER rus 0.000 (1 clips)"]


def test_help_is_quick() -> None:
    source = (
        "import sys\nfrom speechtaxi.cli import main\n"
        "try: main(['transcribe', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'soundfile'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", source], check=True, stdout=subprocess.DEVNULL)
