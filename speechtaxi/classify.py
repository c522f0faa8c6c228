"""Front door: `speechtaxi classify MODEL AUDIO...`."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN, is_code
from speechtaxi.routing import is_report, routed
from speechtaxi.types import Prediction

FORMATS = ("table", "jsonl", "csv", "tsv")


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    p = argparse.ArgumentParser(
        prog="speechtaxi classify",
        description="Tell the topics of audio files: hear them (E2E) or read them (cascade), "
        "whichever the model does.",
        epilog="Exit status: 0 all classified, 1 some files failed (each is named), 2 all.",
    )
    p.add_argument(
        "model",
        help="run folder, model folder written by `speechtaxi export`, or report folder: the model "
        "that the report chose for --language",
    )
    p.add_argument(
        "audio", nargs="+", help="files, folders or glob patterns; - reads paths from stdin"
    )
    p.add_argument(
        "--language", default=UNKNOWN, help="ISO 639-3 of the speech; recognisers want it"
    )
    p.add_argument("--top_k", type=int, default=3, help="topics to tell, best first")
    p.add_argument(
        "--romanize", action="store_true", help="tell a native transcript in Latin letters too"
    )
    p.add_argument("--format", choices=FORMATS, help="default: table on a terminal, else jsonl")
    p.add_argument("--output", help="file to write instead of stdout; its suffix sets the format")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    p.add_argument("--batch_seconds", type=float, default=60.0, help="most audio in a batch")
    p.add_argument("--batch_size", type=int, default=8, help="most clips in a batch")
    p.add_argument(
        "--allow_remote_code", action="append", default=[], help="encoder whose own code may run"
    )
    return p


def main(argv: list[str]) -> int:
    """Classify and print; name what could not be read."""
    args = parser().parse_args(argv)
    if not is_code(args.language):
        raise InputError(f"--language {args.language}: give an ISO 639-3 code such as eng or swh")
    suffix = Path(args.output).suffix[1:] if args.output else ""
    if args.output and not args.format and suffix not in FORMATS:
        raise InputError(f"--output {args.output}: name it .jsonl, .csv or .tsv, or give --format")
    kind = args.format or suffix or ("table" if sys.stdout.isatty() else "jsonl")
    audio = [line for name in args.audio for line in (stdin_paths() if name == "-" else [name])]

    import torch

    from speechtaxi import load

    name = routed(args.model, args.language) if is_report(args.model) else args.model
    model = load(str(name), allow_remote_code=tuple(args.allow_remote_code))
    cuda = args.device == "auto" and torch.cuda.is_available()
    model.to("cuda" if cuda else args.device.replace("auto", "cpu"))
    failed: list[tuple[str, str]] = []
    rows = model.classify(
        audio,
        language=args.language,
        batch_seconds=args.batch_seconds,
        batch_size=args.batch_size,
        failed=failed,
    )
    romanize = romanizer() if args.romanize else None
    done = write(rows, kind, args.top_k, args.output, romanize)
    for name, reason in failed:
        print(
            f"speechtaxi classify: {reason if name in reason else f'{name}: {reason}'}",
            file=sys.stderr,
        )
    if failed:
        print(f"speechtaxi classify: {done} done, {len(failed)} failed", file=sys.stderr)
    return (1 if done else 2) if failed else 0


def stdin_paths() -> list[str]:
    """Return the paths that stdin lists, one a line."""
    return [line.rstrip("\n") for line in sys.stdin if line.strip()]


def romanizer() -> Callable[[Prediction], str]:
    """Return what tells a row's transcript in Latin letters."""
    from cascade.romanizer import romanizer

    return lambda row: romanizer().romanize(row.text, row.language) if row.text else ""


def best(row: Prediction, k: int) -> dict[str, float]:
    """Return the k most probable topics, best first."""
    ranked = sorted(row.probabilities.items(), key=lambda item: -item[1])
    return {label: round(chance, 4) for label, chance in ranked[:k]}


def write(
    rows: Iterable[Prediction],
    kind: str,
    top_k: int,
    output: str | None,
    romanize: Callable[[Prediction], str] | None,
) -> int:
    """Write rows as they come; return how many there were."""
    if kind == "table":
        return write_table(list(rows), top_k, romanize)
    with (
        open(output, "w", encoding="utf-8", newline="")
        if output
        else nullcontext(sys.stdout) as stream
    ):
        count = 0
        if kind == "jsonl":
            for row in rows:
                count += 1
                fields = asdict(row) | {"probabilities": best(row, top_k)}
                if romanize:
                    fields["romanized"] = romanize(row)
                print(json.dumps(fields, ensure_ascii=False), file=stream, flush=True)
            return count
        delimiter = "," if kind == "csv" else "\t"
        table = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        names = [f"{name}_{n}" for n in range(1, top_k + 1) for name in ("topic", "probability")]
        last = ["duration", "text", "flags", *["romanized"] * bool(romanize)]
        table.writerow(["id", "language", "prediction", *names, *last])
        for row in rows:
            count += 1
            ranked = [cell for pair in best(row, top_k).items() for cell in pair]
            ranked += [""] * (2 * top_k - len(ranked))
            last = [row.duration, row.text or "", " ".join(row.flags)]
            last += [romanize(row)] if romanize else []
            table.writerow([row.id, row.language, row.prediction, *ranked, *last])
            stream.flush()
        return count


def write_table(
    rows: list[Prediction], top_k: int, romanize: Callable[[Prediction], str] | None
) -> int:
    """Print a table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    table.add_column("file", overflow="fold")
    for name in ("topic", "probabilities", "seconds"):
        table.add_column(name)
    read = any(row.text is not None for row in rows)
    if read:
        table.add_column("transcript", overflow="fold")
    if read and romanize:
        table.add_column("romanized", overflow="fold")
    flagged = any(row.flags for row in rows)
    if flagged:
        table.add_column("flags")
    for row in rows:
        ranked = "  ".join(f"{label} {chance:.2f}" for label, chance in best(row, top_k).items())
        cells = [row.id, row.prediction, ranked, f"{row.duration or 0:.1f}"]
        if read:
            cells.append(row.text or "")
        if read and romanize:
            cells.append(romanize(row))
        table.add_row(*cells, *[" ".join(row.flags)] * flagged)
    Console().print(table)
    return len(rows)
