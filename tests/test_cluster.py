"""Work on a Ray cluster: the rows of a plain run, each once, whoever is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from test_transcribe import recognizer  # noqa: F401

from speechtaxi import transcribe
from speechtaxi.classify import engine
from speechtaxi.cli import main
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest
from speechtaxi.types import Utterance

LIMIT = 600
"""Seconds for a run on a cluster, of which its start takes most."""


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class FakeRay:
    """Actors in this process: what a cluster does at once, and how its workers die."""

    class exceptions:
        class RayTaskError(Exception):
            def __init__(self, cause: Exception) -> None:
                self.cause = cause

        class RayActorError(Exception):
            pass

    def __init__(self) -> None:
        self.killed = 0
        self.hired = 0

    def kill(self, worker: object) -> None:
        self.killed += 1

    def wait(self, references: list[Any], timeout: int | None) -> tuple[list[Any], list[Any]]:
        """Finish the youngest first, so that order is the driver's doing."""
        return ([] if timeout == 0 else references[-1:]), []

    def get(self, reference: Callable[[], Any]) -> Any:
        return reference()

    def hire(self, work: Callable[[list[int]], Any]) -> Any:
        self.hired += 1

        class Call:
            def remote(self, inputs: list[int]) -> Callable[[], Any]:
                return partial(work, inputs)

        worker = type("Worker", (), {})()
        worker.do = Call()
        return worker


def spread(work: Callable[[list[int]], Any], chunks: list[list[int]], workers: int = 2):
    from speechtaxi.cluster import _through

    ray = FakeRay()
    idle = [ray.hire(work) for _ in range(workers)]
    return ray, _through(ray, idle, lambda: ray.hire(work), iter(chunks))


def test_chunks_keep_their_order_and_are_done_again_one_by_one() -> None:
    done: list[int] = []
    ill = {4: 1, 9: 99}  # inputs, and how many workers they kill

    def work(inputs: list[int]) -> list[int]:
        for number in inputs:
            if ill.get(number):
                ill[number] -= 1
                raise FakeRay.exceptions.RayActorError("killed")
        done.extend(inputs)
        return [10 * number for number in inputs]

    ray, results = spread(work, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12]])
    assert list(results) == [
        ([0, 1, 2], [0, 10, 20]),
        *(([number], [10 * number]) for number in (3, 4, 5)),
        ([6, 7, 8], [60, 70, 80]),
        ([9], None),
        ([10], [100]),
        ([11], [110]),
        ([12], [120]),
    ]
    assert sorted(done) == [*range(9), 10, 11, 12]
    assert ray.killed == 1 + 3 == ray.hired - 2


def test_few_chunks_are_taken_ahead() -> None:
    taken: list[int] = []

    def chunks() -> Iterator[list[int]]:
        for number in range(100):
            taken.append(number)
            yield [number]

    _, results = spread(lambda inputs: inputs, chunks())  # type: ignore[arg-type]
    next(results)
    assert len(taken) <= 8


def test_what_work_raises_is_raised_and_workers_that_only_die_end_it() -> None:
    def refuse(inputs: list[int]) -> None:
        raise FakeRay.exceptions.RayTaskError(InputError("no such model"))

    with pytest.raises(InputError, match="no such model"):
        list(spread(refuse, [[1]])[1])

    def die(inputs: list[int]) -> None:
        raise FakeRay.exceptions.RayActorError("out of memory\nlong story")

    with pytest.raises(InputError, match=r"fewer than 2 --workers \(out of memory\)"):
        list(spread(die, [[number] for number in range(20)])[1])


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip without Ray; let its workers find this file."""
    if find_spec("ray") is None:  # to import it is the program's business, which quiets it first
        pytest.skip("ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))


def die(flag: Path) -> None:
    """Kill this process, once."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def deadly_classify(flag: Path, victim: str, killer: str, *given: Any) -> Callable[..., Any]:
    """Work as a worker does; die once in the middle of a chunk, and of one input each time."""
    do = engine.work(*given)

    def watched(recordings: list[Utterance]) -> Any:
        ids = [recording.id for recording in recordings]
        if killer in ids:
            os.kill(os.getpid(), signal.SIGKILL)
        if victim in ids:
            do(recordings[: ids.index(victim) + 1])
            die(flag)
        return do(recordings)

    return watched


def deadly_transcribe(flag: Path, victim: str, *given: Any) -> Callable[..., Any]:
    do = transcribe.work(*given)

    def watched(items: list[tuple[str, Utterance]]) -> Any:
        heard = do(items)
        if any(clip.id == victim for _, clip in items):
            die(flag)
        return heard

    return watched


def slow_classify(*given: Any) -> Callable[..., Any]:
    do = engine.work(*given)

    def watched(recordings: list[Utterance]) -> Any:
        time.sleep(1)
        return do(recordings)

    return watched


def same(found: list[dict], expected: list[dict]) -> None:
    """Compare rows in order; padding in other batches may change a last digit."""
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        for name, value in other.items():
            if name in ("probability", "probabilities"):
                value = pytest.approx(value, abs=2e-4)
            if name not in ("seconds", "avg_logprob"):
                assert one[name] == value, f"{one['id']}: {name}"


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
def test_classify_on_a_cluster_with_a_worker_killed(
    ray, e2e_run, corpus, tmp_path, monkeypatch, capsys
) -> None:
    clips = [str(row.audio) for row in read_manifest(corpus)][:40]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    flag, straight, out = (tmp_path / name for name in ("killed", "straight.jsonl", "out.jsonl"))
    command = ["classify", str(e2e_run), *clips[:20], str(broken), *clips[20:], "--device=cpu"]
    assert main([*command, "--output", str(straight)]) == 1
    expected = rows(straight)
    assert main([*command[:7], "--device=cpu", "--output", str(out)]) == 0  # five are done before
    killer = Path(clips[30]).name
    monkeypatch.setattr(
        engine, "work", partial(deadly_classify, flag, Path(clips[12]).name, killer)
    )
    capsys.readouterr()
    cluster = ["--engine=ray", "--workers=2"]
    assert main([*command, "--output", str(out), *cluster]) == 1
    printed = capsys.readouterr()
    assert flag.exists()
    assert printed.out == ""
    assert f"{clips[30]}: 3 workers died while this was in hand" in printed.err
    assert f"{broken}: not audio" in printed.err
    assert "39 done, 2 failed" in printed.err
    same(rows(out), [row for row in expected if row["id"] != killer])
    summary = json.loads((tmp_path / "out.jsonl.summary.json").read_text())
    told = ("inputs", "done", "skipped", "failed")
    assert [summary[name] for name in told] == [41, 34, 5, 2]
    monkeypatch.undo()  # now nobody dies
    assert main([*command, "--output", str(out)]) == 1
    same(sorted(rows(out), key=lambda r: r["id"]), sorted(expected, key=lambda r: r["id"]))


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
def test_transcribe_on_a_cluster_with_a_worker_killed(
    ray,
    recognizer,  # noqa: F811
    corpus,
    tmp_path,
    monkeypatch,
    capsys,
) -> None:
    common = ["transcribe", str(corpus), f"--recognizer={recognizer}", "--device=cpu"]
    assert main([*common, f"--store={tmp_path / 'one.sqlite'}"]) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    store, flag = f"--store={tmp_path / 'two.sqlite'}", tmp_path / "killed"
    assert main([*common, store, "--languages=fra", "--splits=dev"]) == 0  # four are done before
    capsys.readouterr()
    victim = next(row["id"] for row in expected if "eng-train" in row["id"])
    monkeypatch.setattr(transcribe, "work", partial(deadly_transcribe, flag, victim))
    assert main([*common, store, "--engine=ray", "--workers=2"]) == 0
    assert flag.exists()
    same([json.loads(line) for line in capsys.readouterr().out.splitlines()], expected)
    monkeypatch.setattr("speechtaxi.cluster.spread", lambda *_, **__: pytest.fail("sent twice"))
    monkeypatch.setattr("cascade.asr.trained.TrainedRecognizer.transcribe", lambda *_: 1 / 0)
    assert main([*common, store]) == 0
    same([json.loads(line) for line in capsys.readouterr().out.splitlines()], expected)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_is_stopped_and_gone_on_with(ray, e2e_run, corpus, tmp_path, stop) -> None:
    clips = [str(row.audio) for row in read_manifest(corpus)]
    out = tmp_path / "out.jsonl"
    command = ["classify", str(e2e_run), *clips, "--device=cpu", "--output"]
    source = (
        "import signal, sys, test_cluster\n"
        "from speechtaxi.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup` and `&` ignore it\n"
        "test_cluster.engine.work = test_cluster.slow_classify\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", source, *command, str(out), "--engine=ray", "--workers=2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + LIMIT
    while not (out.exists() and rows(out)) and driver.poll() is None:
        assert time.monotonic() < deadline, "no row in time"
        time.sleep(0.05)
    driver.send_signal(stop)
    _, told = driver.communicate(timeout=60)
    if stop is signal.SIGINT:
        assert driver.returncode == 130
        assert told.splitlines()[-1].endswith("interrupted; what is done is kept")
    else:
        assert driver.returncode == -signal.SIGKILL
    assert 0 < len(rows(out)) < len(clips)
    straight = tmp_path / "straight.jsonl"
    for path in (out, straight):
        assert main([*command, str(path)]) == 0
    same(rows(out), rows(straight))
