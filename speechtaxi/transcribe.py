"""Front door: `speechtaxi transcribe MANIFEST_OR_AUDIO... --recognizer NAME`."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtaxi import audio, cluster, records, scores, store
from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN, is_code
from speechtaxi.types import Transcript, Utterance

if TYPE_CHECKING:
    from cascade.transcriber import Clips, Heard, Transcriber

DECODING = (
    "beam_size",
    "max_new_tokens",
    "compression_ratio_threshold",
    "logprob_threshold",
    "no_speech_threshold",
    "temperatures",
)
FORMATS = ("jsonl", "csv", "tsv")
MANIFESTS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    p = argparse.ArgumentParser(
        prog="speechtaxi transcribe",
        description="Write what is said in each clip. Finished batches are kept in the store: "
        "a run that was stopped goes on where it was, and no clip is transcribed twice.",
        epilog="Exit status: 0 all transcribed, 1 some clips failed (each is named), 2 all.",
    )
    p.add_argument(
        "input", nargs="+", help="manifests (jsonl, csv, tsv, parquet), audio files, folders, globs"
    )
    p.add_argument(
        "--recognizer",
        required=True,
        help="whisper:NAME (openai-whisper, by name or .pt file), faster-whisper:NAME (name, hub "
        "id or folder), run folder or model folder of a recogniser fitted here, or folder or hub "
        "id of a transformers Whisper, Seamless M4T v2 or CTC model",
    )
    p.add_argument("--task", choices=("transcribe", "translate"), default="transcribe")
    p.add_argument("--beam_size", type=int, help="default: greedy")
    p.add_argument("--max_new_tokens", type=int, help="of a clip, or of a window of one")
    guards = p.add_argument_group(
        "guards", "what crosses one is sampled again at each temperature, or its text is emptied"
    )
    guards.add_argument("--compression_ratio_threshold", type=float, help="loops; Whisper's: 2.4")
    guards.add_argument("--logprob_threshold", type=float, help="unlikely texts; Whisper's: -1")
    guards.add_argument("--no_speech_threshold", type=float, help="silence; Whisper's: 0.6")
    guards.add_argument("--temperatures", type=float, nargs="+", help="such as 0.2 0.4 0.6 0.8 1")
    p.add_argument(
        "--unsupported",
        default="skip",
        metavar="skip | OURS=RELATED,... | romanized",
        help="languages that the recogniser does not know: an empty text (skip), that of a related "
        "language (bgc=hin,bht=hin), or the fallback's (romanized); flagged in any case",
    )
    p.add_argument("--fallback", help="recogniser that spells uroman, for --unsupported romanized")
    p.add_argument("--store", help=f"SQLite file to keep transcripts in ({store.default_path()})")
    p.add_argument("--language", help="ISO 639-3 of clips whose language is not told")
    p.add_argument("--languages", nargs="+", help="only clips in these")
    p.add_argument("--splits", nargs="+", help="only clips of these")
    p.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="a manifest's own name for one of our columns",
    )
    p.add_argument("--format", choices=FORMATS, help="of the rows; default: jsonl")
    p.add_argument("--output", default="-", help="file to write; its suffix sets the format")
    p.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="this process, or workers on a Ray cluster (extra `ray`)",
    )
    p.add_argument("--workers", type=int, help="of Ray; default: one a GPU, or else a CPU")
    p.add_argument("--ray_address", help="of a running Ray cluster; default: one is started")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    p.add_argument("--dtype", choices=("float32", "float16", "bfloat16", "int8"), default="float32")
    p.add_argument("--batch_seconds", type=float, default=120.0, help="most audio in a batch")
    p.add_argument("--batch_size", type=int, default=8, help="most clips in a batch")
    p.add_argument(
        "--allow_remote_code", action="append", default=[], help="encoder whose own code may run"
    )
    return p


def main(argv: list[str]) -> int:
    """Transcribe, write a row for each clip, name what could not be read."""
    args = parser().parse_args(argv)
    suffix = Path(args.output).suffix[1:]
    if args.output != "-" and not args.format and suffix not in FORMATS:
        raise InputError(f"--output {args.output}: name it .jsonl, .csv or .tsv, or give --format")
    if args.engine == "local" and (args.workers or args.ray_address):
        raise InputError("--workers and --ray_address are for --engine ray")
    if args.workers is not None and args.workers < 1:
        raise InputError("--workers must be at least 1")
    clips = choose(gather(args.input, args.language, args.column), args.languages, args.splits)

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    transcriber = open_transcriber(args)
    failed: list[str] = []
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("clips", total=len(clips))
        transcripts = transcriber.transcribe(
            clips,
            on_error=lambda clip, error: failed.append(f"{clip.id}: {error}"),
            progress=lambda count: progress.update(task, advance=count),
            spread=partial(on_cluster, args) if args.engine == "ray" else None,
        )
    done = [(c, t) for c, t in zip(clips, transcripts, strict=True) if t is not None]
    write(done, args.format or suffix or "jsonl", args.output)
    spells = "english" if args.task == "translate" else transcriber.recognizer.spells
    for line in summary(done, spells):
        print(f"speechtaxi transcribe: {line}", file=sys.stderr)
    for line in failed:
        print(f"speechtaxi transcribe: {line}", file=sys.stderr)
    if failed:
        print(f"speechtaxi transcribe: {len(done)} done, {len(failed)} failed", file=sys.stderr)
    return (1 if done else 2) if failed else 0


def open_transcriber(args: argparse.Namespace) -> Transcriber:
    """Return who transcribes as the command line asks.

    Raises:
        InputError: there is no such recogniser, or it cannot do what is asked.
    """
    import torch

    from cascade.asr import Decoding, open_recognizer
    from cascade.transcriber import Transcriber

    memory = store.TranscriptStore(args.store or store.default_path())
    cuda = args.device == "auto" and torch.cuda.is_available()
    settings: dict[str, Any] = {
        "device": "cuda" if cuda else args.device.replace("auto", "cpu"),
        "digest": lambda path: memory.digest(path, audio.digest),
        "allow_remote_code": tuple(args.allow_remote_code),
    }
    decoding = Decoding.of({name: getattr(args, name) for name in DECODING}, args.task)
    unsupported = args.unsupported
    if "=" in unsupported:
        unsupported = dict(
            pair.strip().split("=", 1) for pair in unsupported.split(",") if "=" in pair
        )
    fallback = args.fallback and open_recognizer(args.fallback, **settings)
    return Transcriber(
        open_recognizer(args.recognizer, dtype=args.dtype, decoding=decoding, **settings),
        memory,
        batch_seconds=args.batch_seconds,
        batch_size=args.batch_size,
        unsupported=unsupported,
        fallback=fallback,
    )


def on_cluster(args: argparse.Namespace, batches: Iterable[Clips]) -> Iterator[Heard]:
    """Let workers on a Ray cluster hear batches; files lie under the same paths there."""
    for items, heard in cluster.spread(
        partial(work, args),
        (list(batch.items()) for batch in batches),
        workers=args.workers,
        address=args.ray_address,
        gpu=args.device != "cpu",
    ):
        died = InputError(f"{cluster.DEATHS} workers died while this was in hand")
        yield heard or (dict(items), [], [(clip, died) for _, clip in items])


def work(args: argparse.Namespace) -> Callable[[list[tuple[str, Utterance]]], Heard]:
    """Open the recogniser in a worker; the store is the driver's alone."""
    transcriber = open_transcriber(argparse.Namespace(**vars(args) | {"store": ":memory:"}))
    return lambda items: transcriber.hear(dict(items))


def gather(inputs: Sequence[str], language: str | None, columns: Sequence[str]) -> list[Utterance]:
    """Return the clips of manifests and audio files.

    Raises:
        InputError: an input is missing or broken, or a column is not given as OURS=THEIRS.
    """
    if language is not None and not is_code(language):
        raise InputError(f"--language {language}: give an ISO 639-3 code such as eng or swh")
    if wrong := [column for column in columns if "=" not in column]:
        raise InputError(f"--column {wrong[0]}: write our name, =, their name, as in text=sentence")
    names = dict(column.split("=", 1) for column in columns)
    clips: list[Utterance] = []
    for name in inputs:
        if Path(name).suffix.lower() in MANIFESTS:
            clips += records.read_manifest(name, columns=names, language=language)
        else:
            clips += (
                Utterance(str(path), language or UNKNOWN, audio=str(path))
                for path in audio.find_audio([name])
            )
    return clips


def choose(
    clips: list[Utterance], languages: list[str] | None, splits: list[str] | None
) -> list[Utterance]:
    """Keep clips in some languages and splits.

    Raises:
        InputError: there is no clip in one of them.
    """
    for field, wanted in (("language", languages), ("split", splits)):
        if wanted is None:
            continue
        there = sorted({getattr(clip, field) for clip in clips})
        if absent := [value for value in wanted if value not in there]:
            raise InputError(f"no clip has the {field} {absent[0]}; there are {', '.join(there)}")
        clips = [clip for clip in clips if getattr(clip, field) in wanted]
    return clips


def write(done: Iterable[tuple[Utterance, Transcript]], kind: str, output: str) -> None:
    """Write one row for each clip: to stdout, or to a file that appears when it is whole."""
    rows = [row(clip, transcript) for clip, transcript in done]
    with nullcontext(sys.stdout) if output == "-" else records.replacing(output) as file:
        if kind == "jsonl":
            file.writelines(json.dumps(cells, ensure_ascii=False) + "\n" for cells in rows)
            return
        delimiter = "," if kind == "csv" else "\t"
        names = list(row(Utterance("", UNKNOWN), Transcript("", "")))
        table = csv.DictWriter(file, names, delimiter=delimiter, lineterminator="\n")
        table.writeheader()
        table.writerows(cells | {"flags": " ".join(cells["flags"])} for cells in rows)


def row(clip: Utterance, transcript: Transcript) -> dict[str, Any]:
    """Return what is told of a clip."""
    told = {name: value for name, value in asdict(transcript).items() if name != "key"}
    return {"id": clip.id, "language": clip.language} | told


def summary(done: list[tuple[Utterance, Transcript]], spells: str) -> Iterable[str]:
    """Yield what was flagged, and the character error rate by language where gold text exists.

    A translation ("english") has no gold text; what a fallback wrote is compared romanised.
    """
    flags = Counter(flag for _, transcript in done for flag in transcript.flags)
    if flags:
        yield "flagged: " + ", ".join(f"{count} {flag}" for flag, count in flags.most_common())
    pairs: dict[str, list[tuple[str, str]]] = {}
    for clip, transcript in done:
        if clip.text and spells != "english" and "unsupported_language" not in transcript.flags:
            reference = clip.text
            if spells == "uroman" or "fallback" in transcript.flags:
                from cascade.romanizer import romanizer

                reference = romanizer().romanize(reference, clip.language)
            pairs.setdefault(clip.language, []).append((transcript.text, reference))
    for language, texts in sorted(pairs.items()):
        edits = scores.character_edits(*zip(*texts, strict=True))
        rate = float(scores.error_rate(edits.sum(0)))
        yield f"CER {language} {rate:.3f} ({len(texts)} clips)"
