"""Where the cascade loses: to its classifier, to romanisation, to recognition; what was misread.

The losses of a path from gold text to transcripts add up to 1 minus the cascade's macro-F1, in
each language and on average.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from speechtaxi.languages import name_of
from speechtaxi.report.board import Arm, Board, Languages
from speechtaxi.report.charts import BLUE
from speechtaxi.report.comparison import Comparison, Difference, corrected, difference, headline
from speechtaxi.report.questions.loss_charts import COLOURS, LEFT, bars, waterfall
from speechtaxi.report.questions.misread import TOO_LONG, confusion_tables, flag_table, flagged
from speechtaxi.report.section import Figure, Row, Section, Table
from speechtaxi.scores import macro_f1
from speechtaxi.statistics import Interval, Sample, mean

GOLD = {"native": ("gold",), "romanized": ("gold", "gold_romanized")}
"""What was there before a transcript, by its view."""

STEPS = {
    ("gold",): "classifier",
    ("gold_romanized",): "classifier and romanisation",
    ("gold", "gold_romanized"): "romanisation",
    ("gold", "romanized"): "romanisation and recognition",
    ("gold", "native"): "recognition",
    ("gold_romanized", "romanized"): "recognition",
}
"""To whom a system of the second view loses what one of the first view had."""

READING = (
    "Macro-F1 lost on the way from gold text to transcripts, with 95 % intervals; the losses add "
    "up to 1 minus the cascade's macro-F1. What the classifier loses, it loses on gold text. "
    "Hollow bars are gains; a blue tick is the loss in all. Each step compares classifiers that "
    "were trained apart, and is called a loss or a gain as the verdict calls a route better (Holm "
    "over all steps of this section)."
)
FLAGS = (
    "Transcripts are flagged where they are empty, loop (as hallucinations do), were cut off, were "
    "emptied or retried by a guard, or where the recogniser does not know the language and took a "
    "related one or a fallback, if any; clips, where they are silent. The part of "
    "a loss that falls on flagged clips is what giving these clips alone the answers of the step "
    "before would win back."
)
MISREAD = (
    "The most confused letters and words are counted over the clips without a flag, as the CER "
    "counts edits, in the first seed; what was confused once is left out. A share is of all the "
    "times that the letter or word was said in the language."
)


@dataclass(frozen=True)
class Path:
    """A cascade and the systems on gold text before it, that learned the same languages."""

    arms: tuple[Arm, ...]
    """Gold text (in one or two views), then transcripts."""
    languages: Languages

    @property
    def cascade(self) -> Arm:
        return self.arms[-1]

    @property
    def steps(self) -> list[str]:
        views = [arm.view or "" for arm in self.arms]
        return [STEPS[views[0],], *(STEPS[pair] for pair in pairwise(views))]

    @property
    def clips(self) -> int:
        return sum(len(self.cascade.rows(language)) for language in self.languages)

    @property
    def flagged(self) -> int:
        return sum(sum(flagged(self.cascade, language)) for language in self.languages)


@dataclass(frozen=True)
class Loss:
    """The macro-F1 that a path loses at each step, in one language or the mean over several."""

    path: Path
    languages: Languages
    scores: tuple[Sample, ...]
    """Macro-F1 of each of the path's arms."""
    repaired: Sample
    """Macro-F1 of the cascade, had its flagged clips the answers of the arm before."""

    @property
    def steps(self) -> list[Sample]:
        """What is lost at each step; their sum is 1 minus the cascade's score."""
        first = self.scores[0]
        room = Sample(1 - first.seeds, 1 - first.replicates, 1 - first.jackknife)
        return [room, *(one - two for one, two in pairwise(self.scores))]

    @property
    def last(self) -> tuple[Sample, Sample]:
        """The last step's loss on flagged clips and on the others."""
        before, after = self.scores[-2:]
        return self.repaired - after, before - self.repaired

    @property
    def place(self) -> str:
        several = len(self.languages) > 1
        return f"mean of {len(self.languages)}" if several else name_of(self.languages[0])

    @property
    def intervals(self) -> dict[str, Interval]:
        """The losses by step."""
        named = zip(self.path.steps, self.steps, strict=True)
        return {step: sample.interval() for step, sample in named}


def losses(found: Comparison) -> Section | None:
    """Tell what cascades lose on the way from gold text to topics, and what they misread."""
    board, arms = found.board, headline(found.board.arms)
    read = [arm for arm in arms if arm.route == "cascade" and not arm.reads_gold]
    if not read:
        return None
    told, untold = paths(arms)
    by_path = [[lost(board, path, language) for language in path.languages] for path in told]
    means = [_mean(alone) for alone in by_path]
    several = [whole for whole in means if len(whole.languages) > 1]
    with_flags = [arm for arm in read if any(any(flagged(arm, lang)) for lang in arm.languages)]
    title, rows = "Macro-F1 lost at each step", [loss for alone in by_path for loss in alone]
    long = len(several) + len(rows) > TOO_LONG
    tables = [
        Table("losses-mean", f"{title}, means", _rows(several if long else []), digits=3),
        Table("losses", title, _rows([*several, *rows]), digits=3, folded=long),
        *([flag_table(board, with_flags)] if with_flags else []),
        *confusion_tables(read),
    ]
    tables = [table for table in tables if table.rows]
    if not tables:
        return None
    return Section(
        "losses",
        "Where the cascade loses",
        [
            *([READING] if told else []),
            *_sayings(board, means),
            *untold,
            FLAGS if with_flags else "No clip that a cascade read is flagged.",
            *([MISREAD] if tables[-1].name.startswith("confusions") else []),
        ],
        [figure for pair in zip(means, by_path, strict=True) for figure in _figures(*pair)],
        tables,
        {step: COLOURS[step] for step in COLOURS if any(step in p.steps for p in told)}
        | ({LEFT: BLUE} if told else {}),
    )


def _figures(whole: Loss, alone: Sequence[Loss]) -> list[Figure]:
    """Return the waterfall of a path, and bars by language where it has several."""
    cascade = whole.path.cascade
    name = "-".join(re.findall(r"\w+", f"{cascade.setup} {cascade.system}".lower()))
    title = f"{cascade.system}, {cascade.setup}: "
    fall = waterfall(whole.intervals, whole.scores[-1].interval(), title + whole.place)
    if len(alone) == 1:
        place = [whole.place]
        return [Figure(f"losses-{name}", title + whole.place, fall, place, [cascade.system])]
    by = bars({loss.place: loss.intervals for loss in alone}, title + "by language")
    return [
        Figure(f"losses-{name}", title + whole.place, fall, systems=[cascade.system]),
        Figure(f"losses-by-{name}", title + "by language", by, systems=[cascade.system]),
    ]


def paths(arms: Sequence[Arm]) -> tuple[list[Path], list[str]]:
    """Return the path to each cascade that reads transcripts, and in words what has none.

    Of several systems on the same gold text the one is taken whose name shares the most words with
    the cascade's; none, where that does not decide.
    """
    found: list[Path] = []
    untold: list[str] = []
    for arm in arms:
        if arm.route != "cascade" or arm.reads_gold:
            continue
        name, gold, unclear = f"{arm.system}, {arm.setup}", list[Arm](), False
        for view in GOLD.get(arm.view or "", ()):
            rivals = [
                other
                for other in arms
                if (other.route, other.view, other.setup) == ("cascade", view, arm.setup)
                and (None in (arm.romanize, other.romanize) or arm.romanize == other.romanize)
                and _shared(arm, other)
            ]
            nearest = _nearest(arm, rivals)
            if len(nearest) > 1:
                unclear = True
                names = ", ".join(rival.system for rival in nearest)
                untold.append(f"{name}: no name tells which of {names} it is to be held against.")
            gold += nearest if len(nearest) == 1 else []
        languages = tuple(
            lang for lang in arm.languages if all(lang in _shared(arm, g) for g in gold)
        )
        if gold and languages:
            found.append(Path((*gold, arm), languages))
        elif not unclear:
            untold.append(f"{name}: no system on gold text learned and answers the same languages.")
        if gold and 0 < len(languages) < len(arm.languages):
            untold.append(
                f"{name}: only {len(languages)} of its {len(arm.languages)} languages have "
                "systems on gold text that learned the same languages."
            )
    return found, untold


def lost(board: Board, path: Path, language: str) -> Loss:
    """Return what a path loses in a language."""
    before, cascade = path.arms[-2:]
    scores = tuple(board.macro_f1(arm, (language,)) for arm in path.arms)
    return Loss(path, (language,), scores, _repaired(board, before, cascade, language))


def _repaired(board: Board, before: Arm, cascade: Arm, language: str) -> Sample:
    """Return the macro-F1 of a cascade whose flagged clips have the answers of the arm before."""
    one, two = (board.tallies(arm, language) for arm in (before, cascade))
    seeds = math.lcm(one.shape[1], two.shape[1])  # all seeds of both count alike
    one, two = (np.tile(c, (1, seeds // c.shape[1], 1, 1)) for c in (one, two))
    chosen = np.array(flagged(cascade, language))[:, None, None, None]
    return board.sample(np.where(chosen, one, two), cascade.rows(language), macro_f1)


def _mean(alone: Sequence[Loss]) -> Loss:
    """Return the mean of losses of one path over languages."""
    path = alone[0].path
    scores = tuple(mean(scores) for scores in zip(*(loss.scores for loss in alone), strict=True))
    return Loss(path, path.languages, scores, mean([loss.repaired for loss in alone]))


def _shared(arm: Arm, other: Arm) -> Languages:
    """Return the languages that two arms answer, having learned the same ones."""
    return tuple(
        lang
        for lang in arm.languages
        if lang in other.languages and _trained(arm, lang) == _trained(other, lang)
    )


def _trained(arm: Arm, language: str) -> frozenset[str]:
    return frozenset(arm.runs[language][0].record.train_languages)


def _nearest(arm: Arm, rivals: Sequence[Arm]) -> list[Arm]:
    """Return those whose names share the largest part of their words with an arm's (Jaccard)."""

    def closeness(rival: Arm) -> float:
        one, two = (set(re.findall(r"[^\W_]+", a.system.lower())) for a in (arm, rival))
        return len(one & two) / len(one | two) if one | two else 0

    most = max(map(closeness, rivals), default=0)
    return [rival for rival in rivals if closeness(rival) == most]


def _rows(found: Sequence[Loss]) -> list[Row]:
    """Return a row for each loss; a column for each step that any of them has."""
    steps = [step for step in COLOURS if any(step in loss.path.steps for loss in found)]
    split = any(loss.path.flagged for loss in found)
    rows: list[Row] = []
    for loss in found:
        flags = ("last step, flagged clips", "last step, other clips") if split else ()
        lost_to = loss.intervals
        rows.append(
            {
                "system": loss.path.cascade.system,
                "setup": loss.path.cascade.setup,
                "language": loss.place,
                "held against": ", ".join(arm.system for arm in loss.path.arms[:-1]),
                "gold macro-F1": loss.scores[0].interval(),
                **{f"lost to {step}": lost_to.get(step) for step in steps},
                **{name: part.interval() for name, part in zip(flags, loss.last, strict=False)},
                "macro-F1": loss.scores[-1].interval(),
            }
        )
    return rows


def _sayings(board: Board, means: Sequence[Loss]) -> list[str]:
    """Put the mean losses into words; all steps between two systems are one family of tests."""
    tested = corrected(
        [
            difference(board, one, two, loss.languages)
            for loss in means
            for one, two in pairwise(loss.path.arms)
        ]
    )
    left = iter(tested)
    said: list[str] = []
    for loss in means:
        cascade, steps = loss.path.cascade, loss.path.steps
        rest = [_judged(step, next(left)) for step in steps[1:]]
        score = loss.scores[-1].estimate
        said.append(
            f"{cascade.system}, {cascade.setup}, {loss.place}: macro-F1 is {score:.3f}, "
            f"{1 - score:.3f} below 1. "
            f"{steps[0].capitalize()}: {_bare(loss.steps[0].interval())} lost. "
            + " ".join(rest)
            + _flagged_part(loss)
        )
    return said


def _judged(step: str, d: Difference) -> str:
    """Tell a step's loss or gain, as far as the corrected test carries it."""
    finding = {
        "first": "lost",
        "second": "gained",
        None: "lost, which the data cannot tell from 0",
    }[d.better]
    sign = -1 if d.better == "second" else 1
    gap = d.difference
    low, high = sorted((sign * gap.low, sign * gap.high))
    return f"{step.capitalize()}: {_bare(Interval(sign * gap.estimate, low, high))} {finding}."


def _flagged_part(loss: Loss) -> str:
    number, clips = loss.path.flagged, loss.path.clips
    if not number:
        return ""
    on_flagged, on_others = (_bare(part.interval()) for part in loss.last)
    return (
        f" Of the last step, {on_flagged} falls on the {number:,} flagged of {clips:,} clips, "
        f"{on_others} on the others."
    )


def _bare(interval: Interval) -> str:
    limits = f" ({interval.low:.3f} to {interval.high:.3f})"
    text = f"{interval.estimate:.3f}" + ("" if math.isnan(interval.low) else limits)
    return re.sub(r"-(0\.000(?!\d))", r"\1", text).replace("-", "−")
