from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechtaxi.cli import main
from speechtaxi.records import read_manifest
from speechtaxi.synthesize.news import (
    CLIPS_PER_TOPIC,
    HELD_OUT,
    TOPICS,
    TRAINED,
    news_takes,
    phrases,
)
from speechtaxi.synthesize.tables import table_takes
from speechtaxi.synthesize.voices import VOICES

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="no eSpeak NG: pip install 'speechtaxi[demo]'",
)
NEWS = [
    "news",
    "--languages",
    "eng",
    "hin",
    "--held_out",
    "mar",
    "--clips_per_topic",
    "2",
    "1",
    "1",
]
VERSES = """verse_id\tlabel\tsplit\ttext
40001001\tFaith\ttrain\t{0} one, {0} two
40001002\tSin\ttrain\t{0} three
40001003\tSin\tdev\t{0} four
40001004\tFaith\ttest\t"{0} five"
40001005\tSin\ttest\t{0} six
"""


def synthesize(*arguments: object) -> int:
    return main(["synthesize", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken") / "news"
    assert synthesize(*NEWS, "-o", folder) == 0
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    files = []
    for code, word in (("eng", "verse"), ("deu", "Vers")):
        files.append(tmp_path / f"{code}.tsv")
        files[-1].write_text(VERSES.format(word), encoding="utf-8")
    return files


# ------------------------------------------------------------------------------ the news' texts


def test_phrases_are_translations_of_each_other_by_number():
    texts = phrases()
    assert {*TRAINED, *HELD_OUT} <= texts.keys()
    shape = {name: len(texts["eng"][name]) for name in (*TOPICS, "open", "neutral")}
    for code, lists in texts.items():
        assert {name: len(lists[name]) for name in shape} == shape, code
        spoken = [phrase for topic in TOPICS for phrase in lists[topic]]
        assert len(set(spoken)) == len(spoken), f"{code}: a phrase stands for two"


def rows_of_the_news():
    return [t.row for t in news_takes(TRAINED, HELD_OUT, VOICES, CLIPS_PER_TOPIC, seed=0)]


def test_news_counts():
    counts = Counter((row.language, row.split, row.label) for row in rows_of_the_news())
    expected = {"train": 40, "dev": 4, "test": 8}
    for code in TRAINED:
        assert all(counts[code, s, topic] == n for s, n in expected.items() for topic in TOPICS)
    for code in HELD_OUT:
        assert all(counts[code, "test", topic] == 16 for topic in TOPICS)
    assert counts.total() == 2256


def test_a_pair_of_phrases_lives_in_one_split_of_all_languages():
    texts = phrases()
    splits, pairs = defaultdict(set), defaultdict(set)
    for row in rows_of_the_news():
        splits[row.group].add(row.split)
        lists = texts[row.language]
        sentence = row.text.partition(": ")[2]
        found = {  # by what is said, not by how the group is called
            (name, number)
            for name in (row.label, "neutral")
            for number, phrase in enumerate(lists[name])
            if sentence.startswith(f"{phrase} {lists['and']} ")
            or sentence.endswith(f" {lists['and']} {phrase}")
        }
        assert len(found) == 2, row
        pairs[row.group].add(frozenset(found))
    assert all(len(found) == 1 for found in splits.values())
    assert all(len(found) == 1 for found in pairs.values())
    assert len({next(iter(found)) for found in pairs.values()}) == len(pairs)
    mixed = sum("neutral" in dict(next(iter(found))) for found in pairs.values())
    assert mixed / len(pairs) == pytest.approx(1 / 3, abs=0.02)


def test_all_but_the_words_is_the_same_in_every_topic():
    takes = news_takes(TRAINED, HELD_OUT, VOICES, CLIPS_PER_TOPIC, seed=0)
    manners = defaultdict(list)
    for t in takes:
        opener = t.row.text.partition(":")[0]
        manner = (t.row.language, t.row.split, opener, t.voice, t.pitch, t.rate, t.peak, t.snr)
        manners[t.row.label].append(manner)
    first = sorted(manners[TOPICS[0]])
    assert all(sorted(manners[topic]) == first for topic in TOPICS)
    assert len({t.noise for t in takes}) == len(takes)


def test_voices_are_unseen_in_dev_and_test_and_change_between_takes():
    heard, takes = defaultdict(set), defaultdict(list)
    for row in rows_of_the_news():
        heard[row.split].add(row.speaker)
        takes[row.language, row.group].append(row.speaker)
    assert heard == {split: set(names) for split, names in VOICES.items()}
    assert sum(map(len, heard.values())) == len(set.union(*heard.values()))
    assert all(len(set(names)) == len(names) for names in takes.values())


def test_news_are_drawn_from_the_seed():
    def texts(seed: int) -> list[str]:
        return [t.row.text for t in news_takes(["eng"], [], VOICES, CLIPS_PER_TOPIC, seed)]

    assert texts(1) == texts(1) != texts(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--languages eng swh", "no news in 'swh'; use some of eng, fra, "),
        ("--languages eng ukr", "'ukr' is named twice"),
        ("--clips_per_topic 40 4 8", "52 sentences, but .* enough for about 42"),
        ("--voices test=m1,m4", "m1 is named for train and for test"),
    ],
)
def test_bad_requests_for_news(arguments, message, tmp_path, capsys):
    assert synthesize("news", *arguments.split(), "-o", tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert not (tmp_path / "new").exists()


# ----------------------------------------------------------------------------- a spoken corpus


@needs_espeak
def test_news_are_clips_of_speech(news: Path):
    rows = read_manifest(news / "manifest.jsonl")
    splits = Counter((row.language, row.split) for row in rows)
    assert splits == {
        ("eng", "train"): 24,
        ("eng", "dev"): 6,
        ("eng", "test"): 6,
        ("hin", "train"): 24,
        ("hin", "dev"): 6,
        ("hin", "test"): 6,
        ("mar", "test"): 12,
    }
    levels = set()
    for row in rows:
        wave, rate = soundfile.read(row.audio)
        assert rate == 16_000
        assert wave.ndim == 1
        assert row.duration == len(wave) / rate
        assert 1 < row.duration < 10
        assert 0.2 < np.abs(wave).max() < 0.95
        levels.add(round(float(np.abs(wave).max()), 2))
    assert len(levels) > 10
    readme = (news / "README.md").read_text(encoding="utf-8")
    assert "Synthetic speech" in readme
    assert "eSpeak NG 1." in readme
    assert "nobody has reviewed" in readme


@needs_espeak
def test_a_second_run_does_nothing(news: Path, capsys):
    before = {path: path.stat().st_mtime_ns for path in news.rglob("*")}
    assert synthesize(*NEWS, "-o", news) == 0
    told = capsys.readouterr()
    assert "nothing to do" in told.err
    assert told.out == f"{news / 'manifest.jsonl'}\n"
    assert before == {path: path.stat().st_mtime_ns for path in news.rglob("*")}


@needs_espeak
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_an_interrupted_run_goes_on_and_writes_the_same_bytes(news: Path, tmp_path: Path, name):
    folder = tmp_path / "news"
    command = [sys.executable, "-m", "speechtaxi", "synthesize", *NEWS, "-o", str(folder)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background
    )
    while not list(folder.glob("audio/.*/*.flac")):
        assert process.poll() is None, "it ended before a clip was seen"
        time.sleep(0.005)
    process.send_signal(getattr(signal, name))
    error = process.communicate(timeout=60)[1]
    assert not (folder / "manifest.jsonl").exists()
    if name == "SIGINT":
        assert process.returncode == 130
        assert error.splitlines()[-1].endswith("interrupted; what is done is kept")
    done = {path: path.stat().st_mtime_ns for path in folder.glob("audio/[a-z]*/*")}
    assert synthesize(*NEWS, "-o", folder) == 0
    assert contents(folder) == contents(news)
    assert all(path.stat().st_mtime_ns == written for path, written in done.items())


@needs_espeak
def test_a_language_that_is_there_is_not_spoken_again(news: Path, tmp_path: Path):
    folder = shutil.copytree(news, tmp_path / "news")
    (folder / "manifest.jsonl").unlink()
    shutil.rmtree(folder / "audio" / "hin")
    kept = next((folder / "audio" / "eng").iterdir())
    kept.touch()
    written = kept.stat().st_mtime_ns
    assert synthesize(*NEWS, "-o", folder) == 0
    assert contents(folder) == contents(news)
    assert kept.stat().st_mtime_ns == written


@needs_espeak
def test_a_folder_with_something_else_is_left_alone(news: Path, tmp_path: Path, capsys):
    assert synthesize(*NEWS, "-o", news, "--seed", 1) == 2
    assert "other settings (takes differ); choose another folder" in capsys.readouterr().err
    (tmp_path / "thesis.txt").write_text("years of work")
    assert synthesize(*NEWS, "-o", tmp_path) == 2
    assert "holds something else; choose a new folder" in capsys.readouterr().err
    assert synthesize(*NEWS, "-o", tmp_path / "thesis.txt") == 2
    assert "is a file" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["thesis.txt"]
    shutil.copytree(news, tmp_path / "news")
    (tmp_path / "news" / "synthesis.json").write_text("{")
    assert synthesize(*NEWS, "-o", tmp_path / "news") == 2
    assert "is damaged" in capsys.readouterr().err


# -------------------------------------------------------------------------------------- tables


@needs_espeak
def test_tables_become_a_corpus_in_the_shape_of_speechtaxi(tables: list[Path], tmp_path: Path):
    assert synthesize(*tables, "-o", tmp_path / "out") == 0
    rows = {row.id: row for row in read_manifest(tmp_path / "out" / "manifest.jsonl")}
    assert len(rows) == 10
    row = rows["deu-40001004"]
    assert (row.language, row.group, row.split, row.label) == ("deu", "40001004", "test", "Faith")
    assert row.text == '"Vers five"'
    assert row.audio == str(tmp_path / "out" / "audio" / "deu" / "deu-40001004.flac")
    assert row.duration == soundfile.info(row.audio).duration
    assert all(row.speaker in VOICES[row.split] for row in rows.values())
    assert rows["deu-40001004"].speaker != rows["deu-40001005"].speaker, "voices take turns"


@needs_espeak
def test_choice_of_languages_voices_and_rows(tables: list[Path], tmp_path: Path):
    choice = ["--languages", "deu", "--limit", 1, "--voices", "train=f1", "test=m4,f2"]
    assert synthesize(*tables, "-o", tmp_path / "out", *choice) == 0
    rows = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert [row.group for row in rows] == ["40001001", "40001003", "40001004"]
    assert {row.language for row in rows} == {"deu"}
    assert rows[0].speaker == "f1"
    assert rows[2].speaker in ("m4", "f2")


@needs_espeak
def test_a_language_column_and_awkward_ids(tmp_path: Path):
    lines = ["id\tlanguage\ttext", "GEN 1:1/a\teng\tIn the beginning", "GEN 1:1/a\tfra\tAu début"]
    (tmp_path / "some verses.tsv").write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    (tmp_path / "more.tsv").write_text("\n".join(lines[::2]) + "\n", encoding="utf-8")
    tables = [tmp_path / "some verses.tsv", tmp_path / "more.tsv"]
    assert synthesize(*tables, "-o", tmp_path / "out") == 0
    rows = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert [row.id for row in rows] == ["eng-GEN_1_1_a", "fra-GEN_1_1_a"]
    assert {row.split for row in rows} == {"predict"}
    assert all(Path(row.audio).is_file() and row.speaker in VOICES["test"] for row in rows)


@needs_espeak
@pytest.mark.parametrize(
    ("name", "text", "arguments", "message"),
    [
        ("ewe.tsv", "id\ttext\n1\tNyati\n", [], "no voice for ewe; it has asm, eng, fra, "),
        ("verses.tsv", "id\ttext\n1\tLight\n", [], "no language column"),
        ("eng.tsv", "id\ttext\n1\tLight\n", ["--languages", "fra"], "no rows in 'fra'; the tables"),
        ("eng.tsv", "id\ttext\n1\tLight\n", ["--voices", "test=m44"], "no voice variant 'm44'"),
        ("eng.tsv", "id\ttext\n1/a\tA\n1:a\tB\n", [], "two rows are called eng-1_a"),
        ("eng.tsv", "id\taudio\n1\tx.wav\n", [], "eng.tsv: row 1 has no text to speak"),
        ("eng.tsv", "id\ttext\n1\t…\n", [], "there is nothing to say in "),
        ("eng.tsv", "", [], "holds no rows"),
    ],
)
def test_bad_tables(name, text, arguments, message, tmp_path: Path, capsys):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert synthesize(tmp_path / name, "-o", tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


@needs_espeak
def test_a_fault_of_the_disk_comes_through(tmp_path: Path):
    from speechtaxi.synthesize.corpus import _espeak

    take = {"row": {"id": "a", "text": "hello"}, "voice": "en-us+m1", "pitch": 50, "rate": 170}
    take |= {"peak": -3.0, "snr": 30.0, "noise": 1}
    with pytest.raises(FileNotFoundError, match="absent"):
        list(_espeak([str(tmp_path / "absent")], [take]))


# ---------------------------------------------------------------------------------- eSpeak NG


def test_without_espeak_the_extra_is_named(tables, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "espeakng_loader.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    assert synthesize(*tables, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'speechtaxi[demo]'" in error
    assert not (tmp_path / "out").exists()


def test_only_the_synthesiser_imports_espeak():
    home = Path(__file__).parents[1]
    sources = [p for name in ("speechtaxi", "cascade", "e2e") for p in (home / name).rglob("*.py")]
    importing = [p.name for p in sources if "import espeakng_loader" in p.read_text("utf-8")]
    assert importing == ["espeak.py"]


def test_news_file_says_that_nobody_reviewed_it():
    path = Path(__file__).parents[1] / "speechtaxi" / "synthesize" / "news_phrases.json"
    assert json.loads(path.read_text(encoding="utf-8"))["about"].startswith("Unreviewed")


def test_a_verse_of_signs_only_is_left_out(tmp_path, caplog):
    table = tmp_path / "eng.tsv"
    table.write_text("id\ttext\n1\tLight\n2\t.\n3\tDark\n")
    takes = table_takes([str(table)], None, VOICES, None, 0)
    assert [take.row.id for take in takes] == ["eng-1", "eng-3"]
    assert caplog.messages == [f"{table}: left out row 2: nothing to say in '.'"]
