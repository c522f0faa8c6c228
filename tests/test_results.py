"""Results on disk: every format the same rows, gone on with, never mixed, never half."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet
import pytest

from speechtaxi.errors import InputError
from speechtaxi.results import KINDS, STREAMS, cells, columns, kind_of, open_results, row
from speechtaxi.types import NO_SPEECH, Answer, Span

SETTINGS = {"model": "runs/a", "language": "eng"}
HOSTILE = (
    "quote \" and '",
    "comma, semicolon; tab\tand | pipe",
    "lines\nof\r\ntext\rwith every end",
    "\r",
    '"\n"",\t',
    "nul \0 inside",
    "\N{TAXI} \N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} flag \U0001f1ec\U0001f1ed",
    "שלום עולם \u202eback",
    "e\u0301 ọ̀rọ̀ \u2028 \u2029 \x85 \x1b[31m \ufeff",
    '{"json": [1]} \\n \\u0000 \\udcff',
    "=1+1",
    "  blanks at both ends  ",
    "",
    "x" * 100_000,
)


def answer(id: str = "a.wav", **changes) -> Answer:
    values = Answer(
        id=id,
        path=f"/audio/{id}",
        kind="recording",
        span=Span(0.0, 12.5),
        language="eng",
        topic="sport",
        probability=0.75,
        probabilities={"health": 0.2, "sport": 0.75, "art": 0.05},
        calibrated=True,
        system="e2e",
    )
    return replace(values, **changes)


def recording(id: str, segments: int = 2, **changes) -> list[Answer]:
    parts = [
        answer(id, kind="segment", span=Span(5.0 * n, 5.0 * n + 5), **changes)
        for n in range(segments)
    ]
    return [*parts, answer(id, span=Span(0.0, 5.0 * max(segments, 1)), **changes)]


def read(path: Path, kind: str | None = None) -> list[dict]:
    """Read an output as others would, in a table's columns; each format's own reader."""
    kind = kind or kind_of(path)
    if kind == "jsonl":
        with open(path, encoding="utf-8", newline="\n") as file:
            told = [json.loads(line) for line in file]
        top_k = 3
        return [dict(zip(columns(top_k), cells(line, top_k), strict=True)) for line in told]
    if kind == "parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if kind == "sqlite":
        with closing(sqlite3.connect(path)) as database:  # who reads after a kill rolls back
            database.row_factory = sqlite3.Row
            return [
                dict(line) | {"calibrated": bool(line["calibrated"])}
                for line in database.execute("SELECT * FROM answers")
            ]
    convert = {str: str, float: float, bool: {"True": True, "False": False}.__getitem__}
    optional = {"probability", "heard", "text", "romanized", "topic_2", "topic_3"}
    optional |= {"topic_1", "probability_1", "probability_2", "probability_3"}
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {
                name: None if cell == "" and name in optional else convert[columns(3)[name]](cell)
                for name, cell in line.items()
            }
            for line in csv.DictReader(file, delimiter="\t" if kind == "tsv" else ",", strict=True)
        ]


def table(answers: list[Answer]) -> list[dict]:
    """Return what `read` should find."""
    return [dict(zip(columns(3), cells(row(one, 3), 3), strict=True)) for one in answers]


def in_a_child(work: Callable[[], None]) -> int:
    """Do something in a copy of this process that ends at once; return its status."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


every_kind = pytest.mark.parametrize("kind", KINDS)


# --------------------------------------------------------------------------------------- rows


def test_a_row_says_what_the_answer_says():
    one = answer(
        span=Span(1.23456, 2.0), heard=0.98765432, text="bola", flags=("looping", "silent")
    )
    told = row(one, 2)
    assert list(told.items()) == [
        ("id", "a.wav"),
        ("path", "/audio/a.wav"),
        ("kind", "recording"),
        ("start", 1.235),
        ("end", 2.0),
        ("language", "eng"),
        ("topic", "sport"),
        ("probability", 0.75),
        ("probabilities", {"sport": 0.75, "health": 0.2}),
        ("calibrated", True),
        ("system", "e2e"),
        ("heard", 0.9877),
        ("text", "bola"),
        ("romanized", None),
        ("flags", ("looping", "silent")),
    ]
    line = dict(zip(columns(4), cells(told, 4), strict=True))
    assert [line[f"topic_{n}"] for n in (1, 2, 3, 4)] == ["sport", "health", None, None]
    assert [line[f"probability_{n}"] for n in (1, 2, 3, 4)] == [0.75, 0.2, None, None]
    assert line["flags"] == "looping silent"


@every_kind
def test_hostile_text_comes_back(tmp_path, kind):
    output = tmp_path / f"out.{kind}"
    mixed = random.Random(5)
    alphabet = "".join(HOSTILE[:10])
    texts = [*HOSTILE, *("".join(mixed.choices(alphabet, k=30)) for _ in range(100))]
    answers = [
        answer(f"{n} {text[:50]}", text=text, romanized=None if n % 2 else text[::-1], topic=text)
        for n, text in enumerate(texts)
    ]
    silent = {"topic": NO_SPEECH, "probability": None, "probabilities": {}, "calibrated": False}
    answers.append(answer("quiet", **silent, flags=("silent", "empty")))
    with open_results(output, None, SETTINGS) as results:
        for one in answers:
            results.write("key", [one])
    expected = table(answers)
    if kind in ("csv", "tsv"):  # which cannot tell the empty text from none
        expected = [
            line | {name: line[name] or None for name in ("text", "romanized")} for line in expected
        ]
    assert read(output) == expected


@every_kind
def test_names_that_are_no_text(tmp_path, kind):
    name = os.fsdecode(b"caf\xe9.wav")
    output = tmp_path / f"out.{kind}"
    for _ in range(2):
        with open_results(output, kind, SETTINGS) as results:
            if not results.skip("k", name):
                results.write("k", [answer(name)])
            results.fail("", f"x{name}", name, f"no {name}")
    assert results.summary()["skipped"] == 1
    (line,) = read(output)
    assert line["id"] == "caf\\udce9.wav"
    if kind == "jsonl":  # JSON has an escape for it, so that the very name can be had
        assert os.fsencode(json.loads(output.read_bytes())["path"]) == b"/audio/caf\xe9.wav"


@pytest.mark.parametrize("kind", STREAMS)
def test_stdout_has_the_rows_of_a_file(tmp_path, kind, capsysbinary):
    rows = recording("a", text='one\n"two"'), recording("b", segments=0)
    printed = b""
    with open_results("-", kind, SETTINGS) as results:
        for number, answers in enumerate(rows, 1):
            assert not results.skip("k", answers[0].id)
            results.write("k", answers)
            printed += capsysbinary.readouterr().out
            assert printed.count(b"recording") == number  # as they come
        results.fail("", "c", "c", "damaged")
    with open_results(tmp_path / f"o.{kind}", None, SETTINGS) as file:
        for answers in rows:
            file.write("k", answers)
    assert printed + capsysbinary.readouterr().out == (tmp_path / f"o.{kind}").read_bytes()
    summary = results.summary()
    assert (summary["inputs"], summary["done"], summary["failed"]) == (3, 2, 1)
    assert (summary["rows"], summary["seconds"]) == (4, 15.0)


def test_no_rows(tmp_path):
    for kind in KINDS:
        with open_results(tmp_path / f"out.{kind}", None, SETTINGS):
            pass
        assert read(tmp_path / f"out.{kind}") == []
    assert (tmp_path / "out.csv").read_text().startswith("id,path,kind,start,end,language,topic,")


# ------------------------------------------------------------------------------------ going on


@every_kind
def test_going_on(tmp_path, kind):
    output = tmp_path / "deep" / f"out.{kind}"
    with open_results(output, None, SETTINGS) as results:
        results.write("k1", recording("a"))
        results.fail("k2", "b", "/audio/b", "damaged")
        results.fail("", "c", "/audio/c", "no such file")
    assert (results.summary()["inputs"], results.summary()["done"]) == (3, 1)
    failed = beside(output, "failed.jsonl").read_text().splitlines()
    assert json.loads(failed[0]) == {"id": "b", "path": "/audio/b", "reason": "damaged"}
    assert len(failed) == 2

    with open_results(output, None, SETTINGS) as results:
        assert results.skip("k1", "a")
        assert not results.skip("k2", "b")  # failures are tried again
        results.write("k2", recording("b", topic="art"))
        results.fail("", "c", "/audio/c", "still no such file")
        assert not results.skip("k1", "d")  # a copy of a has rows of its own
        results.write("k1", recording("d", segments=0))
    expected = [*recording("a"), *recording("b", topic="art"), *recording("d", segments=0)]
    assert read(output) == table(expected)
    summary = json.loads(beside(output, "summary.json").read_text())
    assert summary == results.summary()
    assert summary == {
        "output": str(output),
        "format": kind,
        "inputs": 4,
        "done": 2,
        "skipped": 1,
        "failed": 1,
        "recordings": 3,
        "rows": 7,
        "seconds": 25.0,
        "topics": {"sport": 2, "art": 1},
        "settings": SETTINGS,
        "finished": True,
    }
    assert "still no such file" in beside(output, "failed.jsonl").read_text()

    before = output.read_bytes()
    with open_results(output, None, SETTINGS) as results:
        assert all(results.skip(key, id) for key, id in [("k1", "a"), ("k2", "b"), ("k1", "d")])
        results.write("k3", recording("c"))
    assert not beside(output, "failed.jsonl").exists()
    if kind in STREAMS:
        assert output.read_bytes().startswith(before)
    with open_results(output, None, SETTINGS, overwrite=True) as results:
        assert not results.skip("k1", "a")
        results.write("k1", recording("z"))
    assert read(output) == table(recording("z"))


@every_kind
def test_changed_audio_takes_the_place_of_its_rows(tmp_path, kind):
    output = tmp_path / f"out.{kind}"
    with open_results(output, None, SETTINGS) as results:
        for id in "abc":
            results.write("old", recording(id))
    with open_results(output, None, SETTINGS) as results:
        assert not results.skip("new", "b")
        results.write("new", recording("b", segments=3, topic="art"))
        results.fail("new", "c", "c", "cut off")  # what is known of it is kept
        assert results.skip("old", "a")
    expected = [*recording("a"), *recording("c"), *recording("b", segments=3, topic="art")]
    assert read(output) == table(expected)
    assert results.summary()["topics"] == {"sport": 2, "art": 1}
    with open_results(output, None, SETTINGS) as results:
        results.write("old", recording("z"))
        assert [results.skip(*one) for one in (("old", "b"), ("new", "b"))] == [False, True]
    assert read(output) == table([*expected, *recording("z")])


@pytest.mark.parametrize("kind", STREAMS)
def test_torn_and_lost_ends(tmp_path, kind):
    """Whatever a dead process left of the copy, the journal makes it whole."""
    output = tmp_path / f"out.{kind}"

    def work() -> None:  # and end without `close`
        results = open_results(output, None, SETTINGS)
        for id in "abc":
            if not results.skip(id, id):
                results.write(id, recording(id))

    def killed() -> None:
        assert in_a_child(work) == 0

    killed()
    whole = output.read_bytes()
    for torn in (whole + whole[-40:-20], whole[:-70], b"", whole[:5] + b"\0" * len(whole)):
        output.write_bytes(torn)
        killed()
        assert output.read_bytes() == whole
    output.unlink()
    killed()
    assert output.read_bytes() == whole
    with open_results(output, None, SETTINGS) as results:
        results.write("d", recording("d"))
    assert read(output) == table([one for id in "abcd" for one in recording(id)])


@every_kind
def test_a_killed_run_can_be_overwritten(tmp_path, kind):
    output = tmp_path / f"out.{kind}"

    def work() -> None:  # SQLite's log stays behind, with rows in it
        open_results(output, None, SETTINGS).write("k", recording("a"))
        os._exit(0)

    assert in_a_child(work) == 0
    with open_results(output, None, {"model": "another"}, overwrite=True) as results:
        assert not results.skip("k", "a")
        results.write("k", recording("b"))
    assert read(output) == table(recording("b"))


@every_kind
def test_rows_are_there_as_they_are_done(tmp_path, kind):
    output = tmp_path / f"out.{kind}"
    with open_results(output, None, SETTINGS) as results:
        for number, id in enumerate("abc", 1):
            results.write(id, recording(id))
            if kind != "parquet":  # which is written at the end
                assert len(read(output)) == 3 * number
    assert len(read(output)) == 9
    litter = {path.name for path in tmp_path.iterdir()} - {output.name, f"{output.name}.state"}
    assert litter == {f"{output.name}.summary.json"}


@every_kind
def test_an_error_in_the_work_keeps_what_is_done(tmp_path, kind):
    output = tmp_path / f"out.{kind}"

    def interrupted() -> None:
        with open_results(output, None, SETTINGS) as results:
            results.write("k", recording("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read(output) == table(recording("a"))
    assert json.loads(beside(output, "summary.json").read_text())["finished"] is False


def test_a_reader_of_sqlite_disturbs_nothing(tmp_path):
    output = tmp_path / "out.db"
    with closing(sqlite3.connect(output, isolation_level=None)) as reader:
        with open_results(output, None, SETTINGS) as results:
            results.write("k", recording("a"))
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM answers").fetchone() == (3,)
            results.write("l", recording("b"))
            assert reader.execute("SELECT count(*) FROM answers").fetchone() == (3,)
        assert len(read(output)) == 6
        with open_results(output, None, SETTINGS) as results:
            assert results.skip("l", "b")
    assert len(read(output)) == 6


def test_large_parquet_has_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("speechtaxi.results.output.ROW_GROUP", 4)
    rows = [one for id in "abc" for one in recording(id, heard=None if id == "a" else 0.5)]
    with open_results(tmp_path / "out.parquet", None, SETTINGS) as results:
        for id in range(0, 9, 3):
            results.write("k", rows[id : id + 3])
    assert pyarrow.parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups == 3
    assert read(tmp_path / "out.parquet") == table(rows)
    schema = pyarrow.parquet.read_schema(tmp_path / "out.parquet")
    types = {name: str(schema.field(name).type) for name in ("heard", "calibrated", "text")}
    assert types == {"heard": "double", "calibrated": "bool", "text": "string"}


def test_what_a_caller_gets_wrong(tmp_path):
    with open_results(tmp_path / "o.csv", None, SETTINGS) as results:
        with pytest.raises(ValueError, match="several recordings"):
            results.write("k", [answer("a"), answer("b", kind="segment")])
        for answers in ([], [answer("a", kind="segment")], [answer("a"), answer("a")]):
            with pytest.raises(ValueError, match="unpack"):
                results.write("k", answers)
        results.write("k", recording("a"))
        with pytest.raises(InputError, match=r"two inputs are called 'a'; name one folder"):
            results.write("l", recording("a"))
    assert results.summary()["inputs"] == 1
    assert read(tmp_path / "o.csv") == table(recording("a"))


# ------------------------------------------------------------------------------------- refusals


def test_formats_that_are_none(tmp_path):
    assert [kind_of(name) for name in ("a.CSV", "a.db", "-")] == ["csv", "sqlite", "jsonl"]
    assert kind_of("results.txt", "tsv") == "tsv"
    with pytest.raises(InputError, match=r"out\.txt: name it \.jsonl, \.csv.*or say its format"):
        open_results(tmp_path / "out.txt", None, {})
    with pytest.raises(InputError, match="cannot be xml; the formats are jsonl, csv"):
        open_results(tmp_path / "out.txt", "xml", {})
    with pytest.raises(InputError, match=r"-: cannot be sqlite; the formats are jsonl, csv, tsv$"):
        open_results("-", "sqlite", {})
    assert not list(tmp_path.iterdir())


@every_kind
def test_other_settings_are_refused(tmp_path, kind):
    output = tmp_path / f"out.{kind}"
    with open_results(output, None, SETTINGS) as results:
        results.write("k", recording("a"))
    before = output.read_bytes()
    other = SETTINGS | {"model": "runs/b", "route": "e2e"}
    message = r'written with model "runs/a" \(now "runs/b"\), route null \(now "e2e"\); give'
    with pytest.raises(InputError, match=message) as caught:
        open_results(output, None, other)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"written with top_k 3 \(now 2\)"):
        open_results(output, None, SETTINGS, top_k=2)
    assert output.read_bytes() == before
    with open_results(output, None, SETTINGS) as results:
        assert results.skip("k", "a")
    with open_results(output, None, other, overwrite=True) as results:
        results.write("k", recording("b"))
    assert [line["id"] for line in read(output)] == ["b"] * 3


def test_another_format_is_refused(tmp_path):
    with open_results(tmp_path / "out", "csv", SETTINGS):
        pass
    with pytest.raises(InputError, match=r'format "csv" \(now "jsonl"\)'):
        open_results(tmp_path / "out", "jsonl", SETTINGS)


@every_kind
@pytest.mark.parametrize("content", ["text", "database"])
def test_files_of_others_are_refused(tmp_path, kind, content):
    output = tmp_path / f"out.{kind}"
    if content == "text":
        output.write_text("my own notes\n" * 20)
    else:
        with sqlite3.connect(output) as database:
            database.execute("CREATE TABLE mine (x)")
    before = output.read_bytes()
    with pytest.raises(InputError, match=r"out\..*: is not from speechtaxi.*or overwrite it"):
        open_results(output, None, SETTINGS)
    assert output.read_bytes() == before
    assert list(tmp_path.iterdir()) == [output]
    with open_results(output, None, SETTINGS, overwrite=True) as results:
        results.write("k", recording("a"))
    assert read(output) == table(recording("a"))


@pytest.mark.parametrize("kind", [*STREAMS, "parquet"])
def test_a_file_that_was_edited_is_refused(tmp_path, kind):
    output = tmp_path / f"out.{kind}"
    with open_results(output, None, SETTINGS) as results:
        results.write("k", recording("a"))
    with output.open("ab") as file:
        file.write(b"my remark\n")
    edited = output.read_bytes()
    with pytest.raises(InputError, match="was changed by something else since"):
        open_results(output, None, SETTINGS)
    with pytest.raises(InputError, match="was changed by something else since"):
        open_results(output, None, SETTINGS)  # still
    assert output.read_bytes() == edited


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"folder\.csv: is not a regular file"):
        open_results(tmp_path / "folder.csv", None, {})
    with pytest.raises(InputError, match=r"pipe\.csv: is not a regular file"):
        open_results(tmp_path / "pipe.csv", None, {})
    with pytest.raises(InputError, match=r"out\.csv: cannot be written \(File exists: .*/file\)"):
        open_results(tmp_path / "file" / "out.csv", None, {})
    (tmp_path / "out.csv.state").write_text("notes of mine")
    with pytest.raises(InputError, match="is not from speechtaxi"):
        open_results(tmp_path / "out.csv", None, {})
    assert (tmp_path / "out.csv.state").read_text() == "notes of mine"


def test_an_empty_file_and_a_link_will_do(tmp_path):
    (tmp_path / "real.csv").touch(0o640)
    (tmp_path / "link.csv").symlink_to("real.csv")
    with open_results(tmp_path / "link.csv", None, {}) as results:
        results.write("k", recording("a"))
    assert (tmp_path / "link.csv").is_symlink()
    assert len(read(tmp_path / "real.csv")) == 3


@every_kind
def test_two_processes_at_once_are_refused(tmp_path, kind):
    output = tmp_path / f"out.{kind}"
    script = (
        "import sys; from speechtaxi.results import open_results\n"
        "results = open_results(sys.argv[1], None, {})\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"open\n"
    for overwrite in (False, True):
        with pytest.raises(InputError, match="another process is writing it; wait"):
            open_results(output, None, {}, overwrite=overwrite)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    with open_results(output, None, {}) as results:  # a dead process holds nothing
        results.write("k", recording("a"))
    assert read(output) == table(recording("a"))


# ------------------------------------------------------------------------------------ full disks


@every_kind
@pytest.mark.parametrize("limit", [60_000, 100_000, 150_001])
def test_a_full_disk_loses_nothing_that_was_reported(tmp_path, kind, limit):
    """No file may grow beyond a limit: as on a full disk, the first part of a write is done."""
    output = tmp_path / f"out.{kind}"
    reader, writer = os.pipe()

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        number = -1
        try:
            with open_results(output, None, {}) as results:
                for number in range(1000):
                    results.write("k", recording(f"{number}", text=f"{number:0900}"))
        except InputError as error:
            os.write(writer, json.dumps([number, str(error)]).encode())

    assert in_a_child(work) == 0
    os.close(writer)
    with open(reader) as report:
        done, message = json.load(report)
    assert "cannot be written" in message
    assert "what is done is kept" in message
    assert "\n" not in message
    assert 1 < done < 200
    if kind in STREAMS:
        assert len(read(output)) >= 3 * (done - 1)  # no half row before it is gone on with either
    with open_results(output, None, {}) as results:
        kept = [results.skip("k", f"{number}") for number in range(done + 2)]
        assert all(kept[:done])
        assert not kept[done + 1]
        for number in range(kept.index(False), done + 5):
            results.write("k", recording(f"{number}", text=f"{number:0900}"))
    assert read(output) == table(
        [one for number in range(done + 5) for one in recording(f"{number}", text=f"{number:0900}")]
    )


@pytest.mark.parametrize("kind", STREAMS)
def test_a_disk_that_fills_up_within_a_row(tmp_path, kind):
    class Full:
        """A file that takes ten bytes and no more."""

        def __init__(self, file: BinaryIO) -> None:
            self.file, self.left = file, 10

        def write(self, block: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.left = 0
            return self.file.write(block[:10])

        def __getattr__(self, name: str):
            return getattr(self.file, name)

    output = tmp_path / f"out.{kind}"
    results = open_results(output, None, {})
    results.write("k", recording("a"))
    before = output.read_bytes()
    results._stream = Full(results._stream)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        results.write("k", recording("b"))
    assert output.read_bytes() == before  # no half row
    results.close()  # by now there is room again, and the journal had it all
    assert results.summary()["done"] == results.summary()["recordings"] == 2
    assert read(output) == table([*recording("a"), *recording("b")])


def test_a_folder_that_may_not_be_written(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
        open_results(tmp_path / "out.csv", None, {})
