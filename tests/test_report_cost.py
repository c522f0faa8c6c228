"""Cost against score: what counts, the front, and what is not comparable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechtaxi.labels import label_set
from speechtaxi.report.comparison import compare
from speechtaxi.report.questions.cost import cost
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Section
from speechtaxi.types import Prediction, RunRecord

TOPICS = label_set("news6")
CPU = {"device": "cpu (x86_64)", "processes": "1", "threads": "2"}
GPU = {"device": "cuda (some GPU)", "processes": "2", "threads": "2"}


def run(
    system: str,
    right: float = 0.5,
    *,
    route: str = "e2e",
    test: str = "eng fra",
    train: str = "eng fra",
    clips: int = 60,
    duration: float | None = 5.0,
    **record,
) -> Run:
    """A system that is right in just this share of the clips."""
    predictions: dict[str, list[Prediction]] = {}
    for language in test.split():
        rows: list[Prediction] = []
        for n in range(clips):
            gold = TOPICS[n % 6]
            answer = gold if n < right * clips else TOPICS[(n + 1) % 6]
            odds = {topic: float(topic == answer) for topic in TOPICS}
            text = "heard" if route == "cascade" else None
            rows.append(
                Prediction(
                    f"{language}-{n:03}",
                    f"s{n}",
                    language,
                    gold,
                    answer,
                    odds,
                    text,
                    None,
                    duration,
                )
            )
        predictions[language] = rows
    known = {"train_languages": tuple(train.split()), "hardware": CPU}
    return Run(RunRecord(system, route, **{**known, **record}), Path(system), predictions)


def told(*runs: Run) -> Section | None:
    return cost(compare(runs, resamples=300))


def rows_of(section: Section) -> dict[str, dict]:
    return {row["system"]: dict(row) for row in section.tables[0].rows}


def test_a_dominated_system_is_not_on_the_front():
    section = told(
        run("cheap", 0.5, parameters=1_000),
        run("better", 0.9, parameters=50_000),
        run("dominated", 0.7, parameters=60_000),
        run("equal but dearer", 0.9, parameters=70_000),
        run("worst", 0.3, parameters=500),
    )
    fronts = {system: row["front"] for system, row in rows_of(section).items()}
    assert {system for system, front in fronts.items() if front == "parameters"} == {
        "worst",
        "cheap",
        "better",
    }
    assert fronts["dominated"] is fronts["equal but dearer"] is None
    said = section.words[-1]
    assert "All-languages, parameters: the front is worst (" in said
    assert "at 500), cheap (" in said
    assert "dominated" not in said
    assert "The cheapest that the data cannot tell from the best is better." in said


def test_front_is_what_nothing_dominates():
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 30, size=12) * 100
    shares = rng.integers(1, 60, size=12) / 60
    section = told(
        *(
            run(f"system {n}", share, parameters=int(weight))
            for n, (weight, share) in enumerate(zip(weights, shares, strict=True))
        )
    )
    rows = rows_of(section)
    points = [(row["parameters"], row["macro-F1"].estimate) for row in rows.values()]
    for (weight, score), row in zip(points, rows.values(), strict=True):
        beaten = any(w <= weight and s >= score and (w, s) != (weight, score) for w, s in points)
        assert (row["front"] == "parameters") != beaten


def test_times_are_summed_over_models_and_averaged_over_seeds():
    section = told(
        *(
            run(
                "alone",
                test=language,
                train=language,
                seed=seed,
                parameters=1000,
                hardware=GPU,
                seconds={"fit": fit, "test": 30.0},
            )
            for language, fit in (("eng", 1800.0), ("fra", 3600.0))
            for seed in (1, 2)
        ),
        *(
            run("shared", seed=seed, seconds={"fit": fit, "test": 60.0})
            for seed, fit in ((1, 3600.0), (2, 7200.0))
        ),
    )
    rows = rows_of(section)
    assert rows["alone"]["models"] == 2
    assert rows["alone"]["training hours"] == pytest.approx(2 * (0.5 + 1))  # two processes
    assert rows["shared"]["models"] == 1
    assert rows["shared"]["training hours"] == pytest.approx(1.5)
    for row in rows.values():
        assert row["real-time factor"] == pytest.approx(60 / (2 * 60 * 5))
        assert row["of which transcribing"] is None


def test_a_cascade_pays_for_transcribing():
    section = told(
        run("ears", 0.5, seconds={"test": 6.0}, parameters=100),
        run("eyes", 0.8, route="cascade", seconds={"test": 6.0, "transcribe": 54.0}, parameters=10),
        run("lies", 0.9, route="cascade", seconds={"test": 6.0}),
        run("gold", 1.0, route="cascade", view="gold", seconds={"test": 6.0}),
    )
    rows = rows_of(section)
    assert rows["ears"]["real-time factor"] == pytest.approx(0.01)
    assert rows["eyes"]["real-time factor"] == pytest.approx(0.1)
    assert rows["eyes"]["of which transcribing"] == pytest.approx(0.09)
    assert rows["gold"]["real-time factor"] is None
    said = " ".join(section.words)
    assert "real-time factor of lies is not the cost of a first run" in said
    assert "real-time factor: the front is ears (" in said
    assert {s for s, r in rows.items() if r["front"]} == {"ears", "eyes"}
    assert [figure.title for figure in section.figures] == [
        "Macro-F1 against parameters, all-languages",
        "Macro-F1 against real-time factor, all-languages",
    ]


def test_clips_that_are_not_compared_cost_nothing():
    twice = run("e2e", seconds={"predict": 24.0}, clips=60)
    twice = replace(twice, record=replace(twice.record, system="more", clips={"test": 240}))
    rows = rows_of(told(run("e2e", seconds={"predict": 12.0}), twice))
    assert rows["more"]["real-time factor"] == pytest.approx(12 / 600)
    assert rows["e2e"]["real-time factor"] == pytest.approx(12 / 600)


@pytest.mark.parametrize("hardware", [GPU, {}])
def test_times_of_other_machines_are_not_compared(hardware):
    seconds = {"fit": 100.0, "test": 6.0}
    section = told(
        run("ears", 0.5, seconds=seconds, parameters=10),
        run("slow", 0.6, seconds={"fit": 200.0, "test": 7.0}, parameters=20, hardware=hardware),
    )
    assert "Beware: times are not comparable" in section.words[1]
    assert (hardware.get("device") or "not recorded") in section.words[1]
    assert {row["front"] for row in rows_of(section).values()} == {"parameters"}
    same = told(
        run("ears", 0.5, seconds=seconds), run("slow", 0.6, seconds={"fit": 200.0, "test": 7.0})
    )
    assert not any("Beware" in words for words in same.words)
    assert {row["front"] for row in rows_of(same).values()} == {"training hours, real-time factor"}


def test_without_durations_or_records_nothing_is_made_up():
    assert told(run("ears"), run("eyes", route="cascade")) is None
    section = told(run("ears", duration=None, seconds={"test": 6.0}, parameters=10), run("other"))
    assert rows_of(section)["ears"]["real-time factor"] is None
    assert section.figures == []


def test_chart_tells_all_systems_that_have_the_cost():
    section = told(
        run("cheap", 0.5, parameters=1_000), run("dear", 0.9, parameters=2_000_000), run("unknown")
    )
    spec = json.dumps(section.figures[0].chart.to_dict())
    assert '"type": "log"' in spec
    assert "unknown" not in json.loads(spec)["description"]
    described = section.figures[0].chart.description
    assert "at 1,000; dear" in described
    assert described.endswith("at 2,000,000")
