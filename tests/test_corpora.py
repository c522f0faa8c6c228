"""Corpora: small copies in the published layouts become manifests; what is damaged is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from speechtaxi import audio, cli
from speechtaxi.corpora import SOURCES, Wish, fetch
from speechtaxi.corpora.archive import Archive
from speechtaxi.corpora.mirror import Mirror
from speechtaxi.errors import InputError
from speechtaxi.labels import LABEL_SETS
from speechtaxi.records import read_manifest

TOPICS = LABEL_SETS["taxi1500"]
SEED = np.random.default_rng(0)


def sound(hertz: float = 440, rate: int = 16_000, kind: str = "WAV", seconds: float = 0.5) -> bytes:
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    file = io.BytesIO()
    soundfile.write(file, wave + 0.01 * SEED.standard_normal(len(wave)), rate, format=kind)
    return file.getvalue()


def lines(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def source_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "source.json").read_text())


# ---------------------------------------------------------------------------------- SpeechTaxi

VERSES = [("eng", "train"), ("eng", "train"), ("eng", "dev"), ("eng", "test"), ("fra", "train")]
CLIP = "039316d8ba074002-rev4/039316d8ba074002-rev4-1CO/001/Verse__{number}.mp3"


def verse_rows(**more: str) -> list[dict[str, Any]]:
    return [
        {
            "verse_ref": f"1CO 1:{number}",
            "text_en": "In the beginning",
            "language": language,
            "transcription": f"«été», {number}\nund",  # a cell may hold a line break
            "transcription_romanized": f"ete {number}",
            "label": TOPICS[number],
            "audio": f"data/{language}/" + CLIP.format(number=number),
            "split": split,
            **more,
        }
        for number, (language, split) in enumerate(VERSES)
    ]


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def by_language_and_split() -> dict[str, str | bytes]:
    """tables/<language>/<split>.csv, without a column for the split; and `all`, which repeats."""
    files: dict[str, str | bytes] = {}
    for language, split in dict.fromkeys(VERSES):
        rows = [r for r in verse_rows() if (r["language"], r["split"]) == (language, split)]
        rows = [{k: v for k, v in row.items() if k != "split"} for row in rows]
        files[f"tables/{language}/{split}.csv"] = table(rows)
    files["tables/all/train.csv"] = table(verse_rows())
    return files


def one_tsv() -> dict[str, str | bytes]:
    rows = [{**row, "label": TOPICS.index(row["label"])} for row in verse_rows()]
    return {"speechtaxi.tsv": table(rows, "\t"), "__MACOSX/._speechtaxi.tsv": b"\0"}


def one_parquet() -> dict[str, str | bytes]:
    rows = [{**row, "audio": {"bytes": None, "path": row["audio"]}} for row in verse_rows()]
    return {"tables/release.parquet": parquet(rows, label=TOPICS)}


def parquet(rows: list[dict[str, Any]], **classes: tuple[str, ...]) -> bytes:
    """Return a file as the `datasets` library writes it, its classes as numbers."""
    features = {
        name: {"names": list(names), "_type": "ClassLabel"} for name, names in classes.items()
    }
    rows = [
        {k: classes[k].index(v) if k in classes and v in classes[k] else v for k, v in row.items()}
        for row in rows
    ]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    file = io.BytesIO()
    content = pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(content, file, row_group_size=2)
    return file.getvalue()


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    """The members of data.zip: an MP3 for each verse."""
    return {row["audio"]: sound(300 + 50 * n, kind="MP3") for n, row in enumerate(verse_rows())}


def mirror(folder: Path, recordings: dict[str, bytes], tables: dict[str, str | bytes]) -> Path:
    zipped(folder / "data.zip", dict(recordings))
    zipped(folder / "tables.zip", tables)
    return folder


@pytest.mark.parametrize("tables", [by_language_and_split, one_tsv, one_parquet])
def test_speechtaxi(tables, recordings, tmp_path):
    local = mirror(tmp_path / "mirror", recordings, tables())
    written = fetch("speechtaxi", tmp_path / "out", local=local)
    rows = read_manifest(written.manifest)
    assert len(rows) == len(VERSES)
    assert {row.group for row in rows} == {f"1CO 1:{n}" for n in range(5)}
    found = {row.group: row for row in rows}
    for number, (language, split) in enumerate(VERSES):
        row = found[f"1CO 1:{number}"]
        assert (row.language, row.split, row.label) == (language, split, TOPICS[number])
        assert row.text == f"«été», {number}\nund"
        assert row.duration == pytest.approx(0.5, abs=0.1)  # MP3 pads
        assert len(audio.load(row.audio)) == pytest.approx(8000, abs=1600)
        assert (
            Path(row.audio).read_bytes()
            == recordings[f"data/{language}/{CLIP}".format(number=number)]
        )
    assert all(not Path(row["audio"]).is_absolute() for row in lines(written.manifest))
    latin = read_manifest(written.manifest, columns={"text": "text_romanized"})
    assert {row.text for row in latin} == {f"ete {n}" for n in range(5)}
    record = source_of(tmp_path / "out")
    assert (record["licence"], record["labels"], record["rows"]) == ("not declared", "taxi1500", 5)
    assert [file["path"] for file in record["files"]] == ["tables.zip", "data.zip"]


def test_the_folder_that_audio_paths_count_from_does_not_matter(recordings, tmp_path):
    rows = [{**row, "audio": row["audio"].removeprefix("data/")} for row in verse_rows()]
    local = mirror(tmp_path / "a", recordings, {"t.csv": table(rows)})
    assert len(fetch("speechtaxi", tmp_path / "1", local=local).rows) == 5
    bare = {name.removeprefix("data/"): content for name, content in recordings.items()}
    local = mirror(tmp_path / "b", bare, {"t.csv": table(verse_rows())})
    assert len(fetch("speechtaxi", tmp_path / "2", local=local).rows) == 5


def test_languages_are_chosen_and_a_missing_one_is_named(recordings, tmp_path):
    local = mirror(tmp_path / "mirror", recordings, one_tsv())
    written = fetch("speechtaxi", tmp_path / "out", Wish(("fra",)), local)
    assert {row.language for row in written.rows} == {"fra"}
    assert written.extracted == 1
    with pytest.raises(InputError, match=r"tables.zip: lacks yor; it has eng, fra"):
        fetch("speechtaxi", tmp_path / "other", Wish(("fra", "yor")), local)


def test_an_interrupted_extraction_goes_on_and_nothing_is_extracted_twice(recordings, tmp_path):
    local, output = mirror(tmp_path / "mirror", recordings, one_tsv()), tmp_path / "out"

    def killed(clips):
        for number, clip in enumerate(clips):
            if number == 2:
                raise KeyboardInterrupt
            yield clip

    with pytest.raises(KeyboardInterrupt):
        fetch("speechtaxi", output, local=local, watch=killed)
    assert not (output / "manifest.jsonl").exists()
    there = {path: path.stat().st_mtime_ns for path in output.rglob("*.mp3")}
    assert len(there) == 2
    written = fetch("speechtaxi", output, local=local)
    assert (written.extracted, len(written.rows)) == (3, 5)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert fetch("speechtaxi", output, local=local).extracted == 0
    next(iter(there)).write_bytes(b"half")
    assert fetch("speechtaxi", output, local=local).extracted == 1


def test_a_folder_holds_one_corpus_from_one_set_of_files(recordings, tmp_path):
    local, output = mirror(tmp_path / "mirror", recordings, one_tsv()), tmp_path / "out"
    fetch("speechtaxi", output, local=local)
    other = dict.fromkeys(recordings, sound(999, kind="MP3"))
    mirror(local, other, one_tsv())
    with pytest.raises(InputError, match=r"was made from another data.zip"):
        fetch("speechtaxi", output, local=local)
    with pytest.raises(InputError, match="holds speechtaxi; choose another"):
        fetch("taxi1500", output, local=taxi_tables(tmp_path / "tables"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else"):
        fetch("speechtaxi", tmp_path / "mine", local=local)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"language": "Klingon"}, "language 'Klingon' is none of SpeechTaxi's"),
        ({"label": "Hope"}, "label 'Hope' is none of Recommendation"),
        ({"label": "6"}, "label '6' is none of"),
        ({"split": "later"}, "neither a column 'split' nor the table's name"),
        ({"verse_ref": ""}, "verse_ref is missing; the columns are verse_ref, text_en"),
        ({"audio": ""}, "no path of a recording; the columns are"),
    ],
)
def test_a_table_that_cannot_be_understood(change, message, recordings, tmp_path):
    local = mirror(tmp_path / "mirror", recordings, {"t.csv": table(verse_rows(**change))})
    with pytest.raises(InputError, match=f"tables.zip: t.csv:3: {message}"):
        fetch("speechtaxi", tmp_path / "out", local=local)


# -------------------------------------------------------------------------- damage and malice


def test_a_recording_that_is_damaged_or_missing_is_named_and_left_out(recordings, tmp_path, capsys):
    names = list(recordings)
    broken = {**recordings, names[0]: b"not audio at all"}
    del broken[names[1]]
    local = mirror(tmp_path / "mirror", broken, one_tsv())
    data = bytearray((local / "data.zip").read_bytes())
    with zipfile.ZipFile(local / "data.zip") as archive:
        info = archive.getinfo(names[2])
    data[info.header_offset + 30 + len(names[2]) + info.compress_size // 2] ^= 0xFF
    (local / "data.zip").write_bytes(data)
    arguments = ["fetch", "speechtaxi", "--from", str(local), "-o", str(tmp_path / "out")]
    assert cli.main(["data", *arguments]) == 1
    told = capsys.readouterr()
    assert "not audio, or damaged" in told.err
    assert f"data.zip has no {names[1]}" in told.err
    assert "eng-1CO 1:2: damaged in its archive" in told.err
    assert "3 clip(s) left out" in told.err
    assert told.out.strip() == str(tmp_path / "out" / "manifest.jsonl")
    assert len(read_manifest(told.out.strip())) == 2
    assert len(source_of(tmp_path / "out")["left_out"]) == 3
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "only a Git LFS pointer"),
        (b"", "the file is empty"),
        (b"<html>Not found</html>", "not a whole zip archive"),
        (None, "not a whole zip archive"),  # the first half of the true one
    ],
)
def test_an_archive_that_is_not_whole(content, message, recordings, tmp_path):
    local = mirror(tmp_path / "mirror", recordings, one_tsv())
    half = (local / "data.zip").read_bytes()[:9000]
    (local / "data.zip").write_bytes(half if content is None else content)
    with pytest.raises(InputError, match=f"data.zip: {message}"):
        fetch("speechtaxi", tmp_path / "out", local=local)


@pytest.mark.parametrize(
    "name",
    ["../evil.mp3", "data/../../evil.mp3", "/etc/evil.mp3", "C:/evil.mp3", "a\\..\\evil.mp3"],
)
def test_a_path_that_climbs_out_is_refused(name, recordings, tmp_path):
    local = mirror(tmp_path / "mirror", {**recordings, name: b"evil"}, one_tsv())
    with pytest.raises(InputError, match="climbs out of its folder; refused"):
        fetch("speechtaxi", tmp_path / "out", local=local)
    assert not list(tmp_path.rglob("evil*"))


def test_bombs_are_refused_by_what_they_declare(tmp_path):
    one = zipped(tmp_path / "one.zip", {"bomb.mp3": bytes(8 << 20)})
    with pytest.raises(InputError, match=r"bomb.mp3 declares 8388608 bytes packed in"):
        Archive(one)
    many = zipped(tmp_path / "many.zip", {f"{n}.mp3": bytes(1 << 20) for n in range(20)})
    with pytest.raises(InputError, match="would unpack to 20971520; refused as a bomb"):
        Archive(many)
    text = {"t.csv": "1CO 1:1,a verse that is like the others in some ways\n" * 15_000}
    with Archive(zipped(tmp_path / "fair.zip", text)) as fair:
        assert list(fair.members) == ["t.csv"]


def test_a_damaged_table_is_named(recordings, tmp_path):
    local = mirror(tmp_path / "mirror", recordings, {"t.csv": table(verse_rows())})
    data = bytearray((local / "tables.zip").read_bytes())
    data[80] ^= 0xFF
    (local / "tables.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"tables.zip: t.csv"):
        fetch("speechtaxi", tmp_path / "out", local=local)


def test_a_member_yields_no_more_than_it_declares(tmp_path):
    """Whoever lies about a size gets a damaged member, not a full disk."""
    path = zipped(tmp_path / "liar.zip", {"a.mp3": bytes(900_000)})
    data = path.read_bytes()
    honest, lie = (900_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert data.count(honest) == 2
    path.write_bytes(data.replace(honest, lie))
    with (
        Archive(path) as archive,
        archive.open("a.mp3") as member,
        pytest.raises(zipfile.BadZipFile),
    ):
        assert len(member.read()) <= 1000


# ------------------------------------------------------------------------- Parquet on the hub


def place(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def fleurs_row(number: int, count: int) -> dict[str, Any]:
    clips = [{"bytes": sound(200 + 40 * n), "path": f"{number}{n}.wav"} for n in range(count)]
    return {
        "sentence": f"A sentence, number {number}.",
        "raw_transcription": f'"Sentence" {number}',
        "filename": [clip["path"] for clip in clips],
        "audio": clips,
        "speaker_id": list(range(count)),
        "gender": ["FEMALE"] * count,
        "index_id": 500 + number,
        "category": LABEL_SETS["sib200"][number],
    }


CARD = "---\nlanguage:\n- en\nlicense: cc-by-sa-4.0\n---\n# SIB-Fleurs\n"


def fleurs(folder: Path) -> Path:
    classes = {"category": LABEL_SETS["sib200"]}
    return place(
        folder,
        {
            "README.md": CARD,
            "data/eng_Latn/train-00000-of-00002.parquet": parquet([fleurs_row(0, 2)], **classes),
            "data/eng_Latn/train-00001-of-00002.parquet": parquet(
                [fleurs_row(1, 1), fleurs_row(2, 3)], **classes
            ),
            "data/eng_Latn/validation-00000-of-00001.parquet": parquet(
                [fleurs_row(3, 1)], **classes
            ),
            "data/eng_Latn/test-00000-of-00001.parquet": parquet([fleurs_row(4, 1)], **classes),
            "data/zho_Hant/test-00000-of-00001.parquet": parquet([fleurs_row(4, 1)], **classes),
        },
    )


def test_sib_fleurs_has_several_recordings_of_a_sentence(tmp_path):
    written = fetch("sib_fleurs", tmp_path / "out", Wish(("eng",)), fleurs(tmp_path / "mirror"))
    rows = read_manifest(written.manifest)
    assert [(r.split, r.group, r.speaker, r.label) for r in rows] == [
        ("test", "504", "0", "health"),
        ("train", "500", "0", "science/technology"),
        ("train", "500", "1", "science/technology"),
        ("train", "501", "0", "travel"),
        ("train", "502", "0", "politics"),
        ("train", "502", "1", "politics"),
        ("train", "502", "2", "politics"),
        ("dev", "503", "0", "sports"),
    ]
    assert {r.language for r in rows} == {"eng"}
    assert rows[1].text == '"Sentence" 0'
    assert rows[1].id == "eng_Latn-train-00001-1"
    assert len({audio.digest(r.audio) for r in rows}) == len(rows)
    assert all(len(audio.load(r.audio)) == 8000 for r in rows)
    assert source_of(tmp_path / "out")["licence"] == "cc-by-sa-4.0"
    whole = fetch("sib_fleurs", tmp_path / "out", local=tmp_path / "mirror")
    assert whole.extracted == 1  # zho; the English recordings were there
    assert {row.language for row in whole.rows} == {"eng", "zho"}


def test_a_language_that_the_mirror_lacks_is_told_with_the_way_to_get_it(tmp_path):
    with pytest.raises(InputError) as error:
        fetch("sib_fleurs", tmp_path / "out", Wish(("yor",)), fleurs(tmp_path / "mirror"))
    assert "lacks yor (it has eng_Latn, zho_Hant)" in str(error.value)
    assert "hf download --repo-type dataset WueNLP/sib-fleurs" in str(error.value)
    assert "'data/yor_*/*.parquet'" in str(error.value)
    assert "\n" not in str(error.value)


def hub_cache(home: Path, repository: str, commit: str) -> Path:
    """Return the snapshot's folder of a hub cache, its branch main pointing at it."""
    name = "datasets--" + repository.replace("/", "--")
    place(home / "hub" / name, {"refs/main": commit})
    return home / "hub" / name / "snapshots" / commit


def run_offline(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "speechtaxi", "data", "fetch", *arguments],
        env={**keep, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_hub_cache_is_read_offline_and_its_commit_recorded(tmp_path):
    home, output = tmp_path / "home", tmp_path / "out"
    run = run_offline(home, "sib_fleurs", "--languages", "eng", "-o", str(output))
    assert run.returncode == 2
    assert "WueNLP/sib-fleurs is not in the cache" in run.stderr
    assert "HF_HUB_OFFLINE is set" in run.stderr
    assert "hf download --repo-type dataset WueNLP/sib-fleurs --include 'README.md'" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not output.exists()
    fleurs(hub_cache(home, "WueNLP/sib-fleurs", "c0ffee"))
    run = run_offline(home, "sib_fleurs", "--languages", "eng", "-o", str(output))
    assert run.returncode == 0, run.stderr
    assert "eng train: 6 rows" in run.stderr
    assert run.stdout.strip() == str(output / "manifest.jsonl")
    assert source_of(output)["revision"] == "c0ffee"
    assert f"note: commit c0ffee, where {SOURCES['sib_fleurs'].revision} was exp" in run.stderr


def test_a_copied_cache_gives_the_pinned_commit_before_main(tmp_path):
    source = SOURCES["sib_fleurs"]
    fleurs(hub_cache(tmp_path / "copy", source.repository, "c0ffee"))
    assert fetch("sib_fleurs", tmp_path / "1", local=tmp_path / "copy").rows
    assert source_of(tmp_path / "1")["revision"] == "c0ffee"
    pinned = hub_cache(tmp_path / "copy", source.repository, source.revision)
    place(pinned.parents[1], {"refs/main": "c0ffee"})
    fleurs(pinned)
    fetch("sib_fleurs", tmp_path / "2", local=tmp_path / "copy" / "hub")
    assert source_of(tmp_path / "2")["revision"] == source.revision
    fetch("sib_fleurs", tmp_path / "3", local=tmp_path / "copy", revision="main")
    assert source_of(tmp_path / "3")["revision"] == "c0ffee"


def test_the_datasets_library_writes_what_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    row = {"bytes": sound(rate=8000), "path": "en-US~FREEZE/1.wav"}
    made = datasets.Dataset.from_dict(
        {"audio": [row], "transcription": ["freeze my card"], "intent_class": ["freeze"]}
    )
    made = made.cast_column("audio", datasets.Audio(sampling_rate=8000))
    names = list(LABEL_SETS["minds14"])
    made = made.cast_column("intent_class", datasets.ClassLabel(names=names))
    assert made.data.column("intent_class").to_pylist() == [names.index("freeze")]
    (tmp_path / "mirror/en-US").mkdir(parents=True)
    made.to_parquet(tmp_path / "mirror/en-US/train-00000-of-00001.parquet")
    (found,) = fetch("minds14", tmp_path / "out", local=tmp_path / "mirror").rows
    assert (found.label, found.text, found.language) == ("freeze", "freeze my card", "eng")
    assert Path(found.audio).read_bytes() == row["bytes"]


def test_minds14_is_8_khz_and_has_three_englishes(tmp_path):
    def rows(intent: str) -> list[dict[str, Any]]:
        clip = {"bytes": sound(rate=8000), "path": f"en~{intent}/602b9a5fbb1e6d0fbce91f52.wav"}
        return [{"audio": clip, "transcription": "hello", "intent_class": intent, "lang_id": 1}]

    # without class names in its schema: the card's order decides
    numbers = {k: LABEL_SETS["minds14"].index(k) for k in ("abroad", "freeze", "pay_bill")}
    files = {
        f"{locale}/train-00000-of-00001.parquet": parquet(
            [{**row, "intent_class": numbers[row["intent_class"]]} for row in rows(intent)]
        )
        for locale, intent in (("en-AU", "abroad"), ("en-US", "freeze"), ("cs-CZ", "pay_bill"))
    }
    local = place(tmp_path / "mirror", files)
    found = fetch("minds14", tmp_path / "out", local=local).rows
    assert [(r.language, r.label, r.split) for r in found] == [
        ("ces", "pay_bill", "train"),
        ("eng", "abroad", "train"),
        ("eng", "freeze", "train"),
    ]
    assert audio.probe(found[0].audio).sample_rate == 8000
    assert len(audio.load(found[0].audio)) == 8000  # half a second, at 16 kHz
    assert len(fetch("minds14", tmp_path / "out", Wish(("eng",)), local).rows) == 2
    assert len(fetch("minds14", tmp_path / "out", Wish(("en-AU",)), local).rows) == 1


def test_speech_massive_takes_the_full_train_split_where_there_is_one(tmp_path):
    def file(*ids: str) -> bytes:
        clip = {"bytes": sound(), "path": "a.wav"}
        return parquet(
            [
                {"id": i, "locale": "x", "utt": f"request {i}", "intent_str": "alarm_set"}
                | {"intent": 48, "speaker_id": f"s{i}", "audio": clip}
                for i in ids
            ]
        )

    source = SOURCES["speech_massive"]
    place(
        hub_cache(tmp_path / "copy", source.repository, "aaa"),
        {
            "fr-FR/train-00000-of-00001.parquet": file("1", "2"),
            "fr-FR/train_115-00000-of-00001.parquet": file("1"),
            "fr-FR/validation-00000-of-00001.parquet": file("3"),
            "vi-VN/train_115-00000-of-00001.parquet": file("1"),
            "all/train_115-00000-of-00001.parquet": file("1"),
        },
    )
    tests = hub_cache(tmp_path / "copy", source.also, "bbb")
    place(tests, {"fr-FR/test-00000-of-00001.parquet": file("4")})
    found = fetch("speech_massive", tmp_path / "out", local=tmp_path / "copy").rows
    assert [(r.language, r.split, r.group, r.speaker) for r in found] == [
        ("fra", "train", "1", "s1"),
        ("fra", "train", "2", "s2"),
        ("fra", "dev", "3", "s3"),
        ("vie", "train", "1", "s1"),
        ("fra", "test", "4", "s4"),
    ]
    assert {r.label for r in found} == {"alarm_set"}
    files = source_of(tmp_path / "out")["files"]
    assert files[-1]["repository"] == "FBK-MT/Speech-MASSIVE-test"
    assert files[-1]["revision"] == "bbb"
    alone = tmp_path / "copy/hub" / ("datasets--" + source.repository.replace("/", "--"))
    written = fetch("speech_massive", tmp_path / "2", local=alone)
    assert "test" not in {r.split for r in written.rows}
    assert "without FBK-MT/Speech-MASSIVE-test, which may ask for a login" in written.notes


def test_any_data_set_of_the_hub_by_id_and_columns(tmp_path):
    rows = [
        {"recording": {"bytes": None, "path": "clips/a.ogg"}, "said": "one", "about": "up"},
        {"recording": {"bytes": sound(kind="FLAC"), "path": None}, "said": "two", "about": "down"},
        {"recording": {"bytes": None, "path": "../../a.ogg"}, "said": "three", "about": "up"},
    ]
    local = place(
        tmp_path / "mirror",
        {
            "data/test-00000-of-00001.parquet": parquet(rows),
            "data/clips/a.ogg": sound(kind="OGG"),
        },
    )
    columns = {"audio": "recording", "text": "said", "label": "about"}
    written = fetch("some/corpus", tmp_path / "out", Wish((), columns, "ewe"), local)
    assert [(r.language, r.split, r.text, r.label) for r in written.rows] == [
        ("ewe", "test", "one", "up"),
        ("ewe", "test", "two", "down"),
    ]
    assert written.rows[0].audio == str(local / "data/clips/a.ogg")  # it stays where it is
    assert [len(audio.load(r.audio)) for r in written.rows] == [8000, 8000]
    assert written.left_out == ["test-00003: ../../a.ogg is not beside test-00000-of-00001.parquet"]
    with pytest.raises(InputError, match="neither audio nor text; the columns are"):
        fetch("some/corpus", tmp_path / "2", Wish((), {}, "ewe"), local)
    with pytest.raises(InputError, match=r"no column 'sound' .for audio.; the columns are"):
        fetch("some/corpus", tmp_path / "3", Wish((), {"audio": "sound"}, "ewe"), local)
    with pytest.raises(InputError, match="the language is not told; give --language"):
        fetch("some/corpus", tmp_path / "4", Wish((), columns), local)


def test_a_damaged_parquet_file_is_named(tmp_path):
    local = fleurs(tmp_path / "mirror")
    path = local / "data/eng_Latn/test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"test-00000-of-00001.parquet: not a whole Parquet file"):
        fetch("sib_fleurs", tmp_path / "out", local=local)


# ------------------------------------------------------------------------------- audiofolder


def test_an_audio_folder_with_metadata_for_each_split(tmp_path):
    local = place(
        tmp_path / "mirror",
        {
            "train/metadata.csv": "file_name,transcription,label\na/1.wav,one,up\n2.wav,two,down\n",
            "train/a/1.wav": sound(),
            "train/2.wav": sound(),
            "test/metadata.jsonl": '{"file_name": "1.mp3", "label": "up"}\n{"file_name": "no.wav"}',
            "test/1.mp3": sound(kind="MP3"),
        },
    )
    written = fetch("audiofolder", tmp_path / "out", Wish(language="luo"), local)
    assert [(r.id, r.split, r.label, r.text, r.language) for r in written.rows] == [
        ("test/1.mp3", "test", "up", None, "luo"),
        ("train/a/1.wav", "train", "up", "one", "luo"),
        ("train/2.wav", "train", "down", "two", "luo"),
    ]
    assert written.extracted == 0
    assert read_manifest(written.manifest)[1].audio == str(local / "train/a/1.wav")
    assert len(written.left_out) == 1
    assert "no.wav: no such file" in written.left_out[0]


def test_an_audio_folder_with_label_folders(tmp_path):
    files = {f"{split}/{label}/1.wav": sound() for split in ("train", "test") for label in "ab"}
    local = place(tmp_path / "mirror", files)
    rows = fetch("audiofolder", tmp_path / "out", Wish(language="und"), local).rows
    assert [(r.split, r.label) for r in rows] == [
        ("test", "a"), ("test", "b"), ("train", "a"), ("train", "b"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------- text corpora


def taxi_tables(folder: Path) -> Path:
    return place(
        folder,
        {
            "eng.tsv": "verse_id\tlabel\tsplit\ttext\n"
            '62003016\tFaith\ttrain\t"By this we know love\n43013001\tGrace\ttest\tNow\n',
            "tw-asante.tsv": "verse_id\tlabel\tsplit\ttext\n62003016\tFaith\ttrain\tNa\n",
            "SOURCES.tsv": "file\tedition\n",
            "test/fra.tsv": "43013001\tGrace\tAvant\n",
            "train/fra.tsv": "id\tlabel\tverse\n62003016\tFaith\tNous\n",
            "deu_data/deu_dev.tsv": "43013001\tGrace\tVor\n",
        },
    )


def test_taxi1500_in_one_table_or_in_the_authors_form(tmp_path):
    rows = fetch("taxi1500", tmp_path / "out", local=taxi_tables(tmp_path / "tables")).rows
    assert [(r.id, r.split, r.label, r.group, r.text) for r in rows] == [
        ("deu-43013001", "dev", "Grace", "43013001", "Vor"),
        ("eng-62003016", "train", "Faith", "62003016", '"By this we know love'),
        ("eng-43013001", "test", "Grace", "43013001", "Now"),
        ("fra-43013001", "test", "Grace", "43013001", "Avant"),
        ("fra-62003016", "train", "Faith", "62003016", "Nous"),
        ("tw-asante-62003016", "train", "Faith", "62003016", "Na"),
    ]
    place(tmp_path / "bad", {"eng.tsv": "62003016\tHope\tBy this\n"})
    with pytest.raises(InputError, match=r"eng.tsv:1: not a verse of Taxi1500"):
        fetch("taxi1500", tmp_path / "2", local=tmp_path / "bad")
    with pytest.raises(InputError, match="lies on no hub; name a local folder with --from"):
        fetch("taxi1500", tmp_path / "3")


@pytest.mark.assets
def test_real_taxi1500_tables_have_the_published_counts(assets, tmp_path):
    local = assets / "data" / "taxi1500"
    rows = fetch("taxi1500", tmp_path / "out", Wish(("eng", "fra")), local).rows
    counts = {s: sum(r.split == s for r in rows) for s in ("train", "dev", "test")}
    assert counts == {"train": 2 * 860, "dev": 2 * 106, "test": 2 * 111}


def test_sib200_cells_may_stand_in_quotation_marks(tmp_path):
    head = "index_id\tcategory\ttext\n"
    local = place(
        tmp_path / "mirror",
        {
            "data/als_Latn/train.tsv": head + '596\tscience/technology\t"""Qelize"" vjen"\n',
            "data/als_Latn/dev.tsv": head + "548\tsports\tNe garat\n",
            "data/als_Latn/test.tsv": head + "824\ttravel\tHidhni\n",
            "data/als_Latn/labels.txt": "sports\n",
            "data/arb_Arab/test.tsv": head + "824\ttravel\tx\n",
        },
    )
    rows = fetch("sib200", tmp_path / "out", Wish(("als",)), local).rows
    assert {(r.split, r.label, r.group, r.text) for r in rows} == {
        ("train", "science/technology", "596", '"Qelize" vjen'),
        ("dev", "sports", "548", "Ne garat"),
        ("test", "travel", "824", "Hidhni"),
    }


def test_masakhanews_tables_and_their_conversion(tmp_path):
    head = "category\theadline\ttext\turl\n"
    tables = place(tmp_path / "a", {"data/lin/test.tsv": head + 'business\tA\t"B ""C"""\tu1\n'})
    (row,) = fetch("masakhanews", tmp_path / "1", local=tables).rows
    assert (row.language, row.split, row.label, row.group) == ("lin", "test", "business", "u1")
    assert row.text == 'A B "C"'
    article = {"label": "sports", "headline": "A", "text": "B", "url": "u1"}
    file = parquet([article], label=LABEL_SETS["masakhanews"])
    converted = place(tmp_path / "b", {"xho/validation/0000.parquet": file})
    wish = Wish(columns={"text": "headline"})
    (row,) = fetch("masakhanews", tmp_path / "2", wish, converted).rows
    assert (row.split, row.label, row.text) == ("dev", "sports", "A")


# ------------------------------------------------------------------------------ the front door


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(
        InputError, match="unknown corpus 'taxi'; use one of speechtaxi, sib_fleurs"
    ):
        fetch("taxi", tmp_path)
    with pytest.raises(InputError, match="has columns of its own"):
        fetch("speechtaxi", tmp_path, Wish(columns={"text": "text_en"}))
    with pytest.raises(InputError, match="no such folder; --from names"):
        fetch("minds14", tmp_path, local=tmp_path / "none")


def test_every_source_has_known_labels_a_config_and_help(capsys):
    from speechtaxi.train import configs

    for name, source in SOURCES.items():
        assert source.labels is None or source.labels in LABEL_SETS
        assert name in configs() or name == "audiofolder"
    with pytest.raises(SystemExit):
        cli.main(["data", "fetch", "--help"])
    page = capsys.readouterr().out
    assert all(source.about in page for source in SOURCES.values())


def test_a_card_that_declares_no_licence(tmp_path):
    place(tmp_path / "a", {"README.md": "---\nlanguage: en\n---\n"})
    place(tmp_path / "b", {"README.md": "# no head\n"})
    assert Mirror(tmp_path / "a").licence == Mirror(tmp_path / "b").licence == "not declared"
    assert Mirror(tmp_path).licence is None  # no card at all: what the source is known to declare
