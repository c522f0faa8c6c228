"""The corpus check: counts are right, and each kind of damage and leak is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from speechtaxi import cli
from speechtaxi.check import count, count_labels, leaks, main, shortcut_scores
from speechtaxi.errors import InputError
from speechtaxi.records import write_manifest
from speechtaxi.types import Utterance


@pytest.fixture
def corpus(tmp_path, tone):
    """Return a clean manifest of eight tones: two labels, two languages, train and test."""
    rows = [
        Utterance(
            id=f"{language}{number}",
            language=language,
            audio=str(
                tone(f"{language}{number}.wav", 0.5 + 0.1 * number, 200 + 40 * len(language))
            ),
            split="train" if number < 2 else "test",
            label="ab"[number % 2],
            group=f"v{number}",
            speaker="s",
        )
        for language in ("eng", "tw-asante")
        for number in range(4)
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    return tmp_path / "m.jsonl"


def run(path, capsys, *options: str) -> tuple[int, dict]:
    status = main(["check", str(path), "--json", *options])
    return status, json.loads(capsys.readouterr().out)


def change(path, number: int, **fields) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[number] |= fields
    path.write_text("\n".join(map(json.dumps, rows)))


def test_a_clean_corpus(corpus, capsys):
    status, found = run(corpus, capsys)
    assert status == 0
    assert found["problems"] == []
    assert found["rows"] == 8
    assert found["labels"] == {"a": {"train": 2, "test": 2}, "b": {"train": 2, "test": 2}}
    assert found["counts"][1] == {
        "language": "eng",
        "split": "test",
        "rows": 2,
        "hours": round(1.5 / 3600, 4),
        "median_seconds": 0.75,
        "p95_seconds": pytest.approx(0.8, abs=0.01),
        "max_seconds": 0.8,
    }
    assert found["notes"] == ["1 speaker(s) in more than one split: s"]


def test_the_printed_page(corpus, capsys):
    change(corpus, 0, label="[red]a")  # looks like rich's markup
    change(corpus, 1, audio="[bold]none.wav")
    assert main(["check", str(corpus)]) == 1
    page = capsys.readouterr().out
    assert "[red]a" in page
    assert "[bold]none.wav: no such file" in page
    assert page.splitlines()[-1].endswith("1 problem(s)")


def test_each_damage_is_named(corpus, capsys):
    folder = corpus.parent
    (folder / "eng0.wav").unlink()
    (folder / "eng1.wav").write_bytes(b"")
    (folder / "eng2.wav").write_text("hello " * 100)
    soundfile.write(folder / "eng3.wav", np.zeros(16_000), 16_000)
    change(corpus, 4, start=5.0)
    status, found = run(corpus, capsys)
    assert status == 1
    for problem, expected in zip(
        found["problems"],
        ("no such file", "is empty", "not audio", "silent", "after the end"),
        strict=True,
    ):
        assert expected in problem


def test_the_same_audio_in_two_splits_is_a_problem_and_in_one_a_note(corpus, capsys):
    folder = corpus.parent
    (folder / "eng2.wav").write_bytes((folder / "eng0.wav").read_bytes())
    status, found = run(corpus, capsys)
    assert status == 1
    assert "eng0.wav (eng, train, a)" in found["problems"][0]
    assert "eng2.wav (eng, test, a)" in found["problems"][0]
    change(corpus, 2, split="train", group="v0")
    status, found = run(corpus, capsys)
    assert status == 0
    assert found["notes"][0].startswith("same audio")
    change(corpus, 2, label="b")
    assert run(corpus, capsys)[0] == 1  # one recording cannot have two topics


def test_segments_of_one_file_are_no_doubles(corpus, capsys):
    change(corpus, 0, audio="eng3.wav", start=0.0, duration=0.2)
    change(corpus, 1, audio="eng3.wav", start=0.3, duration=0.2)
    assert run(corpus, capsys)[0] == 0
    change(corpus, 1, start=0.0, label="a")
    _, found = run(corpus, capsys)
    assert found["notes"][0].startswith("same audio")


def test_a_group_leaks_across_languages():
    rows = [
        Utterance("1", "eng", text="t", split="train", group="v1"),
        Utterance("2", "fra", text="t", split="train", group="v1"),
        Utterance("3", "rus", text="t", split="test", group="v1"),
        Utterance("4", "rus", text="t", split="dev", group="v2"),
        Utterance("5", "rus", text="t", split="predict", group="v2"),
    ]
    assert list(leaks(rows)) == ["leak: group v1 is in train (eng, fra) and test (rus)"]


def test_text_tables_need_no_audio(tmp_path, capsys):
    (tmp_path / "eng.tsv").write_text(
        "verse_id\ttopic\tsplit\ttext\n1\tsin\ttrain\ta\n2\t\tval\tb\n"
    )
    status, found = run(
        tmp_path / "eng.tsv", capsys, "--language", "eng", "--columns", "label=topic"
    )
    assert status == 0
    assert found["counts"][0]["hours"] is None
    assert found["notes"] == ["1 row(s) without a label"]


def test_counting():
    rows = [Utterance(str(n), "eng", audio="a", split="dev", label="xy"[n > 0]) for n in range(4)]
    (row,) = count(rows, {"0": 1.0, "1": 2.0, "2": 9.0})
    assert (row["rows"], row["median_seconds"], row["max_seconds"]) == (4, 2.0, 9.0)
    assert list(count_labels(rows).items()) == [("y", {"dev": 3}), ("x", {"dev": 1})]


def test_shortcuts_find_what_is_there_and_nothing_else():
    chance = np.random.default_rng(0)
    labels = [str(n % 3) for n in range(300)]
    features = {
        "telling": np.array([[int(label)] for label in labels]) + chance.normal(0, 0.1, (300, 1)),
        "noise": chance.normal(size=(300, 4)),
        "constant": np.zeros((300, 1)),
    }
    train = np.arange(300) < 200
    scores = shortcut_scores(features, labels, train)
    assert scores["telling"] > 0.95
    assert abs(scores["noise"] - 1 / 3) < 0.15
    assert scores["constant"] == pytest.approx(1 / 6, abs=0.02)  # one class right: F1 of 1/2, 0, 0
    assert scores["chance: majority"] == pytest.approx(1 / 6, abs=0.02)
    assert scores["chance: uniform"] == pytest.approx(1 / 3, abs=1e-4)


def test_shortcuts_need_two_sides():
    features = {"x": np.zeros((4, 1))}
    for labels, train in (("abab", [1, 1, 1, 1]), ("abab", [0, 0, 0, 0]), ("aaab", [1, 1, 1, 0])):
        with pytest.raises(InputError, match="shortcuts need labelled, readable audio"):
            shortcut_scores(features, list(labels), np.array(train))


def test_shortcuts_from_the_command(corpus, capsys):
    status, found = run(corpus, capsys, "--shortcuts")
    assert status == 0
    assert list(found["shortcuts"]) == [
        "duration",
        "speaker",
        "mean spectrum",
        "chance: majority",
        "chance: uniform",
    ]
    change(corpus, 0, label=None)
    change(corpus, 4, label=None)
    status, found = run(corpus, capsys, "--shortcuts")
    assert status == 1  # one label is left in train: said, and the rest is told too
    assert found["problems"][0].startswith("shortcuts need labelled, readable audio in train")


def test_shortcuts_are_printed(corpus, capsys):
    assert main(["check", str(corpus), "--shortcuts"]) == 0
    assert "mean spectrum" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help(arguments, capsys):
    if arguments:
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
    else:
        assert main([]) == 0
    assert "usage: speechtaxi data" in capsys.readouterr().out


def test_unusable_manifests_exit_with_2(corpus, capsys):
    assert cli.main(["data", "check", "none.tsv"]) == 2
    assert capsys.readouterr().err == "speechtaxi data: none.tsv: No such file or directory\n"
    change(corpus, 1, id="eng0")
    assert cli.main(["data", "check", str(corpus)]) == 2
    error = capsys.readouterr().err
    assert "m.jsonl:2: id 'eng0' is already used at" in error
    with pytest.raises(SystemExit, match="2"):
        main(["check", str(corpus), "--columns", "label"])
    assert "is not OURS=THEIRS" in capsys.readouterr().err


@pytest.mark.assets
def test_real_verses_do_not_leak(assets, capsys):
    path = assets / "data" / "taxi1500" / "eng.tsv"
    status, found = run(path, capsys, "--language", "eng")
    assert status == 0
    assert found["labels"]["Violence"] == {"train": 47, "dev": 5, "test": 7}


@pytest.mark.assets
def test_real_recordings_are_whole(assets, capsys):
    path = assets / "data" / "speech" / "yoruba_speech_project" / "metadata.tsv"
    status, found = run(path, capsys, "--language", "yor")
    assert status == 0
    assert [row["rows"] for row in found["counts"]] == [280, 70]
