"""Front door: `speechtaxi demo`, the whole comparison on synthetic news, from public commands."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from speechtaxi.errors import InputError

ALONE = "hin"
"""The language that is also trained on alone (In-Language)."""
SAMPLE = "pan"
"""The language of the clip that is classified at the end: one that no model trained on."""

HONESTLY = """
What this shows: two routes, trained alike and compared on the same clips by the commands above.
What it does not show: how they compare on real speech. The speech is synthetic (eSpeak NG), clean,
and made of a closed list of phrases full of cognates, in translations that nobody has reviewed; the
models have under a million weights. All that favours reading, and says nothing of the paper's
findings. The warm-started E2E has heard its recogniser's transcripts; E2E from scratch has not.
"""


@dataclass(frozen=True)
class Step:
    """One public command, what it leaves behind, and which steps it waits for."""

    name: str
    command: tuple[str, ...]
    leaves: Path
    """File that tells that the step is done."""
    after: tuple[str, ...] = ()
    cost: int = 1
    """About how many seconds it takes: long steps start first."""


def steps(folder: Path) -> list[Step]:
    """Return the commands of the demo, as a user could type them."""
    corpus, runs = folder / "news", folder / "runs"
    manifest = corpus / "manifest.jsonl"
    shared = ("-c", "cpu", "-c", "news", f"--data.manifest={manifest}")
    letters, script = "recognizer_romanized", "recognizer_native"
    store = f"--model.store={folder / 'transcripts.sqlite'}"
    warm = f"--model.encoder={runs / letters}"
    romanized = (f"--model.recognizer={runs / letters}", store)
    native = ("--model.view=native", f"--model.recognizer={runs / script}", store)
    alone = (f"--data.languages=[{ALONE}]", f"--data.test_languages=[{ALONE}]")

    def fit(name: str, cost: int, config: str, *options: str, after: str = "corpus") -> Step:
        run = (f"--run={runs / name}", "--ckpt_path=last")
        command = ("fit", *shared, "-c", config, *options, *run)
        return Step(name, command, runs / name / "run.json", (after,), cost)

    recognizers = [fit(letters, 200, letters), fit(script, 180, script)]
    classifiers = [
        fit("e2e_scratch", 150, "e2e_tiny"),
        fit("e2e_warm", 90, "e2e_tiny", warm, after=letters),
        fit("cascade_romanized", 30, "cascade_tiny", *romanized, after=letters),
        fit("cascade_native", 30, "cascade_tiny", *native, after=script),
        fit("gold_native", 8, "cascade_tiny", "--model.view=gold"),
        fit("gold_romanized", 8, "cascade_tiny", "--model.view=gold_romanized"),
        fit(f"e2e_warm_{ALONE}", 20, "e2e_tiny", warm, *alone, after=letters),
        fit(f"cascade_{ALONE}", 5, "cascade_tiny", *romanized, *alone, after="cascade_romanized"),
    ]
    tests = [
        Step(
            f"test {fitted.name}",
            ("test", str(runs / fitted.name)),
            runs / fitted.name / "predictions-test.jsonl",
            (fitted.name,),
        )
        for fitted in classifiers
    ]
    report = ("report", *(str(runs / fitted.name) for fitted in classifiers))
    return [
        Step("corpus", ("synthesize", "news", "-o", str(corpus)), corpus / "manifest.jsonl"),
        Step(
            "check",
            ("data", "check", str(manifest), "--shortcuts"),
            folder / "logs" / "check.done",
            ("corpus",),
        ),
        *recognizers,
        *classifiers,
        *tests,
        Step(
            "report",
            (*report, "-o", str(folder / "report")),
            folder / "report" / "report.html",
            tuple(step.name for step in tests),
        ),
    ]


def sample_commands(folder: Path) -> list[tuple[str, ...]]:
    """Return the commands that classify one clip of an unseen language by each route."""
    manifest = folder / "news" / "manifest.jsonl"
    rows = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    row = next(row for row in rows if row["language"] == SAMPLE)
    clip = str(manifest.parent / row["audio"])
    options = ("--language", SAMPLE, "--format", "table")
    return [
        ("classify", str(folder / "runs" / name), clip, *options, *extra)
        for name, extra in (
            ("e2e_warm", ()),
            ("cascade_romanized", ()),
            ("cascade_native", ("--romanize",)),
        )
    ]


GRACE = 20.0
"""Seconds that a worker has to finish its batch once it is told to stop."""


def spoken(command: tuple[str, ...]) -> str:
    """Return a command as it is typed."""
    return shlex.join(("speechtaxi", *command))


def work(pipe: Connection) -> None:
    """Run the commands that come through the pipe, in a process that imports only once."""
    from speechtaxi.cli import main

    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            command, log = pipe.recv()
            with open(log, "a", encoding="utf-8") as file:
                print(f"$ {spoken(command)}", file=file, flush=True)
                with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                    try:
                        status = main(list(command))
                    except SystemExit as stop:
                        status = int(stop.code or 0)
                    except Exception:
                        import traceback

                        traceback.print_exc()
                        status = 3
            pipe.send(status)


class Workers:
    """Processes of one thread each: two threads in one process are slower than one."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        os.environ["OMP_NUM_THREADS"] = "1"
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self.pipes:  # a worker that Lightning shields from the signal ends on this
            pipe.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(GRACE)
            process.kill()

    def run(self, todo: list[Step], logs: Path) -> Iterator[tuple[Step, str, int]]:
        """Run steps as their needs are met; yield (step, "start" or "end", status) as it happens.

        Raises:
            InputError: a step failed, with where its log lies.
        """
        waiting = sorted(todo, key=lambda step: -step.cost)
        undone = {step.name for step in todo}
        busy: dict[Connection, Step] = {}
        while waiting or busy:
            ready = [step for step in waiting if not undone & set(step.after)]
            for pipe in self.pipes:
                if pipe not in busy and ready:
                    step = ready.pop(0)
                    waiting.remove(step)
                    busy[pipe] = step
                    pipe.send((step.command, logs / f"{step.name.replace(' ', '_')}.log"))
                    yield step, "start", 0
            for pipe in wait(list(busy)):
                step = busy.pop(pipe)
                try:
                    status = pipe.recv()
                except EOFError:
                    status = -1
                yield step, "end", status
                undone.discard(step.name)


def main(argv: list[str]) -> int:
    """Run what is not done yet; then show the report and classify one clip by each route."""
    p = argparse.ArgumentParser(
        prog="speechtaxi demo",
        description="Compare hearing and reading on synthetic spoken news in ten languages: about "
        "ten minutes on two cores, offline. Run it again to go on where it stopped.",
    )
    p.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder (default: demo)")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    args = p.parse_args(argv)
    folder: Path = args.output
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    todo = [step for step in steps(folder) if not step.leaves.exists()]
    started = time.monotonic()
    if todo:
        with Workers(args.workers) as workers:
            follow(workers.run(todo, logs), len(todo), logs, started)
    show(folder)
    return 0


def follow(events: Iterator[tuple[Step, str, int]], count: int, logs: Path, started: float) -> None:
    """Tell of each command as it starts and ends.

    Raises:
        InputError: a command failed.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("demo", total=count)
        running: list[str] = []
        for step, event, status in events:
            now = f"{time.monotonic() - started:4.0f} s"
            if event == "start":
                running.append(step.name)
                progress.console.print(f"[dim]{now}[/] $ {escape(spoken(step.command))}")
            else:
                running.remove(step.name)
                log = logs / f"{step.name.replace(' ', '_')}.log"
                if status not in (0, 1):
                    last = log.read_text(encoding="utf-8").strip().splitlines()[-1]
                    raise InputError(f"'{step.name}' failed: {last} (all of it in {log})")
                if step.name == "check":
                    step.leaves.touch()
                progress.advance(task)
                progress.console.print(f"[dim]{now}[/] done: {step.name}")
            progress.update(task, description=", ".join(running))


def show(folder: Path) -> None:
    """Print what was found out, and classify one clip by each route."""
    from speechtaxi.cli import main as command

    print((folder / "logs" / "check.log").read_text(encoding="utf-8"))
    print((folder / "logs" / "report.log").read_text(encoding="utf-8"))
    for words in sample_commands(folder):
        print(f"$ {spoken(words)}", flush=True)
        command(list(words))
    print(HONESTLY)
    print(f"Open {folder / 'report' / 'report.html'} in a browser.")
