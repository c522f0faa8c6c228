"""Readers of files that others write: they read what is there, or say in one line why not."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest, read_predictions, read_run
from speechtaxi.store import TranscriptStore

quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=6,
)
ROW = {"id": "a", "audio": "a.wav", "language": "eng", "split": "train", "label": "x", "start": 0.0}
TOLD = {"id": "a", "language": "eng", "label": "x", "prediction": "x", "probabilities": {"x": 1.0}}


def mutated(row: dict) -> some.SearchStrategy[bytes]:
    """Lines of JSON that are almost right: some fields are gone, or hold something else."""
    fields = some.fixed_dictionaries(
        {}, optional={name: some.just(value) | values for name, value in row.items()}
    )
    lines = some.lists(fields.map(json.dumps), min_size=1, max_size=4)
    return lines.map(lambda found: "\n".join(found).encode("utf-8", "surrogatepass"))


def tries(read, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    told = None
    try:
        read(path)
    except InputError as error:
        told = str(error)
    assert told is None or (len(told.splitlines()) == 1 and str(path.parent) in told)


@quick
@given(content=some.binary(max_size=200) | mutated(ROW))
@example(content=b"\xff\xfe\x00")
@example(content=b'{"id": 1e999}')
@example(content=b"[" * 5000)
@example(content=b'{"start": ' + b"9" * 5000 + b"}")
def test_manifests_of_json(tmp_path, content):
    tries(read_manifest, tmp_path / "m.jsonl", content)


@quick
@given(
    content=some.binary(max_size=200)
    | some.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))
)
@example(content=b'id,audio,language\n"a,b\n')
@example(content=b"id,id\n1,2\n")
@example(content=b"id,audio,language\n" + b"x" * 200_000)
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.parquet"])
def test_manifests_of_tables(tmp_path, name, content):
    tries(read_manifest, tmp_path / name, content)


@quick
@given(content=some.binary(max_size=200) | mutated(TOLD))
def test_predictions(tmp_path, content):
    tries(read_predictions, tmp_path / "p.jsonl", content)


@quick
@given(content=some.binary(max_size=200) | values.map(lambda v: json.dumps(v).encode()))
def test_run_records(tmp_path, content):
    tries(lambda path: read_run(path.parent), tmp_path / "run.json", content)


@quick
@given(content=some.binary(max_size=400))
@example(content=b"SQLite format 3\x00" + b"\x00" * 100)
def test_transcript_stores(tmp_path, content):
    path = tmp_path / "t.sqlite"
    for left in tmp_path.glob("t.sqlite*"):
        left.unlink(missing_ok=True)  # SQLite may be quicker
    tries(lambda p: TranscriptStore(p).get({"k"}), path, content)


def test_a_store_of_another_kind_is_told(tmp_path):
    path = tmp_path / "t.sqlite"
    with sqlite3.connect(path) as base:
        base.execute("create table transcripts (colour text)")
    with pytest.raises(InputError, match=r"t\.sqlite"):
        TranscriptStore(path).get({"k"})
