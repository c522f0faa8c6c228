"""What is told of a plan before it is carried out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from speechtaxi.grid.estimate import MARK, Corpus, estimate
from speechtaxi.grid.experiment import Device, Experiment, System
from speechtaxi.grid.plan import Run
from speechtaxi.languages import LANGUAGES


def unsupported(runs: Iterable[Run], languages: Sequence[str]) -> Iterator[str]:
    """Tell which languages a known recogniser does not know, once for each system."""
    told: set[str] = set()
    for run in runs:
        name = run.recognizer or ""
        field = "whisper" if "whisper" in name else "mms" if "mms-1b-all" in name else None
        if field is None or run.system in told:
            continue
        told.add(run.system)
        lost = [c for c in languages if c in LANGUAGES and not getattr(LANGUAGES[c], field)]
        settings = run.settings["model"]["init_args"]
        lost = [code for code in lost if code not in _related(settings.get("unsupported"))]
        if lost:
            fallback = settings.get("fallback")
            fate = f"are read by {fallback}" if fallback else "count as unsupported"
            yield (
                f"{run.system}: {name} does not know {len(lost)} of {len(languages)} languages "
                f"({', '.join(lost)}); their clips {fate}"
            )


def _related(policy: object) -> Iterable[str]:
    return policy if isinstance(policy, dict) else ()


def show_plan(
    experiment: Experiment,
    systems: dict[str, System],
    runs: Sequence[Run],
    corpus: Corpus,
    output: Path,
) -> None:
    """Print what the grid takes, by system."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    device = Device(**experiment.device) if experiment.device else None
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD)
    heads = ("system", "runs", "done", "clips heard", "hours", "device hours", "disk GiB")
    for head in heads:
        table.add_column(head, justify="left" if head == "system" else "right")
    total = [0.0] * 6
    for name in dict.fromkeys(run.system for run in runs):
        own = [run for run in runs if run.system == name]
        done = sum((output / run.folder / (MARK if run.tested else "run.json")).is_file()
                   for run in own)  # fmt: skip
        found = estimate(own, systems[name], corpus, output, device, done)
        cells = (found.runs, done, found.clips, found.hours, found.device_hours, found.disk)
        total = [a + (b or 0) for a, b in zip(total, cells, strict=True)]
        mark = "*" if found.measured else ""
        table.add_row(name, *map(_cell, cells[:4]), _cell(cells[4]) + mark, _cell(cells[5]))
    table.add_section()
    table.add_row("all", *map(_cell, total[:4]), *(f"{_cell(value)}+" for value in total[4:]))
    console.print(table)
    cells = sum(len(run.fold.targets) for run in runs if run.tested)
    trained = sum(run.tested for run in runs)
    recognizers = {run.recognizer for run in runs if run.recognizer}
    console.print(
        f"{trained} trained systems answer {cells} cells (system, setup, target, seed); "
        f"{len(recognizers)} recognisers transcribe each clip once."
    )
    rests = "* as measured on finished runs here; otherwise "
    rests += (
        f"from GFLOP at {device.share:.0%} of the {device.tflops:g} TFLOP/s of {device.name}"
        if device
        else "not known (?) until a run of the system is finished: try --limit"
    )
    console.print(
        f"{rests}. Hours are clips to train on, validate and test; device hours are at most: all "
        "epochs, without what stops early. + what is not known is not counted."
    )
    for line in unsupported(runs, list(dict.fromkeys(code for code, _ in corpus))):
        console.print(line)


def _cell(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
