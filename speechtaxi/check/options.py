"""What both verbs take and show."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TypeVar

from speechtaxi.records import ALIASES

Item = TypeVar("Item")


def add_columns(verb: argparse.ArgumentParser, whose: str) -> None:
    """Let a user say what a manifest or corpus calls our fields."""
    verb.add_argument(
        "--columns",
        nargs="+",
        type=pair,
        default=[],
        metavar="OURS=THEIRS",
        help=f"what the {whose} calls our fields ({', '.join(ALIASES)})",
    )


def pair(text: str) -> tuple[str, str]:
    """Parse a column mapping.

    >>> pair("label=topic")
    ('label', 'topic')
    """
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise argparse.ArgumentTypeError(f"'{text}' is not OURS=THEIRS, such as label=topic")
    return ours, theirs


def progress(items: Iterable[Item], doing: str) -> Iterable[Item]:
    """Yield the items, with a bar on stderr where somebody watches."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    quiet = not console.is_terminal
    return track(items, doing, console=console, transient=True, disable=quiet)
