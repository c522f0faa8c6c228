"""Work on a Ray cluster: actors that hold a model take chunks of inputs; one driver gets results.

Plain actors, not Ray Data (2.60): its `from_items` wants every input before the first is sent, so
that an archive would be hashed from end to end before anything is done; and though it replaces a
worker that was killed, what kills its worker each time is tried for ever (`max_task_retries` -1)
or, with an end to that, dropped with the whole block around it (`max_errored_blocks`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from speechtaxi.errors import InputError

Input = TypeVar("Input")
Result = TypeVar("Result")
Work = Callable[[list[Input]], Result]
"""What a worker does with a chunk of inputs."""

DEATHS = 3
"""How many workers may die of an input; after the first it is given to one alone."""

AHEAD = 4
"""Chunks for each worker that are begun before the oldest is finished: results keep their order."""

STORE_BYTES = 80 * 2**20
"""Of the local cluster's object store (Ray's least is 75 MiB): only names and rows go through."""

TRIES = 3
"""How often a local cluster is started: a busy machine may not keep Ray's limit of 30 s."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # the death of a worker would be told among rows on stdout
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "GLOG_minloglevel": "3",
}


@dataclass(eq=False)
class _Task(Generic[Input]):
    inputs: list[Input]
    deaths: int = 0
    begun: bool = False
    done: bool = False
    result: Any = None


class _Worker:
    """Opens what it works with at the first chunk, where an error is one of the work."""

    def __init__(self, opened: Callable[[], Work[Any, Any]], folder: str) -> None:
        self.opened, self.folder = opened, folder
        self.work: Work[Any, Any] | None = None

    def do(self, inputs: list[Any]) -> Any:
        if self.work is None:
            os.chdir(self.folder)  # paths are told as the driver was told them
            self.work = self.opened()
        return self.work(inputs)


def spread(
    opened: Callable[[], Work[Input, Result]],
    chunks: Iterable[list[Input]],
    *,
    workers: int | None = None,
    address: str | None = None,
    gpu: bool = True,
) -> Iterator[tuple[list[Input], Result | None]]:
    """Yield each chunk with its result, in order, each once; None for an input that kills workers.

    A worker that dies is replaced and its chunk done again, one input at a time, so that what
    kills is found out. Chunks are taken as they are needed.

    Args:
        opened: opens the work; is called once in each worker (so it must be picklable), in the
            driver's working folder, which all machines of a cluster must share.
        workers: how many; None is one for each GPU, or where there is none each CPU.
        address: of a running cluster; None starts one on this machine, and ends it.
        gpu: whether work may be done on a GPU.

    Raises:
        InputError: ray is not installed, no cluster is there, it is too small, the work raises it,
            or workers die whatever they are given.
    """
    chunks = iter(chunks)
    first = list(islice(chunks, 1))
    if not first:  # all was done before
        return
    with _cluster(address, workers) as ray:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0)) if gpu else 0
        cpus = int(there.get("CPU", 0))
        count = workers or gpus or cpus
        if count > cpus:
            raise InputError(f"--workers {count}: the cluster has {cpus} CPUs, one for each worker")
        # What dies is replaced here, not by Ray: a new actor is one that a chunk can wait for.
        hire = ray.remote(
            num_cpus=1, num_gpus=min(1.0, gpus / count), max_restarts=0, max_task_retries=0
        )(_Worker)
        folder = os.getcwd()
        idle = [hire.remote(opened, folder) for _ in range(count)]
        again = partial(hire.remote, opened, folder)
        yield from _through(ray, idle, again, chain(first, chunks))


def _through(
    ray: Any, idle: list[Any], hire: Callable[[], Any], chunks: Iterator[list[Input]]
) -> Iterator[tuple[list[Input], Any]]:
    count, deaths, proven = len(idle), 0, False
    line = deque[_Task[Input]]()
    busy: dict[Any, tuple[_Task[Input], Any]] = {}
    more: list[list[Input]] = [[]]
    while more or line:
        more = list(islice(chunks, 1)) if len(line) < AHEAD * count else []
        line.extend(map(_Task, more))
        for task in line:
            if idle and not task.begun:
                worker, task.begun = idle.pop(), True
                busy[worker.do.remote(task.inputs)] = task, worker
        while line and line[0].done:
            task = line.popleft()
            yield task.inputs, task.result
        found: list[Any] = []
        if busy:
            found, _ = ray.wait(list(busy), timeout=0 if more else None)
        for reference in found:
            task, worker = busy.pop(reference)
            try:
                task.result, task.done, proven = ray.get(reference), True, True
                idle.append(worker)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, InputError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayActorError as error:
                deaths += 1
                if not proven and deaths > DEATHS * (count + 1):
                    raise InputError(
                        "workers die whatever they are given; is there memory for so many models? "
                        f"Give fewer than {count} --workers ({str(error).splitlines()[0]})"
                    ) from None
                ray.kill(worker)  # it may only be out of reach, and is not to be heard again
                idle.append(hire())
                _again(line, task)


def _again(line: deque[_Task[Input]], task: _Task[Input]) -> None:
    """Put what a worker died of back in its place, each input alone, or give it up."""
    deaths = task.deaths + 1
    lost = deaths >= DEATHS
    place = line.index(task)
    line.remove(task)
    for one in reversed(task.inputs):
        line.insert(place, _Task([one], deaths, begun=lost, done=lost))


@contextmanager
def _cluster(address: str | None, workers: int | None) -> Generator[Any, None, None]:
    """Join a cluster, or start one on this machine; leave or end it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        ray = import_module("ray")
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'speechtaxi[ray]'") from None
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "CRITICAL",
        "include_dashboard": None if address else False,
    }
    # The folder holds Unix sockets, whose names are at most 107 bytes long.
    folder = None if address else tempfile.mkdtemp(prefix="taxi-", dir="/tmp")
    try:
        if address:
            _join(ray, address, common)
        else:
            _start(
                ray,
                common
                | {"num_cpus": workers, "object_store_memory": STORE_BYTES, "_temp_dir": folder},
            )
        yield ray
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _join(ray: Any, address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--ray_address {address}: no Ray cluster of this version answers there ({reason})"
        ) from None


def _start(ray: Any, options: dict[str, Any]) -> None:
    for left in reversed(range(TRIES)):
        try:
            ray.init(address="local", **options)
            return
        except Exception as error:  # Ray raises no narrower one here
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise InputError(
                    f"Ray did not start within its 30 s, {TRIES} times: this machine is too busy, "
                    "or short of memory; repeat the command later, or leave out --engine ray"
                ) from None
