"""The command `speechtaxi`: names the front doors and opens the one that is asked for."""

from __future__ import annotations

import errno
import gc
import os
import sys
from importlib import import_module

from speechtaxi import __version__
from speechtaxi.errors import InputError

COMMANDS = {
    "fit": ("speechtaxi.train", "train a model (Lightning CLI)"),
    "validate": ("speechtaxi.train", "score a run on its dev split"),
    "test": ("speechtaxi.train", "score a run on its test split"),
    "predict": ("speechtaxi.train", "write a run's predictions for its test split"),
    "transcribe": ("speechtaxi.transcribe", "fill the transcript store with a recogniser"),
    "classify": ("speechtaxi.classify", "tell the topics of audio files with a trained model"),
    "serve": ("speechtaxi.serve", "answer over HTTP, with a page for the browser"),
    "export": ("speechtaxi.export", "write a run's best model as a folder to share"),
    "grid": ("speechtaxi.grid", "a whole experiment: systems x setups x languages x seeds"),
    "report": ("speechtaxi.report", "compare systems from their predictions"),
    "compare": ("speechtaxi.report.pair", "two runs against each other, in the terminal"),
    "data": ("speechtaxi.check", "fetch a published corpus; check one: counts, damage, leaks"),
    "languages": ("speechtaxi.catalogue", "the languages of SpeechTaxi, and who knows them"),
    "synthesize": ("speechtaxi.synthesize", "speak a table of texts with eSpeak NG"),
    "demo": ("speechtaxi.demo", "the whole comparison on synthetic news, offline"),
}

OVERVIEW = ("-h", "--help", "--version")


def usage() -> str:
    """Return the overview of all commands."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: speechtaxi COMMAND [ARGUMENTS]\n\n"
        "What is each clip about? Hear it (E2E) or read it (cascade), and compare.\n\n"
        f"{rows}\n\n'speechtaxi COMMAND --help' tells a command's arguments."
    )


def run() -> int:
    """Be a process of its own: `main`, started and ended without work that nobody needs."""
    gc.set_threshold(50_000)  # imports make many objects and hardly any garbage
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: huge pages, so fewer page faults
    status = main()
    gc.freeze()  # else a million objects are searched for garbage once more, for half a second
    return status


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status.

    0: done. 1: some inputs failed, the rest is done. 2: nothing could be done, one line says why.
    130: interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    name, *arguments = argv or ["--help"]
    if name not in (*COMMANDS, *OVERVIEW):
        print(
            f"speechtaxi: unknown command '{name}'; use one of {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    try:
        if name in OVERVIEW:
            print(f"speechtaxi {__version__}" if name == "--version" else usage())
            status = 0
        else:
            door = import_module(COMMANDS[name][0])
            training = COMMANDS[name][0].endswith(".train")
            status = door.main([name, *arguments] if training else arguments)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"speechtaxi {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        go_on = "; go on with --ckpt_path last" if name == "fit" else ""
        print(f"speechtaxi {name}: interrupted; what is done is kept{go_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"speechtaxi {name}: cannot write: {error.strerror}{where}; make room or choose "
            "another folder, then repeat the command: what is done is kept",
            file=sys.stderr,
        )
        return 2
