"""Front door: `speechtaxi classify MODEL AUDIO...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from signal import SIGTERM, default_int_handler, signal
from typing import TYPE_CHECKING

from speechtaxi.classify.options import parser, refuse_nonsense
from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN
from speechtaxi.routing import is_report, routed
from speechtaxi.types import Answer, Utterance

if TYPE_CHECKING:
    from speechtaxi.classify.marks import Marks

__all__ = ["main", "parser"]


def main(argv: list[str]) -> int:
    """Classify and tell; name what could not be used."""
    args = parser().parse_args(argv)
    refuse_nonsense(args)
    table = args.format == "table" or not (args.format or args.output or not sys.stdout.isatty())
    if table and args.output:
        raise InputError(f"--output {args.output}: a table is for the terminal; leave out --format")
    inputs = [line for name in args.audio for line in (stdin_paths() if name == "-" else [name])]

    from speechtaxi import results
    from speechtaxi.classify import engine
    from speechtaxi.classify.ledger import Ledger
    from speechtaxi.recordings import code_of, gather

    kind = "jsonl" if table else results.kind_of(args.output or "-", args.format)
    unusable: list[tuple[Utterance, str]] = []
    recordings = gather(
        inputs,
        lambda recording, why: unusable.append((recording, why)),
        language=args.language if args.language == "folder" else code_of(args.language),
        include=args.include,
        exclude=args.exclude,
    )
    if args.language == "folder" and (untold := [r for r in recordings if r.language == UNKNOWN]):
        print(
            f"speechtaxi classify: {len(untold)} of {len(recordings)} recordings lie in no folder "
            f"that is named by a language's code, such as {untold[0].audio}",
            file=sys.stderr,
        )
    segmenter = engine.segmenter_of(args)
    chosen = by_model(args.model, recordings)
    shown: list[Answer] = []
    marks: Marks = {}
    with ExitStack() as stack:
        with suppress(ValueError):  # in the main thread, to be asked to end is to be interrupted
            stack.callback(signal, SIGTERM, signal(SIGTERM, default_int_handler))
        sink = None
        if not table:
            sink = results.open_results(
                args.output or "-",
                kind,
                settings_of(args, chosen, segmenter.name if segmenter else "none"),
                top_k=args.top_k,
                overwrite=args.overwrite,
                retry_crashed=args.retry_crashed,
            )
            stack.enter_context(sink)
        local = args.engine == "local"  # else it is workers that die of an input
        ledger = Ledger(sink, begins=local)
        for recording, why in unusable:
            ledger.fail(recording, why)
        for name, part in chosen.items():
            models = [name, *args.ensemble]
            groups = ledger.undone(track(part, len(part)))
            teller = engine.open_teller(models, args) if local else None
            if teller:
                told = engine.here(teller, args, segmenter, groups, ledger.fail)
            else:
                told = engine.on_cluster(models, args, groups, ledger.fail)
            for recording, answers in told:
                ledger.keep(recording, answers)
                if table or args.timeline:
                    shown += answers
                if args.explain and teller:
                    from speechtaxi.classify.marks import explain

                    found = explain(teller, recording, answers)
                    marks |= found if args.timeline else {}
    if table:
        from speechtaxi.classify.table import show

        show(shown, args.top_k)
    if args.timeline:
        from speechtaxi.classify.timeline import write_timeline

        write_timeline(shown, args.timeline, args.min_probability, marks)
    for recording, why in ledger.lost:
        name = recording.audio or recording.id
        print(f"speechtaxi classify: {why if name in why else f'{name}: {why}'}", file=sys.stderr)
    if ledger.lost:
        told = f"{ledger.done} done, {len(ledger.lost)} failed"
        print(f"speechtaxi classify: {told}", file=sys.stderr)
    return (1 if ledger.done else 2) if ledger.lost else 0


def stdin_paths() -> list[str]:
    """Return the paths that stdin lists, one a line."""
    return [line.rstrip("\n") for line in sys.stdin if line.strip()]


def by_model(model: str, recordings: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Return the recordings by the model for them: one, or what a report chose by language.

    Raises:
        InputError: the report has no model for a language.
    """
    if not is_report(model):
        return {model: list(recordings)}
    chosen: dict[str, list[Utterance]] = {}
    for recording in recordings:
        chosen.setdefault(str(routed(model, recording.language)), []).append(recording)
    return chosen


def fingerprint(model: str) -> str:
    """Return what tells a model from another: its weights."""
    from speechtaxi import audio, checkpoint

    return audio.digest(checkpoint.weights_file(model))


def settings_of(
    args: argparse.Namespace, models: Iterable[str], segmenter: str
) -> dict[str, object]:
    """Return what rows depend on: a file made with other settings is not gone on with."""
    if not args.output:
        return {}
    names = ("cut_above", "no_gate", "longest", "window", "overlap", "min_probability", "romanize")
    return {
        "model": [fingerprint(name) for name in [*models, *args.ensemble]],
        "segments": segmenter,
        **{name: getattr(args, name) for name in names},
        **({"dtype": args.dtype} if args.dtype != "float32" else {}),
    }


def track(recordings: Iterable[Utterance], count: int) -> Iterable[Utterance]:
    """Show progress on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        recordings, "reading", count, console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
