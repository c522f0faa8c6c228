"""The command: names its front doors, opens them late, and turns failures into exit statuses."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import subprocess
import sys
import types

import pytest

from speechtaxi import __version__, cli
from speechtaxi.errors import InputError

HEAVY = ["torch", "lightning", "transformers", "librosa", "scipy", "sklearn", "altair", "whisper"]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def door(monkeypatch):
    """Return a function that puts a front door named `door` into the house."""

    def hang(main) -> None:
        module = types.ModuleType("speechtaxi_test_door")
        module.main = main
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "door", (module.__name__, "a test"))

    return hang


def failing(error: BaseException):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_usage_names_every_command(arguments, capsys):
    assert cli.main(arguments) == 0
    page = capsys.readouterr().out
    assert all(f"  {name} " in page for name in cli.COMMANDS)


def test_help_takes_under_a_second_of_cpu_and_imports_nothing_heavy():
    done = python(
        "-c",
        "import sys, time; from speechtaxi import cli; cli.main(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], time.process_time() < 1)",
    )
    assert done.stdout.splitlines()[-1] == "[] True", done.stderr


def test_python_m_equals_the_command():
    assert python("-m", "speechtaxi", "--help").stdout.strip() == cli.usage()
    assert python("-m", "speechtaxi", "--version").stdout == f"speechtaxi {__version__}\n"
    assert python("-m", "speechtaxi", "drive").returncode == 2
    scripts = importlib.metadata.entry_points(group="console_scripts", name="speechtaxi")
    assert all(script.load() is cli.run for script in scripts)  # none: not installed


def test_an_unknown_command_lists_the_known_ones(capsys):
    assert cli.main(["drive"]) == 2
    error = capsys.readouterr().err
    assert error == f"speechtaxi: unknown command 'drive'; use one of {', '.join(cli.COMMANDS)}\n"


def test_a_front_door_gets_its_arguments_and_gives_its_status(door):
    seen = []
    door(lambda argv: seen.append(argv) or 1)
    assert cli.main(["door", "a", "--b"]) == 1
    assert seen == [["a", "--b"]]


def test_the_trainer_is_told_its_verb(monkeypatch):
    module = types.ModuleType("speechtaxi.train")
    seen = []
    module.main = lambda argv: seen.append(argv) or 0
    monkeypatch.setitem(sys.modules, "speechtaxi.train", module)
    assert cli.main(["validate", "-c", "x"]) == 0
    assert seen == [["validate", "-c", "x"]]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("a.wav: the file is empty"), 2, "speechtaxi door: a.wav: the file is empty"),
        (KeyboardInterrupt(), 130, "speechtaxi door: interrupted; what is done is kept"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/full/x"),
            2,
            "speechtaxi door: cannot write: No space left on device (/full/x); make room or",
        ),
    ],
)
def test_failures_are_one_line(door, capsys, error, status, line):
    door(failing(error))
    assert cli.main(["door"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EIO, "broken disk")])
def test_our_own_bugs_keep_their_traceback(door, error):
    door(failing(error))
    with pytest.raises(type(error)):
        cli.main(["door"])


def test_a_reader_that_goes_away_is_no_failure():
    """Much output, as in `speechtaxi report ... | head`, into a pipe that nobody reads."""
    script = (
        "import sys, types; from speechtaxi import cli; door = types.ModuleType('door')\n"
        "door.main = lambda argv: print('x' * 1_000_000) or 0\n"
        "sys.modules['door'] = door; cli.COMMANDS['door'] = ('door', '')\n"
        "sys.exit(cli.main(['door']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("module", sorted({module for module, _ in cli.COMMANDS.values()}))
def test_front_doors_import_nothing_heavy(module):
    assert importlib.util.find_spec(module), f"{module} is in COMMANDS but not in the house"
    done = python(
        "-c",
        f"import sys, {module}; assert callable({module}.main)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])",
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_an_error_is_one_line_whatever_a_file_is_called():
    from speechtaxi.errors import InputError

    assert str(InputError("two\nlines.wav: no such file")) == "two lines.wav: no such file"
