"""What the compared clips have in common with what the runs learnt from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from speechtaxi.languages import name_of
from speechtaxi.report.comparison import Comparison
from speechtaxi.report.section import Row, Table
from speechtaxi.report.sources import Clips, trained_on
from speechtaxi.types import Utterance

NAMED = 3
"""How many examples are named."""


def _place(u: Utterance) -> str | None:
    return f"{u.audio} from {u.start} s" if u.audio else None


def _text(u: Utterance) -> str | None:
    return " ".join(u.text.split()) or None if u.text else None


SHARED: Mapping[str, Callable[[Utterance], str | None]] = {
    "verses or sentences": lambda u: u.group,
    "recordings": _place,
    "texts": _text,
    "speakers": lambda u: u.speaker,
}
"""What training and test can have in common."""


@dataclass(frozen=True)
class Leak:
    """What a language's compared clips have in common with training or dev."""

    what: str
    """One of `SHARED`."""
    language: str
    compared: frozenset[str]
    shared: Mapping[str, frozenset[tuple[str, str]]]
    """Value -> the splits and languages where it also is."""
    clips: int
    """Compared clips with such a value."""


def leaks(
    found: Comparison, compared: Clips, utterances: Sequence[Utterance]
) -> dict[str, list[Leak]]:
    """Return what can be told, by `SHARED` and language, with or without anything shared.

    Training is the manifest's train and dev clips in the languages that any run tested on a
    language was trained on.
    """
    splits = ("train",) if found.split == "dev" else ("train", "dev")
    seen = [u for u in utterances if u.split in splits]
    told: defaultdict[str, list[Leak]] = defaultdict(list)
    for what, of in SHARED.items():
        places: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        for u in seen:
            if value := of(u):
                places[value].add((u.split, u.language))
        there = {language for where in places.values() for _, language in where}
        for language, clips in compared.items():
            taught = trained_on(found, language) or there
            values = [value for u in clips if (value := of(u))]
            if not values or not there & taught:
                continue
            shared = {
                value: here
                for value in dict.fromkeys(values)
                if (here := frozenset(p for p in places.get(value, ()) if p[1] in taught))
            }
            hit = sum(value in shared for value in values)
            told[what].append(Leak(what, language, frozenset(values), shared, hit))
    return told


def leakage(
    found: Comparison, compared: Clips, utterances: Sequence[Utterance]
) -> tuple[list[str], list[Table]]:
    """Return words and a table on what training and the compared clips have in common."""
    told = leaks(found, compared, utterances)
    words: list[str] = []
    clean: list[str] = []
    for what, of_languages in told.items():
        shared = list(dict.fromkeys(value for leak in of_languages for value in leak.shared))
        if not shared:
            clean.append(what)
            continue
        every = len(frozenset[str]().union(*(leak.compared for leak in of_languages)))
        clips = sum(leak.clips for leak in of_languages)
        said = f"{len(shared)} of the {every} {what} compared, with {clips} clips, are also in "
        said += f"training or dev: {_named(shared)}."
        if what == "speakers":
            words.append(f"{said} The scores are partly of voices that training knew.")
        else:
            words.append(f"Beware of a leak: {said} Scores on them may flatter.")
    if clean:
        words.append(
            f"No leak is found in {', '.join(clean)}: none of those compared is in training or dev "
            "of the manifests at hand, in a language that a run was trained on."
        )
    if untold := [what for what in SHARED if what not in told]:
        words.append(
            f"Whether training and test share {', '.join(untold)} cannot be told: no manifest "
            "names them for both."
        )
    rows: list[Row] = [
        {
            "language": name_of(leak.language),
            "in common": what,
            "compared": len(leak.compared),
            "also in training or dev": len(leak.shared),
            "clips": leak.clips,
            "where": _where(leak),
            "examples": _named(leak.shared),
        }
        for what, of_languages in told.items()
        for leak in of_languages
        if leak.shared
    ]
    return words, [Table("leaks", "What training and test have in common", rows)] if rows else []


def _named(values: Iterable[str]) -> str:
    names = [value if len(value) <= 60 else f"{value[:59]}…" for value in values]
    return ", ".join([*names[:NAMED], "…"] if len(names) > NAMED else names)


def _where(leak: Leak) -> str:
    places: defaultdict[str, set[str]] = defaultdict(set)
    for split, language in frozenset[tuple[str, str]]().union(*leak.shared.values()):
        places[split].add(name_of(language))
    return "; ".join(f"{split}: {', '.join(sorted(places[split]))}" for split in sorted(places))
