"""Front door: `speechtaxi grid EXPERIMENT`, every system in every setup, from one file."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from speechtaxi.errors import InputError
from speechtaxi.grid.clips import prepare
from speechtaxi.grid.estimate import MARK, Corpus
from speechtaxi.grid.experiment import read_experiment
from speechtaxi.grid.plan import Run, plan
from speechtaxi.grid.show import show_plan, unsupported
from speechtaxi.grid.steps import note, steps, with_smaller_batches
from speechtaxi.train import configs
from speechtaxi.workers import OUT_OF_MEMORY, Event, Step, Workers, follow, spoken

OVERWRITE = ("only_missing", "never", "always")
HALVINGS = 3
"""How often a run that memory does not suffice for is tried with half the batch."""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    p = argparse.ArgumentParser(
        prog="speechtaxi grid",
        description="Train and test every system in every setup, language and seed of an "
        "experiment; then write the report. Repeat the command to go on where it stopped.",
        epilog="Exit status: 0 all is done, 1 some runs failed (each is named), 2 nothing was "
        "done, 130 interrupted.",
    )
    p.add_argument("experiment", nargs="?", help="YAML file, or a short name such as rehearsal")
    p.add_argument("-c", "--config", help="the same")
    p.add_argument("-o", "--output", type=Path, help="folder (default: runs/NAME)")
    p.add_argument("--dry_run", action="store_true", help="tell what would be done, and stop")
    p.add_argument("--commands", action="store_true", help="with --dry_run: each command too")
    p.add_argument("--systems", nargs="+", metavar="NAME", help="only these, and what they need")
    p.add_argument("--workers", type=int, help="processes (default: a device or core each)")
    p.add_argument("--devices", metavar="0,1,...", help="GPUs to use (default: all)")
    p.add_argument(
        "--overwrite",
        choices=OVERWRITE,
        default=OVERWRITE[0],
        help="only_missing (default): finish what is not finished; never: leave alone what has "
        "begun; always: begin all anew",
    )
    p.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="a rehearsal: at most N clips of a language and split; reports say so",
    )
    p.add_argument(
        "--keep",
        choices=("best", "all", "predictions"),
        default="best",
        help="checkpoints of tested runs: the best (default), the last too, or none but those that "
        "other runs are built on",
    )
    return p


def main(argv: list[str]) -> int:
    """Do what is missing; then write the report."""
    args = parser().parse_args(argv)
    path = experiment_path(args.experiment or args.config)
    experiment, systems = read_experiment(path)
    output: Path = args.output or Path("runs") / path.stem
    corpus, clips, languages, limit_note = prepare(experiment, output, args.limit, args.dry_run)
    experiment = replace(experiment, notes=(*experiment.notes, *limit_note))
    runs = wanted(plan(experiment, systems, languages, output, clips.stem), args.systems)
    if args.dry_run:
        show_plan(experiment, systems, runs, corpus, output)
        if args.commands:
            for step in steps(experiment, runs, corpus, output, clips):
                print(spoken(step.command))
        return 0
    for line in unsupported(runs, [*languages, *experiment.targets]):
        print(f"speechtaxi grid: {line}", file=sys.stderr)
    with locked(output):
        begin(runs, output, args.overwrite)
        todo = steps(experiment, runs, corpus, output, clips)
        if args.overwrite == "never":
            begun = {run.name for run in runs if (output / run.folder).exists()}
            todo = [step for step in todo if step.name.split()[-1] not in begun]
        lost = carry_out(todo, runs, corpus, output, args) if todo else []
        for event in lost:
            print(f"{event.kind}: {event.step.name}: {event.reason}", file=sys.stderr)
        tested = [run for run in runs if run.tested and (output / run.folder / MARK).is_file()]
        print(f"{len(tested)} of {sum(run.tested for run in runs)} runs are tested")
        if tested:
            write_report(tested, output)
    return (1 if tested else 2) if lost else 0


def experiment_path(name: str | None) -> Path:
    """Return the file of an experiment, by path or short name.

    Raises:
        InputError: there is none.
    """
    there = configs("experiment")
    if name is None:
        raise InputError(f"name an experiment: a YAML file, or one of {', '.join(there)}")
    if Path(name).is_file():
        return Path(name)
    if Path(name).stem in there:
        return there[Path(name).stem]
    raise InputError(f"no experiment {name}; give a file, or one of {', '.join(there)}")


def wanted(runs: list[Run], systems: Sequence[str] | None) -> list[Run]:
    """Return the runs of some systems, and all that they are built on.

    Raises:
        InputError: an unknown system.
    """
    if not systems:
        return runs
    there = list(dict.fromkeys(run.system for run in runs))
    if unknown := [name for name in systems if name not in there]:
        raise InputError(f"no system '{unknown[0]}'; there are {', '.join(there)}")
    needed = {run.folder for run in runs if run.system in systems}
    for run in reversed(runs):  # each comes after what it needs
        if run.folder in needed:
            needed.update(run.needs)
    return [run for run in runs if run.folder in needed]


@contextmanager
def locked(output: Path) -> Generator[None]:
    """Keep other grids out of a folder; a grid that is killed leaves it open.

    Raises:
        InputError: a grid is at work there.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another grid is at work in {output}; wait for it, or choose another folder"
            ) from None
        yield


def begin(runs: Iterable[Run], output: Path, overwrite: str) -> None:
    """Make way for runs that are to begin anew."""
    for run in runs:
        folder = output / run.folder
        if overwrite == "always" and folder.exists():
            shutil.rmtree(folder)


def carry_out(
    todo: Sequence[Step], runs: Sequence[Run], corpus: Corpus, output: Path,
    args: argparse.Namespace,
) -> list[Event]:  # fmt: skip
    """Run the steps in worker processes; return what could not be done."""
    logs = output / "logs"
    logs.mkdir(exist_ok=True)
    devices = gpus() if args.devices is None else args.devices.split(",")
    workers = args.workers or len(devices) or os.cpu_count() or 1
    by_name = {run.name: run for run in runs}
    built_on = {folder for run in runs for folder in run.needs}
    halved: dict[str, int] = {}

    def smaller(step: Step, status: int) -> Step | None:
        """Try again with half the batch where memory ran out; SIGKILL is how Linux ends it."""
        kind, name = step.name.split(" ", 1)
        times = halved.get(step.name, 0) + 1
        if status not in (OUT_OF_MEMORY, -9) or kind == "transcripts" or times > HALVINGS:
            return None
        halved[step.name] = times
        return replace(step, command=with_smaller_batches(step.command, by_name[name], times))

    def noting(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            kind, name = event.step.name.split(" ", 1)
            if event.kind == "done" and kind == "test":
                run = by_name[name]
                keep = "best" if run.folder in built_on and args.keep != "all" else args.keep
                note(run, corpus, output, keep)
            yield event

    with Workers(min(workers, len(todo)), devices) as pool:
        events = noting(pool.run(todo, logs, smaller))
        return follow(events, sum(step.cost for step in todo), "grid")


def gpus() -> list[str]:
    """Return the numbers of the GPUs that are here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def write_report(tested: Sequence[Run], output: Path) -> None:
    """Compare what is tested."""
    from speechtaxi.report import main as report

    report([*(str(output / run.folder) for run in tested), "-o", str(output / "report")])
