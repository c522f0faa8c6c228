"""The front door `speechtaxi compare`: two runs against each other, in the terminal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from speechtaxi.errors import InputError

if TYPE_CHECKING:
    from speechtaxi.report.comparison import Difference


def main(argv: list[str]) -> int:
    """Run `speechtaxi compare RUN_A RUN_B`: print the paired difference by language."""
    parser = argparse.ArgumentParser(
        prog="speechtaxi compare",
        description="Macro-F1 of the first run minus that of the second, on the same clips: "
        "difference, 95 %% interval and p, by language and on average. Any two runs, whatever "
        "they were trained on; `speechtaxi report` compares many.",
    )
    parser.add_argument("first", type=Path, metavar="RUN_A", help="run folder, or a .jsonl file")
    parser.add_argument("second", type=Path, metavar="RUN_B")
    parser.add_argument("--split", default="test", help="of which predictions (default: test)")
    parser.add_argument("--common", action="store_true", help="compare on the common clips")
    parser.add_argument("--resamples", type=int, default=2000, help="of intervals and tests (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    if options.resamples < 200 or options.seed < 0:
        raise InputError("--resamples must be at least 200, and --seed not negative")
    found, warnings = differences(
        options.first,
        options.second,
        split=options.split,
        common=options.common,
        resamples=options.resamples,
        seed=options.seed,
    )
    if options.json:
        rows = [asdict(d) | {"better": d.better} for d in found]
        print(json.dumps({"differences": rows, "warnings": warnings}, ensure_ascii=False))
    else:
        _print(found, warnings)
    return 0


def differences(
    first: Path,
    second: Path,
    *,
    split: str = "test",
    common: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[list[Difference], list[str]]:
    """Return the first run minus the second: the mean over languages, then each; and warnings.

    Raises:
        InputError: a run cannot be read, they share no language, or they differ in their clips.
    """
    from speechtaxi.report.board import Arm
    from speechtaxi.report.comparison import board_of, corrected, difference
    from speechtaxi.report.runs import read

    one, two = read(first, split), read(second, split)
    if one.system == two.system:  # two versions of one system
        one = replace(one, record=replace(one.record, system=str(first)))
        two = replace(two, record=replace(two.record, system=str(second)))
    shared = tuple(sorted(one.predictions.keys() & two.predictions.keys()))
    if not shared:
        raise InputError(
            f"{first} was tested on {', '.join(one.predictions)}, {second} on "
            f"{', '.join(two.predictions)}: no language in common; test both on the same ones"
        )
    both = [
        replace(run, predictions={language: run.predictions[language] for language in shared})
        for run in (one, two)
    ]
    board, warnings = board_of(both, common=common, resamples=resamples, seed=seed)
    arms = [Arm(run.system, "", {lang: [run] for lang in shared}) for run in board.runs]
    alone = corrected([difference(board, arms[0], arms[1], (language,)) for language in shared])
    if len(shared) == 1:
        return alone, warnings
    return [*corrected([difference(board, arms[0], arms[1], shared)]), *alone], warnings


def _print(found: Sequence[Difference], warnings: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from speechtaxi.languages import name_of

    one, two = found[0].first, found[0].second
    table = Table(title=Text(f"{one} minus {two}, macro-F1"), title_justify="left")
    for column in ("", one, two, "difference", "95 % interval", "p (Holm)", "better", "clips"):
        table.add_column(Text(column), justify="left" if column in ("", "better") else "right")
    for d in found:
        alone = len(d.languages) == 1
        table.add_row(
            name_of(d.languages[0]) if alone else f"mean of {len(d.languages)}",
            *(f"{score:.3f}" for score in d.macro_f1),
            f"{d.difference.estimate:+.3f}",
            f"{d.difference.low:+.3f} to {d.difference.high:+.3f}",
            f"{d.p_holm:.3f}" if d.p_holm >= 0.001 else "< 0.001",
            Text({"first": one, "second": two, None: "cannot tell"}[d.better]),
            str(d.clips),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    for warning in warnings:
        console.print(f"Beware: {warning}", markup=False, soft_wrap=True)
