"""The transcript store: round trips, several writers, sudden death, bad places."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from speechtaxi.errors import InputError
from speechtaxi.store import TranscriptStore, default_path, key
from speechtaxi.types import Transcript

FULL = Transcript(
    key="a",
    text="ọ̀rọ̀ ‘x’",
    language="yor",
    heard="yor",
    heard_probability=0.75,
    avg_logprob=-0.25,
    no_speech_prob=0.125,
    compression_ratio=2.5,
    flags=("looping", "truncated"),
    seconds=1.5,
)
WRITER = """
import sys, time
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Transcript
name, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = TranscriptStore(path)
for number in range(count):
    store.put([Transcript(f"{name}-{number}-{half}", "text") for half in (0, 1)])
    print(number, flush=True)
"""


def test_what_is_put_is_got(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.sqlite"
    store = TranscriptStore(path)
    assert store.get(["a"]) == {}
    store.put([FULL, Transcript("b", "")])
    store.put([])
    expected = {"a": FULL, "b": Transcript("b", "")}
    assert store.get(["b", "c", "a", "a"]) == expected
    assert TranscriptStore(path).get(["a", "b"]) == expected  # from disk


def test_many_keys(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path / "store.sqlite")
    rows = [Transcript(f"{number}", f"text {number}") for number in range(5000)]
    store.put(rows)
    assert list(store.get(row.key for row in rows).values()) == rows


def test_a_batch_is_all_or_nothing(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path / "store.sqlite")

    def broken():
        yield FULL
        raise RuntimeError("in the middle of a batch")

    with pytest.raises(RuntimeError):
        store.put(broken())
    assert store.get(["a"]) == {}
    store.put([FULL])
    assert store.get(["a"]) == {"a": FULL}


def test_key_tells_apart_what_changes_a_transcript() -> None:
    cases = [
        ("d", 0.0, None, "r", "eng"),
        ("e", 0.0, None, "r", "eng"),
        ("d", 1.0, None, "r", "eng"),
        ("d", 0.0, 1.0, "r", "eng"),
        ("d", 0.0, None, "s", "eng"),
        ("d", 0.0, None, "r", "fra"),
        ("d", 0.0, None, "r", None),
    ]
    assert len({key(*case) for case in cases}) == len(cases)
    assert key("d", 0, 1, "r", "eng") == key("d", 0.0, 1.0, "r", "eng")


def test_a_store_of_old_opens_with_all_that_it_holds(tmp_path: Path) -> None:
    """It was made before probabilities, by the schema of then; two languages are Whisper's tags."""
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(f"""
            CREATE TABLE transcripts (
                key TEXT PRIMARY KEY, text TEXT NOT NULL, language TEXT, heard TEXT,
                avg_logprob REAL, no_speech_prob REAL, compression_ratio REAL, flags TEXT NOT NULL,
                seconds REAL NOT NULL
            ) WITHOUT ROWID;
            CREATE TABLE digests (
                path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
                digest TEXT NOT NULL
            ) WITHOUT ROWID;
            PRAGMA application_id = {0x53545458};
            PRAGMA journal_mode = WAL;
            INSERT INTO transcripts VALUES
                ('a', 'ọ̀rọ̀ ‘x’', 'yor', 'yo', -0.25, 0.125, 2.5, 'looping truncated', 1.5),
                ('b', 'x', 'und', 'jw', NULL, NULL, NULL, '', 0.0),
                ('c', 'y', 'eng', NULL, NULL, NULL, NULL, '', 0.0);
        """)
        file = tmp_path / "a.wav"
        file.write_bytes(b"1")
        state = os.stat(file)
        row = (str(file), state.st_size, state.st_mtime_ns, "known")
        old.execute("INSERT INTO digests VALUES (?, ?, ?, ?)", row)
    old.close()
    expected = {
        "a": replace(FULL, heard_probability=None),
        "b": Transcript("b", "x", language="und", heard="jav"),
        "c": Transcript("c", "y", language="eng"),
    }
    for _ in range(2):  # the second time there is nothing left to do
        store = TranscriptStore(path)
        assert store.get("abc") == expected
        assert store.digest(file, lambda _: pytest.fail("hashed again")) == "known"
    store.put([FULL])
    assert TranscriptStore(path).get("ab") == {"a": FULL, "b": expected["b"]}


def test_digests_are_computed_once_per_state_of_a_file(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path / "store.sqlite")
    file = tmp_path / "a.wav"
    file.write_bytes(b"1")
    calls = []

    def compute(path: str) -> str:
        calls.append(path)
        return Path(path).read_text()

    assert store.digest(file, compute) == store.digest(str(file), compute) == "1"
    assert TranscriptStore(tmp_path / "store.sqlite").digest(file, compute) == "1"
    assert calls == [str(file)]
    file.write_bytes(b"2")
    os.utime(file, ns=(0, 5))
    assert store.digest(file, compute) == "2"
    os.utime(file, ns=(0, 6))  # perhaps edited within the same size
    assert store.digest(file, compute) == "2"
    assert len(calls) == 3
    with pytest.raises(FileNotFoundError):
        store.digest(tmp_path / "absent.wav", compute)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name, str(path), "20"], stdout=-3)
        for name in "abcd"
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    keys = [f"{name}-{number}-{half}" for name in "abcd" for number in range(20) for half in (0, 1)]
    assert len(TranscriptStore(path).get(keys)) == len(keys) == 160


def test_kill_loses_nothing_reported(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    command = [sys.executable, "-c", WRITER, "a", str(path), "1000000"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    reported = [writer.stdout.readline() for _ in range(30)]
    writer.send_signal(signal.SIGKILL)
    reported += writer.stdout.readlines()
    writer.wait(10)
    done = [int(line) for line in reported if line.endswith("\n")]
    store = TranscriptStore(path)
    assert len(store.get(f"a-{n}-{half}" for n in done for half in (0, 1))) == 2 * len(done) >= 60
    beyond = store.get(f"a-{n}-{half}" for n in range(max(done) + 1, 10**4) for half in (0, 1))
    assert len(beyond) in (0, 2)  # the batch in flight: whole or absent


def test_places_that_hold_no_store(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, not a database\n" * 100)
    with pytest.raises(InputError, match=r"notes\.txt.*file is not a database"):
        TranscriptStore(text)
    assert text.read_text().startswith("these are notes")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (x)")
    with pytest.raises(InputError, match="not a transcript store"):
        TranscriptStore(other)
    with sqlite3.connect(other) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    with pytest.raises(InputError, match=r"cannot make a transcript store.*choose another place"):
        TranscriptStore(text / "store.sqlite")
    with pytest.raises(InputError, match="unable to open"):
        TranscriptStore(tmp_path)  # a folder


def test_full_disk(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path / "store.sqlite")
    store.put([FULL])
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InputError, match=r"database or disk is full.*what is done is kept"):
        store.put([Transcript("b", "x" * 100_000)])
    assert store.get(["a", "b"]) == {"a": FULL}


def test_a_bug_is_not_called_bad_input(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path / "store.sqlite")
    with pytest.raises(sqlite3.IntegrityError):
        store.put([Transcript("a", None)])  # type: ignore[arg-type]


def test_default_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHTAXI_CACHE", "/scratch")
    assert default_path() == Path("/scratch/transcripts.sqlite")
    monkeypatch.delenv("SPEECHTAXI_CACHE")
    assert default_path() == Path.home() / ".cache" / "speechtaxi" / "transcripts.sqlite"
