"""What `speechtaxi classify` can be asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN

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
