"""A simulated result with planted truths: the report finds each, and claims nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from speechtaxi import cli
from speechtaxi.labels import label_set
from speechtaxi.records import write_manifest, write_predictions, write_run
from speechtaxi.types import Prediction, RunRecord, Utterance

TOPICS = label_set("taxi1500")
LANGUAGES = ("eng", "fra", "rus", "tam", "tel", "urd", "vie", "yor")
HEARD = ("fra", "rus", "tel", "vie", "yor")
"""Where hearing is better: exactly five languages."""
LEAKED = ("verse7", "verse30", "verse61")
"""Verses of test that are also in training, in another language."""
CLIPS = 108
KNOWS = {"ears": 0.4, "eyes": 0.4, "gold": 0.9, "gold_romanized": 0.9}
"""How often a system knows the topic; else it guesses. Ears know more in `HEARD`."""


def answers(system: str, language: str, text: str | None) -> list[Prediction]:
    """Answers whose confidence is right on average."""
    knows = 0.9 if system == "ears" and language in HEARD else KNOWS[system]
    gold_text = system.startswith("gold")  # what romanisation loses is nothing: the same answers
    rng = np.random.default_rng([*("gold" if gold_text else system + language).encode()])
    made: list[Prediction] = []
    for n in range(CLIPS):
        gold = TOPICS[n % 6]
        answer = gold if rng.random() < knows else str(rng.choice(TOPICS))
        odds = dict.fromkeys(TOPICS, (1 - knows) / 6) | {answer: knows + (1 - knows) / 6}
        read = f"the verse {n}" if text else None
        made.append(
            Prediction(
                f"{language}-{n}", f"verse{n}", language, gold, answer, odds, read, duration=5.0
            )
        )
    return made


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    folder: Path = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(4)
    rows = [
        Utterance(
            f"{language}-{split}-{n}" if split == "train" else f"{language}-{n}",
            language,
            split=split,
            audio=f"{language}-{split}-{n}.flac",
            duration=float(rng.uniform(3, 9)),
            text=f"{split} verse {n} in {language}",
            label=TOPICS[n % 6],
            group=f"verse{n}" if split == "test" else f"other{n}",
            speaker=f"{split}-{n % 5}",
        )
        for language in LANGUAGES
        for split in ("train", "test")
        for n in range(CLIPS)
    ]
    rows += [
        Utterance(f"leak-{verse}", "eng", f"{verse}.flac", "train", text=verse, label="Sin",
                  group=verse, speaker="train-0", duration=5.0)
        for verse in LEAKED
    ]  # fmt: skip
    write_manifest(folder / "manifest.jsonl", rows)
    views = {"ears": None, "eyes": "romanized", "gold": "gold", "gold_romanized": "gold_romanized"}
    for system, view in views.items():
        told = [row for language in LANGUAGES for row in answers(system, language, view)]
        write_predictions(folder / system / "predictions-test.jsonl", told)
        route = "cascade" if view else "e2e"
        record = RunRecord(system, route, view=view, train_languages=LANGUAGES, seed=0)
        write_run(folder / system, record)
    command = ["report", *(str(folder / system) for system in views), "-o", str(folder / "out")]
    assert cli.main([*command, "--manifest", str(folder / "manifest.jsonl"), "--forms=json"]) == 0
    return json.loads((folder / "out" / "report.json").read_text("utf-8"))


def words(report: dict, section: str) -> str:
    return " ".join(next(s["words"] for s in report["sections"] if s["name"] == section))


def test_hearing_is_better_in_exactly_five_languages(report):
    better = {d["languages"][0] for d in report["differences"] if d["better"] == "first"}
    assert better == set(HEARD)
    assert {d["better"] for d in report["differences"]} == {"first", None}
    verdict = " ".join(report["verdict"]["All-languages (8 languages)"])
    assert "E2E is better in French, Russian, Telugu, Vietnamese, Yoruba" in verdict
    assert "the cascade is better" not in verdict
    router = {language: choice["system"] for language, choice in report["router"].items()}
    assert all(router[language] == "ears" for language in HEARD)


def test_the_cascade_loses_by_recognition_alone(report):
    said = words(report, "losses")
    assert "Recognition: 0.4" in said
    assert "Romanisation: 0.000 (0.000 to 0.000) lost, which the data cannot tell from 0." in said
    mean = report["tables"]["losses"][0]
    assert mean["lost to recognition"]["low"] > 0.3
    assert mean["lost to romanisation"]["estimate"] == 0


def test_the_leak_is_named_and_nothing_else_is_suspected(report):
    said = words(report, "controls")
    assert "Beware of a leak: 3 of the 108 verses or sentences compared, with 24 clips" in said
    assert all(verse in said for verse in LEAKED)
    assert said.count("Beware") == 1
    assert {row["in common"] for row in report["tables"]["leaks"]} == {"verses or sentences"}
    assert {row["tells the topic"] for row in report["tables"]["blind"]} <= {"not shown", "no"}
    assert "Every system answered every clip, and none is flagged." in said


def test_nothing_is_claimed_that_was_not_planted(report):
    assert report["warnings"] == []
    assert {row["finding"] for row in report["tables"]["calibration"]} == {"neither shown"}
    assert "transfer" not in {section["name"] for section in report["sections"]}
