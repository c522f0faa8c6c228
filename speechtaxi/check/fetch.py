"""The verb `speechtaxi data fetch`: a published corpus becomes an ordinary manifest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from speechtaxi.check.findings import count
from speechtaxi.check.options import add_columns, progress
from speechtaxi.errors import InputError
from speechtaxi.languages import is_code

NAMED_AT_MOST = 20
"""Clips left out that are named on stderr; source.json names all."""


def add_fetch(verbs: Any) -> None:
    """Add the verb's arguments."""
    from speechtaxi.corpora import SOURCES

    known = "\n".join(f"  {name:<15} {source.about}" for name, source in SOURCES.items())
    verb = verbs.add_parser(
        "fetch",
        help="turn a published corpus into a manifest",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Turn a published corpus into a manifest with its recordings.",
        epilog=f"corpora:\n{known}\n  owner/name      any audio data set of the hub (Parquet)",
    )
    verb.add_argument("corpus", help="a name from below, or the id of a data set on the hub")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    verb.add_argument(
        "--from",
        dest="local",
        type=Path,
        metavar="DIR",
        help="folder with the published files, or a copied hub cache (default: the hub's cache)",
    )
    verb.add_argument(
        "--languages",
        nargs="+",
        type=_codes,
        default=[],
        metavar="CODE",
        help="ISO 639-3, or the corpus' own names (default: all)",
    )
    verb.add_argument("--revision", help="commit, branch or tag, where not the usual one")
    add_columns(verb, "corpus")
    verb.add_argument("--language", help="of all rows, where the corpus does not tell it")


def _codes(text: str) -> list[str]:
    return [code for code in text.split(",") if code]


def run_fetch(options: argparse.Namespace) -> int:
    """Fetch, and print what is there now; 1 where clips had to be left out."""
    from speechtaxi.corpora import Wish, fetch

    if options.language is not None and not is_code(options.language):
        raise InputError(f"--language {options.language}: give an ISO 639-3 code such as eng")
    languages = tuple(code for codes in options.languages for code in codes)
    wish = Wish(languages, dict(options.columns), options.language)
    written = fetch(
        options.corpus,
        options.output,
        wish,
        options.local,
        options.revision,
        lambda clips: progress(clips, "fetching"),
    )
    for note in written.notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in written.left_out[:NAMED_AT_MOST]:
        print(f"left out: {problem}", file=sys.stderr)
    seconds = {row.id: row.duration for row in written.rows if row.duration is not None}
    for part in count(written.rows, seconds):
        hours = "" if part["hours"] is None else f", {part['hours']:.2f} h"
        print(f"{part['language']} {part['split']}: {part['rows']} rows{hours}", file=sys.stderr)
    if written.left_out:
        print(f"{len(written.left_out)} clip(s) left out; see source.json", file=sys.stderr)
    print(written.manifest)
    return 1 if written.left_out else 0
