"""Answers as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from speechtaxi.types import Answer


def show(answers: Sequence[Answer], top_k: int) -> None:
    """Print a row for each recording, and below it one for each of its segments."""
    table = Table(header_style="bold")
    table.add_column("file", overflow="fold")
    for name in ("seconds", "topic", "probabilities"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    others = {
        "language": lambda a: a.language + (f" {a.heard:.2f}" if a.heard is not None else ""),
        "transcript": lambda a: a.text or "",
        "romanized": lambda a: a.romanized or "",
        "flags": lambda a: " ".join(a.flags),
    }
    told = {
        "language": any(answer.heard is not None for answer in answers),
        "transcript": any(answer.text is not None for answer in answers),
        "romanized": any(answer.romanized for answer in answers),
        "flags": any(answer.flags for answer in answers),
    }
    shown = [name for name in others if told[name]]
    for name in shown:
        table.add_column(name, overflow="fold")
    segments: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.kind == "segment":
            segments.setdefault(answer.id, []).append(answer)
    for answer in (a for a in answers if a.kind == "recording"):
        parts = segments.get(answer.id, [])
        for row in (answer, *parts):
            ranked = sorted(row.probabilities.items(), key=lambda item: -item[1])[:top_k]
            inside = row.kind == "segment"
            cells = [
                f"  {row.span.start:.1f}-{row.span.end:.1f}" if inside else row.id,
                f"{row.span.end - row.span.start:.1f}",
                row.topic,
                "  ".join(f"{label} {chance:.2f}" for label, chance in ranked),
                *("" if name == "transcript" and parts and not inside else others[name](row)
                  for name in shown),
            ]  # fmt: skip
            table.add_row(*map(Text, cells))
    Console().print(table)
