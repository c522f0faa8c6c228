"""Workers: order, logs, failures that stop only what needs them, replacement, retries, an end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from speechtaxi.workers import (
    CRASHED,
    OUT_OF_MEMORY,
    REFUSED,
    Event,
    Step,
    Workers,
    _is_out_of_memory,
    follow,
    spoken,
    urgent_first,
)


def test_a_command_is_shown_as_it_is_typed():
    assert spoken(("fit", "--data.labels=[a, b]")) == "speechtaxi fit '--data.labels=[a, b]'"


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as pool:
        yield pool


def told(events):
    return [(event.step.name, event.kind) for event in events]


def test_order_and_logs(workers, tmp_path):
    todo = [
        Step("last", ("--version",), ("first", "second")),
        Step("first", ("--version",)),
        Step("second", ("--help",), cost=9),
    ]
    events = told(workers.run(todo, tmp_path))
    assert events[0] == ("second", "start")  # the long one first
    assert events[-2:] == [("last", "start"), ("last", "done")]
    assert (tmp_path / "last.log").read_text().startswith("$ speechtaxi --version\nspeechtaxi 0")


def test_what_begins_the_longest_chain_is_first():
    steps = [
        Step("alone", (), cost=5),
        Step("end", (), ("middle",), cost=4),
        Step("middle", (), ("begin", "elsewhere"), cost=1),
        Step("begin", (), cost=1),
    ]
    assert [step.name for step in urgent_first(steps)] == ["begin", "alone", "middle", "end"]


def test_what_needs_a_failed_step_is_blocked_and_all_else_is_done(workers, tmp_path):
    todo = [
        Step("bad", ("data", "check", "nowhere.jsonl")),
        Step("child", ("--version",), ("bad",)),
        Step("grandchild", ("--version",), ("child",)),
        Step("good", ("--version",)),
    ]
    lost = follow(workers.run(todo, tmp_path), 4, "test")
    assert told(lost) == [("bad", "failed"), ("child", "blocked"), ("grandchild", "blocked")]
    assert "nowhere.jsonl" in lost[0].reason
    assert "bad.log" in lost[0].reason
    assert lost[2].reason == "needs child"
    assert (tmp_path / "good.log").exists()


def test_stops_at_the_first_failure_when_asked(workers, tmp_path):
    step = Step("bad", ("data", "check", "nowhere.jsonl"))
    events = iter([Event(step, "failed", "so"), Event(step, "start")])
    assert told(follow(events, 1, "test", until_failure=True)) == [("bad", "failed")]
    assert len(list(events)) == 1


def test_a_killed_worker_is_replaced_and_its_step_done_again(tmp_path):
    tried = []

    def again(step, status):
        tried.append(status)
        return Step(step.name, ("--version",)) if status == -signal.SIGKILL else None

    slow = Step("slow", ("synthesize", "news", "-o", str(tmp_path / "news")))
    with Workers(1) as pool:
        events = []
        for event in pool.run([slow], tmp_path, again):
            events.append((event.step.name, event.kind))
            if event.kind == "start" and len(events) == 1:
                os.kill(pool.hands[0][1].pid, signal.SIGKILL)
    assert tried == [-signal.SIGKILL]
    assert events == [("slow", "start"), ("slow", "again"), ("slow", "start"), ("slow", "done")]


def test_statuses_differ_from_those_of_commands():
    assert len({0, 1, REFUSED, CRASHED, OUT_OF_MEMORY, 130}) == 6


def test_out_of_memory_is_told_from_other_errors():
    import torch

    assert _is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert _is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert _is_out_of_memory(error.value)
    assert not _is_out_of_memory(RuntimeError("shapes differ"))


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = (
        "import time\nfrom speechtaxi.workers import Workers\n"
        "if __name__ == '__main__':\n"
        "    pool = Workers(1)\n    print(pool.hands[0][1].pid, flush=True)\n    time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(script)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True
    )
    worker = int(parent.stdout.readline())
    time.sleep(2)  # for the worker to begin listening
    parent.kill()
    parent.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker goes on without its parent")
