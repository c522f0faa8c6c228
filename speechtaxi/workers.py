"""Commands of ours in processes that import once and take one after another."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

GRACE = 20.0
"""Seconds that a worker has to finish its batch once it is told to stop."""

DONE = (0, 1)
REFUSED, CRASHED, OUT_OF_MEMORY = 2, 3, 4
"""How a command ended, beside its own exit statuses; a worker that was killed has the negative
number of the signal."""


@dataclass(frozen=True)
class Step:
    """One public command, and which steps it waits for."""

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    cost: float = 1.0
    """About how long it takes, in any unit: what begins a long chain of steps starts first."""


@dataclass(frozen=True)
class Event:
    """What happened to a step; `reason` says why it failed, is tried again, or cannot be done."""

    step: Step
    kind: Literal["start", "done", "failed", "again", "blocked"]
    reason: str = ""


def spoken(command: Iterable[str]) -> str:
    """Return a command as it is typed."""
    return shlex.join(("speechtaxi", *command))


def log_of(step: Step, logs: Path) -> Path:
    """Return the file of what a step says."""
    return logs / f"{step.name.replace(' ', '_').replace('/', '_')}.log"


def work(pipe: Connection) -> None:
    """Run the commands that come through the pipe, in a process that imports only once."""
    from speechtaxi.cli import main

    threading.Thread(target=_end_with_parent, daemon=True).start()
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
                    except Exception as error:
                        import traceback

                        traceback.print_exc()
                        status = OUT_OF_MEMORY if _is_out_of_memory(error) else CRASHED
            pipe.send(status)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, be it killed: nobody is to go on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell, without torch, whether memory ran out on a device or here."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


class Workers:
    """Processes of one thread each: two threads in one process are slower than one.

    Args:
        count: processes.
        devices: what CUDA_VISIBLE_DEVICES is in each, in turn; none: as it is here.
    """

    def __init__(self, count: int, devices: Sequence[str] = ()) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.devices = devices
        self.hands = [self._hire(number) for number in range(count)]

    def _hire(self, number: int) -> tuple[Connection, BaseProcess]:
        context = multiprocessing.get_context("spawn")
        if self.devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.devices[number % len(self.devices)]
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, _process in self.hands:  # what Lightning shields from the signal ends on this
            pipe.close()
        for _pipe, process in self.hands:
            process.terminate()
        for _pipe, process in self.hands:
            process.join(GRACE)
            process.kill()

    def run(
        self,
        steps: Iterable[Step],
        logs: Path,
        again: Callable[[Step, int], Step | None] = lambda step, status: None,
    ) -> Iterator[Event]:
        """Run steps as their needs are met, and tell what happens as it does.

        What waits for a step that failed is not done, all else is.

        Args:
            logs: folder for what each step says.
            again: returns what to do in place of a step that failed, or None.
        """
        waiting = urgent_first(steps)
        undone, failed = {step.name for step in waiting}, set[str]()
        busy: dict[int, Step] = {}
        while waiting or busy:
            while blocked := [step for step in waiting if failed & set(step.after)]:
                for step in blocked:
                    waiting.remove(step)
                    failed.add(step.name)
                    yield Event(step, "blocked", f"needs {sorted(failed & set(step.after))[0]}")
            for number, (pipe, _process) in enumerate(self.hands):
                ready = (step for step in waiting if not undone & set(step.after))
                if number in busy or (step := next(ready, None)) is None:
                    continue
                waiting.remove(step)
                busy[number] = step
                yield Event(step, "start")
                with contextlib.suppress(BrokenPipeError):  # it died: its end is seen below
                    pipe.send((step.command, log_of(step, logs)))
            ended = wait([self.hands[number][0] for number in busy]) if busy else []
            for number in [n for n in busy if self.hands[n][0] in ended]:
                step = busy.pop(number)
                status = self._status(number)
                if status in DONE:
                    undone.discard(step.name)
                    yield Event(step, "done")
                elif instead := again(step, status):
                    waiting.insert(0, instead)
                    yield Event(instead, "again", reason(step, status, logs))
                else:
                    failed.add(step.name)
                    yield Event(step, "failed", reason(step, status, logs))

    def _status(self, number: int) -> int:
        """Return how a worker's command ended; a worker that died or is in doubt is replaced."""
        pipe, process = self.hands[number]
        try:
            status = pipe.recv()
        except (EOFError, OSError):
            process.join()
            status = process.exitcode or CRASHED
        if status not in (*DONE, REFUSED):
            pipe.close()
            process.terminate()
            process.join(GRACE)
            process.kill()
            self.hands[number] = self._hire(number)
        return status


def urgent_first(steps: Iterable[Step]) -> list[Step]:
    """Return steps by how long the longest chain is that begins with them."""
    steps = list(steps)
    children: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.after:
            children.setdefault(name, []).append(step)

    @cache
    def chain(step: Step) -> float:
        return step.cost + max(map(chain, children.get(step.name, ())), default=0.0)

    return sorted(steps, key=lambda step: -chain(step))


def reason(step: Step, status: int, logs: Path) -> str:
    """Return why a step failed, in one line."""
    log = log_of(step, logs)
    if status < 0:
        return f"its process was killed by signal {-status} (all it said is in {log})"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1]} (all of it in {log})"


def follow(
    events: Iterable[Event], total: float, what: str, until_failure: bool = False
) -> list[Event]:
    """Show on stderr what happens, with the time that is left; return what could not be done.

    Args:
        total: the cost of all steps.
        until_failure: stop at the first.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    started = time.monotonic()
    lost: list[Event] = []
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = ("[progress.description]{task.description}", BarColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(what, total=total)
        running: list[str] = []
        for event in events:
            name = event.step.name
            now = f"[dim]{time.monotonic() - started:4.0f} s[/]"
            if event.kind == "start":
                running.append(name)
                progress.console.print(f"{now} $ {escape(spoken(event.step.command))}")
            else:
                told = f"{event.kind}: {name}" + (f": {event.reason}" if event.reason else "")
                progress.console.print(f"{now} {escape(told)}")
                if name in running:
                    running.remove(name)
                if event.kind != "again":
                    progress.advance(task, event.step.cost)
            if event.kind in ("failed", "blocked"):
                lost.append(event)
                if until_failure:
                    break
            progress.update(task, description=", ".join(running) or what)
    return lost
