"""What recognisers got wrong: flagged clips, counted apart; most confused letters and words."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import compress
from typing import get_args

import numpy as np

from speechtaxi.languages import name_of
from speechtaxi.report.board import Arm, Board, Languages, has_reference
from speechtaxi.report.section import Row, Table
from speechtaxi.scores import accuracy, spelling
from speechtaxi.statistics import Interval
from speechtaxi.types import Flag

TOO_LONG = 40
"""A table of more rows is folded away."""

TOP = 20
"""Pairs of letters, or words, that are told of a system in a setup."""

FEWEST = 2
"""A pair that was confused less often may be anything."""


def flagged(arm: Arm, language: str) -> list[bool]:
    """Tell of each clip whether its transcript (or the clip itself) has a flag."""
    return [bool(row.flags) for row in arm.rows(language)]


def flag_table(board: Board, arms: Sequence[Arm]) -> Table:
    """Count the flagged clips of arms, with accuracy on them and on the others."""
    several = [arm for arm in arms if len(arm.languages) > 1]
    cells = [(arm, arm.languages, f"all {len(arm.languages)}") for arm in several]
    cells += [(arm, (lang,), name_of(lang)) for arm in arms for lang in arm.languages]
    rows: list[Row] = []
    for arm, languages, place in cells:
        flags = [row.flags for language in languages for row in arm.rows(language)]
        rows.append(
            {
                "system": arm.system,
                "setup": arm.setup,
                "language": place,
                "clips": len(flags),
                "flagged": sum(map(bool, flags)),
                **{
                    flag.replace("_", " "): sum(flag in f for f in flags) for flag in get_args(Flag)
                },
                "accuracy on flagged": _accuracy(board, arm, languages, True),
                "accuracy on others": _accuracy(board, arm, languages, False),
            }
        )
    title = "Flagged clips; one can have several flags"
    return Table("flags", title, rows, digits=3, folded=len(rows) > TOO_LONG)


def _accuracy(board: Board, arm: Arm, languages: Languages, of_flagged: bool) -> Interval | None:
    """Return the accuracy on flagged or on other clips, pooled over languages; None: no clip."""
    seeds = min(len(arm.runs[language]) for language in languages)
    chosen = {lang: [flag == of_flagged for flag in flagged(arm, lang)] for lang in languages}
    rows = [row for lang in languages for row in compress(arm.rows(lang), chosen[lang])]
    if not rows:
        return None
    tallies = [board.tallies(arm, lang)[chosen[lang]][:, :seeds] for lang in languages]
    return board.sample(np.concatenate(tallies), rows, accuracy).interval()


def confusion_tables(arms: Sequence[Arm]) -> list[Table]:
    """Return the most confused letters and the most confused words of each arm.

    Counted in the clips without a flag, of the first seed; a recogniser that wrote the same in
    several setups is told once.
    """
    alike: defaultdict[object, list[Arm]] = defaultdict(list)
    for arm in arms:
        texts = tuple((lang, row.text) for lang in arm.languages for row in arm.rows(lang))
        alike[arm.system, texts].append(arm)
    kinds: dict[str, Callable[[str], Sequence[str]]] = {"letters": list, "words": str.split}
    return [
        Table(
            f"confusions-{kind}",
            f"Most confused {kind}",
            [
                {"system": same[0].system, "setup": ", ".join(arm.setup for arm in same), **row}
                for same in alike.values()
                for row in _confused(same[0], split)
            ],
            folded=True,
        )
        for kind, split in kinds.items()
    ]


def _confused(arm: Arm, split: Callable[[str], Sequence[str]]) -> list[Row]:
    """Return the most frequent edits from what was said to what was read, over all languages."""
    from rapidfuzz.distance import Levenshtein

    edits: Counter[tuple[str, str, str]] = Counter()
    occurring: Counter[tuple[str, str]] = Counter()
    for language in arm.languages:
        for row in arm.rows(language):
            if row.flags or not has_reference(row):
                continue
            said, read = (split(spelling(text or "")) for text in (row.reference, row.text))
            occurring.update((language, piece) for piece in said)
            for edit in Levenshtein.editops(said, read):
                before = "" if edit.tag == "insert" else said[edit.src_pos]
                after = "" if edit.tag == "delete" else read[edit.dest_pos]
                edits[language, before, after] += 1
    most = sorted(edits.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return [
        {
            "language": name_of(language),
            "said": _shown(said),
            "read": _shown(read),
            "count": count,
            "share": count / occurring[language, said] if said else None,
        }
        for (language, said, read), count in most
        if count >= FEWEST
    ]


def _shown(piece: str) -> str:
    """Return a letter or word so that it can be seen alone."""
    if not piece.strip():
        return "(space)" if piece else "(nothing)"
    mark = unicodedata.category(piece[0]).startswith("M")
    return f"◌{piece}" if mark else piece
