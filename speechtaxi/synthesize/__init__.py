"""Front door: `speechtaxi synthesize TABLE...` and `speechtaxi synthesize news`, with eSpeak NG."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from speechtaxi.errors import InputError


def parser() -> argparse.ArgumentParser:
    """Return the arguments for tables, which are the general case."""
    p = argparse.ArgumentParser(
        prog="speechtaxi synthesize",
        description="Speak tables of labelled texts with eSpeak NG: a corpus in the shape of "
        "SpeechTaxi, in synthetic speech. `speechtaxi synthesize news --help` tells of the news.",
    )
    p.add_argument("tables", nargs="+", help="verse_id, label, split, text; named as in eng.tsv")
    p.add_argument("--languages", nargs="+", metavar="CODE", help="default: all that are there")
    p.add_argument("--limit", type=_count, help="at most so many texts of a language and split")
    return _common(p)


def news_parser() -> argparse.ArgumentParser:
    """Return the arguments for the demo's corpus."""
    from speechtaxi.synthesize import news

    p = argparse.ArgumentParser(
        prog="speechtaxi synthesize news",
        description="Speak radio headlines on six topics with eSpeak NG: the corpus of the demo.",
    )
    p.add_argument(
        "--languages", nargs="+", metavar="CODE", default=news.TRAINED, help="with all splits"
    )
    p.add_argument(
        "--held_out",
        nargs="*",
        metavar="CODE",
        default=news.HELD_OUT,
        help="with a test split only",
    )
    p.add_argument(
        "--clips_per_topic",
        nargs=3,
        type=_count,
        metavar=("TRAIN", "DEV", "TEST"),
        default=tuple(news.CLIPS_PER_TOPIC.values()),
        help="sentences for each topic and language (default: %(default)s)",
    )
    return _common(p)


def _common(p: argparse.ArgumentParser) -> argparse.ArgumentParser:
    p.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="new folder")
    p.add_argument(
        "--voices",
        nargs="+",
        type=_voices,
        default=[],
        metavar="SPLIT=NAME,...",
        help="eSpeak's voice variants for a split, as in test=m4,f2",
    )
    p.add_argument("--seed", type=int, default=0, help="of sentences, pitch, rate, level, noise")
    return p


def main(argv: list[str]) -> int:
    """Write a corpus; 0 also where it was there already."""
    of_news = argv[:1] == ["news"]
    args = news_parser().parse_args(argv[1:]) if of_news else parser().parse_args(argv)
    from speechtaxi.synthesize.corpus import write_corpus

    voices = _choose_voices(dict(args.voices))
    if of_news:
        from speechtaxi.synthesize.news import CLIPS_PER_TOPIC, news_takes

        counts = dict(zip(CLIPS_PER_TOPIC, args.clips_per_topic, strict=True))
        takes = news_takes(args.languages, args.held_out, voices, counts, args.seed)
        about = "made-up radio headlines, in translations that nobody has reviewed"
    else:
        from speechtaxi.synthesize.tables import table_takes

        takes = table_takes(args.tables, args.languages, voices, args.limit, args.seed)
        about = "the texts of " + ", ".join(Path(table).name for table in args.tables)
    if not write_corpus(args.output, takes, about):
        print(f"{args.output} is complete; nothing to do", file=sys.stderr)
    print(args.output / "manifest.jsonl")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return int(text)


def _voices(text: str) -> tuple[str, list[str]]:
    split, equals, names = text.partition("=")
    if split not in ("train", "dev", "test") or not equals or not all(names.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is not SPLIT=NAME,... such as test=m4,f2")
    return split, names.split(",")


def _choose_voices(asked: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return the voices of each split, which no two splits share."""
    from speechtaxi.synthesize.voices import VOICES

    chosen = {**VOICES, **asked}
    seen: dict[str, str] = {}
    for split, names in chosen.items():
        for name in names:
            if name in seen:
                raise InputError(
                    f"--voices: {name} is named for {seen[name]} and for {split}; "
                    "a voice belongs to one split, so that none is heard before its test"
                )
            seen[name] = split
    return chosen
