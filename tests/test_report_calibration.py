"""Calibration: who is accused, who is not, and numbers against second implementations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechtaxi.labels import label_set
from speechtaxi.report import charts
from speechtaxi.report.comparison import Comparison, compare
from speechtaxi.report.questions.calibration import _calibrated, calibration
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Section
from speechtaxi.statistics import Interval
from speechtaxi.types import Prediction, RunRecord

TOPICS = label_set("news6")


def run(
    system: str, seed: int = 0, *, sharper: float = 1.0, clips: int = 150, sure: float = 0.3, **more
) -> Run:
    """A system whose clips have the topics that its own odds tell, made sharper afterwards.

    Gold labels are those of the language, alike for all systems: the odds are drawn around them.
    """
    predictions: dict[str, list[Prediction]] = {}
    for language in ("eng", "fra"):
        rng = np.random.default_rng([seed, *language.encode()])
        rows: list[Prediction] = []
        for n in range(clips):
            odds = rng.dirichlet(np.full(6, sure))
            order = list(range(6))
            drawn, gold = rng.choice(6, p=odds), n % 6
            order[drawn], order[gold] = gold, drawn  # the drawn topic is called like the gold one
            told = odds[order] ** sharper
            told /= told.sum()
            chances = dict(zip(TOPICS, told.tolist(), strict=True))
            answer = TOPICS[int(told.argmax())]
            name = f"{language}-{n}"
            rows.append(Prediction(name, f"s{n}", language, TOPICS[gold], answer, chances))
        predictions[language] = sorted(rows, key=lambda row: row.id)
    known = {"train_languages": ("eng", "fra"), "seed": seed}
    return Run(RunRecord(system, "e2e", **{**known, **more}), Path(system), predictions)


def compared(*runs: Run) -> Comparison:
    return compare(runs, resamples=400)


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compared(run("calibrated", 1), run("loud", 2, sharper=3), run("meek", 3, sharper=0.4))


@pytest.fixture(scope="module")
def section(found) -> Section:
    return calibration(found)


def row_of(section: Section, system: str) -> dict:
    return next(dict(row) for row in section.tables[0].rows if row["system"] == system)


def test_planted_truths_are_found_and_nothing_else(section):
    findings = {row["system"]: row["finding"] for row in section.tables[0].rows}
    assert findings == {
        "calibrated": "neither shown",
        "loud": "overconfident",
        "meek": "underconfident",
    }
    said = " ".join(section.words)
    assert "Overconfident: loud (all-languages) by +0." in said
    assert "Underconfident: meek (all-languages) by −0." in said
    assert "Neither is shown of calibrated (all-languages)." in said


def test_calibrated_systems_are_rarely_accused():
    systems = [run(f"system {seed}", seed, clips=60) for seed in range(10, 40)]
    accused = [
        row["system"]
        for row in calibration(compared(*systems)).tables[0].rows
        if row["finding"] != "neither shown"
    ]
    assert len(accused) <= 1  # of 30 tests at a family-wise level of 5 %


def test_all_right_is_not_underconfident_where_confidence_is_nearly_1():
    """96 of 96 right at .99 happens by chance, though the bootstrap's interval leaves out 0."""
    ones = run("ceiling", clips=48)
    sure = {
        language: [
            replace(
                row,
                prediction=row.label,
                probabilities={
                    t: 0.988 + 0.004 * (n % 2) if t == row.label else 0.002 for t in TOPICS
                },
            )
            for n, row in enumerate(rows)
        ]
        for language, rows in ones.predictions.items()
    }
    row = row_of(calibration(compared(replace(ones, predictions=sure))), "ceiling")
    assert row["confidence − accuracy"].high < 0
    assert row["finding"] == "neither shown"


def test_numbers_equal_second_implementations(found, section):
    for arm in found.board.arms:
        rows = [row for language in arm.languages for row in arm.rows(language)]
        odds = np.array([[row.probabilities[t] for t in sorted(TOPICS)] for row in rows])
        gold = [row.label for row in rows]
        sure, right = odds.max(1), np.array([r.label == r.prediction for r in rows])
        told = row_of(section, arm.system)
        truth = np.array([[t == g for t in sorted(TOPICS)] for g in gold])
        losses = -np.log(odds[truth].clip(1e-7))
        assert told["log loss"].estimate == pytest.approx(losses.mean())
        assert told["Brier score"].estimate == pytest.approx(((odds - truth) ** 2).sum(1).mean())
        assert told["mean confidence"].estimate == pytest.approx(sure.mean())
        assert told["accuracy"].estimate == pytest.approx(right.mean())
        bins = np.ceil(sure * 10).astype(int)
        parts = [abs((sure - right)[bins == b].sum()) for b in range(1, 11)]
        assert told["ECE"] == pytest.approx(sum(parts) / len(rows))


def test_interval_of_the_gap_equals_a_naive_bootstrap(found, section):
    """Verses are drawn, each in both languages."""
    arm = next(arm for arm in found.board.arms if arm.system == "loud")
    gaps: dict[str, list[float]] = {}
    for language in arm.languages:
        for row in arm.rows(language):
            gap = row.probabilities[row.prediction] - (row.prediction == row.label)
            gaps.setdefault(row.group, []).append(gap)
    verses = np.array([gaps[group] for group in sorted(gaps)])
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(verses), size=(4000, len(verses)))
    low, high = np.quantile(verses[drawn].mean((1, 2)), [0.025, 0.975])
    told = row_of(section, "loud")["confidence − accuracy"]
    assert isinstance(told, Interval)
    assert told.estimate == pytest.approx(verses.mean())
    assert (told.low, told.high) == pytest.approx((low, high), abs=0.012)


def test_error_by_chance_equals_labels_drawn_clip_by_clip(found, section):
    arm = next(arm for arm in found.board.arms if arm.system == "meek")
    sure = np.array(
        [max(r.probabilities.values()) for lang in arm.languages for r in arm.rows(lang)]
    )
    bins = np.ceil(sure * 10).astype(int)
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(2000):
        gap = sure - (rng.random(len(sure)) < sure)
        errors.append(sum(abs(gap[bins == b].sum()) for b in range(1, 11)) / len(sure))
    told = row_of(section, "meek")
    assert told["ECE by chance"] == pytest.approx(np.mean(errors), rel=0.03)
    assert told["ECE"] > 2 * told["ECE by chance"]
    calm = row_of(section, "calibrated")
    assert calm["ECE"] < 2 * calm["ECE by chance"]


def test_seeds_are_averaged():
    one, two = run("loud", 2, sharper=3), run("loud", 5, sharper=3)
    alone = [row_of(calibration(compared(r)), "loud") for r in (one, two)]
    both = row_of(calibration(compared(one, two)), "loud")
    for column in ("log loss", "accuracy", "confidence − accuracy"):
        expected = np.mean([row[column].estimate for row in alone])
        assert both[column].estimate == pytest.approx(expected)
    assert both["ECE"] == pytest.approx(np.mean([row["ECE"] for row in alone]))
    assert both["clips"] == alone[0]["clips"] == 300


def test_simulated_confidences_stay():
    steps = np.zeros((1, 3, 100))
    steps[0, :, 40], steps[0, :, 99] = (10, 4.05, 7), (5, 5, 5)
    simulated = _calibrated(steps)
    np.testing.assert_array_equal(
        simulated[:, 0, :2], np.broadcast_to(steps[0, :2], (2000, 2, 100))
    )
    assert simulated[:, 0, 2, 40].mean() == pytest.approx(4.05, abs=0.15)
    assert (simulated[:, 0, 2, 99] == 5).all()


def test_hard_answers_and_clipped_ones_are_told():
    base = run("hard", 4)
    hard = {
        language: [
            replace(row, probabilities={t: float(t == row.prediction) for t in TOPICS})
            for row in rows
        ]
        for language, rows in base.predictions.items()
    }
    first, *rest = base.predictions["eng"]
    wrong = next(topic for topic in TOPICS if topic != first.label)
    odds = {topic: float(topic == wrong) for topic in TOPICS}
    first = replace(first, prediction=wrong, probabilities=odds)
    mixed = {**base.predictions, "eng": [first, *rest]}
    section = calibration(
        compared(
            replace(base, predictions=hard),
            replace(base, predictions=mixed, record=replace(base.record, system="mixed")),
        )
    )
    assert "hard (all-languages) gives every answer the probability 1." in section.words
    assert any(
        "mixed (all-languages) gives the right topic a probability below one in" in w
        for w in section.words
    )


def test_charts_are_whole_and_told_in_words(section):
    assert [figure.title for figure in section.figures] == [
        "calibrated, all-languages",
        "loud, all-languages",
        "meek, all-languages",
    ]
    for figure in section.figures:
        spec = figure.chart.to_dict()
        points = spec["layer"][1]["data"]["values"]
        assert sum(point["clips"] for point in points) == 300
        assert "NaN" not in json.dumps(spec)
        assert figure.chart.description.startswith(f"Accuracy by confidence of {figure.title}")
    assert section.legend == {"E2E": charts.ORANGE}


def test_one_group_has_no_interval_and_no_verdict():
    alone = run("lone", 2, sharper=3, clips=12)
    lone = {
        language: [replace(row, group="same") for row in rows]
        for language, rows in alone.predictions.items()
    }
    section = calibration(compared(replace(alone, predictions=lone)))
    row = row_of(section, "lone")
    assert np.isnan(row["log loss"].low)
    assert row["finding"] == "neither shown"
