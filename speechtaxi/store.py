"""Transcripts on disk: whatever a recogniser wrote once is never computed again."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path

from speechtaxi.errors import InputError
from speechtaxi.languages import from_whisper
from speechtaxi.types import Transcript

APPLICATION_ID = 0x53545458
"""Tells a transcript store from other SQLite files ("STTX", in its header)."""

BUSY_SECONDS = 60.0
"""How long to wait while another process writes."""

COLUMNS = tuple(field.name for field in fields(Transcript))

SCHEMA = f"""
CREATE TABLE transcripts (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, language TEXT, heard TEXT, heard_probability REAL,
    avg_logprob REAL, no_speech_prob REAL, compression_ratio REAL, flags TEXT NOT NULL,
    seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE digests (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest TEXT NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
"""


def default_path() -> Path:
    """Return the user's store: $SPEECHTAXI_CACHE/transcripts.sqlite, else below ~/.cache."""
    cache = os.environ.get("SPEECHTAXI_CACHE") or Path.home() / ".cache" / "speechtaxi"
    return Path(cache) / "transcripts.sqlite"


def key(
    digest: str, start: float, duration: float | None, fingerprint: str, language: str | None
) -> str:
    """Return the name of a transcript: the same wherever the audio lies and whoever asks.

    Args:
        digest: hash of the audio file.
        start, duration: the segment, in seconds.
        fingerprint: the recogniser, its weights and its decoding options.
        language: what the recogniser is told to expect.
    """
    length = None if duration is None else float(duration)
    parts = json.dumps([digest, float(start), length, fingerprint, language])
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


class TranscriptStore:
    """Transcripts by key, in an SQLite file that several processes may use at once.

    Raises:
        InputError: the file is not a transcript store, or cannot be written (from any method).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make a transcript store at {self.path}: {error.strerror}; "
                "choose another place (--store, SPEECHTAXI_CACHE)"
            ) from None
        with self._explained():
            # Transactions are begun by hand: IMMEDIATE waits its turn where an upgrade would fail.
            self._database = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            with self._transaction():
                self._create()
            self._database.execute("PRAGMA journal_mode = WAL")

    def _create(self) -> None:
        """Make the tables of a new file; refuse a file that belongs to something else."""
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and tables == 0:
            for statement in SCHEMA.split(";"):
                self._database.execute(statement)
        elif application != APPLICATION_ID:
            raise InputError(
                f"{self.path} is an SQLite file, but not a transcript store; choose another place"
            )
        else:
            self._migrate()

    def _migrate(self) -> None:
        """Bring an older store up to date: it kept Whisper's tags, and no probability of them."""
        columns = self._database.execute("PRAGMA table_info(transcripts)").fetchall()
        if "heard_probability" in (column[1] for column in columns):
            return
        self._database.execute("ALTER TABLE transcripts ADD COLUMN heard_probability REAL")
        tags = "SELECT DISTINCT heard FROM transcripts WHERE heard IS NOT NULL"
        codes = [(from_whisper(tag), tag) for (tag,) in self._database.execute(tags)]
        self._database.executemany("UPDATE transcripts SET heard = ? WHERE heard = ?", codes)

    def get(self, keys: Iterable[str]) -> dict[str, Transcript]:
        """Return what is there of `keys`."""
        query = f"SELECT {', '.join(COLUMNS)} FROM transcripts WHERE key = ?"
        with self._explained():
            rows = (self._database.execute(query, (name,)).fetchone() for name in keys)
            return {row[0]: _transcript(*row) for row in rows if row is not None}

    def put(self, transcripts: Iterable[Transcript]) -> None:
        """Write all or none: once this returns, they survive a kill and a power cut."""
        holes = ", ".join("?" * len(COLUMNS))
        with self._explained(), self._transaction(durable=True):
            self._database.executemany(
                f"INSERT OR REPLACE INTO transcripts ({', '.join(COLUMNS)}) VALUES ({holes})",
                (_row(transcript) for transcript in transcripts),
            )

    def digest(self, path: str | os.PathLike[str], compute: Callable[[str], str]) -> str:
        """Return `compute(path)`, remembered as long as the file's size and time stay the same."""
        name = os.path.abspath(path)
        try:
            status = os.stat(name)
        except OSError:
            return compute(name)  # which says what is wrong with the file
        state = (status.st_size, status.st_mtime_ns)
        query = "SELECT digest FROM digests WHERE path = ? AND size = ? AND mtime_ns = ?"
        with self._explained():
            if row := self._database.execute(query, (name, *state)).fetchone():
                return row[0]
        digest = compute(name)
        with self._explained(), self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (name, *state, digest)
            )
        return digest

    @contextmanager
    def _transaction(self, durable: bool = False) -> Generator[None, None, None]:
        """Do all or nothing; only what is `durable` waits for the disk."""
        self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:  # commits, or rolls back and raises
            yield

    @contextmanager
    def _explained(self) -> Generator[None, None, None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) not in (sqlite3.DatabaseError, sqlite3.OperationalError):
                raise
            raise InputError(
                f"the transcript store {self.path} cannot be used: {error}; make room, or choose "
                "another place on a local disk (--store, SPEECHTAXI_CACHE); what is done is kept"
            ) from error


def _row(transcript: Transcript) -> tuple[object, ...]:
    values = dict(zip(COLUMNS, astuple(transcript), strict=True))
    return tuple((values | {"flags": " ".join(transcript.flags)}).values())


def _transcript(*row: object) -> Transcript:
    values = dict(zip(COLUMNS, row, strict=True))
    return Transcript(**values | {"flags": tuple(str(values["flags"]).split())})  # type: ignore[arg-type]
