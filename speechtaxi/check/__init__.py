"""The front door `speechtaxi data`: fetch a published corpus, check any corpus."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from speechtaxi.check.fetch import add_fetch, run_fetch
from speechtaxi.check.findings import (
    SPLIT_ORDER,
    Findings,
    count,
    count_labels,
    inspect,
    leaks,
    measure_shortcuts,
    shortcut_scores,
)
from speechtaxi.check.options import add_columns, progress
from speechtaxi.errors import InputError
from speechtaxi.records import fingerprint, read_manifest
from speechtaxi.types import Utterance

__all__ = ["count", "count_labels", "inspect", "leaks", "main", "shortcut_scores"]


def main(argv: list[str]) -> int:
    """Run `speechtaxi data ...`: 0 nothing wrong, 1 problems found, or clips left out."""
    parser = argparse.ArgumentParser(prog="speechtaxi data", description="Look after a corpus.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    add_fetch(verbs)
    verb = verbs.add_parser("check", help="counts, lengths, label balance, damage, leaks")
    verb.add_argument("manifest", help="JSONL, CSV, TSV, Parquet, or a folder of label folders")
    add_columns(verb, "manifest")
    verb.add_argument("--language", help="of all rows, where no column tells it (ISO 639-3)")
    verb.add_argument(
        "--shortcuts",
        action="store_true",
        help="can length, voice or mean spectrum alone tell the label?",
    )
    verb.add_argument("--json", action="store_true", help="print everything as one JSON object")
    options = parser.parse_args(argv)
    if options.verb is None:
        parser.print_help()
        return 0
    return run_fetch(options) if options.verb == "fetch" else _check(options)


def _check(options: argparse.Namespace) -> int:
    utterances = read_manifest(
        options.manifest, columns=dict(options.columns), language=options.language
    )
    findings = inspect(progress(utterances, "reading"), spectra=options.shortcuts)
    scores: dict[str, float] = {}
    if options.shortcuts:
        try:
            scores = measure_shortcuts(utterances, findings)
        except InputError as error:  # what was found so far is still worth telling
            findings.problems.append(str(error))
    if options.json:
        summary = {
            "rows": len(utterances),
            "fingerprint": fingerprint(utterances),
            "counts": count(utterances, findings.seconds),
            "labels": count_labels(utterances),
            "shortcuts": scores,
            "problems": findings.problems,
            "notes": findings.notes,
        }
        print(json.dumps(summary, ensure_ascii=False, indent=2))
    else:
        _print(utterances, findings, scores)
    return 1 if findings.problems else 0


def _print(
    utterances: Sequence[Utterance], findings: Findings, scores: Mapping[str, float]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)

    def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        table = Table(title=title, title_justify="left")
        for name, value in rows[0].items():
            table.add_column(
                name.replace("_seconds", " s"), justify="left" if _is_text(value) else "right"
            )
        for row in rows:
            table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row.values()))
        console.print(table)

    show("Clips", count(utterances, findings.seconds))
    labels = count_labels(utterances)
    if labels:
        total = sum(sum(splits.values()) for splits in labels.values())
        splits = [split for split in SPLIT_ORDER if any(split in row for row in labels.values())]
        show(
            f"Labels ({len(labels)})",
            [
                {"label": label}
                | {split: found.get(split, 0) for split in splits}
                | {"share": f"{sum(found.values()) / total:.1%}"}
                for label, found in labels.items()
            ],
        )
    if scores:
        show("Shortcuts", [{"feature": name, "macro-F1": f} for name, f in scores.items()])
    for note in findings.notes:
        console.print(f"note: {note}", markup=False)
    for problem in findings.problems:
        console.print(f"problem: {problem}", markup=False)
    ending = f"{len(findings.problems)} problem(s)" if findings.problems else "no problems"
    console.print(f"{len(utterances)} rows ({fingerprint(utterances)}): {ending}", markup=False)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not value.endswith("%")
