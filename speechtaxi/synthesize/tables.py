"""Texts from tables such as Taxi1500's: `verse_id label split text`, a file for each language."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from speechtaxi.errors import InputError
from speechtaxi.languages import is_code
from speechtaxi.records import read_manifest
from speechtaxi.synthesize.voices import Take, take
from speechtaxi.types import Utterance

log = logging.getLogger(__name__)


def table_takes(
    tables: Sequence[str],
    languages: Sequence[str] | None,
    voices: Mapping[str, Sequence[str]],
    limit: int | None,
    seed: int,
) -> list[Take]:
    """Return a take of each row; the voices of a split take turns within each label.

    A file without a language column is in the language of its name, as in eng.tsv.

    Raises:
        InputError: a bad table, a row without text (one of signs only is left out), two rows of one
            name, a language not there.
    """
    rows = list(_named(row for table in tables for row in _rows(Path(table))))
    if not rows:
        raise InputError(f"there is nothing to say in {', '.join(tables)}")
    there = dict.fromkeys(row.language for row in rows)
    for code in languages or ():
        if code not in there:
            raise InputError(f"no rows in '{code}'; the tables hold {', '.join(there)}")
    rows = [row for row in rows if row.language in (languages or there)]
    turns: dict[tuple[str | None, ...], int] = {}
    spoken: list[Take] = []
    for row in _first(rows, limit):
        part = (row.language, row.split, row.label)
        names = voices.get(row.split, voices["test"])
        speaker = names[turns.setdefault(part, len(turns)) % len(names)]
        turns[part] += 1
        spoken.append(take(replace(row, speaker=speaker), f"{seed}/{row.id}"))
    return spoken


def _rows(table: Path) -> Iterator[Utterance]:
    for row in read_manifest(table, language=table.stem if is_code(table.stem) else None):
        if not row.text:
            raise InputError(f"{table}: row {row.id} has no text to speak")
        if any(letter.isalnum() for letter in row.text):
            yield row
        else:  # editions of the Bible have empty verses, which would end hours of work
            log.warning("%s: left out row %s: nothing to say in '%s'", table, row.id, row.text)


def _named(rows: Iterable[Utterance]) -> Iterator[Utterance]:
    """Make ids that can be names of files and differ between languages."""
    seen: set[str] = set()
    for row in rows:
        name = re.sub(r"[^\w.-]+", "_", row.id.removeprefix(f"{row.language}-"))
        row = replace(row, id=f"{row.language}-{name}", audio=None, start=0.0, duration=None)
        if row.id in seen:
            raise InputError(f"two rows are called {row.id}; give each its own id")
        seen.add(row.id)
        yield row


def _first(rows: list[Utterance], limit: int | None) -> Iterator[Utterance]:
    """Yield the first `limit` rows of each language and split, as they come."""
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows:
        seen[row.language, row.split] += 1
        if limit is None or seen[row.language, row.split] <= limit:
            yield row
