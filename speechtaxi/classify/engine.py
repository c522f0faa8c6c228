"""Who answers: this process, or workers on a Ray cluster; either way the same `Teller`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeAlias

from speechtaxi.classifier import AudioClassifier
from speechtaxi.cluster import DEATHS, spread
from speechtaxi.recordings import Fail, Teller, name_of
from speechtaxi.segment import Segmenter, open_segmenter
from speechtaxi.types import Answer, Utterance

CHUNK = 8
"""Recordings that a worker is given at once, and that are done again if it dies."""

Told: TypeAlias = Iterator[tuple[Utterance, list[Answer]]]


def here(
    teller: Teller,
    args: argparse.Namespace,
    segmenter: Segmenter | None,
    groups: Iterable[Iterable[Utterance]],
    fail: Fail,
) -> Told:
    """Answer in this process; recordings of two groups are never read together."""
    for group in groups:
        yield from teller.answers(
            group,
            fail,
            segmenter=segmenter,
            above=args.cut_above,
            gate=not args.no_gate,
            batch_seconds=args.batch_seconds,
            batch_size=args.batch_size,
        )


def on_cluster(
    models: Sequence[str],
    args: argparse.Namespace,
    groups: Iterable[Iterable[Utterance]],
    fail: Fail,
) -> Told:
    """Answer by workers on a Ray cluster, which find recordings and models under the same paths."""
    for recordings, told in spread(
        partial(work, models, args),
        _chunks(groups),
        workers=args.workers,
        address=args.ray_address,
        gpu=args.device != "cpu",
    ):
        if told is None:
            fail(recordings[0], f"{DEATHS} workers died while this was in hand")
            continue
        answered, failed = told
        for recording, why in failed:
            fail(recording, why)
        yield from answered


def _chunks(groups: Iterable[Iterable[Utterance]]) -> Iterator[list[Utterance]]:
    for group in groups:
        recordings = iter(group)
        while chunk := list(islice(recordings, CHUNK)):
            yield chunk


Chunk: TypeAlias = tuple[list[tuple[Utterance, list[Answer]]], list[tuple[Utterance, str]]]
"""What a worker says of its recordings: the answers, and why there are none."""


def work(models: Sequence[str], args: argparse.Namespace) -> Callable[[list[Utterance]], Chunk]:
    """Open the models in a worker."""
    teller = open_teller(models, args)
    for model in getattr(teller.model, "models", [teller.model]):
        if hasattr(model, "store"):  # the driver's alone: SQLite is not for shared network disks
            model.store = ":memory:"
    segmenter = segmenter_of(args)

    def answer(recordings: list[Utterance]) -> Chunk:
        failed: list[tuple[Utterance, str]] = []

        def fail(recording: Utterance, why: str) -> None:
            failed.append((recording, why))

        return list(here(teller, args, segmenter, [recordings], fail)), failed

    return answer


def segmenter_of(args: argparse.Namespace) -> Segmenter | None:
    """Return what cuts long recordings, as asked for."""
    if args.segments == "none":
        return None
    return open_segmenter(
        args.segments,
        longest=args.longest,
        window=min(args.window, args.longest),
        overlap=args.overlap,
    )


def open_teller(models: Sequence[str], args: argparse.Namespace) -> Teller:
    """Open a model, or several as one, on the device asked for."""
    import torch

    from speechtaxi import load

    allowed = tuple(args.allow_remote_code)
    model: AudioClassifier = load(
        list(models) if len(models) > 1 else models[0],  # type: ignore[arg-type]
        allow_remote_code=allowed,
    )
    cuda = args.device == "auto" and torch.cuda.is_available()
    model.to("cuda" if cuda else args.device.replace("auto", "cpu"))
    model.compute = getattr(torch, args.dtype)
    romanize = None
    if args.romanize:
        from cascade.romanizer import romanizer

        romanize = romanizer().romanize
    return Teller(model, " + ".join(map(name_of, models)), args.min_probability, romanize)
