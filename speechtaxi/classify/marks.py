"""A quick look at why: marks on the terminal, and the words' weights for a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from rich.console import Console

from speechtaxi.classifier import Classifier
from speechtaxi.errors import InputError
from speechtaxi.explain import explain as why
from speechtaxi.explain import marked
from speechtaxi.recordings import Teller
from speechtaxi.types import Answer, Span, Utterance

Marks: TypeAlias = dict[tuple[str, Span], Sequence[tuple[str, float]]]
"""By recording and stretch: what was read, and how much each word speaks for the topic."""


def explain(teller: Teller, recording: Utterance, answers: Sequence[Answer]) -> Marks:
    """Mark on stderr what decided, for each clip that was classified; return the words' weights."""
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
