"""One thread that owns the models: what waits is classified together, and answered apart."""

from __future__ import annotations

import itertools
import queue
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from speechtaxi import audio
from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN
from speechtaxi.recordings import Cut, cut
from speechtaxi.serve.models import CUT_ABOVE, Served, romanize_with
from speechtaxi.types import Utterance

BATCH_SECONDS = 120.0
"""Audio of requests that are answered together: a long recording keeps no short ones waiting."""

STOP_SECONDS = 25.0
"""How long a server that is to stop goes on with what it has accepted."""

Settings = tuple[Literal["classify", "transcribe"], str, bool, bool]
"""What is asked, how to cut, whether the short must hold speech, whether to romanise."""


class Refusal(Exception):
    """A request that is not answered as asked: HTTP status, code for machines, line for people."""

    def __init__(self, status: int, code: str, message: str, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry = status, code, message, retry


@dataclass(eq=False)
class Job:
    """A request that was let in: it holds a place, and files, until it is answered."""

    path: Path
    """What its files begin with: a number of ours."""
    future: Future[list[Any]] = field(default_factory=Future)
    name: str = "upload"
    """What the client calls the recording; no file is called so."""
    seconds: float = 0.0
    language: str = UNKNOWN
    settings: Settings = ("classify", "auto", True, False)
    waveform: np.ndarray | None = None
    """Of a recording that is not cut: held, so that it is not decoded again."""

    @property
    def upload(self) -> Path:
        """The recording as it was sent."""
        return self.path.with_suffix(".upload")

    @property
    def sound(self) -> Path:
        """The recording, decoded, where it is long."""
        return self.path.with_suffix(".wav")

    def hold(self, waveform: np.ndarray) -> None:
        """Let models be given a short recording's samples."""
        self.waveform = waveform
        audio.hold(waveform, str(self.upload), 0.0, self.seconds)

    @cached_property
    def cut(self) -> Cut:
        """The recording, cut where it is long and gated where it is short: once for all models."""
        path = str(self.sound if self.waveform is None else self.upload)
        clip = Utterance(self.path.name, self.language, audio=path, duration=self.seconds)
        _, segments, gate, _ = self.settings
        return cut(clip, segmenter(segments), CUT_ABOVE, gate)


class Metrics:
    """What Prometheus may ask for."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "speechtaxi_requests", "Requests answered", ["path", "status"], registry=own
        )
        self.places = Gauge("speechtaxi_queue_length", "Requests in hand", registry=own)
        self.batches = Histogram(
            "speechtaxi_batch_size", "Requests answered together", registry=own,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )  # fmt: skip
        self.audio = Counter("speechtaxi_audio_seconds", "Audio answered", registry=own)
        self.work = Counter("speechtaxi_work_seconds", "Time at work", registry=own)


class Worker:
    """Lets requests in, as many as there are places, and answers them in its own thread.

    Args:
        open_models: is given a private folder and returns the models; runs in the thread.
        places: how many requests may be in hand: uploading, waiting, being answered.
        failed: is called when the models cannot be opened; `error` then tells why.
    """

    def __init__(
        self,
        open_models: Callable[[Path], Sequence[Served]],
        places: int,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.open_models, self.places, self.failed = open_models, places, failed
        self.metrics = Metrics()
        self.models: Sequence[Served] = ()
        self.state: Literal["loading", "ready", "stopping"] = "loading"
        self.error: BaseException | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="speechtaxi-serve-")  # mode 0700
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._in_hand = 0
        self._names = itertools.count()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Begin: open the models, then answer."""
        self._thread.start()

    def stop(self) -> None:
        """Let nothing more in; what is in hand is answered, or refused after `STOP_SECONDS`."""
        if self.state != "stopping":
            left = STOP_SECONDS if self.state == "ready" else 0.0
            self.state, self._deadline = "stopping", time.monotonic() + left
            self._waiting.put(None)

    def close(self) -> None:
        """Stop, wait until all is answered, and leave no file behind."""
        self.stop()
        if self._thread.ident:
            self._thread.join(max(self._deadline - time.monotonic(), 0) + 1)
        self._folder.cleanup()

    def admit(self) -> Job:
        """Return a place for a request, which ends with its future, cancelled or done.

        Raises:
            Refusal: 429, all places are taken; 503, not ready or stopping.
        """
        if self.state != "ready":
            raise Refusal(503, self.state, f"the server is {self.state}; try again later", 5)
        with self._lock:
            if self._in_hand >= self.places:
                told = f"all {self.places} places are taken; try again in a moment"
                raise Refusal(429, "queue_full", told, 1)
            self._count(1)
        job = Job(Path(self._folder.name) / f"{next(self._names)}")
        job.future.add_done_callback(lambda _: self._leave(job))
        return job

    def submit(self, job: Job) -> Future[list[Any]]:
        """Let a job wait for its answer: one for each model that was asked."""
        self._waiting.put(job)
        return job.future

    def _leave(self, job: Job) -> None:
        for file in (job.upload, job.sound):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        with self._lock:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._in_hand += change
        self.metrics.places.set(self._in_hand)

    def _run(self) -> None:
        try:
            self.models = self.open_models(Path(self._folder.name))
        except BaseException as error:
            if self.state != "stopping":
                self.error = error
                self.failed()
            return
        if self.state == "loading":
            self.state = "ready"
        backlog: list[Job] = []
        while self.state != "stopping" or (self._in_hand and time.monotonic() < self._deadline):
            self._fetch(backlog)
            if backlog:
                batch = together(backlog)
                backlog = [job for job in backlog if job not in batch]
                self._answer([job for job in batch if job.future.set_running_or_notify_cancel()])
        for job in backlog:
            if job.future.set_running_or_notify_cancel():
                told = "the server is stopping; ask again when it is back"
                job.future.set_exception(Refusal(503, "stopping", told, 5))

    def _fetch(self, backlog: list[Job]) -> None:
        """Add what waits; where nothing does, wait for it."""
        try:
            wait = 0.1 if self.state == "stopping" else None
            job = self._waiting.get(block=not backlog, timeout=wait)
            while True:
                backlog += [job] if job else []
                job = self._waiting.get_nowait()
        except queue.Empty:
            pass

    def _answer(self, batch: list[Job]) -> None:
        """Answer jobs of the same settings; if they fail as a batch, each alone."""
        if not batch:
            return
        started = time.perf_counter()
        try:
            answers = [ask(one, batch) for one in self.models]
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._answer([job])
                return
            if not isinstance(error, InputError):
                traceback.print_exc(file=sys.stderr)
            batch[0].future.set_exception(error)
            return
        self.metrics.work.inc(time.perf_counter() - started)
        self.metrics.batches.observe(len(batch))
        self.metrics.audio.inc(sum(job.seconds for job in batch))
        for job in batch:
            told = [one[job.path.name] for one in answers if one is not None]
            why = next((answer for answer in told if isinstance(answer, str)), None)
            if why is None:
                job.future.set_result(told)
            else:
                job.future.set_exception(InputError(why))


def together(waiting: Sequence[Job]) -> list[Job]:
    """Return what is answered next: the first, and what waits with the same settings.

    >>> jobs = [Job(Path(n), seconds=s) for n, s in (("a", 50), ("b", 90), ("c", 60))]
    >>> [job.path.name for job in together(jobs)]
    ['a', 'c']
    """
    batch, seconds = list[Job](), 0.0
    for job in waiting:
        alike = job.settings == waiting[0].settings
        if not batch or (alike and seconds + job.seconds <= BATCH_SECONDS):
            batch.append(job)
            seconds += job.seconds
    return batch


def ask(one: Served, batch: Sequence[Job]) -> dict[str, Any] | None:
    """Return what a model tells, by the jobs' ids; a string says why it cannot.

    None: it does not do what is asked.
    """
    kind, _, _, romanize = batch[0].settings
    cuts = [job.cut for job in batch]
    if kind == "transcribe":
        return one.transcripts(cuts) if one.reads else None
    told: dict[str, Any] = {}

    def fail(recording: Utterance, why: str) -> None:
        told[recording.id] = why

    teller = replace(one.teller, romanize=romanize_with() if romanize else None)
    # In a few clips of unlike lengths padding costs a CPU more than a batch saves
    size = 1 if teller.model.device.type == "cpu" else None
    for recording, answers in teller.classified(cuts, fail, batch_size=size):
        told[recording.id] = answers
    return told


@lru_cache
def segmenter(name: str) -> Any:
    """Return a segmenter by name, None for "none"."""
    from speechtaxi.segment import open_segmenter

    return None if name == "none" else open_segmenter(name)
