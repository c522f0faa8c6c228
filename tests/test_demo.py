"""The demo: a graph of public commands, run in order by workers, resumed, and honest in failure."""

import pytest

from speechtaxi.cli import COMMANDS
from speechtaxi.demo import Step, Workers, follow, spoken, steps
from speechtaxi.errors import InputError
from speechtaxi.train import config_path


def test_the_steps_are_public_commands_that_wait_for_steps_before_them(tmp_path):
    seen = set()
    for step in steps(tmp_path):
        assert step.command[0] in COMMANDS
        assert set(step.after) <= seen
        assert step.name not in seen
        seen.add(step.name)
        for before, word in zip(step.command, step.command[1:], strict=False):
            if before == "-c":
                config_path("-c", word)
    assert {"e2e_scratch", "e2e_warm", "cascade_native", "cascade_romanized"} <= seen


def test_a_command_is_shown_as_it_is_typed():
    assert spoken(("fit", "--data.labels=[a, b]")) == "speechtaxi fit '--data.labels=[a, b]'"


@pytest.fixture
def workers():
    with Workers(2) as pool:
        yield pool


def test_workers_keep_the_order_and_the_logs(workers, tmp_path):
    todo = [
        Step("last", ("--version",), tmp_path / "x", ("first", "second")),
        Step("first", ("--version",), tmp_path / "x"),
        Step("second", ("--help",), tmp_path / "x", cost=9),
    ]
    events = [(step.name, event) for step, event, _ in workers.run(todo, tmp_path)]
    assert events[0] == ("second", "start")  # the long one first
    assert events[-2:] == [("last", "start"), ("last", "end")]
    assert (tmp_path / "last.log").read_text().startswith("$ speechtaxi --version\nspeechtaxi 0")


def test_a_failing_step_names_its_log(workers, tmp_path):
    todo = [Step("bad", ("data", "check", "nowhere.jsonl"), tmp_path / "x")]
    with pytest.raises(InputError, match=r"'bad' failed: .*nowhere.jsonl.*bad.log"):
        follow(workers.run(todo, tmp_path), 1, tmp_path, 0.0)
