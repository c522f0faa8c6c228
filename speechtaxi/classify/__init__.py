"""Front door: `speechtaxi classify MODEL AUDIO...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN
from speechtaxi.routing import is_report, routed
from speechtaxi.types import Answer, Span, Utterance

if TYPE_CHECKING:
    from speechtaxi.classifier import AudioClassifier
    from speechtaxi.recordings import Teller

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
    work = p.add_argument_group("how it works")
    work.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
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
    from speechtaxi.recordings import code_of, gather
    from speechtaxi.segment import open_segmenter

    kind = "jsonl" if table else results.kind_of(args.output or "-", args.format)
    lost: list[tuple[Utterance, str]] = []
    recordings = gather(
        inputs,
        lambda recording, why: lost.append((recording, why)),
        language=args.language if args.language == "folder" else code_of(args.language),
        include=args.include,
        exclude=args.exclude,
    )
    segmenter = None
    if args.segments != "none":
        segmenter = open_segmenter(
            args.segments,
            longest=args.longest,
            window=min(args.window, args.longest),
            overlap=args.overlap,
        )
    chosen = by_model(args.model, recordings)
    settings = {
        "model": [fingerprint(name) for name in [*chosen, *args.ensemble]],
        "segments": segmenter.name if segmenter else "none",
        **{
            name: getattr(args, name)
            for name in ("cut_above", "longest", "window", "overlap", "min_probability", "romanize")
        },
    }
    kept: list[Answer] = []
    marks: Marks = {}
    done = 0
    with ExitStack() as stack:
        sink = None
        if not table:
            sink = stack.enter_context(
                results.open_results(
                    args.output or "-", kind, settings, top_k=args.top_k, overwrite=args.overwrite
                )
            )
            for recording, why in lost:
                sink.fail("", recording.id, recording.audio or "", why)
        keys: dict[str, str] = {}

        def fail(recording: Utterance, why: str) -> None:
            lost.append((recording, why))
            if sink:
                sink.fail(keys.get(recording.id, ""), recording.id, recording.audio or "", why)

        def undone(part: Sequence[Utterance]) -> Iterator[Utterance]:
            nonlocal done
            for recording in part:
                if sink:
                    try:
                        keys[recording.id] = audio.digest(
                            recording.audio or "", recording.start, recording.duration
                        )
                    except InputError as error:
                        fail(recording, str(error))
                        continue
                    if sink.skip(keys[recording.id], recording.id):
                        done += 1
                        continue
                yield recording

        for name, part in chosen.items():
            teller = open_teller([name, *args.ensemble], args)
            for recording, answers in teller.answers(
                track(undone(part), len(part)),
                fail,
                segmenter=segmenter,
                above=args.cut_above,
                batch_seconds=args.batch_seconds,
                batch_size=args.batch_size,
            ):
                done += 1
                if sink:
                    sink.write(keys[recording.id], answers)
                if table or args.timeline:
                    kept += answers
                if args.explain:
                    marks |= explain(teller, recording, answers)
    if table:
        from speechtaxi.classify.table import show

        show(kept, args.top_k)
    if args.timeline:
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
    ):
        if (value := getattr(args, name)) is not None and not low <= value <= high:
            raise InputError(f"--{name} must lie between {low} and {high}")


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


def open_teller(models: Sequence[str], args: argparse.Namespace) -> Teller:
    """Open a model, or several as one, on the device asked for."""
    import torch

    from speechtaxi import load
    from speechtaxi.recordings import Teller, name_of

    allowed = tuple(args.allow_remote_code)
    model: AudioClassifier = load(
        list(models) if len(models) > 1 else models[0],  # type: ignore[arg-type]
        allow_remote_code=allowed,
    )
    cuda = args.device == "auto" and torch.cuda.is_available()
    model.to("cuda" if cuda else args.device.replace("auto", "cpu"))
    romanize = None
    if args.romanize:
        from cascade.romanizer import romanizer

        romanize = romanizer().romanize
    return Teller(model, " + ".join(map(name_of, models)), args.min_probability, romanize)


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


def write_timeline(
    answers: Sequence[Answer], folder: Path, min_probability: float, marks: Marks
) -> None:
    """Write index.html for all recordings, and for each Audacity labels, RTTM and WebVTT."""
    import os

    from speechtaxi import timeline
    from speechtaxi.records import replacing

    folder.mkdir(parents=True, exist_ok=True)
    by_id: dict[str, list[Answer]] = {}
    for answer in answers:
        by_id.setdefault(answer.id, []).append(answer)
    where = {id: os.path.relpath(rows[0].path, folder) for id, rows in by_id.items()}
    page = timeline.as_html(
        answers,
        audio={id: path.replace(os.sep, "/") for id, path in where.items()},
        marks=marks,
        min_probability=min_probability,
    )
    for id, rows in by_id.items():
        stem = folder / Path(*(part for part in Path(id).parts if part not in ("/", "..")))
        segments = [row for row in rows if row.kind == "segment"]
        stories = timeline.stories(segments, min_probability=min_probability) or rows
        for suffix, text in (
            ("audacity.txt", timeline.as_audacity(stories)),
            ("rttm", timeline.as_rttm(stories)),
            ("vtt", timeline.as_webvtt(rows)),
        ):
            with replacing(stem.with_name(f"{stem.name}.{suffix}")) as file:
                file.write(text)
    with replacing(folder / "index.html") as file:
        file.write(page)
    print(folder / "index.html", file=sys.stderr)
