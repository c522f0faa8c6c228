"""The front door `speechtaxi report`: compares runs by the predictions that they wrote."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speechtaxi.errors import InputError

if TYPE_CHECKING:
    from speechtaxi.report.board import Arm
    from speechtaxi.report.comparison import Comparison
    from speechtaxi.report.section import Section

FEWEST_RESAMPLES = 200


def main(argv: list[str]) -> int:
    """Run `speechtaxi report ...`: write the report into a folder and print its verdict."""
    parser = argparse.ArgumentParser(
        prog="speechtaxi report",
        description="Compare systems on the same clips: macro-F1 with intervals, E2E against "
        "cascade in pairs, CER. Writes report.html, report.md, report.json, overview.png and CSV.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder, or a predictions .jsonl file"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="test", help="of which predictions (default: test)")
    parser.add_argument(
        "--common", action="store_true", help="where runs differ in clips, compare on common ones"
    )
    parser.add_argument("--resamples", type=int, default=2000, help="of intervals and tests (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (0)")
    options = parser.parse_args(argv)
    if options.resamples < FEWEST_RESAMPLES:
        raise InputError(
            f"--resamples must be at least {FEWEST_RESAMPLES}, not {options.resamples}: "
            "fewer tell nothing of 95 % intervals"
        )
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, as {options.seed} is")
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"{options.output}: is a file; give a folder for the report")
    write(
        options.runs,
        options.output,
        split=options.split,
        common=options.common,
        resamples=options.resamples,
        seed=options.seed,
    )
    return 0


def write(
    runs: Sequence[Path],
    output: Path,
    *,
    split: str = "test",
    common: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> None:
    """Compare runs, write every form of the report, print the verdict.

    Raises:
        InputError: a run cannot be read, or runs cannot be compared.
    """
    from speechtaxi.records import replacing
    from speechtaxi.report.comparison import compare
    from speechtaxi.report.forms import as_json, as_markdown, write_csv
    from speechtaxi.report.page import as_html
    from speechtaxi.report.pictures import overview
    from speechtaxi.report.runs import read
    from speechtaxi.report.words import verdict

    found = compare(
        [read(path, split) for path in runs],
        split=split,
        common=common,
        resamples=resamples,
        seed=seed,
        track=_track,
    )
    parts = sections(found)
    for name, text in (
        ("report.md", as_markdown(found, parts)),
        ("report.json", as_json(found, parts)),
        ("report.html", as_html(found, parts)),
    ):
        with replacing(output / name) as file:
            file.write(text)
    for table in (table for part in parts for table in part.tables if table.rows):
        with replacing(output / f"{table.name}.csv") as file:
            write_csv(file, table)
    overview(found, output / "overview.png")
    for note in found.notes:
        print(f"Note: {note}")
    for setup, sentences in verdict(found).items():
        print(f"{setup}")
        for sentence in sentences:
            print(f"  {sentence}")
    for warning in found.warnings:
        print(f"Beware: {warning}")
    print(output / "report.html")


def sections(found: Comparison) -> list[Section]:
    """Return what a report tells, in its order, without what the runs cannot answer."""
    from speechtaxi.report import systems

    parts = (
        systems.systems(found),
        systems.differences(found),
        systems.languages(found),
        systems.transcripts(found),
        systems.topics(found),
        systems.runs(found),
    )
    return [part for part in parts if part is not None]


def _track(arms: Sequence[Arm]) -> Iterable[Arm]:
    from rich.console import Console
    from rich.progress import track

    return track(arms, "comparing", console=Console(stderr=True), transient=True)
