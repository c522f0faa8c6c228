"""The file that a user named: opened, gone on with, appended to, finished."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from speechtaxi.errors import InputError
from speechtaxi.results.journal import DEATHS, Journal, beside, explained, size
from speechtaxi.results.rows import cells, columns, encode, header, json_line, plain, row
from speechtaxi.types import Answer

STREAMS, TABLES = ("jsonl", "csv", "tsv"), ("parquet", "sqlite")
KINDS = STREAMS + TABLES
SUFFIXES = {f".{kind}": kind for kind in KINDS} | {".db": "sqlite", ".sqlite3": "sqlite"}

ROW_GROUP = 10_000
"""Rows of Parquet that are held in memory."""


def kind_of(output: str | Path, kind: str | None = None) -> str:
    """Return an output's format: as told, else by its suffix, else (stdout, "-") JSONL.

    Raises:
        InputError: no such format, or not one for stdout.
    """
    stdout = str(output) == "-"
    known = STREAMS if stdout else KINDS
    kind = kind or ("jsonl" if stdout else SUFFIXES.get(Path(output).suffix.lower()))
    if kind is None:
        raise InputError(f"{output}: name it {', '.join(SUFFIXES)}, or say its format")
    if kind not in known:
        raise InputError(f"{output}: cannot be {kind}; the formats are {', '.join(known)}")
    return kind


def open_results(
    output: str | Path,
    kind: str | None,
    settings: Mapping[str, Any],
    *,
    top_k: int = 3,
    overwrite: bool = False,
    retry_crashed: bool = False,
) -> Results:
    """Open an output, or go on with one; "-" is stdout, which nothing can go on with.

    Args:
        kind: jsonl, csv, tsv, parquet or sqlite; None takes it from the suffix (stdout: jsonl).
        settings: what the rows depend on, plain values; an output goes on with equal ones only.
        top_k: topics told of each row, best first.
        overwrite: begin anew, whatever is there.
        retry_crashed: let be begun what runs died of; see `Results.begin`.

    Raises:
        InputError: unknown format, a file that is not ours or was changed, other settings, another
            process at the same output, a place that cannot be written.
    """
    # A link stays one: the file that it leads to is written.
    path = None if str(output) == "-" else Path(os.path.realpath(output))
    results = Results(path, kind_of(output, kind), settings, top_k, overwrite)
    if retry_crashed:
        results.forgive()
    return results


class Results:
    """An output and its journal; a context manager.

    Recordings go by id, and by key, as an id may hold something else tomorrow: what is done under
    both is skipped; rows of an id under another key take the place of the old ones. What failed is
    tried again by the next run, and rows that an id had before stay.

    The end writes OUTPUT.summary.json and, if anything failed, OUTPUT.failed.jsonl.
    """

    def __init__(
        self, path: Path | None, kind: str, settings: Mapping[str, Any], top_k: int, overwrite: bool
    ) -> None:
        self.path, self.kind, self.top_k = path, kind, top_k
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
        self._seen = set[str]()
        self._counts = {"done": 0, "skipped": 0, "failed": 0}
        self._behind = False  # whether the output may lack what the journal has, or have more
        self._stream: BinaryIO | None = None
        self._summary: dict[str, Any] | None = None
        fixed = self.settings | {"format": kind, "top_k": top_k}
        with explained(path):
            live = kind == "sqlite"
            self._journal = Journal(path, live, columns(top_k), fixed, overwrite)
            try:
                self._open()
            except BaseException:
                self._release()
                raise

    def _open(self) -> None:
        if self.path is None:
            self._stream, self._size = sys.stdout.buffer, 0
            self._append(header(self.kind, self.top_k))
        elif self.kind != "sqlite":
            self._behind = self._journal.closed is None or not self.path.exists()
            if self.kind in STREAMS:
                if self._behind:
                    self._export(self.path)
                    self._behind = False
                self._stream, self._size = self.path.open("ab", buffering=0), size(self.path)

    def skip(self, key: str, id: str) -> bool:
        """Tell whether a recording is done, with this content; if so, it counts as skipped.

        Args:
            key: `audio.digest`.
        """
        with explained(self.path):
            done = self._journal.has(plain(id), key)
        if done:
            self._once(id)
            self._counts["skipped"] += 1
        return done

    def begin(self, key: str, id: str) -> None:
        """Note that a recording is in hand, until it is written or failed or the run ends.

        Raises:
            InputError: too many runs were killed while it was in hand, as by a fault in a decoder
                or for want of memory: it is not to be tried, lest no run get beyond it.
        """
        with explained(self.path):
            if (deaths := self._journal.deaths(plain(id), key)) >= DEATHS:
                raise InputError(
                    f"the process died {deaths} times while this was in hand; mend or remove it, "
                    "or try it again with --retry_crashed"
                )
            self._journal.hold(plain(id), key)

    def suspect(self, id: str) -> bool:
        """Tell whether a recording was in hand when a run died: begun alone, it is found out."""
        with explained(self.path):
            return self._journal.deaths(plain(id)) > 0

    def forgive(self) -> None:
        """Forget which recordings were in hand when runs died."""
        with explained(self.path):
            self._journal.forgive()

    def write(self, key: str, answers: Sequence[Answer]) -> None:
        """Write the rows of one recording, its segments' and its own: all of them or none.

        Raises:
            InputError: the output cannot be written, or a second input has this id.
        """
        (whole,) = (answer for answer in answers if answer.kind == "recording")
        if any(answer.id != whole.id for answer in answers):
            raise ValueError(f"rows of several recordings at once, among them {whole.id}")
        rows = [row(answer, self.top_k) for answer in answers]
        block, lines = b"", list[list[Any]]()
        if self.kind in STREAMS:
            block = b"".join(encode(told, self.kind, self.top_k) for told in rows)
        else:
            lines = [cells(told, self.top_k) for told in rows]
        entry = {
            "id": plain(whole.id),
            "key": key,
            "path": plain(whole.path),
            "topic": whole.topic,
            "seconds": whole.span.end - whole.span.start,
            "rows": len(rows),
            "block": block if self.path else b"",
        }
        self._once(whole.id)
        behind, self._behind = self._behind, True  # if anything stops us here
        with explained(self.path):
            replaced = self._journal.put(entry, lines)
            self._counts["done"] += 1
            if self._stream:
                self._append(block)
        self._behind = behind or replaced or self.kind == "parquet"

    def fail(self, key: str, id: str, path: str, reason: str) -> None:
        """Note that an input could not be used, and why; `key` is "" where it could not be read."""
        self._once(id)
        with explained(self.path):
            self._journal.fail(plain(id), key, plain(path), plain(reason))
        self._counts["failed"] += 1

    def summary(self) -> dict[str, Any]:
        """Return counts: of this run's inputs, and of all that the output holds.

        `inputs` is the sum of `done`, `skipped` (done before) and `failed`. `recordings`, `rows`,
        `seconds` (of audio) and `topics` (recordings by topic) are the output's, whichever run
        wrote them.
        """
        if self._summary is not None:
            return self._summary
        with explained(self.path):
            return {
                "output": str(self.path or "-"),
                "format": self.kind,
                "inputs": sum(self._counts.values()),
                **self._counts,
                **self._journal.totals(),
                "settings": self.settings,
            }

    def close(self, finished: bool = True) -> None:
        """Finish the output, the summary and the list of failures; `finished`: all was tried."""
        if self._summary is not None:
            return
        try:
            with explained(self.path):
                summary = self.summary() | {"finished": finished}
                if self.path is not None:
                    self._finish(self.path, summary)
                self._summary = summary
        finally:
            self._release()

    def _finish(self, path: Path, summary: Mapping[str, Any]) -> None:
        if self._behind:
            self._export(path)
        elif self._stream:
            os.fsync(self._stream.fileno())
        if failures := self._journal.failures():
            _replace(beside(path, "failed.jsonl"), map(json_line, failures))
        else:
            beside(path, "failed.jsonl").unlink(missing_ok=True)
        text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
        _replace(beside(path, "summary.json"), [text.encode("utf-8", "backslashreplace")])
        self._journal.finish(size(path))

    def _release(self) -> None:
        if self._stream and self.path is not None:
            self._stream.close()
        self._journal.release()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close(finished=kind is None)
        except InputError:
            if kind is None:  # else what stopped the work says more
                raise

    def _once(self, id: str) -> None:
        if id in self._seen:
            raise InputError(
                f"two inputs are called '{id}'; name one folder that holds both, "
                "or give ids in a manifest"
            )
        self._seen.add(id)

    def _append(self, block: bytes) -> None:
        stream = cast(BinaryIO, self._stream)
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[stream.write(rest) :]
            stream.flush()
        except OSError:
            if self.path is not None:  # a full disk takes the first part of a row
                stream.truncate(self._size)
            raise
        self._size += len(block)

    def _export(self, path: Path) -> None:
        """Write the output anew from the journal."""
        if self.kind in STREAMS:
            _replace(path, chain([header(self.kind, self.top_k)], self._journal.blocks()))
        elif self.kind == "parquet":
            with _draft(path) as draft:
                self._write_parquet(draft)

    def _write_parquet(self, draft: Path) -> None:
        arrow = cast(Any, import_module("pyarrow"))
        parquet = cast(Any, import_module("pyarrow.parquet"))
        types = {str: arrow.string(), float: arrow.float64(), bool: arrow.bool_()}
        schema = arrow.schema([(name, types[kind]) for name, kind in columns(self.top_k).items()])
        with parquet.ParquetWriter(draft, schema) as writer:
            for lines in self._journal.lines(ROW_GROUP):
                arrays = [
                    arrow.array(values).cast(kind)
                    for values, kind in zip(zip(*lines, strict=True), schema.types, strict=True)
                ]
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


@contextmanager
def _draft(path: Path) -> Generator[Path, None, None]:
    """Yield the name of a file that takes the place of `path` once it is whole."""
    draft = path.with_name(f".{path.name}.part")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _replace(path: Path, blocks: Iterable[bytes]) -> None:
    with _draft(path) as draft, draft.open("wb") as file:
        file.writelines(blocks)
