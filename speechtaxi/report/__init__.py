"""The front door `speechtaxi report`: compares runs by the predictions that they wrote."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtaxi.errors import InputError

if TYPE_CHECKING:
    from speechtaxi.report.board import Arm
    from speechtaxi.report.comparison import Comparison
    from speechtaxi.report.folder import File
    from speechtaxi.report.section import Section
    from speechtaxi.types import Utterance

FEWEST_RESAMPLES = 200

FORMS = ("html", "md", "json", "csv", "parquet", "latex", "svg", "png")

MOST_EXAMPLES = 150
"""About how many clips to listen to a page has at most: saving one takes a third of a second."""

EVERY = 3.0
"""Seconds from one look at the runs to the next, when watching."""


def main(argv: list[str]) -> int:
    """Run `speechtaxi report ...`: write the report into a folder and print its verdict."""
    parser = argparse.ArgumentParser(
        prog="speechtaxi report",
        description="Compare systems on the same clips: macro-F1 with intervals, E2E against "
        "cascade in pairs, CER. Writes report.html, report.md and report.json; beside them data/ "
        "(CSV, Parquet), figures/ (SVG, PNG) and latex/. Again, it does only what has changed.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder, or a predictions .jsonl file"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="test", help="of which predictions (default: test)")
    parser.add_argument(
        "--manifest",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="where clips, speakers and gold texts are told (default: what the runs' config.yaml "
        "names)",
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=5,
        metavar="N",
        help="clips to listen to, for each language and setup (5; fewer where there are many)",
    )
    parser.add_argument(
        "--common", action="store_true", help="where runs differ in clips, compare on common ones"
    )
    parser.add_argument("--resamples", type=int, default=2000, help="of intervals and tests (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (0)")
    parser.add_argument(
        "--forms",
        default=",".join(FORMS),
        metavar="FORM,...",
        help=f"what to write (default: all of {','.join(FORMS)})",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="stay, and write again when predictions appear or change, until Ctrl-C",
    )
    options = parser.parse_args(argv)
    if options.resamples < FEWEST_RESAMPLES:
        raise InputError(
            f"--resamples must be at least {FEWEST_RESAMPLES}, not {options.resamples}: "
            "fewer tell nothing of 95 % intervals"
        )
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, as {options.seed} is")
    if options.examples < 0:
        raise InputError(f"--examples must not be negative, as {options.examples} is")
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"{options.output}: is a file; give a folder for the report")
    forms = [form.strip() for form in options.forms.split(",")]
    if unknown := [form for form in forms if form not in FORMS]:
        raise InputError(f"--forms: unknown '{unknown[0]}'; use some of {','.join(FORMS)}")
    (watch if options.watch else write)(
        options.runs,
        options.output,
        split=options.split,
        manifests=options.manifest,
        examples=options.examples,
        common=options.common,
        resamples=options.resamples,
        seed=options.seed,
        forms=forms,
    )
    return 0


def write(
    runs: Sequence[Path],
    output: Path,
    *,
    split: str = "test",
    manifests: Sequence[Path] = (),
    examples: int = 5,
    common: bool = False,
    resamples: int = 2000,
    seed: int = 0,
    forms: Collection[str] = FORMS,
) -> None:
    """Compare runs, write the report, print the verdict; only say so where nothing has changed.

    Files of an earlier report in the folder that this one does not make are removed.

    Args:
        manifests: where clips, speakers and gold texts are told; none takes what the runs name.
        examples: clips to listen to, for each language and setup; fewer where there are many.

    Raises:
        InputError: a run cannot be read, is given twice, runs cannot be compared, or the folder
            cannot be written.
    """
    from speechtaxi.report.folder import Folder, inputs_of, refuse_repeated

    refuse_repeated(runs, split)
    folder = Folder(output)
    chosen = [form for form in FORMS if form in forms]
    options = {"common": common, "examples": examples, "resamples": resamples, "seed": seed}
    inputs = inputs_of(runs, split, manifests, **options, forms=chosen)
    shown = output / "report.html" if "html" in forms else output
    if folder.is_of(inputs):
        print(f"{shown}: nothing has changed since it was written")
        return

    from speechtaxi.report.comparison import compare
    from speechtaxi.report.runs import read
    from speechtaxi.report.sources import read_sources

    opened = [read(path, split) for path in runs]
    utterances, gaps = read_sources(opened, list(manifests))
    folder.prepare()  # before what takes long
    found = compare(
        opened, split=split, common=common, resamples=resamples, seed=seed, track=_track
    )
    found = replace(found, warnings=[*found.warnings, *gaps])
    parts = sections(found, utterances, output, examples if "html" in forms else 0)
    folder.write([*files(found, parts, forms), *recordings(parts, output)], inputs)
    _say(found)
    print(shown)


def watch(
    runs: Sequence[Path],
    output: Path,
    *,
    split: str = "test",
    pause: Callable[[float], object] = time.sleep,
    **options: Any,
) -> None:
    """Write the report (see `write`) now and whenever a run has changed, until Ctrl-C.

    Runs without predictions are left out until they have some. What cannot be read, such as a file
    that is half written, is told and waited for.

    Raises:
        InputError: a run is given twice, or the folder cannot be written.
    """
    from speechtaxi.report.folder import Folder, inputs_of, predictions, refuse_repeated

    refuse_repeated(runs, split)
    Folder(output).prepare()
    print("Watching; Ctrl-C ends it.", file=sys.stderr)
    before = done = None
    try:
        while True:
            now = inputs_of(runs, split)
            if now != done and before in (None, now):  # what still grows is waited for
                there = [run for run in runs if predictions(run, split).exists()]
                for run in [run for run in runs if run not in there]:
                    print(f"Waiting for {predictions(run, split)}", file=sys.stderr)
                try:
                    if there:
                        write(there, output, split=split, **options)
                except InputError as error:
                    print(f"Waiting for a change: {error}", file=sys.stderr)
                done = now
            before = now
            pause(EVERY)
    except KeyboardInterrupt:
        return


def sections(
    found: Comparison,
    utterances: Sequence[Utterance] = (),
    output: Path | None = None,
    examples: int = 0,
) -> list[Section]:
    """Return what a report tells, in its order, without what the runs cannot answer.

    Args:
        utterances: what the manifests behind the runs hold.
        output: the report's folder, where recordings of examples are saved.
        examples: clips to listen to, for each language and setup.
    """
    from speechtaxi.report.questions import systems
    from speechtaxi.report.questions.calibration import calibration
    from speechtaxi.report.questions.controls import controls
    from speechtaxi.report.questions.cost import cost
    from speechtaxi.report.questions.curves import learning_curves
    from speechtaxi.report.questions.examples import examples as disputed
    from speechtaxi.report.questions.losses import losses
    from speechtaxi.report.questions.router import router
    from speechtaxi.report.questions.transfer import transfer

    places = {(cell.setup, cell.languages) for cell in found.cells}
    each = min(examples, max(1, MOST_EXAMPLES // len(places)))
    parts = (
        systems.systems(found),
        router(found),
        systems.differences(found),
        systems.languages(found),
        *transfer(found),
        losses(found),
        systems.transcripts(found),
        calibration(found),
        learning_curves(found),
        cost(found),
        systems.topics(found),
        disputed(found, utterances, output, each) if output and each else None,
        controls(found, utterances, found.given),
        systems.runs(found),
    )
    return [part for part in parts if part is not None]


def recordings(sections: Sequence[Section], output: Path) -> Iterator[File]:
    """Yield the recordings of examples, which lie in the folder already."""
    from speechtaxi.report.folder import File
    from speechtaxi.report.questions.examples import Examples

    clips = [clip for part in sections if isinstance(part, Examples) for clip in part.clips]
    for name in dict.fromkeys(clip.audio for clip in clips if clip.audio):
        yield File(name, (output / name).read_bytes, source=name)


def files(
    found: Comparison, sections: Sequence[Section], forms: Collection[str] = FORMS
) -> Iterator[File]:
    """Yield the files of a report in these forms."""
    import json
    from functools import cache, partial

    from speechtaxi.report.folder import File
    from speechtaxi.report.forms import texts

    sections = named_apart(sections)
    if "html" in forms:
        from speechtaxi.report.forms.page import as_html

        yield File("report.html", partial(as_html, found, sections))
    if "md" in forms:
        yield File("report.md", partial(texts.as_markdown, found, sections))
    if "json" in forms:
        yield File("report.json", partial(texts.as_json, found, sections))
    for name, rows in texts.numbers(sections).items() if {"csv", "parquet"} & {*forms} else ():
        for form, make in (("csv", texts.as_csv), ("parquet", texts.as_parquet)):
            if form in forms:
                yield File(f"data/{name}.{form}", partial(make, rows))
    if "latex" in forms:
        from speechtaxi.report.forms.latex import as_latex

        for name, text in as_latex(found, sections).items():
            yield File(f"latex/{name}.tex", partial(str, text))
    if {"svg", "png"} & {*forms}:
        from speechtaxi.report.forms.pictures import as_png, as_svg, pictures

        for name, spec in pictures(found, sections).items():
            svg = cache(partial(as_svg, spec))
            source = json.dumps(spec)
            if "svg" in forms:
                yield File(f"figures/{name}.svg", svg, source)
            if "png" in forms:
                yield File(f"figures/{name}.png", lambda svg=svg: as_png(svg()), source)


def named_apart(sections: Sequence[Section]) -> list[Section]:
    """Return sections whose tables, and whose figures, all have names of their own.

    Names are made of what systems are called, where "a b" and "a-b" are alike.
    """
    seen: Counter[tuple[type, str]] = Counter()

    def apart(part: Any) -> Any:
        seen[type(part), part.name] += 1
        number = seen[type(part), part.name]
        return part if number == 1 else replace(part, name=f"{part.name}-no{number}")

    return [
        replace(part, figures=[*map(apart, part.figures)], tables=[*map(apart, part.tables)])
        for part in sections
    ]


def _say(found: Comparison) -> None:
    from speechtaxi.report.forms.words import verdict

    for note in found.notes:
        print(f"Note: {note}")
    for setup, sentences in verdict(found).items():
        print(f"{setup}")
        for sentence in sentences:
            print(f"  {sentence}")
    for warning in found.warnings:
        print(f"Beware: {warning}")


def _track(arms: Sequence[Arm]) -> Iterable[Arm]:
    from rich.console import Console
    from rich.progress import track

    return track(arms, "comparing", console=Console(stderr=True), transient=True)
