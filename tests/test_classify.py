"""Classification: files, folders, lists; the same answers as `test`; bad files named."""

import io
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import speechtaxi
from speechtaxi import audio, temperature
from speechtaxi.cli import main
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest, read_predictions

EACH = ["--no_gate"]
"""The corpus' sweeps are no speech."""


@pytest.fixture
def clips(corpus):
    return [row.audio for row in read_manifest(corpus) if row.split == "test"]


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_the_api_and_the_command_agree_with_test(e2e_run, clips, capsys):
    main(["test", str(e2e_run)])
    capsys.readouterr()
    tested = {row.id: row for row in read_predictions(e2e_run / "predictions-test.jsonl")}
    assert main(["classify", str(e2e_run), *clips, *EACH, "--top_k", "2", "--batch_size", "3"]) == 0
    printed = rows(capsys.readouterr().out)
    called = list(speechtaxi.load(str(e2e_run)).classify(clips))
    assert [row["path"] for row in printed] == [row.id for row in called] == clips
    assert [row["id"] for row in printed] == [Path(clip).name for clip in clips]
    for row, answer, path in zip(printed, called, clips, strict=True):
        known = tested[path.rsplit("/", 1)[1].removesuffix(".flac")]
        assert row["topic"] == answer.prediction == known.prediction
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
    names = [Path(clip).name for clip in clips[:2]]
    assert ids == ["a.wav", "deep/b.wav", *names]  # a file that is named twice is done once
    assert main(["classify", str(e2e_run), str(folder), "--exclude", "deep/*"]) == 0
    assert [row["id"] for row in rows(capsys.readouterr().out)] == ["a.wav"]


def test_bad_files_are_named_and_the_rest_is_done(e2e_run, clips, capsys, tmp_path, tone):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "cut.flac").write_bytes(Path(clips[0]).read_bytes()[:300])
    short = tone("short.wav", seconds=0.01)
    bad = [*map(str, sorted(tmp_path.glob("*.wav"))), str(tmp_path / "cut.flac"), "absent.mp3"]
    assert str(short) in bad
    assert main(["classify", str(e2e_run), clips[0], *bad, clips[1]]) == 1
    printed = capsys.readouterr()
    assert [row["path"] for row in rows(printed.out)] == clips[:2]
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
    assert (
        main(["classify", str(e2e_run), *clips[:3], *EACH, "--output", str(out), "--top_k=1"]) == 0
    )
    lines = [line.split(comma) for line in out.read_text().splitlines()]
    head = dict(zip(lines[0], range(len(lines[0])), strict=True))
    assert [line[head["path"]] for line in lines[1:]] == clips[:3]
    assert all(line[head["topic"]] == line[head["topic_1"]] for line in lines[1:])


def test_table_for_people(e2e_run, clips, capsys):
    assert main(["classify", str(e2e_run), clips[0], "--format", "table"]) == 0
    assert "topic" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--language", "Englsh"], "English"),
        (["--output", "x.doc"], "name it"),
        (["--min_probability", "2"], "between 0 and 1"),
        (["--output", "x.csv", "--format", "table"], "for the terminal"),
    ],
)
def test_wrong_options(e2e_run, clips, arguments, told, capsys):
    assert main(["classify", str(e2e_run), clips[0], *arguments]) == 2
    assert told in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys, speechtaxi.classify as c; c.parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def broadcast(tmp_path, clips):
    """A minute of speech-like clips with silence between; and the seconds where they lie."""
    import numpy as np
    import soundfile

    rng = np.random.default_rng(0)
    speech = np.concatenate([soundfile.read(clip, dtype="float32")[0] for clip in clips[:4]])
    silence = 1e-4 * rng.standard_normal(4 * 16_000).astype(np.float32)
    parts, places, at = [], [], 0.0
    for _ in range(5):
        parts += [silence, speech]
        places.append((at + 4, at + 4 + len(speech) / 16_000))
        at = places[-1][1]
    path = tmp_path / "broadcast.flac"
    soundfile.write(path, np.concatenate([*parts, silence]), 16_000)
    return path, places


def test_long_recordings_are_cut_by_the_clock_and_summed_up(e2e_run, broadcast, capsys):
    path, _ = broadcast
    options = ["--segments", "fixed", "--longest", "5", "--cut_above", "10", "--top_k", "2"]
    assert main(["classify", str(e2e_run), str(path), *options]) == 0
    *segments, whole = rows(capsys.readouterr().out)
    assert {row["kind"] for row in segments} == {"segment"}
    assert whole["kind"] == "recording"
    assert segments[0]["start"] == 0
    assert all(row["end"] - row["start"] <= 5.001 for row in segments)
    heard = [row for row in segments if row["topic"] != "no speech"]
    length = sum(row["end"] - row["start"] for row in heard)
    mean = sum(row["probabilities"]["up"] * (row["end"] - row["start"]) for row in heard) / length
    assert whole["probabilities"]["up"] == pytest.approx(mean, abs=1e-3)


def test_a_short_file_is_one_row_and_an_unsure_topic_is_unknown(e2e_run, clips, capsys):
    options = [*EACH, "--min_probability", "1.0", "--language", "auto"]
    assert main(["classify", str(e2e_run), clips[0], *options]) == 0
    [row] = rows(capsys.readouterr().out)
    assert (row["kind"], row["topic"], row["language"]) == ("recording", "unknown", "und")
    assert row["probability"] < 1


def test_silence_has_no_topic(e2e_run, tmp_path, capsys):
    import numpy as np
    import soundfile

    for name, seconds in (("short", 1), ("long", 40)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(seconds * 16_000), 16_000)
    assert main(["classify", str(e2e_run), str(tmp_path), "--segments", "energy"]) == 0
    told = {row["id"]: row for row in rows(capsys.readouterr().out)}
    assert {row["topic"] for row in told.values()} == {"no speech"}
    assert {row["probability"] for row in told.values()} == {None}


@pytest.mark.skipif(not find_spec("silero_vad"), reason="the extra vad is not installed")
def test_what_is_short_and_no_speech_has_no_topic(e2e_run, tone, capsys):
    path = str(tone(seconds=3.0))
    words = ["classify", str(e2e_run), path, "--language", "eng"]
    told = {}
    for option in ("", "--no_gate", "--segments=energy", "--segments=none"):
        assert main([*words, *filter(None, [option])]) == 0
        [told[option]] = rows(capsys.readouterr().out)
    gated = told.pop("")
    assert (gated["kind"], gated["start"], gated["end"]) == ("recording", 0, 3)
    assert (gated["topic"], gated["probability"]) == ("no speech", None)
    assert (gated["language"], gated["probabilities"]) == ("eng", {})
    assert {row["topic"] for row in told.values()} <= {"up", "down"}
    with pytest.raises(SystemExit):
        main([*words, "--no_gate", "no"])


@pytest.mark.assets
@pytest.mark.skipif(not find_spec("silero_vad"), reason="the extra vad is not installed")
def test_what_is_short_and_speech_is_heard_whole(e2e_run, assets, capsys):
    speech = assets / "data" / "speech"
    paths = [str(speech / "fixtures" / "jfk.flac"), *map(str, (speech / "fsdd").glob("*_7.flac"))]
    told = []
    for options in ([], EACH):
        assert main(["classify", str(e2e_run), *paths, *options]) == 0
        told.append(rows(capsys.readouterr().out))
    assert len(told[0]) == len(paths) == 61
    assert told[0] == told[1]


@pytest.mark.assets
@pytest.mark.skipif(not find_spec("silero_vad"), reason="the extra vad is not installed")
def test_what_the_gate_has_heard_is_not_decoded_again(e2e_run, assets, capsys, monkeypatch):
    decoded, blocks = [], audio.blocks

    def counted(path, start, duration):
        decoded.append(path)
        return blocks(path, start, duration)

    monkeypatch.setattr(audio, "blocks", counted)
    paths = sorted(map(str, (assets / "data" / "speech" / "fsdd").glob("*_7.flac")))
    assert main(["classify", str(e2e_run), *paths]) == 0
    assert len(rows(capsys.readouterr().out)) == len(paths)
    assert sorted(map(str, decoded)) == paths


def test_a_run_goes_on_where_it_stopped(e2e_run, clips, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.jsonl"
    command = ["classify", str(e2e_run), *clips[:5], *EACH, "--output", str(out)]
    assert main(["classify", str(e2e_run), *clips[:3], *EACH, "--output", str(out)]) == 0
    model = type(speechtaxi.load(str(e2e_run)))
    asked: list[str] = []
    ask = model.classify

    def noted(self, paths, **options):
        asked.extend(clip.id for clip in paths)
        return ask(self, paths, **options)

    monkeypatch.setattr(model, "classify", noted)
    assert main(command) == 0
    assert asked == [Path(clip).name for clip in clips[3:5]]
    assert [row["path"] for row in rows(out.read_text())] == clips[:5]
    summary = json.loads((tmp_path / "out.jsonl.summary.json").read_text())
    assert (summary["inputs"], summary["done"], summary["skipped"]) == (5, 2, 3)
    assert main([*command, "--min_probability", "0.5"]) == 2
    assert "min_probability" in capsys.readouterr().err  # rows of other settings are not mixed


def test_languages_come_from_folders_and_manifests(e2e_run, tone, tmp_path, capsys):
    for name in ("archive/fra/a.wav", "archive/2024/yor/b.wav", "archive/c.wav"):
        tone(name)
    folder = tmp_path / "archive"
    manifest = tmp_path / "m.jsonl"
    row = {"id": "x", "audio": str(folder / "c.wav"), "language": "swh"}
    manifest.write_text(json.dumps(row))
    assert main(["classify", str(e2e_run), str(folder), "--language", "folder"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 3 recordings lie in no folder that is named by a language's code" in err
    told = {row["id"]: row["language"] for row in rows(out)}
    assert told == {"fra/a.wav": "fra", "2024/yor/b.wav": "yor", "c.wav": "und"}
    named = [str(folder / "fra"), str(folder / "2024" / "yor" / "b.wav")]
    assert main(["classify", str(e2e_run), *named, "--language", "folder"]) == 0
    out, err = capsys.readouterr()
    assert {row["id"]: row["language"] for row in rows(out)} == {"a.wav": "fra", "b.wav": "yor"}
    assert "no folder" not in err
    assert main(["classify", str(e2e_run), str(manifest)]) == 0
    assert [(r["id"], r["language"]) for r in rows(capsys.readouterr().out)] == [("x", "swh")]


def test_a_report_chooses_the_model(e2e_run, clips, tmp_path, capsys):
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"router": {"eng": {"run": str(e2e_run)}}}))
    assert main(["classify", str(report), clips[0], "--language", "English"]) == 0
    assert rows(capsys.readouterr().out)[0]["system"] == "e2e"
    assert main(["classify", str(report), clips[0], "--language", "fra"]) == 2
    assert "no model for fra" in capsys.readouterr().err


def test_topics_over_time_and_why(e2e_run, broadcast, tmp_path, capsys):
    path, _ = broadcast
    out = tmp_path / "timeline"
    options = ["--segments", "fixed", "--longest", "5", "--cut_above", "10"]
    told = ["--timeline", str(out), "--explain", "--output", str(tmp_path / "o.sqlite")]
    assert main(["classify", str(e2e_run), str(path), *options, *told]) == 0
    assert "broadcast.flac at" in capsys.readouterr().err
    assert (out / "index.html").read_text().startswith("<!doctype html>")
    labels = (out / "broadcast.flac.audacity.txt").read_text().splitlines()
    assert labels
    assert all(len(line.split("\t")) == 3 for line in labels)
    assert (out / "broadcast.flac.vtt").read_text().startswith("WEBVTT")
    assert (out / "broadcast.flac.rttm").read_text().startswith("SPEAKER")


def test_two_models_answer_as_one(e2e_run, clips, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(e2e_run, other)
    assert main(["classify", str(e2e_run), clips[0], "--ensemble", str(other)]) == 0
    [row] = rows(capsys.readouterr().out)
    assert row["system"] == "e2e + e2e"


def test_large_models_hear_one_clip_at_a_time_on_a_cpu(e2e_run, clips, monkeypatch):
    from speechtaxi import classifier

    model = speechtaxi.load(str(e2e_run))
    assert model.at_once == 8
    together = [row.probabilities["up"] for row in model.classify(clips)]
    monkeypatch.setattr(classifier, "LARGE", 1000)
    sizes: list[int] = []
    answer = model.predict_step
    monkeypatch.setattr(model, "predict_step", lambda b: sizes.append(len(b)) or answer(b))
    alone = [row.probabilities["up"] for row in model.classify(clips)]
    assert set(sizes) == {1}
    assert alone == pytest.approx(together, abs=1e-5)


def test_a_temperature_does_not_carry_over_to_other_languages(e2e_run, clips, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(e2e_run, run)
    temperature.write(run, temperature.Calibration(3.0, 40, 0.9, 0.6, 0.2, 0.1, ("eng",)))
    told = {}
    for language in ("eng", "fra", "und"):
        assert main(["classify", str(run), clips[0], *EACH, "--language", language]) == 0
        [told[language]] = rows(capsys.readouterr().out)
    assert told["und"]["probabilities"] == told["eng"]["probabilities"]
    assert told["fra"]["probability"] > told["eng"]["probability"]
    assert [told[code]["calibrated"] for code in ("eng", "fra", "und")] == [True, False, True]
    assert main(["export", str(run), str(tmp_path / "model")]) == 0
    assert speechtaxi.load(str(tmp_path / "model")).calibrated_on == ("eng",)


def test_an_mp3_that_is_cut_off_is_answered_and_flagged(e2e_run, tone, tmp_path, capsys):
    for name, seconds in (("short.mp3", 8.0), ("long.mp3", 90.0)):
        path = Path(tone(name, seconds=seconds))
        (tmp_path / f"cut-{name}").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["classify", str(e2e_run), str(tmp_path), "--segments", "fixed"]) == 0
    flags = {r["id"]: r["flags"] for r in rows(capsys.readouterr().out) if r["kind"] == "recording"}
    assert flags.pop("cut-short.mp3") == flags.pop("cut-long.mp3") == ["truncated"]
    assert flags == {"short.mp3": [], "long.mp3": []}


def test_bfloat16_changes_probabilities_a_little(e2e_run, clips, capsys):
    told = []
    for dtype in ("float32", "bfloat16"):
        assert main(["classify", str(e2e_run), *clips, *EACH, "--dtype", dtype]) == 0
        told.append([row["probabilities"]["up"] for row in rows(capsys.readouterr().out)])
    assert told[0] != told[1]
    assert told[1] == pytest.approx(told[0], abs=0.05)
