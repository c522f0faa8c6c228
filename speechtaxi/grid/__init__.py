"""Front door: `speechtaxi grid EXPERIMENT`, every system in every setup, from one file."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

from speechtaxi.errors import InputError
from speechtaxi.grid.estimate import MARK, Corpus, count, estimate, load, published, read_mark
from speechtaxi.grid.experiment import Device, Experiment, System, read_experiment
from speechtaxi.grid.plan import Run, limited, manifests_of, merged, plan, read_clips
from speechtaxi.languages import LANGUAGES
from speechtaxi.records import replacing, write_manifest
from speechtaxi.train import configs
from speechtaxi.types import Split, Utterance
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
        choices=("best", "all"),
        default="best",
        help="checkpoints of tested runs: the best (default), or the last too",
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


def prepare(
    experiment: Experiment, output: Path, limit: int | None, dry_run: bool
) -> tuple[Corpus, Path, list[str], tuple[str, ...]]:
    """Write the clips of the experiment as one manifest, which every run reads.

    Returns:
        what the corpus holds, the manifest, the languages to train on, and a note for the report.

    Raises:
        InputError: a manifest is not there (but for a dry run, which then takes SpeechTaxi's
            published counts), or has no clip in a language.
    """
    settings = merged(experiment.base, experiment.options)
    manifests = manifests_of(settings)
    if dry_run and not all(map(os.path.exists, manifests)):
        languages = [*experiment.languages] or [c for c, r in LANGUAGES.items() if r.in_speechtaxi]
        print(f"{manifests[0]} is not there: counted by what is published of SpeechTaxi")
        corpus = published([*languages, *experiment.targets])
        return corpus, output / "clips-unknown.jsonl", languages, ()
    rows = read_clips(manifests, json.dumps(settings["data"]))
    there = sorted({row.language for row in rows if row.split == "train"})
    languages = [*experiment.languages] or [c for c in there if c not in experiment.targets]
    rows = choose(rows, [*languages, *experiment.targets])
    note = (f"a rehearsal: at most {limit} clips of a language and split",) if limit else ()
    rows = limited(rows, dict.fromkeys(get_args(Split), limit) if limit else experiment.limit)
    named = [(row.id, row.text, row.label, row.split, row.duration) for row in rows]
    digest = hashlib.blake2b(json.dumps(named).encode(), digest_size=4).hexdigest()
    clips = output / f"clips-{digest}.jsonl"
    if not dry_run and not clips.exists():
        write_manifest(clips, rows)
    return count(rows), clips, languages, note


def choose(rows: Iterable[Utterance], languages: Sequence[str]) -> list[Utterance]:
    """Return the clips in some languages.

    Raises:
        InputError: a language has no clip.
    """
    rows = list(rows)
    there = sorted({row.language for row in rows})
    for language in languages:
        if language not in there:
            raise InputError(f"no clip is in '{language}'; there are {', '.join(there)}")
    return [row for row in rows if row.language in languages]


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


# ---------------------------------------------------------------------------------------- to do


def steps(
    experiment: Experiment, runs: Sequence[Run], corpus: Corpus, output: Path, clips: Path
) -> list[Step]:
    """Return the commands that are still to be run; what is shared comes once, and first."""
    todo: list[Step] = []
    transcripts: set[str] = set()
    hours = sum(part.hours or 0.0 for part in corpus.values())
    for run in runs:
        folder = output / run.folder
        cost = load(run, corpus).passes or 1.0
        after = [f"fit {other.name}" for other in runs if other.folder in run.needs]
        if run.recognizer is not None:
            step, done = transcription(run, hours, output, clips, tuple(after))
            if step.name not in transcripts and not done:
                todo.append(step)
            transcripts.add(step.name)
            after.append(step.name)
        if run.frozen:  # the first run over all languages keeps the features for the others
            widest = max(
                (other for other in runs if other.system == run.system),
                key=lambda other: len(other.fold.languages),
            )
            if widest is not run:
                after.append(f"fit {widest.name}")
        if not (folder / "run.json").is_file():
            todo.append(Step(f"fit {run.name}", fit_command(experiment, run, output, clips),
                             tuple(after), cost))  # fmt: skip
        known = read_mark(folder).get("targets", ())
        if run.tested and not set(run.fold.targets) <= set(known):
            command = ("test", str(folder), f"--data.test_languages=[{','.join(run.fold.targets)}]")
            todo.append(Step(f"test {run.name}", command, (f"fit {run.name}",), cost / 100))
    return todo


def fit_command(experiment: Experiment, run: Run, output: Path, clips: Path) -> tuple[str, ...]:
    """Return the training of a run, as a user could type it."""
    data = run.settings.get("data", {})
    plain = [f"--data.{n}=null" for n in ("columns", "label_names", "language") if data.get(n)]
    return (
        "fit",
        *run.fit,
        f"--data.manifest={clips}",
        *plain,
        f"--data.languages=[{','.join(run.fold.languages)}]",
        f"--data.test_languages=[{','.join(run.fold.targets)}]",
        f"--data.seed={run.seed}",
        f"--seed_everything={run.seed}",
        f"--system={run.system}",
        *([f"--setup={run.fold.setup}"] if run.fold.setup else []),
        *([f"--notes={json.dumps(experiment.notes)}"] if experiment.notes else []),
        f"--run={output / run.folder}",
        "--ckpt_path=last",
    )


def transcription(
    run: Run, hours: float, output: Path, clips: Path, after: tuple[str, ...]
) -> tuple[Step, bool]:
    """Return the step that transcribes all clips for a run and all others like it."""
    settings = run.settings["model"]["init_args"]
    words = ["transcribe", str(clips), "--recognizer", str(run.recognizer)]
    if settings.get("store"):
        words += ["--store", settings["store"]]
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=4).hexdigest()
    table = output / "transcripts" / f"{digest}.jsonl"
    command = tuple(word.replace("{output}", str(output)) for word in (*words, "--output"))
    return Step(f"transcripts {digest}", (*command, str(table)), after, hours), table.is_file()


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
                note(by_name[name], corpus, output, args.keep)
            yield event

    with Workers(min(workers, len(todo)), devices) as pool:
        events = noting(pool.run(todo, logs, smaller))
        return follow(events, sum(step.cost for step in todo), "grid")


def with_smaller_batches(command: tuple[str, ...], run: Run, times: int) -> tuple[str, ...]:
    """Return a command with its batches halved so often, at an equal effective batch size."""
    data, trainer = run.settings.get("data", {}), run.settings.get("trainer", {})
    parts = 2**times
    smaller = (
        f"--data.batch_seconds={data.get('batch_seconds', 120.0) / parts}",
        f"--data.batch_size={max(1, data.get('batch_size', 16) // parts)}",
    )
    if command[0] == "fit":
        steps = trainer.get("accumulate_grad_batches", 1) * parts
        smaller = (*smaller, f"--trainer.accumulate_grad_batches={steps}")
    names = tuple(word.partition("=")[0] for word in smaller)
    return (*(word for word in command if not word.startswith(names)), *smaller)


def note(run: Run, corpus: Corpus, output: Path, keep: str) -> None:
    """Note in a run's folder that it is tested; drop the checkpoint that only a resume needs."""
    told = {"targets": run.fold.targets, "passes": load(run, corpus).passes}
    with replacing(output / run.folder / MARK) as file:
        json.dump(told, file)
    if keep == "best" and (output / run.folder / "checkpoints" / "best.ckpt").is_file():
        (output / run.folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)


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


# ----------------------------------------------------------------------------------- what is told


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
        if lost:
            yield (
                f"{run.system}: {name} does not know {len(lost)} of {len(languages)} languages "
                f"({', '.join(lost)}); their clips count as unsupported"
            )


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
