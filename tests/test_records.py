"""Manifests, predictions and run records: what is read, what is refused, what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from speechtaxi.errors import InputError
from speechtaxi.records import (
    fingerprint,
    read_manifest,
    read_predictions,
    read_run,
    write_manifest,
    write_predictions,
    write_run,
)
from speechtaxi.types import Prediction, RunRecord, Utterance

ROW = {"audio": "a.wav", "language": "eng", "label": "sport"}
PREDICTION = Prediction(
    id="u1",
    group="v1",
    language="eng",
    label="sport",
    prediction="sport",
    probabilities={"sport": 0.75, "health": 0.25},
    text="ʻō",
    duration=1.5,
    flags=("silent",),
)


def jsonl(path: Path, *rows: dict | str) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


# ---------------------------------------------------------------------------------- manifests


def test_every_format_reads_the_same(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"file": "x/a.wav", "lang": "eng", "offset": 1.5, "sec": 2.0, "label": "1", "split": "val"},
        {
            "file": "x/b.wav",
            "lang": "fra",
            "offset": 0.0,
            "sec": 3.0,
            "label": "0",
            "split": "Test",
        },
    ]
    names = list(rows[0])
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        lines = [names, *([str(value) for value in row.values()] for row in rows)]
        (tmp_path / f"m{suffix}").write_text("\n".join(map(mark.join, lines)), "utf-8-sig")
    jsonl(tmp_path / "m.jsonl", *rows)
    jsonl(tmp_path / "m.json", *rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "m.parquet")

    expected = [
        Utterance(
            id="x/a.wav@1.5",
            language="eng",
            audio=str(tmp_path / "x" / "a.wav"),
            split="dev",
            start=1.5,
            duration=2.0,
            label="1",
        ),
        Utterance(
            id="x/b.wav",
            language="fra",
            audio=str(tmp_path / "x" / "b.wav"),
            split="test",
            duration=3.0,
            label="0",
        ),
    ]
    for suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet"):
        assert read_manifest(tmp_path / f"m{suffix}") == expected, suffix


def test_nemo_names(tmp_path):
    path = jsonl(
        tmp_path / "m.json",
        {
            "audio_filepath": "/far/a.wav",
            "offset": 2,
            "duration": 1.25,
            "text": "hi",
            "lang": "eng",
        },
    )
    (row,) = read_manifest(path)
    assert (row.audio, row.start, row.duration, row.text) == ("/far/a.wav", 2.0, 1.25, "hi")


def test_tsv_keeps_quotation_marks_and_csv_unquotes_them(tmp_path):
    (tmp_path / "m.tsv").write_text('text\tverse_id\n"Be angry,\t49\n')
    (tmp_path / "m.csv").write_text('text,verse_id\n"Be ""angry"",\nnow",49\n')
    assert read_manifest(tmp_path / "m.tsv", language="eng")[0].text == '"Be angry,'
    assert read_manifest(tmp_path / "m.csv", language="eng")[0].text == 'Be "angry",\nnow'


def test_text_rows_get_ids_from_verse_or_row(tmp_path):
    path = jsonl(
        tmp_path / "m.jsonl",
        {"text": "a", "lang": "eng", "verse_ref": 1},
        {"text": "b", "lang": "fra", "verse_ref": 1},
        {"text": "c", "lang": "fra", "verse_ref": 2},
        {"text": "d", "lang": "fra", "verse_ref": 2},
        {"text": "e", "lang": "fra", "id": "mine"},
    )
    ids = [row.id for row in read_manifest(path)]
    assert ids == ["eng-1", "fra-1", "fra-row3", "fra-row4", "mine"]


def test_columns_labels_and_language_are_mapped(tmp_path):
    path = jsonl(
        tmp_path / "m.jsonl",
        {"file": "a.wav", "drink": "mocha", "slots": {"size": 1}},
        {"file": "b.wav", "drink": "tea", "slots": None},
    )
    rows = read_manifest(
        path, columns={"label": "drink"}, labels={"mocha": "coffee"}, language="eng"
    )
    assert [row.label for row in rows] == ["coffee", "tea"]
    assert {row.language for row in rows} == {"eng"}


def test_our_own_name_wins_over_an_alias(tmp_path):
    row = {"text": "native", "transcription": "other", "language": "eng"}
    path = jsonl(tmp_path / "m.jsonl", row)
    assert read_manifest(path)[0].text == "native"


@pytest.mark.parametrize("top", ["", "train/"])
def test_a_folder_of_label_folders(tmp_path, top):
    for name in ("sport/b.wav", "sport/a.wav", "health/sub/c.flac", "health/.hidden"):
        path = tmp_path / top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    rows = read_manifest(tmp_path, language="eng")
    assert [row.id for row in rows] == [
        f"{top}health/sub/c.flac",
        f"{top}sport/a.wav",
        f"{top}sport/b.wav",
    ]
    assert [row.label for row in rows] == ["health", "sport", "sport"]
    assert {row.split for row in rows} == {"train" if top else "predict"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"language": "English"}, r"m\.jsonl:1: language 'English' must be an ISO 639-3 code"),
        ({"language": None}, r":1: no language"),
        ({"language": 3.5}, r":1: language must be text, not 3\.5"),
        ({"split": "tests"}, r":1: unknown split 'tests'; use one of train, dev"),
        ({"start": "soon"}, r":1: start must be a non-negative number of seconds, not 'soon'"),
        ({"start": -1}, r":1: start must be"),
        ({"duration": 0}, r":1: duration must be a positive number"),
        ({"duration": float("nan")}, r":1: duration must be"),
        ({"duration": True}, r":1: duration must be"),
        ({"label": ["a"]}, r":1: label must be text, not \['a'\]"),
        ({"audio": ""}, r":1: neither audio nor text"),
    ],
)
def test_a_bad_value_is_named_with_its_line(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_manifest(jsonl(tmp_path / "m.jsonl", ROW | row))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", '{"audio": "a.wav"}\n{"audio"', r"m\.jsonl:2: broken JSON"),
        ("m.jsonl", "[1]", r":1: not a JSON object"),
        ("m.jsonl", "\n\n", "holds no rows"),
        ("m.jsonl", b"\xff\xfe", "is not UTF-8 text"),
        ("m.tsv", "audio\tlanguage\na.wav\n", r"m\.tsv:2: 1 cells, but there are 2 columns: audio"),
        ("m.csv", "audio,audio\na,b\n", "m.csv:1: a column name is repeated"),
        ("m.csv", 'audio,language\n"a"b,eng\n', r"m\.csv:2: broken table"),
        ("m.csv", "wav,language\na.wav,eng\n", "neither an audio nor a text.*are wav, language"),
        ("m.csv", "file,path,language\na,b,eng\n", "file and path could both be audio"),
        ("m.csv", "audio,label\na.wav,x\n", "no language column.*the columns are audio, label"),
        ("m.parquet", "no", "cannot be read as Parquet"),
        ("m.xlsx", "no", r"unknown kind of manifest; use \.jsonl"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read_manifest(path)
    assert "\n" not in str(error.value)


def test_other_refusals(tmp_path):
    path = jsonl(tmp_path / "m.jsonl", ROW)
    with pytest.raises(InputError, match=r"none\.csv: No such file"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"no column 'topic' .* are audio, language, label"):
        read_manifest(path, columns={"label": "topic"})
    with pytest.raises(InputError, match="unknown field 'topic' in columns; use one of id"):
        read_manifest(path, columns={"topic": "label"})
    with pytest.raises(InputError, match="language 'en' must be"):
        read_manifest(path, language="en")
    (tmp_path / "train").mkdir()
    (tmp_path / "sport").mkdir()
    with pytest.raises(InputError, match=r"holds split folders \(train, ...\) and others: sport"):
        read_manifest(tmp_path, language="eng")


@pytest.mark.parametrize("fields", [{"id": "one"}, {}])
def test_a_repeated_id_names_both_lines(tmp_path, fields):
    path = jsonl(tmp_path / "m.jsonl", ROW | fields, "", ROW | fields)
    with pytest.raises(InputError, match=r"m\.jsonl:3: id '.*' is already used at .*m\.jsonl:1;"):
        read_manifest(path)


def test_manifests_come_back_as_written(tmp_path):
    rows = [
        Utterance("a", "eng", audio=str(tmp_path / "clips" / "a.flac"), split="train", speaker="s"),
        Utterance("b", "tw-asante", audio="/elsewhere/b.flac", start=1.25, duration=2.5, group="g"),
        Utterance("c", "fra", text="été\u2028\n", label="health", split="test"),
    ]
    write_manifest(tmp_path / "new" / "m.jsonl", rows)
    assert "null" not in (tmp_path / "new" / "m.jsonl").read_text()
    rows[2] = replace(rows[2], text="été")  # outer white space is not text
    assert read_manifest(tmp_path / "new" / "m.jsonl") == rows

    write_manifest(tmp_path / "m.jsonl", rows)
    written = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    assert written["audio"] == "clips/a.flac"
    assert read_manifest(tmp_path / "m.jsonl") == rows


def test_fingerprint_sees_the_data_and_not_the_place():
    rows = [Utterance("a", "eng", audio="/x/a.wav", label="1"), Utterance("b", "eng", text="t")]
    moved = [rows[1], replace(rows[0], audio="/y/a.wav")]
    assert fingerprint(rows) == fingerprint(moved)
    assert len(fingerprint(rows)) == 16
    changes = {"id": "c", "language": "fra", "split": "test", "label": "2", "group": "g"}
    changes |= {"start": 1.0, "duration": 2.0, "text": "u"}
    changed = {fingerprint([rows[0], replace(rows[1], **{k: v})]) for k, v in changes.items()}
    assert len(changed | {fingerprint(rows)}) == len(changes) + 1


def test_a_broken_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("old")

    def rows():
        yield PREDICTION
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_predictions(path, rows())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# -------------------------------------------------------------------- predictions, run records


def test_predictions_come_back_as_written(tmp_path):
    rows = [PREDICTION, replace(PREDICTION, id="u2", label=None, text=None, flags=())]
    write_predictions(tmp_path / "p.jsonl", rows)
    assert read_predictions(tmp_path / "p.jsonl") == rows


def test_other_peoples_predictions_need_little(tmp_path):
    row = {"id": "u", "language": "eng", "prediction": "a", "probabilities": {"a": 1, "b": 0}}
    (read,) = read_predictions(jsonl(tmp_path / "p.jsonl", row | {"model": "theirs"}))
    assert (read.group, read.label, read.flags) == ("u", None, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": "war"}, "prediction 'war' has no probability; the labels are sport"),
        ({"label": "war"}, "gold label 'war' is none of the labels: sport"),
        ({"language": "English"}, "'English' must be an ISO 639-3 code"),
        ({"probabilities": {"sport": 0.75, "health": 0.2}}, "must sum to 1, not 0.9500"),
        ({"probabilities": {"sport": 1.5, "health": -0.5}}, r"must lie in \[0, 1\], not 1.5"),
        ({"probabilities": {"sport": float("nan"), "health": 1}}, r"in \[0, 1\], not nan"),
        ({"probabilities": [0.5, 0.5]}, "probabilities must be Mapping"),
        ({"probabilities": {"sport": "1"}}, "probabilities must be Mapping"),
        ({"probabilities": {"sport": 0.5, "war": 0.5}}, "a file has one label set"),
        ({"flags": ["loud"]}, "flags must be"),
        ({"duration": "long"}, r"duration must be float \| None, not 'long'"),
        ({"id": "u1"}, "id 'u1' is already used at .*:1"),
        ({"id": 7}, "id must be str, not 7"),
    ],
)
def test_a_bad_prediction_is_named_with_its_line(tmp_path, change, message):
    path = tmp_path / "p.jsonl"
    write_predictions(path, [PREDICTION])
    row = json.loads(path.read_text()) | {"id": "u2"} | change
    with path.open("a") as file:
        file.write(json.dumps(row))
    with pytest.raises(InputError, match=r"p\.jsonl:2: .*" + message):
        read_predictions(path)


def test_incomplete_predictions_are_refused(tmp_path):
    with pytest.raises(InputError, match=r":1: 'probabilities' is missing; the keys are"):
        read_predictions(
            jsonl(tmp_path / "p.jsonl", {"id": "u", "language": "eng", "prediction": "a"})
        )
    with pytest.raises(InputError, match="holds no predictions"):
        read_predictions(jsonl(tmp_path / "p.jsonl"))


def test_run_records_come_back_as_written(tmp_path):
    record = RunRecord(
        system="ours",
        route="cascade",
        view="romanized",
        train_languages=("eng", "fra"),
        clips={"train": 3},
        seconds={"fit": 1.5},
        notes=("synthetic speech",),
    )
    write_run(tmp_path / "run", record)
    assert read_run(tmp_path / "run") == record


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"route": "e2e"}, "'system' is missing"),
        ({"system": "s"}, "'route' is missing"),
        ({"system": "s", "route": "ear"}, "route must be .*e2e.* not 'ear'"),
        ({"system": "s", "route": "e2e", "train_languages": "eng"}, "train_languages must be"),
        ({"system": "s", "route": "e2e", "seed": True}, "seed must be int"),
        ("{", r"run\.json:1: broken JSON"),
        ("[]", "not a JSON object"),
    ],
)
def test_a_bad_run_record_is_refused(tmp_path, content, message):
    jsonl(tmp_path / "run.json", content)
    with pytest.raises(InputError, match=message):
        read_run(tmp_path)


def test_unknown_keys_of_a_run_record_are_ignored(tmp_path):
    jsonl(tmp_path / "run.json", {"system": "s", "route": "baseline", "mood": "good"})
    assert read_run(tmp_path) == RunRecord("s", "baseline")
    with pytest.raises(InputError, match=r"run\.json: No such file"):
        read_run(tmp_path / "none")


# --------------------------------------------------------------------------------- real tables


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "options", "rows", "splits"),
    [
        ("speech/fsdd", {"language": "eng"}, 3000, {"train": 2700, "test": 300}),
        ("speech/yoruba_speech_project", {"language": "yor"}, 350, {"train": 280, "dev": 70}),
        (
            "speech/speech_to_intent_eng",
            {"language": "eng", "columns": {"label": "coffeeDrink"}},
            619,
            {"predict": 619},
        ),
        ("taxi1500/eng", {"language": "eng"}, 1077, {"train": 860, "dev": 106, "test": 111}),
    ],
)
def test_real_manifests(assets, name, options, rows, splits):
    path = assets / "data" / name
    path = path / "metadata.tsv" if path.is_dir() else path.with_suffix(".tsv")
    utterances = read_manifest(path, **options)
    assert len(utterances) == rows
    for split, expected in splits.items():
        assert sum(row.split == split for row in utterances) == expected
    assert all(Path(row.audio).is_file() for row in utterances if row.audio)
    assert all(row.text and row.group for row in utterances if not row.audio)
