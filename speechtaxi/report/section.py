"""What a report is made of: sections with words, tables and figures, that every form prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from speechtaxi.statistics import Interval

Value: TypeAlias = str | int | float | Interval | None
Row: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True)
class Table:
    """Rows of raw values by column; all rows have the same columns.

    The columns "language" (an English name) and "system" are what a page filters by.
    """

    name: str
    """Of the file, unique in a report."""
    title: str
    rows: Sequence[Row]
    total: Row | None = None
    """A row that stays below when the others are sorted."""
    digits: int = 2
    folded: bool = False
    """Whether a page shows it only when asked, and Markdown not at all."""

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0])

    @property
    def footnotes(self) -> list[str]:
        """What the daggers say."""
        cells = (cell for row in (*self.rows, self.total or {}) for cell in row.values())
        return list(dict.fromkeys(c.note for c in cells if isinstance(c, Interval) and c.note))

    def text(self, value: Value) -> str:
        """Print a cell; a dagger marks an interval with a note."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        if isinstance(value, Interval):
            limits = f" [{self.text(value.low)}, {self.text(value.high)}]"
            dagger = " †" if value.note else ""
            return self.text(value.estimate) + ("" if math.isnan(value.low) else limits) + dagger
        if isinstance(value, float):
            least = 10**-self.digits
            if 0 < value < least / 2:
                return f"<{least}"
            return f"{round(value, self.digits) + 0.0:.{self.digits}f}"  # no minus before zero
        return f"{value:,}" if isinstance(value, int) else value


@dataclass(frozen=True)
class Figure:
    """A chart, its caption, and what a page filters it by."""

    name: str
    """Of the file, unique in a report."""
    title: str
    chart: Any
    """An Altair chart whose `description` says in words what it shows."""
    languages: Sequence[str] = ()
    """English names, where it is of some languages only."""
    systems: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """One question of a report and its answer; what has no rows is left out by whoever prints."""

    name: str
    title: str
    words: Sequence[str] = ()
    """Paragraphs made from the numbers; the first says how to read what follows."""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    legend: Mapping[str, str] = field(default_factory=dict[str, str])
    """What colours mean: word -> colour."""
    narrow: bool = False
    """Whether several of its figures fit beside each other."""
