"""An SQLite file of ours, which several processes read and write at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from speechtaxi.errors import InputError

BUSY_SECONDS = 60.0
"""How long to wait while another process writes."""


class Database:
    """A file with the tables of `SCHEMA`, made where there is none.

    Raises:
        InputError: the file belongs to something else, or cannot be written (from any method).
    """

    KIND: ClassVar[str]
    """What it is called in messages."""
    APPLICATION_ID: ClassVar[int]
    """Tells it from other SQLite files, in its header."""
    SCHEMA: ClassVar[str]
    ELSEWHERE: ClassVar[str]
    """How a user chooses another place for it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make a {self.KIND} at {self.path}: {error.strerror}; choose another place "
                f"({self.ELSEWHERE})"
            ) from None
        with self._explained():
            # Transactions are begun by hand: IMMEDIATE waits its turn where an upgrade would fail.
            self._database = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA page_size = 16384")  # of a new file: rows may be large
            with self._transaction():
                self._create()
            self._database.execute("PRAGMA journal_mode = WAL")

    def _create(self) -> None:
        """Make the tables of a new file; refuse a file that belongs to something else."""
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and tables == 0:
            for statement in self.SCHEMA.split(";"):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA application_id = {self.APPLICATION_ID}")
        elif application != self.APPLICATION_ID:
            raise InputError(
                f"{self.path} is an SQLite file, but not a {self.KIND}; choose another place "
                f"({self.ELSEWHERE})"
            )
        else:
            self._migrate()

    def _migrate(self) -> None:
        """Bring a file of an earlier version up to date."""

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
            if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
                raise
            raise InputError(
                f"the {self.KIND} {self.path} cannot be used: {error}; make room, or choose "
                f"another place on a local disk ({self.ELSEWHERE}); what is done is kept"
            ) from error
