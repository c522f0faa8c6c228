"""What the numbers say, in words: the verdict and the method."""

from __future__ import annotations

from collections.abc import Sequence

from speechtaxi.languages import UNKNOWN, name_of
from speechtaxi.report.comparison import Comparison, Difference
from speechtaxi.report.questions.router import Choice, choices
from speechtaxi.report.questions.systems import setups

METHOD = (
    "Macro-F1 is the mean F1 over the topics that occur in gold or prediction, of pooled "
    "predictions; a mean over languages weighs them alike.",
    "Intervals are 95 % BCa bootstrap intervals, stretched to the jackknife's standard error where "
    "that is larger; what is drawn are groups (the verse or sentence behind clips, in all its "
    "languages and recordings), not clips. docs/statistics.md has formulas and simulations.",
    "Differences are paired: both systems on the same clips. p is two-sided, from approximate "
    "randomisation by group; Holm corrects it over the languages of a pair, and for means over the "
    "pairs of a setup. A route is called better only where the corrected p is below .05 and the "
    "(uncorrected) interval leaves out 0.",
    "In a transfer matrix p is corrected over the pairs of a system by step-down max-T (Westfall & "
    "Young 1993).",
    "Setups are read off the training languages of a run: zero-shot, the language is not among "
    "them; in-language, it is the only one; all-languages, it is one of several.",
    "The majority baseline always answers the most frequent topic of the compared clips.",
    "CER is edits divided by reference characters, pooled over clips, after case folding and NFC, "
    "without punctuation.",
    "Where a system has several training seeds, its score is their mean, and intervals also tell "
    "how it would vary with other seeds (Student's t of what of their spread the clips do not "
    "explain). With one seed they tell only of other clips. Permutation tests are of the models at "
    "hand.",
    "The best systems of a setup are the highest score and all that are not shown to be below it "
    "(Holm over the systems); systems on gold text are no rivals.",
    "McNemar's exact test is of accuracy, by group, of the first seed; the odds ratio is of its "
    "clips. Clips needed: how many find a true difference as large as the observed one in 8 of 10 "
    "samples (two-sided .05, before Holm).",
)

NO_PAIR = (
    "No E2E run meets a cascade that reads transcripts here, so nothing is said about hearing "
    "against reading."
)

MOST_CLIPS = 20_000
"""Larger numbers of clips that a question needs are not told: nobody records them."""

MOST_NAMES = 4
"""More languages that the data cannot tell of are counted, not named."""

ROUTES = {
    "first": "E2E is better",
    "second": "the cascade is better",
    None: "the data cannot tell",
}


def verdict(found: Comparison) -> dict[str, list[str]]:
    """Return what the numbers say: what to use, then by setup hearing against reading."""
    said: dict[str, list[str]] = {}
    if uses := _uses(found):
        said["What to use"] = uses
    for setup, means, languages in setups(found):
        pairs = [d for d in found.mean_differences if d.setup == setup]
        low = [m.system for m in means if not m.macro_f1.low > found.baseline(m.languages)[0]]
        said[f"{setup.capitalize()} ({_count(languages)})"] = [
            *([_summary(pairs)] if len(pairs) > 1 else []),
            *(_judge(found, pair) for pair in pairs),
            *([] if pairs else [NO_PAIR]),
            f"Not shown to beat the majority baseline: {', '.join(low)}."
            if low
            else "The whole interval of every system lies above the majority baseline.",
        ]
    return said


def _uses(found: Comparison) -> list[str]:
    """Tell which system is the best for which languages, the surest first."""
    by_system: dict[tuple[str, str], list[Choice]] = {}
    for choice in choices(found):
        if choice.language != UNKNOWN:
            by_system.setdefault((choice.system, choice.setup), []).append(choice)
    said: list[str] = []
    for (system, setup), chosen in sorted(by_system.items(), key=lambda item: -len(item[1])):
        sure = [name_of(c.language) for c in chosen if not c.tied]
        shown = f"shown to be the best in {', '.join(sure)}" if sure else "its lead may be luck"
        names = ", ".join(name_of(c.language) for c in chosen)
        said.append(f"{system} ({setup}) has the best score in {names}; {shown}.")
    return said


def _summary(pairs: Sequence[Difference]) -> str:
    counts = {better: sum(d.better == better for d in pairs) for better in ROUTES}
    parts = [f"{name} in {counts[better]}" for better, name in ROUTES.items() if counts[better]]
    return f"On average, of {len(pairs)} pairs: {'; '.join(parts)}."


def _judge(found: Comparison, pair: Difference) -> str:
    """Put one pair in one setup into words."""
    gap = pair.difference
    spread = (
        f"95 % interval {_signed(gap.low)} to {_signed(gap.high)}, corrected p {_p(pair.p_holm)}"
    )
    if pair.better:
        winner = pair.first if pair.better == "first" else pair.second
        told = f"{winner} is better (difference {_signed(gap.estimate)} macro-F1, {spread})."
    else:
        told = f"the data cannot tell (difference {_signed(gap.estimate)} macro-F1, {spread})."
    head = f"{pair.first} against {pair.second}"
    if len(pair.languages) == 1:
        return f"{head} in {name_of(pair.languages[0])}: {told}"
    named: dict[str | None, list[str]] = {better: [] for better in ROUTES}
    alone = [
        d
        for d in found.differences
        if (d.first, d.second, d.setup) == (pair.first, pair.second, pair.setup)
    ]
    for d in alone:
        named[d.better].append(name_of(d.languages[0]))
    if len(named[None]) > MOST_NAMES and len(alone) > len(named[None]):
        named[None] = [f"the other {len(named[None])}"]
    parts = [
        f"{name} in {_all_of(named[better], len(alone))}"
        for better, name in ROUTES.items()
        if named[better]
    ]
    more = _more_clips([d for d in alone if d.better is None])
    return f"{head}: on average, {told} By language: {'; '.join(parts)}.{more}"


def _more_clips(untold: Sequence[Difference]) -> str:
    """Tell how many clips would find differences as large as the ones that may be chance."""
    needed = sorted(d.needed for d in untold if d.needed is not None)
    if not needed:
        return ""
    least, most = _rounded(needed[0]), _rounded(needed[-1])
    number = least if least == most else f"{least} to {most}"
    clips = sorted({d.clips for d in untold})
    now = f"{clips[0]}" if len(clips) == 1 else f"{clips[0]} to {clips[-1]}"
    return (
        f" Where it cannot tell, a true difference as large as the observed one would take about "
        f"{number} clips a language; there are {now}."
    )


def _rounded(clips: int) -> str:
    """Return a number of clips in two digits; a difference near 0 takes more than anyone has."""
    if clips > MOST_CLIPS:
        return f"over {MOST_CLIPS:,}"
    digits = max(0, len(str(clips)) - 2)
    return f"{round(clips, -digits):,}"


def systems(found: Comparison, names: Sequence[str]) -> str:
    """Name systems, or say that it is all of them."""
    return "all systems" if len(names) == len(found.runs) else ", ".join(names)


def _count(languages: Sequence[str]) -> str:
    return name_of(languages[0]) if len(languages) == 1 else f"{len(languages)} languages"


def _all_of(names: Sequence[str], number: int) -> str:
    return f"all {number}" if len(names) == number else ", ".join(names)


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
