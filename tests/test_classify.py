"""Classification: files, folders, lists; the same answers as `test`; bad files named."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import speechtaxi
from speechtaxi import temperature
from speechtaxi.cli import main
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest, read_predictions


@pytest.fixture
def clips(corpus):
    return [row.audio for row in read_manifest(corpus) if row.split == "test"]


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_the_api_and_the_command_agree_with_test(e2e_run, clips, capsys):
    main(["test", str(e2e_run)])
    capsys.readouterr()
    tested = {row.id: row for row in read_predictions(e2e_run / "predictions-test.jsonl")}
    assert main(["classify", str(e2e_run), *clips, "--top_k", "2", "--batch_size", "3"]) == 0
    printed = rows(capsys.readouterr().out)
    called = list(speechtaxi.load(str(e2e_run)).classify(clips))
    assert [row["id"] for row in printed] == [row.id for row in called] == clips
    for row, answer, path in zip(printed, called, clips, strict=True):
        known = tested[path.rsplit("/", 1)[1].removesuffix(".flac")]
        assert row["prediction"] == answer.prediction == known.prediction
        for label, chance in known.probabilities.items():
            assert row["probabilities"][label] == pytest.approx(chance, abs=2e-3)  # 16-bit cache
            assert answer.probabilities[label] == pytest.approx(chance, abs=2e-3)


def test_a_calibrated_model_is_less_sure_of_the_same_answers(e2e_run, clips, tmp_path, capsys):
    import numpy as np

    run = tmp_path / "run"
    shutil.copytree(e2e_run, run)
    main(["test", str(run)])
    raw = json.loads(capsys.readouterr().out.splitlines()[-1])
    before = read_predictions(run / "predictions-test.jsonl")
    temperature.write(run, temperature.Calibration(3.0, 40, 0.9, 0.6, 0.2, 0.1))
    main(["test", str(run)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == raw
    after = read_predictions(run / "predictions-test.jsonl")
    assert [row.prediction for row in after] == [row.prediction for row in before]
    for one, two in zip(before, after, strict=True):
        odds = np.log([list(row.probabilities.values()) for row in (one, two)])
        assert odds[0, 0] - odds[0, 1] == pytest.approx(3 * (odds[1, 0] - odds[1, 1]), rel=1e-3)
    known = {row.id: row.probabilities["up"] for row in after}
    for row in speechtaxi.load(str(run)).classify(clips):
        assert row.probabilities["up"] == pytest.approx(known[Path(row.id).stem], abs=2e-3)


def test_order_and_chunks_change_nothing(e2e_run, clips):
    model = speechtaxi.load(str(e2e_run))
    one = {r.id: r.probabilities["up"] for r in model.classify(clips, chunk=3, batch_size=2)}
    other = {r.id: r.probabilities["up"] for r in model.classify(clips[::-1])}
    assert one == pytest.approx(other, abs=1e-5)


def test_folders_globs_and_stdin(e2e_run, clips, capsys, monkeypatch, tone):
    folder = tone("folder/a.wav").parent
    tone("folder/deep/b.wav", rate=44_100)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(clips[:2]) + "\n\n"))
    assert main(["classify", str(e2e_run), str(folder), "-", f"{folder}/d*/*.wav"]) == 0
    ids = [row["id"] for row in rows(capsys.readouterr().out)]
    assert ids == [f"{folder}/a.wav", f"{folder}/deep/b.wav", *clips[:2], f"{folder}/deep/b.wav"]


def test_bad_files_are_named_and_the_rest_is_done(e2e_run, clips, capsys, tmp_path, tone):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "cut.flac").write_bytes(Path(clips[0]).read_bytes()[:300])
    short = tone("short.wav", seconds=0.01)
    bad = [*map(str, sorted(tmp_path.glob("*.wav"))), str(tmp_path / "cut.flac"), "absent.mp3"]
    assert str(short) in bad
    assert main(["classify", str(e2e_run), clips[0], *bad, clips[1]]) == 1
    printed = capsys.readouterr()
    assert [row["id"] for row in rows(printed.out)] == clips[:2]
    for path in bad:
        assert sum(path in line for line in printed.err.splitlines()) == 1
    assert "2 done, 5 failed" in printed.err


def test_nothing_usable_is_exit_2(e2e_run, capsys):
    assert main(["classify", str(e2e_run), "absent.wav"]) == 2
    with pytest.raises(InputError, match=r"absent.wav"):
        list(speechtaxi.load(str(e2e_run)).classify("absent.wav"))


def test_silence_is_flagged(e2e_run, tmp_path):
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    (row,) = speechtaxi.load(str(e2e_run)).classify(str(tmp_path / "silent.wav"))
    assert row.flags == ("silent",)


@pytest.mark.parametrize(("kind", "comma"), [("csv", ","), ("tsv", "\t")])
def test_tables_on_disk(e2e_run, clips, tmp_path, kind, comma):
    out = tmp_path / f"out.{kind}"
    assert main(["classify", str(e2e_run), *clips[:3], "--output", str(out), "--top_k=1"]) == 0
    lines = [line.split(comma) for line in out.read_text().splitlines()]
    assert lines[0][:5] == ["id", "language", "prediction", "topic_1", "probability_1"]
    assert [line[0] for line in lines[1:]] == clips[:3]
    assert all(line[2] == line[3] for line in lines[1:])


def test_table_for_people(e2e_run, clips, capsys):
    assert main(["classify", str(e2e_run), clips[0], "--format", "table"]) == 0
    assert "topic" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--language", "English"], "ISO 639-3"), (["--output", "x.doc"], "--format")],
)
def test_wrong_options(e2e_run, clips, arguments, told, capsys):
    assert main(["classify", str(e2e_run), clips[0], *arguments]) == 2
    assert told in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys, speechtaxi.classify as c; c.parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
