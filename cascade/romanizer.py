"""Any script in Latin letters: uroman (Hermjakob et al. 2018), loaded when first needed."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Set
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from uroman import Uroman

log = logging.getLogger(__name__)

MEMORY = 200_000
"""How many words are remembered: uroman takes a millisecond or so for each."""

_LATIN = regex.compile(r"[\p{scx=Latin}\p{scx=Common}\p{scx=Inherited}]*")


class Romanizer:
    """Romanises word by word and remembers the words, on disk too where it is given a folder.

    Args:
        folder: keeps romanised words for the processes that come after, in a file for each version
            of uroman; several may use it at once.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = folder
        self._words: dict[tuple[str, str], str] = {}

    def romanize(self, text: str, language: str | None = None, *, keep_latin: bool = False) -> str:
        """Return the text in Latin letters, as `Uroman.romanize_string` writes it.

        Args:
            language: ISO 639-3; uroman has rules of its own for some languages (a final Gujarati
                "a" is silent, a Ukrainian "г" is h).
            keep_latin: leave words in Latin script as they are, diacritics and all.

        >>> Romanizer().romanize("Україна, 2 години", "ukr")
        'Ukrayina, 2 hodyny'
        >>> Romanizer().romanize("Zoë très года", "rus", keep_latin=True)
        'Zoë très goda'
        """
        # uroman's rules end at a blank, so that words can be romanised alone and remembered.
        words = text.split(" ")
        # uroman changes no ASCII, and need not be loaded for it
        foreign = {w for w in words if not (w.isascii() or (keep_latin and is_latin(w)))}
        known = ((word, self._words.get((language or "", word))) for word in foreign)
        spelled = {word: text for word, text in known if text is not None}
        if len(spelled) < len(foreign):
            spelled |= self._spell(foreign - spelled.keys(), language or "")
        return " ".join(spelled.get(word, word) for word in words)

    def _spell(self, words: Set[str], language: str) -> dict[str, str]:
        spelled = self._kept(words, language)
        new = {
            word: self._uroman.romanize_string(word, language or None)
            for word in words - spelled.keys()
        }
        self._keep(new, language)
        spelled |= new
        if len(self._words) + len(spelled) > MEMORY:
            self._words = {}
        self._words |= {(language, word): text for word, text in spelled.items()}
        return spelled

    def _kept(self, words: Set[str], language: str) -> dict[str, str]:
        if self._database is None:
            return {}
        query = "SELECT word, text FROM words WHERE language = ? AND word = ?"
        try:
            rows = [self._database.execute(query, (language, w)).fetchone() for w in words]
        except sqlite3.Error as error:
            self._go_without(error)
            return {}
        return dict(row for row in rows if row is not None)

    def _keep(self, words: dict[str, str], language: str) -> None:
        if self._database is None or not words:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            with self._database:  # commits, or rolls back and raises
                self._database.executemany(
                    "INSERT OR IGNORE INTO words VALUES (?, ?, ?)",
                    ((language, word, text) for word, text in words.items()),
                )
        except sqlite3.Error as error:
            self._go_without(error)

    @cached_property
    def _database(self) -> sqlite3.Connection | None:
        if self.folder is None:
            return None
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            path = Path(self.folder) / f"romanized-{version('uroman')}.sqlite"
            database = sqlite3.connect(
                path, timeout=60.0, isolation_level=None, check_same_thread=False
            )
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is made again
            database.execute(
                "CREATE TABLE IF NOT EXISTS words (language TEXT, word TEXT, text TEXT NOT NULL, "
                "PRIMARY KEY (language, word)) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            self._go_without(error)
            return None
        return database

    def _go_without(self, error: Exception) -> None:
        log.warning("romanised words are not kept in %s: %s", self.folder, error)
        self.__dict__["_database"] = None

    @property
    def _uroman(self) -> Uroman:
        return _load_uroman()


def is_latin(word: str) -> bool:
    """Tell whether no letter, mark or digit of a word is of a script other than Latin.

    By Unicode's script extensions (UAX 24): a danda belongs to Indic scripts, a dash to all.

    >>> [word for word in ("Ọ̀rọ̀", "«été»", "2½", "दो", "१२", "WhatsAppను", "،") if is_latin(word)]
    ['Ọ̀rọ̀', '«été»', '2½']
    """
    return _LATIN.fullmatch(word) is not None


@cache
def romanizer(folder: str | None = None) -> Romanizer:
    """Return the romaniser that the whole process shares, for each folder one."""
    return Romanizer(folder)


@cache
def _load_uroman() -> Uroman:
    """Load uroman's tables, which takes seconds, once for the process."""
    from uroman import Uroman

    return Uroman()
