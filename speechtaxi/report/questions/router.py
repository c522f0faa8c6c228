"""The section that tells which system to use for each language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speechtaxi.languages import UNKNOWN, name_of
from speechtaxi.report.board import Arm, Board, Languages
from speechtaxi.report.comparison import Comparison, corrected, difference
from speechtaxi.report.section import Row, Section, Table
from speechtaxi.statistics import Interval


@dataclass(frozen=True)
class Choice:
    """The system to use for a language, and those that the data cannot tell from the best."""

    language: str
    """ISO 639-3; "und" stands for languages that nothing was tested on."""
    system: str
    setup: str
    run: str
    """Where its first seed lies."""
    macro_f1: Interval
    tied: tuple[str, ...]
    """The others that could as well be the best."""


def choices(found: Comparison) -> list[Choice]:
    """Choose a system for each language, and one for unseen languages where any was tested so.

    It is the one with the best score, of equals the one with the fewest weights; beside it are
    named those that are not shown to be worse (Holm over the rivals).
    """
    rivals = [arm for arm in found.board.arms if not arm.reads_gold and arm.route != "baseline"]
    chosen = [
        _choose(found.board, field, language, (language,))
        for language in found.languages
        if (field := [arm for arm in rivals if language in arm.languages])
    ]
    unseen = [arm for arm in rivals if arm.setup.startswith("zero-shot")]
    if unseen:
        widest = max((arm.languages for arm in unseen), key=len)
        field = [arm for arm in unseen if set(widest) <= set(arm.languages)]
        chosen.append(_choose(found.board, field, UNKNOWN, widest))
    return chosen


def router(found: Comparison) -> Section | None:
    """Tell which system to use for each language."""
    chosen = choices(found)
    if not chosen:
        return None
    rows: list[Row] = [
        {
            "language": name_of(c.language) if c.language != UNKNOWN else "any other",
            "system": c.system,
            "setup": c.setup,
            "macro-F1": c.macro_f1,
            "could as well be": ", ".join(c.tied) or None,
            "run": c.run,
        }
        for c in chosen
    ]
    words = (
        "The best score in each language, and the systems that are not shown to be worse: where "
        "there are some, the choice may be luck. It is made on these clips, so its score flatters "
        "a little. `speechtaxi classify` takes this report in place of a model and follows the "
        "table.",
    )
    return Section("router", "What to use", words, tables=[Table("router", "Router", rows)])


def _choose(board: Board, field: Sequence[Arm], language: str, tested: Languages) -> Choice:
    def rank(arm: Arm) -> tuple[float, float]:
        return board.macro_f1(arm, tested).estimate, -_weights(arm)

    best = max(field, key=rank)
    rest = [arm for arm in field if arm is not best]
    behind = corrected([difference(board, best, arm, tested) for arm in rest])
    tied = [arm for arm, d in zip(rest, behind, strict=True) if d.better is None]
    return Choice(
        language,
        best.system,
        best.setup,
        str(best.runs[tested[0]][0].source),
        board.macro_f1(best, tested).interval(),
        tuple(f"{arm.system} ({arm.setup})" for arm in tied),
    )


def _weights(arm: Arm) -> float:
    """Return the number of weights; what does not tell it comes last."""
    return arm.first.record.parameters or float("inf")
