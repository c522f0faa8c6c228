"""The sections on systems: their scores, hearing against reading, transcripts, topics, runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from speechtaxi.languages import name_of
from speechtaxi.report import charts
from speechtaxi.report.comparison import Comparison, Difference, Score, Transcripts
from speechtaxi.report.runs import setup_order
from speechtaxi.report.section import Figure, Row, Section, Table, Value

Finding = TypeVar("Finding", Score, Difference, Transcripts)


def systems(found: Comparison) -> Section:
    """Tell each system's mean over the languages of each setup."""
    several = any(len(mean.seeds) > 1 for mean in found.means)
    rows: list[Row] = [
        {
            "setup": setup,
            "system": mean.system,
            "route": _route(found, mean.system),
            "languages": len(mean.languages),
            "clips": mean.clips,
            "macro-F1": mean.macro_f1,
            "best": "●" if mean.best else "",
            **({"seeds": len(mean.seeds), "spread of seeds": _spread(mean)} if several else {}),
            "worst language": _worst(found, mean),
            "accuracy": mean.accuracy,
            "majority macro-F1": found.baseline(mean.languages)[0],
        }
        for setup, means, _ in setups(found)
        for mean in means
    ]
    return Section(
        "systems",
        "Systems",
        (
            "Macro-F1, mean over the languages of a setup, with 95 % intervals; the grey tick is "
            "the majority baseline. ● marks the best system and those that the data cannot tell "
            "from it.",
        ),
        [
            Figure(
                f"systems-{_slug(setup)}",
                charts.setup_title(setup, languages),
                charts.score_chart(found, means, "container"),
            )
            for setup, means, languages in setups(found)
        ],
        [Table("means", "Mean over languages", rows)],
        {k: c for k, c in charts.KINDS.items() if k in kinds(found)},
    )


def languages(found: Comparison) -> Section:
    """Tell each system's score in each language."""
    cells: dict[str, list[Score]] = defaultdict(list)
    for cell in found.cells:
        cells[cell.languages[0]].append(cell)
    rows: list[Row] = [
        {
            "system": cell.system,
            "setup": cell.setup,
            "language": name_of(cell.languages[0]),
            "clips": cell.clips,
            "groups": cell.groups,
            "macro-F1": cell.macro_f1,
            "best": "●" if cell.best else "",
            "spread of seeds": _spread(cell),
            "accuracy": cell.accuracy,
            "majority macro-F1": found.baselines[cell.languages[0]][0],
            "majority accuracy": found.baselines[cell.languages[0]][1],
        }
        for cell in found.cells
    ]
    return Section(
        "languages",
        "Languages",
        (
            "Macro-F1 by language with 95 % intervals, a shape for each setup; ● marks the best "
            "system of a setup and those that the data cannot tell from it.",
        ),
        [
            Figure(
                f"language-{language}",
                f"{name_of(language)} ({cells[language][0].clips} clips)",
                charts.score_chart(found, cells[language], "container"),
                [name_of(language)],
            )
            for language in found.languages
            if language in cells
        ],
        [*score_tables(found), Table("scores", "All scores, with accuracy", rows, folded=True)],
        {k: c for k, c in charts.KINDS.items() if k in kinds(found)}
        | {f"{charts.SIGNS[charts.shape(s)]} {s}": "" for s in found.setups},
    )


def score_tables(found: Comparison) -> list[Table]:
    """Return macro-F1 for each setup, languages by systems, to be read side by side."""
    clips = {cell.languages[0]: cell.clips for cell in found.cells}
    cells = {(cell.system, cell.setup, cell.languages): cell.macro_f1 for cell in found.cells}
    tables: list[Table] = []
    for setup, means, known in setups(found):
        rows: list[Row] = [
            {
                "language": name_of(language),
                "clips": clips[language],
                "majority": found.baselines[language][0],
                **{mean.system: cells.get((mean.system, setup, (language,))) for mean in means},
            }
            for language in known
        ]
        total: Row = {
            "language": f"mean of {len(known)}",
            "clips": sum(clips[language] for language in known),
            "majority": found.baseline(known)[0],
            **{mean.system: _comparable(mean, known) for mean in means},
        }
        several = len(known) > 1
        name = f"macro-f1-{_slug(setup)}"
        tables.append(Table(name, f"Macro-F1, {setup}", rows, total if several else None))
    return tables


def differences(found: Comparison) -> Section | None:
    """Tell what hearing gains or loses against reading."""
    if not found.differences:
        return None
    pairs: dict[tuple[str, str, str], list[Difference]] = defaultdict(list)
    means = [d for d in found.mean_differences if len(d.languages) > 1]
    for d in (*means, *found.differences):
        pairs[d.setup, d.first, d.second].append(d)
    limit = charts.widest(found.differences)
    rows: list[Row] = [
        {
            "E2E": d.first,
            "cascade": d.second,
            "setup": d.setup,
            "language": place,
            "clips": d.clips,
            "E2E macro-F1": d.macro_f1[0],
            "cascade macro-F1": d.macro_f1[1],
            "difference": d.difference,
            "p": d.p,
            "p (Holm)": d.p_holm,
            "p (BH)": d.p_bh,
            "better": {"first": "E2E", "second": "cascade", None: "cannot tell"}[d.better],
            "only E2E right": d.discordance.first,
            "only cascade right": d.discordance.second,
            "odds ratio": d.discordance.odds_ratio,
            "p (McNemar)": d.discordance.p,
            "clips needed": d.needed,
        }
        for place, d in placed(found.mean_differences, found.differences)
    ]
    return Section(
        "differences",
        "E2E minus cascade",
        (
            "Paired differences in macro-F1 on the same clips, with 95 % intervals. A colour means "
            "that the difference holds after correction for the number of languages.",
        ),
        [
            Figure(
                f"difference-{_slug(setup)}-{_slug(first)}-{_slug(second)}",
                f"{first} minus {second}, {setup}",
                charts.forest_chart(group, limit),
                systems=[first, second],
            )
            for (setup, first, second), group in sorted(
                pairs.items(), key=lambda pair: setup_order(pair[0][0])
            )
        ],
        [Table("differences", "All differences", rows, digits=3, folded=True)],
        charts.BETTER,
    )


def transcripts(found: Comparison) -> Section | None:
    """Tell whether a better transcript gives a better topic."""
    if not found.transcripts:
        return None
    rows: list[Row] = [
        {
            "system": t.system,
            "setup": t.setup,
            "language": place,
            "clips": t.clips,
            "with gold text": t.referenced,
            "flagged": t.flagged,
            "CER": t.cer,
        }
        for place, t in placed(found.mean_transcripts, found.transcripts)
    ]
    return Section(
        "transcripts",
        "Transcripts",
        ("Does a better transcript give a better topic? One point is one system in one language.",),
        [Figure("transcripts", "Macro-F1 against CER", charts.transcript_chart(found))],
        [Table("transcripts", "All error rates", rows, digits=3, folded=True)],
    )


def topics(found: Comparison) -> Section:
    """Tell what each topic was called."""
    scores: list[Row] = [
        {
            "system": topics.system,
            "setup": topics.setup,
            "topic": label,
            "clips": int(topics.confusion[n].sum()),
            "precision": float(topics.scores[0, n]),
            "recall": float(topics.scores[1, n]),
            "F1": float(topics.scores[2, n]),
        }
        for topics in found.topics
        for n, label in enumerate(found.labels)
    ]
    cells: list[Row] = [
        {
            "system": topics.system,
            "setup": topics.setup,
            "gold": gold,
            "predicted": predicted,
            "clips": int(topics.confusion[row, column]),
        }
        for topics in found.topics
        for row, gold in enumerate(found.labels)
        for column, predicted in enumerate(found.labels)
    ]
    return Section(
        "topics",
        "Topics",
        (
            "What each topic (row) was called (column), pooled over the languages and seeds of a "
            "setup; the deeper the colour, the larger the share of the row.",
        ),
        [
            Figure(
                f"confusion-{_slug(t.setup)}-{_slug(t.system)}",
                f"{t.system}, {t.setup}",
                charts.confusion_chart(t, found.labels),
                systems=[t.system],
            )
            for t in found.topics
        ],
        [
            Table("topics", "Precision, recall and F1 by topic", scores, folded=True),
            Table("confusion", "Confusion", cells, folded=True),
        ],
        narrow=True,
    )


def runs(found: Comparison) -> Section:
    """Tell what each run says of itself."""
    rows: list[Row] = [
        {
            "system": r.system,
            "route": r.route,
            "view": r.view,
            "romanised": r.romanize,
            "trained on": ", ".join(r.train_languages) or None,
            "seed": None if r.seed is None else str(r.seed),
            "recogniser": r.recognizer,
            "parameters": r.parameters,
            "audio hours": r.audio_hours,
            "seconds": _pairs(r.seconds),
            "skipped": r.skipped,
            "flagged": _pairs({flag: count for flag, count in r.flagged.items() if count}),
            "data": r.data_fingerprint,
            "commit": r.git_commit,
            "hardware": _pairs(r.hardware),
            "versions": _pairs(r.versions),
        }
        for r in (run.record for run in found.runs)
    ]
    return Section("runs", "Runs", tables=[Table("runs", "Runs", rows)])


def setups(found: Comparison) -> Iterator[tuple[str, list[Score], tuple[str, ...]]]:
    """Yield each setup with the systems' means in it and the languages that any of them covers."""
    for setup in found.setups:
        means = [mean for mean in found.means if mean.setup == setup]
        covered = {language for mean in means for language in mean.languages}
        yield setup, means, tuple(lang for lang in found.languages if lang in covered)


def placed(means: Sequence[Finding], cells: Sequence[Finding]) -> Iterator[tuple[str, Finding]]:
    """Yield findings with what they are of: means over several languages, then languages."""
    for mean in means:
        if len(mean.languages) > 1:
            yield f"mean of {len(mean.languages)}", mean
    for cell in cells:
        yield name_of(cell.languages[0]), cell


def kinds(found: Comparison) -> set[str]:
    """Return what systems there are, of `charts.KINDS`."""
    return {charts.kind(found, run.system) for run in found.runs}


def _route(found: Comparison, system: str) -> str:
    return next(run.record.route for run in found.runs if run.system == system)


def _worst(found: Comparison, mean: Score) -> str | None:
    """Return the language in which a system is worst, and its macro-F1 there."""
    cells = [c for c in found.cells if (c.system, c.setup) == (mean.system, mean.setup)]
    if len(cells) < 2:
        return None
    worst = min(cells, key=lambda cell: cell.macro_f1.estimate)
    return f"{name_of(worst.languages[0])} {worst.macro_f1.estimate:.2f}"


def _spread(score: Score) -> float | None:
    """Return the standard deviation of macro-F1 over seeds."""
    if len(score.seeds) < 2:
        return None
    centre = sum(score.seeds) / len(score.seeds)
    return (sum((f - centre) ** 2 for f in score.seeds) / (len(score.seeds) - 1)) ** 0.5


def _comparable(mean: Score, known: tuple[str, ...]) -> Value:
    """Return a mean, or say that it is over fewer languages than the others'."""
    if mean.languages == known:
        return mean.macro_f1
    return f"({mean.macro_f1.estimate:.2f} over {len(mean.languages)})"


def _pairs(values: Mapping[str, object]) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or None


def _slug(name: str) -> str:
    """Return a name as part of a file's name."""
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()
