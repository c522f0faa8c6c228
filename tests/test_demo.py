"""The demo: a graph of public commands, each after what it needs."""

from speechtaxi.cli import COMMANDS
from speechtaxi.demo import steps
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
