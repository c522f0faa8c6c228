"""The front door `speechtaxi languages`: SpeechTaxi's languages, and who knows them."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Sequence

from speechtaxi.errors import InputError
from speechtaxi.languages import LANGUAGES, Language, find

SYSTEMS = {
    "whisper": "Whisper",
    "mms": "MMS-1b-all",
    "mms_zeroshot": "MMS-ZeroShot",
    "espeak": "eSpeak NG",
    "xlmr": "XLM-R",
    "furina": "Furina",
}
"""Field of a row -> the system's name."""

Row = dict[str, str | int | float | bool | None]
"""None is what nobody has published, False what a system does not know."""


def main(argv: list[str]) -> int:
    """Run `speechtaxi languages`."""
    parser = argparse.ArgumentParser(
        prog="speechtaxi languages",
        description="SpeechTaxi's languages: script, family, hours and clips, and which systems "
        "know them, by what code. '-' is not known to the system, '?' is not published.",
    )
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help="code or English name")
    parser.add_argument("--all", action="store_true", help="also those beyond SpeechTaxi's 28")
    parser.add_argument(
        "--known_by",
        nargs="+",
        choices=SYSTEMS,
        default=[],
        metavar="SYSTEM",
        help=f"by all of these: {', '.join(SYSTEMS)}",
    )
    parser.add_argument("--script", nargs="+", default=[], help="ISO 15924, such as Deva")
    parser.add_argument("--family", nargs="+", default=[], help="such as Dravidian or Indo-Aryan")
    parser.add_argument("--format", choices=FORMATS, default="table")
    options = parser.parse_args(argv)
    rows = select(options.languages, options.all, options.known_by, options.script, options.family)
    if not rows:
        print("no language is known to pass all filters", file=sys.stderr)
    FORMATS[options.format](rows)
    return 0


def select(
    names: Sequence[str] = (),
    everything: bool = False,
    known_by: Sequence[str] = (),
    scripts: Sequence[str] = (),
    families: Sequence[str] = (),
) -> list[Row]:
    """Return a row for each language that is named (else SpeechTaxi's, or all) and passes.

    To pass, a language must be known by all these systems, and have one of the scripts and
    belong to one of the families, or branches of a family, in any case of letters.

    Raises:
        InputError: the table does not have this language, script or family.
    """
    table = LANGUAGES.values()
    chosen = [_look_up(name) for name in names] or [
        language for language in table if everything or language.in_speechtaxi
    ]
    wanted = {
        *_one_of(scripts, {language.script for language in table}, "script"),
        *_one_of(families, {part for language in table for part in _lineage(language)}, "family"),
    }
    return [
        row
        for language, row in ((language, describe(language)) for language in dict.fromkeys(chosen))
        if all(row[system] for system in known_by)
        and (not scripts or language.script in wanted)
        and (not families or not wanted.isdisjoint(_lineage(language)))
    ]


def _look_up(name: str) -> Language:
    code = find(name)
    if code not in LANGUAGES:
        raise InputError(f"the table has no row for {code}; it has {', '.join(LANGUAGES)}")
    return LANGUAGES[code]


def _one_of(names: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    spelt = {name.casefold(): name for name in known}
    for name in names:
        if name.casefold() not in spelt:
            raise InputError(f"no {what} '{name}'; use one of {', '.join(sorted(spelt.values()))}")
    return [spelt[name.casefold()] for name in names]


def _lineage(language: Language) -> list[str]:
    return language.family.split(": ")


def describe(language: Language) -> Row:
    """Return a language's row: names, hours, clips, and each system's code, or yes or no."""
    nothing = 0 if not language.in_speechtaxi else None
    train, dev, test = language.clips or (nothing,) * 3
    return {
        "code": language.code,
        "name": language.name,
        "script": language.script,
        "family": language.family,
        "hours": nothing if language.hours is None else language.hours,
        "train": train,
        "dev": dev,
        "test": test,
        "whisper": language.whisper or False,
        "mms": language.mms or False,
        "mms_zeroshot": language.mms_zeroshot,
        "espeak": language.espeak or False,
        "xlmr": language.xlmr,
        "furina": language.furina,
    }


# ------------------------------------------------------------------------------------------ forms


def _text(cell: object) -> str:
    return {"None": "?", "True": "yes", "False": "-"}.get(str(cell), str(cell))


def _print_jsonl(rows: Sequence[Row]) -> None:
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))


def _print_csv(rows: Sequence[Row], delimiter: str = ",") -> None:
    writer = csv.writer(sys.stdout, delimiter=delimiter, lineterminator="\n")
    writer.writerow(describe(LANGUAGES["eng"]))
    writer.writerows(map(_text, row.values()) for row in rows)


def _print_tsv(rows: Sequence[Row]) -> None:
    _print_csv(rows, "\t")


def _for_people(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells; the three splits share a column."""
    heads = ["code", "language", "script", "family", "hours", "train/dev/test", *SYSTEMS.values()]
    splits = [[_text(row[split]) for split in ("train", "dev", "test")] for row in rows]
    return heads, [
        [_text(row[name]) for name in ("code", "name", "script", "family", "hours")]
        + ["/".join(counts) if len(set(counts)) > 1 else counts[0]]
        + [_text(row[system]) for system in SYSTEMS]
        for row, counts in zip(rows, splits, strict=True)
    ]


def _print_markdown(rows: Sequence[Row]) -> None:
    heads, cells = _for_people(rows)
    for line in (heads, ["---"] * len(heads), *cells):
        print(f"| {' | '.join(line)} |")


def _print_table(rows: Sequence[Row]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    heads, cells = _for_people(rows)
    for head in heads:
        table.add_column(head, overflow="fold")
    for line in cells:
        table.add_row(*line)
    console.print(table)
    known = (
        f"{name} {'?' if any(row[field] is None for row in rows) else sum(map(bool, values))}"
        for field, name in SYSTEMS.items()
        for values in [[row[field] for row in rows]]
    )
    console.print(f"{len(rows)} languages; known to {', '.join(known)}.")
    console.print(
        "- not known, ? not published. MMS-ZeroShot writes romanised text of any language; Furina "
        "knows what Glot500 knows. SpeechTaxi has 80 hours in all. The scripts of bht, nag, nlx "
        "and peg are assumed."
    )


FORMATS: dict[str, Callable[[Sequence[Row]], None]] = {
    "table": _print_table,
    "jsonl": _print_jsonl,
    "csv": _print_csv,
    "tsv": _print_tsv,
    "markdown": _print_markdown,
}
