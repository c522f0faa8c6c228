"""What explains zero-shot transfer: a regression on what two languages share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import altair as alt
import numpy as np

from speechtaxi.languages import LANGUAGES, distance
from speechtaxi.report import charts
from speechtaxi.report.board import Arm, has_reference
from speechtaxi.report.comparison import Comparison
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Figure, Row, Section, Table
from speechtaxi.scores import spelling
from speechtaxi.statistics import Interval
from speechtaxi.statistics.regression import Fit, fit
from speechtaxi.statistics.resampling import Array

Languages: TypeAlias = Sequence[str]
Texts: TypeAlias = Mapping[str, frozenset[str]]
"""Character trigrams by language."""

LEAST_PAIRS, LEAST_TARGETS = 12, 4
NONE_SHOWN = "no feature is shown to count by itself"

KIN: Mapping[str, Callable[[str], str]] = {
    "same script": lambda code: LANGUAGES[code].script,
    "same family": lambda code: LANGUAGES[code].family.split(":")[0],
    "same branch": lambda code: LANGUAGES[code].family,
}


@dataclass(frozen=True)
class Pairs:
    """Zero-shot scores of a system, and what is known of each pair of languages."""

    targets: Sequence[str]
    """(N,) codes."""
    scores: Array
    """(N,) macro-F1."""
    features: Mapping[str, Sequence[float | None]]
    """By name, (N,); None where it is not known."""

    @cached_property
    def known(self) -> dict[str, list[float]]:
        """The features that every pair has and that differ between pairs."""
        columns = {
            name: [value for value in values if value is not None]
            for name, values in self.features.items()
        }
        return {
            name: values
            for name, values in columns.items()
            if len(values) == len(self.targets) and len(set(values)) > 1
        }

    @property
    def left_out(self) -> list[str]:
        return [name for name in self.features if name not in self.known]

    @property
    def too_few(self) -> bool:
        return len(self.targets) < LEAST_PAIRS or len(set(self.targets)) < LEAST_TARGETS

    def __str__(self) -> str:
        pairs, targets = len(self.targets), len(set(self.targets))
        return f"{pairs} pair{'s'[: pairs > 1]}, {targets} target language{'s'[: targets > 1]}"


def explained(found: Comparison) -> Section | None:
    """Tell by what zero-shot scores can be predicted; None where nothing is zero-shot."""
    texts = _texts(found.runs)
    systems = dict.fromkeys(arm.system for arm in found.board.arms)
    pairs = {system: pairs_of(found, system, texts) for system in systems}
    pairs = {system: own for system, own in pairs.items() if own.targets}
    few = {system: own for system, own in pairs.items() if own.too_few}
    if not pairs:
        return None
    fits = {
        system: fit(np.array(list(own.known.values())).T, own.scores, own.targets, list(own.known))
        for system, own in pairs.items()
        if system not in few and own.known and np.ptp(own.scores) > 0
    }
    explaining = {system: own for system, own in fits.items() if own.explains}
    measures: list[Row] = [
        {
            "system": system,
            "pairs": len(pairs[system].targets),
            "target languages": len(set(pairs[system].targets)),
            "RMSE": fit.rmse,
            "RMSE of the mean": fit.rmse_of_mean,
            "R²": fit.r2,
            "features": ", ".join(fit.importances),
        }
        for system, fit in fits.items()
    ]
    rows: list[Row] = [
        {
            "system": system,
            "feature": name,
            "importance": importance,
            "effect of one SD": fit.effects[name],
        }
        for system, fit in explaining.items()
        for name, importance in _ranked(fit)
    ]
    return Section(
        "transfer-explained",
        "Transfer explained",
        (
            "A ridge regression predicts the zero-shot macro-F1 of a pair (languages trained on, "
            "language tested) from what the two share; of several languages trained on, the "
            "nearest counts. Each target language is predicted from pairs with other targets, and "
            "held against their mean. Importance is what shuffling a feature adds to the error. "
            "Intervals draw target languages; those of a system's importances hold together "
            "(Bonferroni). Features that go together share their importance; where few languages "
            "are trained on, a feature may stand for one of them.",
            *(_told(s, own, fits.get(s)) for s, own in pairs.items() if s not in few),
            *([_told_few(few)] if few else []),
        ),
        [
            Figure(f"transfer-features-{n}", system, importance_chart(system, fit), (), [system])
            for n, (system, fit) in enumerate(explaining.items(), 1)
        ],
        [
            table
            for table in (
                Table("transfer-fit", "Prediction of unseen languages", measures, digits=3),
                Table("transfer-features", "Importance of features", rows, digits=3),
            )
            if table.rows
        ],
    )


def pairs_of(found: Comparison, system: str, texts: Mapping[str, Texts]) -> Pairs:
    """Return a system's zero-shot scores with the features of their languages.

    Args:
        texts: what `_texts` gave; a system that reads nothing borrows another's.
    """
    nothing: Texts = {}
    read = texts.get(system) or next(iter(texts.values()), nothing)
    targets: list[str] = []
    scores: list[float] = []
    rows: list[dict[str, float | None]] = []
    for arm in found.board.arms:
        if arm.system != system or not arm.setup.startswith("zero-shot"):
            continue
        for target, runs in arm.runs.items():
            record = runs[0].record
            if not record.train_languages:  # zero-shot by its own word only
                continue
            targets.append(target)
            scores.append(found.board.macro_f1(arm, (target,)).estimate)
            clips = record.clips.get("train")
            rows.append(
                {
                    **_kinship(record.train_languages, target),
                    "shared trigrams": _shared(read, record.train_languages, target),
                    "training clips (log)": math.log(clips) if clips else None,
                    "CER": _cer(found, arm, target),
                }
            )
    names = rows[0] if rows else {}
    return Pairs(targets, np.array(scores), {name: [row[name] for row in rows] for name in names})


def importance_chart(system: str, fit: Fit) -> charts.Drawing:
    """Draw the importance of each feature with its interval, the largest first."""
    rows: list[dict[str, Any]] = [
        {
            "feature": name,
            "importance": importance.estimate,
            "low": importance.low,
            "high": importance.high,
            "effect": fit.effects[name],
        }
        for name, importance in _ranked(fit)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("feature:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, ticks=False)),
        tooltip=[
            "feature:N",
            *(
                alt.Tooltip(f"{name}:Q", format="+.3f")
                for name in ("importance", "low", "high", "effect")
            ),
        ],
    )
    return alt.layer(
        base.mark_bar(color=charts.GREEN, height=10).encode(
            x=alt.X("importance:Q", title="added error when shuffled (macro-F1)")
        ),
        base.mark_rule(color=charts.GREY, strokeWidth=2.5).encode(x="low:Q", x2="high:Q"),
    ).properties(
        width="container",
        height=charts.LINE * len(rows),
        description=f"What shuffling each feature adds to the error in predicting macro-F1 of "
        f"{system} in unseen languages: "
        + "; ".join(f"{r['feature']} {r['importance']:+.3f}" for r in rows),
    )


def _told(system: str, pairs: Pairs, fit: Fit | None) -> str:
    if not fit:
        return f"{system}: nothing to explain, as no score or no feature differs ({pairs})."
    error = (
        f"RMSE {fit.rmse:.3f} against {fit.rmse_of_mean:.3f} of the mean, R² "
        f"{fit.r2.estimate:.2f} [{fit.r2.low:.2f}, {fit.r2.high:.2f}]; {pairs}"
    ).replace("-", "−")
    left = f" Left out, as not known for all or the same for all: {', '.join(pairs.left_out)}."
    more = left if pairs.left_out else ""
    if not fit.explains:
        return (
            f"{system}: what the languages share is not shown to predict unseen languages better "
            f"than their mean does ({error}), so nothing is said of single features.{more}"
        )
    shown = [f"{name} ({i.estimate:+.3f})" for name, i in _ranked(fit) if i.low > 0]
    return (
        f"{system}: what the languages share explains part of the zero-shot scores ({error}). "
        f"Error that shuffling adds: {', '.join(shown) or NONE_SHOWN}.{more}"
    )


def _told_few(few: Mapping[str, Pairs]) -> str:
    return (
        f"Too few zero-shot scores to explain (at least {LEAST_PAIRS} pairs and {LEAST_TARGETS} "
        "target languages are needed): "
        f"{', '.join(f'{system} ({own})' for system, own in few.items())}."
    )


def _ranked(fit: Fit) -> list[tuple[str, Interval]]:
    return sorted(fit.importances.items(), key=lambda item: -item[1].estimate)


def _kinship(sources: Languages, target: str) -> dict[str, float | None]:
    """Return what the table of languages tells of the source that is nearest to a target."""
    known = [source for source in sources if source in LANGUAGES]
    if not known or target not in LANGUAGES:
        return dict.fromkeys([*KIN, "distance (1,000 km)"])
    shared = {
        name: float(any(trait(source) == trait(target) for source in known))
        for name, trait in KIN.items()
    }
    nearest = min(km for source in known if (km := distance(source, target)) is not None)
    return {**shared, "distance (1,000 km)": nearest / 1000}


def _shared(texts: Texts, sources: Languages, target: str) -> float | None:
    """Return the share of a target's trigrams that a source has too, of the source with most."""
    own = texts.get(target)
    shares = [len(own & texts[source]) / len(own) for source in sources if own and source in texts]
    return max(shares, default=None)


def _cer(found: Comparison, arm: Arm, target: str) -> float | None:
    if arm.reads_gold or not any(map(has_reference, arm.rows(target))):
        return None
    rate = found.board.error_rate(arm, (target,)).estimate
    return None if math.isnan(rate) else rate


def _texts(runs: Sequence[Run]) -> Mapping[str, Texts]:
    """Return what the texts of each system's clips are made of, systems on romanised text first.

    The gold text counts where it is known, as it is the same whatever the recogniser.
    """
    texts: dict[str, dict[str, frozenset[str]]] = {}
    for run in sorted(runs, key=lambda run: "romanized" not in (run.record.view or "")):
        for language, rows in run.predictions.items():
            written = [row.reference or row.text or "" for row in rows]
            if any(written) and language not in texts.get(run.system, {}):
                lines = [f" {spelling(text)} " for text in written]
                texts.setdefault(run.system, {})[language] = frozenset(
                    line[n : n + 3] for line in lines for n in range(len(line) - 2)
                )
    return texts
