"""What is done and what failed, in SQLite: whole recordings, whenever the process is killed."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from speechtaxi.errors import InputError

APPLICATION_ID = 0x53545253
"""Tells our journals from other SQLite files ("STRS", in their header)."""

SYNC_SECONDS = 1.0
"""How often the disk is waited for. A kill loses nothing that was put; a power cut loses what was
put since the last wait."""

DEATHS = 3
"""How many runs may die with the same input in hand. Some kills are meant for the run, not caused
by the input; but after the first death it is alone in hand, so that two more without its end are
chance only where it takes most of what runs are given, and then they would never get beyond it."""


class Journal:
    """The rows of an output, by recording; one process at a time.

    Args:
        output: what the rows are for; None keeps them in memory, without their text.
        live: the journal is the output itself, and others may read it meanwhile.
        columns: of the rows, and their types (str, float, bool).
        settings: what an output is gone on with must equal, plain values.

    Raises:
        InputError: the output is not ours or was changed, has other settings, is in use.
    """

    def __init__(
        self,
        output: Path | None,
        live: bool,
        columns: Mapping[str, type],
        settings: Mapping[str, Any],
        overwrite: bool,
    ) -> None:
        self.live, self.columns, self._synced = live, columns, 0.0
        path = None if output is None else output if live else beside(output, "state")
        self._lock = None if output is None or path is None else _claim(output, path, overwrite)
        # Transactions are begun by hand, as some of them wait for the disk.
        self._database = sqlite3.connect(
            path or ":memory:", timeout=60.0, isolation_level=None, check_same_thread=False
        )
        try:
            if not live:  # then no shared memory is needed, which network disks do not have
                self._run("PRAGMA locking_mode = EXCLUSIVE")
            with self._transaction(durable=True):
                self.closed = self._settle(settings, output)
            self._run("PRAGMA journal_mode = WAL")
            if output and not live and output.exists():
                self._refuse_changed(output)
            with self._transaction():
                self._run("UPDATE run SET closed = NULL")
                # What is in hand at the beginning was when the last run died.
                self._run("UPDATE hands SET deaths = deaths + held, held = 0")
        except BaseException:
            self.release()
            raise

    def _settle(self, settings: Mapping[str, Any], output: Path | None) -> int | None:
        """Make the tables, or compare the settings; return the output's size at a good end."""
        for statement in _schema(self.columns).split(";"):
            self._run(statement)
        given = {**settings, "columns": " ".join(self.columns)}  # those of this version
        found = self._run("SELECT settings, closed FROM run").fetchone()
        if found is None:
            self._run("INSERT INTO run VALUES (?, NULL)", (json.dumps(given),))
            return None
        stored: dict[str, Any] = json.loads(found[0])
        differing = [
            f"{name} {_short(stored.get(name))} (now {_short(given.get(name))})"
            for name in stored | given
            if stored.get(name) != given.get(name)
        ]
        if differing:
            raise InputError(
                f"{output}: was written with {', '.join(differing)}; "
                "give the same, choose another name, or overwrite it"
            )
        return found[1]

    def _refuse_changed(self, output: Path) -> None:
        if self.closed is not None and self.closed != size(output):
            raise InputError(
                f"{output}: was changed by something else since it was written; "
                "choose another name, or overwrite it"
            )

    def has(self, id: str, key: str) -> bool:
        """Tell whether a recording is done; if so, it is no failure any more."""
        query = "SELECT 1 FROM recordings WHERE id = ? AND key = ?"
        if not self._run(query, (id, key)).fetchone():
            return False
        self._run("DELETE FROM failures WHERE id = ?", (id,))
        return True

    def deaths(self, id: str, key: str | None = None) -> int:
        """Return how many runs died with an input in hand since it was last finished."""
        query = "SELECT deaths FROM hands WHERE id = ? AND key = coalesce(?, key)"
        found = self._run(query, (id, key)).fetchone()
        return found[0] if found else 0

    def hold(self, id: str, key: str) -> None:
        """Note, where a kill cannot lose it, that an input is in hand until it is put or failed."""
        values = (id, key, self.deaths(id, key))
        with self._transaction():
            self._run("INSERT OR REPLACE INTO hands VALUES (?, ?, ?, 1)", values)

    def forgive(self) -> None:
        """Forget deaths."""
        with self._transaction():
            self._run("DELETE FROM hands")

    def put(self, entry: Mapping[str, Any], lines: Iterable[Sequence[Any]]) -> bool:
        """Write a recording and its rows, all or none; tell whether it takes another's place.

        Args:
            entry: id, key, path, topic, seconds, rows (how many) and block (as text).
            lines: its rows by column, where they are to be kept so.
        """
        with self._transaction():
            self._run("DELETE FROM failures WHERE id = :id", entry)
            self._run("DELETE FROM hands WHERE id = :id", entry)
            replaced = self._run("DELETE FROM recordings WHERE id = :id", entry).rowcount > 0
            if replaced:
                self._run("DELETE FROM answers WHERE id = :id", entry)
            self._run(
                "INSERT INTO recordings VALUES "
                "(NULL, :id, :key, :path, :topic, :seconds, :rows, :block)",
                entry,
            )
            holes = ", ".join("?" * len(self.columns))
            self._database.executemany(f"INSERT INTO answers VALUES ({holes})", lines)
        return replaced

    def fail(self, id: str, key: str, path: str, reason: str) -> None:
        """Note that an input could not be used; rows that it had before stay."""
        with self._transaction():
            self._run("DELETE FROM hands WHERE id = ? AND held", (id,))
            self._run(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (id, key, path, reason)
            )

    def failures(self) -> list[dict[str, str]]:
        """Return what failed and is not done since: id, path, reason."""
        found = self._run("SELECT id, path, reason FROM failures ORDER BY id")
        return [{"id": id, "path": path, "reason": reason} for id, path, reason in found]

    def totals(self) -> dict[str, Any]:
        """Return counts of all that is done: recordings, rows, seconds of audio, topics."""
        sums = "count(*), CAST(total(rows) AS INTEGER), round(total(seconds), 3)"
        recordings, rows, seconds = self._run(f"SELECT {sums} FROM recordings").fetchone()
        topics = "SELECT topic, count(*) FROM recordings GROUP BY topic ORDER BY 2 DESC, 1"
        return {
            "recordings": recordings,
            "rows": rows,
            "seconds": seconds,
            "topics": dict(self._run(topics).fetchall()),
        }

    def blocks(self) -> Iterator[bytes]:
        """Yield the rows of each recording as text."""
        return (block for (block,) in self._run("SELECT block FROM recordings ORDER BY number"))

    def lines(self, count: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows by column, at most `count` at once."""
        found = self._run("SELECT * FROM answers ORDER BY rowid")
        while some := found.fetchmany(count):
            yield some

    def finish(self, written: int) -> None:
        """Remember how many bytes the finished output has."""
        with self._transaction(durable=True):
            self._run("UPDATE run SET closed = ?", (written,))
        if self.live:  # one plain file again, unless somebody is reading it
            self._run("PRAGMA busy_timeout = 0")
            with suppress(sqlite3.OperationalError):
                self._run("PRAGMA journal_mode = DELETE")

    def release(self) -> None:
        """Let others have the output; what is still in hand has not killed us."""
        with suppress(sqlite3.Error):  # such as a full disk, of which we have heard
            self._run("UPDATE hands SET held = 0")
        self._database.close()
        if self._lock is not None:
            os.close(self._lock)  # after SQLite, whose own locks on the file it would drop
            self._lock = None

    def _run(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        return self._database.execute(statement, values)

    @contextmanager
    def _transaction(self, durable: bool = False) -> Generator[None, None, None]:
        """Do all or nothing; wait for the disk if told to, or if the last time is long ago."""
        durable = durable or time.monotonic() - self._synced > SYNC_SECONDS
        self._run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._run("BEGIN IMMEDIATE")
        with self._database:  # commits, or rolls back and raises
            yield
        if durable:
            self._synced = time.monotonic()


@contextmanager
def explained(output: Path | None) -> Generator[None, None, None]:
    """Tell in one line why an output cannot be written."""
    try:
        yield
    except BrokenPipeError:  # the front door's business
        raise
    except (OSError, sqlite3.DatabaseError) as error:
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
            raise
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        raise InputError(
            f"{output or 'stdout'}: cannot be written ({reason}); what is done is kept: make room "
            "or give permission and repeat the command, or choose another name"
        ) from error


def size(path: Path) -> int:
    """Return a file's size in bytes; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def beside(path: Path, suffix: str) -> Path:
    """Return the file that lies beside an output.

    >>> beside(Path("a/out.csv"), "state").as_posix()
    'a/out.csv.state'
    """
    return path.with_name(f"{path.name}.{suffix}")


def _claim(output: Path, journal: Path, overwrite: bool) -> int:
    """Lock an output, if it is ours; the system unlocks it when we are killed."""
    if output.exists() and not output.is_file():
        raise InputError(f"{output}: is not a regular file; name a file, or - for stdout")
    foreign = InputError(
        f"{output}: is not from speechtaxi, or {journal.name} was removed from beside it; "
        "choose another name, or overwrite it"
    )
    if not overwrite and size(output) and not size(journal):
        raise foreign
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(journal, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if overwrite:
            os.ftruncate(lock, 0)  # SQLite drops the log of an empty file
            for old in {output, beside(output, "failed.jsonl"), beside(output, "summary.json")}:
                if old != journal:
                    old.unlink(missing_ok=True)
        head = os.pread(lock, 72, 0)  # SQLite's header ends with the application's number
        if head and head[68:] != APPLICATION_ID.to_bytes(4, "big"):
            raise foreign
    except BlockingIOError:
        os.close(lock)
        raise InputError(
            f"{output}: another process is writing it; wait for its end, or choose another name"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _schema(columns: Mapping[str, type]) -> str:
    types = {str: "TEXT", float: "REAL", bool: "INTEGER"}
    answers = ", ".join(f'"{name}" {types[kind]}' for name, kind in columns.items())
    return f"""
        PRAGMA application_id = {APPLICATION_ID};
        CREATE TABLE IF NOT EXISTS run (settings TEXT NOT NULL, closed INTEGER);
        CREATE TABLE IF NOT EXISTS recordings (
            number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL,
            path TEXT NOT NULL, topic TEXT NOT NULL, seconds REAL NOT NULL, rows INTEGER NOT NULL,
            block BLOB NOT NULL);
        CREATE TABLE IF NOT EXISTS failures (
            id TEXT PRIMARY KEY, key TEXT NOT NULL, path TEXT NOT NULL, reason TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS hands (
            id TEXT PRIMARY KEY, key TEXT NOT NULL, deaths INTEGER NOT NULL, held INTEGER NOT NULL);
        CREATE TABLE IF NOT EXISTS answers ({answers})"""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
