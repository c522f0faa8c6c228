"""Learning curves: one that rises, one that is flat, and names that are no curve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechtaxi.labels import label_set
from speechtaxi.report.board import Board
from speechtaxi.report.comparison import compare, difference
from speechtaxi.report.questions.curves import learning_curves, stem
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Section
from speechtaxi.types import Prediction, RunRecord

TOPICS = label_set("news6")


def run(
    system: str, right: float, clips: int | None, *, seed: int = 0, test: str = "eng fra", **record
) -> Run:
    """A system that is right with a given chance, trained on so many clips."""
    predictions: dict[str, list[Prediction]] = {}
    for language in test.split():
        rng = np.random.default_rng([seed, *f"{system} {language}".encode()])
        rows: list[Prediction] = []
        for n in range(120):
            gold = TOPICS[n % 6]
            answer = gold if rng.random() < right else TOPICS[rng.integers(6)]
            odds = {topic: float(topic == answer) for topic in TOPICS}
            rows.append(Prediction(f"{language}-{n:03}", f"s{n}", language, gold, answer, odds))
        predictions[language] = rows
    trained = {"train": clips} if clips else {}
    known = {"train_languages": ("eng", "fra"), "seed": seed, "clips": trained}
    return Run(RunRecord(system, **{"route": "e2e", **known, **record}), Path(system), predictions)


def told(*runs: Run) -> Section | None:
    return learning_curves(compare(runs, resamples=400))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("e2e", "e2e"),
        ("e2e 25%", "e2e"),
        ("e2e (25 %)", "e2e"),
        ("e2e_n100", "e2e"),
        ("e2e-10k", "e2e"),
        ("e2e/2.5h", "e2e"),
        ("cascade native, 100 clips", "cascade native"),
        ("mms-300m", "mms-300m"),  # a size of the model
        ("wav2vec2", "wav2vec2"),
        ("100", "100"),
    ],
)
def test_stems(name, expected):
    assert stem(name) == expected


def test_planted_curves_are_found():
    section = told(
        *(run(f"rising {n}", 0.2 + 0.1 * k, n) for k, n in enumerate((50, 100, 200, 400))),
        run("rising", 0.8, 800),
        *(run(f"flat {n}", 0.6, n, route="cascade") for n in (100, 200, 400)),
        run("alone", 0.9, 400),
    )
    curves = {}
    for row in section.tables[0].rows:
        curves.setdefault(row["curve"], []).append(row["training clips"])
    assert curves == {"rising": [50, 100, 200, 400, 800], "flat": [100, 200, 400]}
    gains = {row["curve"]: dict(row) for row in section.tables[1].rows}
    assert (gains["rising"]["from clips"], gains["rising"]["to clips"]) == (400, 800)
    assert gains["rising"]["finding"] == "still rises"
    assert gains["flat"]["finding"] == "cannot tell"
    said = {words.split(",")[0]: words for words in section.words[1:]}
    assert said.keys() == {"rising", "flat"}
    assert "(2 languages), from 400 to 800 training clips: +0." in said["rising"]
    assert said["rising"].endswith("The curve still rises.")
    assert (
        "The data cannot tell whether it still rises; the interval has no room for a gain above 0."
        in said["flat"]
    )


def test_the_gain_is_the_paired_difference_and_its_p_is_corrected():
    runs = [
        run("rising", 0.75, 800),
        run("rising 50%", 0.6, 400),
        run("flat", 0.6, 800),
        run("flat 50%", 0.6, 400),
    ]
    found = compare(runs, resamples=400)
    board = Board(found.runs, found.labels, 400)
    arms = {arm.system: arm for arm in board.arms}
    alone = {
        name: difference(board, arms[name], arms[f"{name} 50%"], ("eng", "fra"))
        for name in ("rising", "flat")
    }
    gains = {row["curve"]: row for row in learning_curves(found).tables[1].rows}
    for name, expected in alone.items():
        assert gains[name]["difference"] == expected.difference
    assert gains["rising"]["p (Holm)"] == pytest.approx(2 * alone["rising"].p)


def test_sizes_are_of_a_model_the_mean_over_models_and_seeds():
    section = told(
        *(
            run(name, right, n, seed=seed, test=language, train_languages=(language,))
            for name, right, sizes in (("e2e", 0.7, (300, 500)), ("e2e 25%", 0.5, (75, 125)))
            for language, n in zip(("eng", "fra"), sizes, strict=True)
            for seed in (1, 2)
        )
    )
    assert [row["training clips"] for row in section.tables[0].rows] == [100, 400]
    assert {row["setup"] for row in section.tables[0].rows} == {"in-language"}
    assert section.words[1].startswith("e2e, in-language (2 languages): no system has about half")
    assert len(section.tables) == 1


@pytest.mark.parametrize(
    "other",
    [
        run("e2e 400", 0.5, 395),  # a few clips were skipped
        run("e2e 400", 0.5, None),
        run("other 400", 0.5, 200),
        run("e2e 400", 0.5, 200, route="cascade"),
        run("e2e 400", 0.5, 200, view="native"),
        run("e2e 400", 0.5, 200, recognizer="whisper"),
        run("e2e 400", 0.5, 200, parameters=9),
        run("e2e 400", 0.5, 200, train_languages=("eng", "fra", "rus")),
    ],
)
def test_systems_that_differ_in_more_or_in_no_size_are_no_curve(other):
    assert told(run("e2e", 0.5, 400), other) is None
    alike = replace(other, record=run("e2e 400", 0.5, 200).record)
    assert told(run("e2e", 0.5, 400), alike) is not None


def test_the_chart_has_a_line_for_each_curve_and_tells_its_points():
    section = told(
        run("ears", 0.8, 800),
        run("ears 50%", 0.5, 400),
        run("eyes", 0.8, 800),
        run("eyes-10", 0.4, 80),
    )
    chart = section.figures[0].chart
    values = chart.to_dict()["data"]["values"]
    assert [(v["curve"], v["clips"]) for v in values] == [
        ("ears", 400),
        ("ears", 800),
        ("eyes", 80),
        ("eyes", 800),
    ]
    assert "ears 400 clips 0." in chart.description
    assert section.figures[0].systems == ["ears 50%", "ears", "eyes-10", "eyes"]
