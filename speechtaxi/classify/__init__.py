"""Front door: `speechtaxi classify MODEL AUDIO...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby
from pathlib import Path
from signal import SIGTERM, default_int_handler, signal
from typing import TYPE_CHECKING, TypeAlias

from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN
from speechtaxi.routing import is_report, routed
from speechtaxi.types import Answer, Span, Utterance

if TYPE_CHECKING:
    from speechtaxi.recordings import Teller
    from speechtaxi.results import Results

Marks: TypeAlias = dict[tuple[str, Span], Sequence[tuple[str, float]]]
"""By recording and stretch: what was read, and how much each word speaks for the topic."""

FORMATS = ("table", "jsonl", "csv", "tsv", "parquet", "sqlite")
SEGMENTS = ("auto", "vad", "energy", "fixed", "none")

EPILOG = """
Long recordings are cut into utterances; each is a row (kind "segment"), and the recording is one
("recording"). A file that FILE names appears as results are done, survives a kill, and is gone on
with by the same command; beside it lie FILE.summary.json and, if need be, FILE.failed.jsonl.
Exit status: 0 all classified, 1 some failed (each is named), 2 all.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    p = argparse.ArgumentParser(
        prog="speechtaxi classify",
        description="Tell the topics of recordings: hear them (E2E) or read them (cascade), "
        "whichever the model does.",
        epilog=EPILOG,
    )
    p.add_argument(
        "model",
        help="run folder, model folder written by `speechtaxi export`, or report folder: the model "
        "that the report chose for the language",
    )
    p.add_argument(
        "audio",
        nargs="+",
        help="files, folders, glob patterns, manifests; - reads paths from stdin",
    )
    p.add_argument(
        "--language",
        default=UNKNOWN,
        help="of the speech: a code or name; auto: the recogniser tells it; folder: folders are "
        "named by codes. A manifest says it itself",
    )
    p.add_argument("--include", action="append", default=[], help="pattern of files in folders")
    p.add_argument("--exclude", action="append", default=[], help="pattern of files to leave out")
    p.add_argument(
        "--ensemble",
        action="append",
        default=[],
        metavar="MODEL",
        help="average the probabilities with this model's, such as a cascade's with an E2E's",
    )
    cut = p.add_argument_group("long recordings")
    cut.add_argument(
        "--segments",
        choices=SEGMENTS,
        default="auto",
        help="how to cut: voice activity (extra `vad`), energy, fixed windows; auto: the first "
        "that is installed",
    )
    cut.add_argument("--cut_above", type=float, default=30.0, help="seconds (30)")
    cut.add_argument(
        "--no_gate",
        action="store_true",
        help="tell a topic of shorter ones too in which voice activity hears no speech",
    )
    cut.add_argument("--longest", type=float, default=30.0, help="seconds of a segment (30)")
    cut.add_argument("--window", type=float, default=10.0, help="seconds of a fixed window (10)")
    cut.add_argument("--overlap", type=float, default=0.0, help="seconds, of fixed windows (0)")
    cut.add_argument(
        "--timeline",
        type=Path,
        metavar="DIR",
        help="write topics over time: a page, Audacity labels, RTTM, WebVTT",
    )
    told = p.add_argument_group("what is told")
    told.add_argument("--top_k", type=int, default=3, help="topics to tell, best first")
    told.add_argument(
        "--min_probability", type=float, default=0.0, help="below it the topic is unknown"
    )
    told.add_argument(
        "--romanize", action="store_true", help="tell a native transcript in Latin letters too"
    )
    told.add_argument(
        "--explain",
        action="store_true",
        help="mark the words or seconds that decided, on stderr and in the timeline",
    )
    told.add_argument("--format", choices=FORMATS, help="default: table on a terminal, else jsonl")
    told.add_argument(
        "--output", metavar="FILE", help="instead of stdout; its suffix sets the format"
    )
    told.add_argument("--overwrite", action="store_true", help="begin FILE anew")
    told.add_argument(
        "--retry_crashed",
        action="store_true",
        help="try again what is listed as failed because the process died of it",
    )
    work = p.add_argument_group("how it works")
    work.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="this process, or workers on a Ray cluster (extra `ray`)",
    )
    work.add_argument(
        "--workers", type=int, help="of Ray; default: one for each GPU, else each CPU"
    )
    work.add_argument("--ray_address", help="of a running Ray cluster; default: one is started")
    work.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    work.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what the model computes in; bfloat16 is quicker where the hardware has it, and "
        "changes probabilities a little (not those of a recogniser's transcripts)",
    )
    work.add_argument("--batch_seconds", type=float, default=60.0, help="most audio in a batch")
    work.add_argument(
        "--batch_size", type=int, help="most clips in a batch; default: what suits the model"
    )
    work.add_argument(
        "--allow_remote_code", action="append", default=[], help="encoder whose own code may run"
    )
    return p


def main(argv: list[str]) -> int:
    """Classify and tell; name what could not be used."""
    args = parser().parse_args(argv)
    refuse_nonsense(args)
    table = args.format == "table" or not (args.format or args.output or not sys.stdout.isatty())
    if table and args.output:
        raise InputError(f"--output {args.output}: a table is for the terminal; leave out --format")
    inputs = [line for name in args.audio for line in (stdin_paths() if name == "-" else [name])]

    from speechtaxi import audio, results
    from speechtaxi.classify import engine
    from speechtaxi.recordings import code_of, gather

    kind = "jsonl" if table else results.kind_of(args.output or "-", args.format)
    lost: list[tuple[Utterance, str]] = []
    recordings = gather(
        inputs,
        lambda recording, why: lost.append((recording, why)),
        language=args.language if args.language == "folder" else code_of(args.language),
        include=args.include,
        exclude=args.exclude,
    )
    segmenter = engine.segmenter_of(args)
    chosen = by_model(args.model, recordings)
    settings = {
        "model": [fingerprint(name) for name in [*chosen, *args.ensemble]],
        "segments": segmenter.name if segmenter else "none",
        **{
            name: getattr(args, name)
            for name in (
                *("cut_above", "no_gate", "longest", "window", "overlap"),
                *("min_probability", "romanize"),
            )
        },
        **({"dtype": args.dtype} if args.dtype != "float32" else {}),
    }
    kept: list[Answer] = []
    marks: Marks = {}
    done = 0
    with ExitStack() as stack:
        with suppress(ValueError):  # in the main thread, to be asked to end is to be interrupted
            stack.callback(signal, SIGTERM, signal(SIGTERM, default_int_handler))
        sink = None
        if not table:
            sink = stack.enter_context(
                results.open_results(
                    args.output or "-",
                    kind,
                    settings,
                    top_k=args.top_k,
                    overwrite=args.overwrite,
                    retry_crashed=args.retry_crashed,
                )
            )
            for recording, why in lost:
                sink.fail("", recording.id, recording.audio or "", why)
        keys: dict[str, str] = {}

        def fail(recording: Utterance, why: str) -> None:
            lost.append((recording, why))
            if sink:
                sink.fail(keys.pop(recording.id, ""), recording.id, recording.audio or "", why)

        def undone(part: Iterable[Utterance]) -> Iterator[Utterance]:
            nonlocal done
            for recording in part:
                if sink:
                    try:
                        key = audio.digest(
                            recording.audio or "", recording.start, recording.duration
                        )
                        if sink.skip(key, recording.id):
                            done += 1
                            continue
                        keys[recording.id] = key
                        if args.engine == "local":  # else it is workers that die of an input
                            sink.begin(key, recording.id)
                    except InputError as error:
                        fail(recording, str(error))
                        continue
                yield recording

        for name, part in chosen.items():
            models = [name, *args.ensemble]
            groups = map(undone, apart(track(part, len(part)), sink))
            teller = engine.open_teller(models, args) if args.engine == "local" else None
            if teller:
                told = engine.here(teller, args, segmenter, groups, fail)
            else:
                told = engine.on_cluster(models, args, groups, fail)
            for recording, answers in told:
                done += 1
                if sink:
                    sink.write(keys.pop(recording.id), answers)
                if table or args.timeline:
                    kept += answers
                if args.explain and teller:
                    found = explain(teller, recording, answers)
                    marks |= found if args.timeline else {}
    if table:
        from speechtaxi.classify.table import show

        show(kept, args.top_k)
    if args.timeline:
        from speechtaxi.classify.timeline import write_timeline

        write_timeline(kept, args.timeline, args.min_probability, marks)
    for recording, why in lost:
        name = recording.audio or recording.id
        print(f"speechtaxi classify: {why if name in why else f'{name}: {why}'}", file=sys.stderr)
    if lost:
        print(f"speechtaxi classify: {done} done, {len(lost)} failed", file=sys.stderr)
    return (1 if done else 2) if lost else 0


def refuse_nonsense(args: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        InputError: one does.
    """
    for name, low, high in (
        ("top_k", 1, 10**6),
        ("min_probability", 0, 1),
        ("cut_above", 0, float("inf")),
        ("longest", 1, 600),
        ("window", 1, 600),
        ("overlap", 0, 60),
        ("batch_seconds", 1, float("inf")),
        ("batch_size", 1, 10**6),
        ("workers", 1, 10**4),
    ):
        if (value := getattr(args, name)) is not None and not low <= value <= high:
            raise InputError(f"--{name} must lie between {low} and {high}")
    if args.engine == "ray" and args.explain:
        raise InputError("--explain needs the model in this process; leave out --engine ray")
    if args.engine == "local" and (args.workers or args.ray_address):
        raise InputError("--workers and --ray_address are for --engine ray")


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


def apart(recordings: Iterable[Utterance], sink: Results | None) -> Iterator[Iterable[Utterance]]:
    """Yield runs of recordings: what was in hand when the process died, alone, and all between."""
    for _, run in groupby(recordings, lambda one: one.id if sink and sink.suspect(one.id) else ""):
        yield run


def track(recordings: Iterable[Utterance], count: int) -> Iterable[Utterance]:
    """Show progress on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        recordings, "reading", count, console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip


def explain(teller: Teller, recording: Utterance, answers: Sequence[Answer]) -> Marks:
    """Mark on stderr what decided, for each clip that was classified; return the words' weights."""
    from dataclasses import replace

    from rich.console import Console

    from speechtaxi.classifier import Classifier
    from speechtaxi.explain import explain as why
    from speechtaxi.explain import marked

    if not isinstance(teller.model, Classifier):
        raise InputError("--explain is of one model; leave out --ensemble")
    console = Console(stderr=True, soft_wrap=True)
    marks: Marks = {}
    segments = [answer for answer in answers if answer.kind == "segment"] or answers
    for number, answer in enumerate(segments):
        if answer.probability is None:
            continue
        clip = recording
        if answer.kind == "segment":
            length = answer.span.end - answer.span.start
            start = answer.span.start
            clip = replace(recording, id=f"{recording.id}#{number}", start=start, duration=length)
        console.print(f"{recording.id} at {answer.span.start:.1f} s: ", end="", markup=False)
        found = why(teller.model, clip)
        console.print(marked(found))
        if found.words is not None:
            marks[recording.id, answer.span] = found.words
    return marks
