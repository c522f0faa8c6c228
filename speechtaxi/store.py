"""Transcripts on disk: whatever a recogniser wrote once is never computed again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import astuple, fields
from pathlib import Path

from speechtaxi.database import Database
from speechtaxi.languages import from_whisper
from speechtaxi.types import Transcript

COLUMNS = tuple(field.name for field in fields(Transcript))


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


class TranscriptStore(Database):
    """Transcripts by key, in an SQLite file that several processes may use at once.

    Raises:
        InputError: the file is not a transcript store, or cannot be written (from any method).
    """

    KIND = "transcript store"
    APPLICATION_ID = 0x53545458  # "STTX"
    SCHEMA = """
    CREATE TABLE transcripts (
        key TEXT PRIMARY KEY, text TEXT NOT NULL, language TEXT, heard TEXT, heard_probability REAL,
        avg_logprob REAL, no_speech_prob REAL, compression_ratio REAL, flags TEXT NOT NULL,
        seconds REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE digests (
        path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
        digest TEXT NOT NULL
    ) WITHOUT ROWID;
    """
    ELSEWHERE = "--store, SPEECHTAXI_CACHE"

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


def _row(transcript: Transcript) -> tuple[object, ...]:
    values = dict(zip(COLUMNS, astuple(transcript), strict=True))
    return tuple((values | {"flags": " ".join(transcript.flags)}).values())


def _transcript(*row: object) -> Transcript:
    values = dict(zip(COLUMNS, row, strict=True))
    return Transcript(**values | {"flags": tuple(str(values["flags"]).split())})  # type: ignore[arg-type]
