"""Where the cascade loses: planted losses, flags and misreadings are found, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from speechtaxi.labels import label_set
from speechtaxi.report.comparison import compare
from speechtaxi.report.forms.page import as_html
from speechtaxi.report.forms.texts import as_json, as_markdown
from speechtaxi.report.questions.losses import losses, lost, paths
from speechtaxi.report.runs import Run
from speechtaxi.scores import spelling
from speechtaxi.types import Prediction, RunRecord

TOPICS = label_set("news6")
LANGUAGES = ("eng", "fra", "rus")
CLIPS = 96


def answers(
    right: float, seed: int, like: Run | None = None, wrong: float = 0.0
) -> list[Prediction]:
    """Answers right by chance; or those of another run, of which a share is made wrong."""
    rng = np.random.default_rng(seed)
    before = [] if like is None else list(like.rows())
    made: list[Prediction] = []
    for number in range(CLIPS * len(LANGUAGES)):
        language, n = LANGUAGES[number // CLIPS], number % CLIPS
        gold = TOPICS[n % 6]
        if before:
            kept = rng.random() >= wrong
            answer = before[number].prediction if kept else TOPICS[(n + 1 + rng.integers(5)) % 6]
        else:
            answer = gold if rng.random() < right else str(rng.choice(TOPICS))
        odds = {topic: float(topic == answer) for topic in TOPICS}
        made.append(Prediction(f"{language}-{n:02}", f"s{n}", language, gold, answer, odds))
    return made


def run(system: str, rows: Sequence[Prediction], view: str | None, seed=0, **more) -> Run:
    by_language = {lang: [r for r in rows if r.language == lang] for lang in LANGUAGES}
    route = "cascade" if view else "e2e"
    record = {"train_languages": LANGUAGES, "view": view, "seed": seed, **more}
    return Run(RunRecord(system, route, **record), Path(system), by_language)


def simulated(romanisation=0.0, recognition=0.0, seeds=3) -> list[Run]:
    """Gold text, and cascades that lose a share of its answers at a step, in each of the seeds."""
    made: list[Run] = []
    for seed in range(seeds):
        gold = run("gold", answers(0.8, seed), "gold", seed)
        latin = answers(0, 10 + seed, gold, romanisation)
        latin = run("gold_latin", latin, "gold_romanized", seed)
        native = run("native", answers(0, 20 + seed, gold, recognition), "native", seed)
        romanized = run("latin", answers(0, 30 + seed, latin, recognition), "romanized", seed)
        made += [gold, latin, native, romanized]
    return made


def section(runs: Sequence[Run]):
    return losses(compare(runs, resamples=400))


def table(found, name):
    return next(t.rows for t in found.tables if t.name == name)


def row(found, system, place):
    return next(
        r for r in table(found, "losses") if (r["system"], r["language"]) == (system, place)
    )


def said(found, system):
    return next(words for words in found.words if words.startswith(f"{system}, "))


def test_losses_only_by_recognition():
    found = section(simulated(recognition=0.4))
    for system in ("native", "latin"):
        mean = row(found, system, "mean of 3")
        assert mean["lost to recognition"].low > 0.15
        assert "lost." in said(found, system).split("Recognition: ")[1]
    latin = row(found, "latin", "mean of 3")["lost to romanisation"]
    assert (latin.low, latin.estimate, latin.high) == (0, 0, 0)
    assert "Romanisation: 0.000 (0.000 to 0.000) lost, which the data cannot tell" in said(
        found, "latin"
    )
    assert row(found, "native", "mean of 3")["lost to romanisation"] is None


def test_gold_text_romanised_otherwise_is_no_yardstick():
    runs = [
        replace(r, record=replace(r.record, romanize="non_latin" if r.system == "latin" else "all"))
        if "romanized" in (r.record.view or "")
        else r
        for r in simulated(recognition=0.4)
    ]
    mean = row(section(runs), "latin", "mean of 3")
    assert mean["held against"] == "gold"
    assert mean["lost to romanisation and recognition"].low > 0.15


def test_losses_only_by_romanisation():
    found = section(simulated(romanisation=0.4))
    mean = row(found, "latin", "mean of 3")
    assert mean["lost to romanisation"].low > 0.15
    assert mean["lost to recognition"].estimate == 0
    assert row(found, "native", "mean of 3")["lost to recognition"].estimate == 0
    assert "Recognition: 0.000" in said(found, "native")


@pytest.mark.parametrize("seeds", [(1, 1, 1), (2, 2, 2), (1, 3, 2)])
def test_losses_add_up(seeds):
    """Estimates, resamples and left-out groups alike, and to scikit-learn's macro-F1."""
    runs = simulated(romanisation=0.1, recognition=0.2)
    have = dict(zip(("gold", "gold_latin", "latin"), seeds, strict=True))
    runs = [r for r in runs if r.record.seed < have.get(r.system, 0)]
    found = compare(runs, resamples=300)
    (path,), untold = paths(found.board.arms)
    assert not untold
    assert path.steps == ["classifier", "romanisation", "recognition"]
    for language in LANGUAGES:
        loss = lost(found.board, path, language)
        total = loss.steps[0] + loss.steps[1] + loss.steps[2]
        score = found.board.macro_f1(path.cascade, (language,))
        own = [
            f1_score([p.label for p in rows], [p.prediction for p in rows], average="macro")
            for rows in (r.predictions[language] for r in runs if r.system == "latin")
        ]
        assert total.estimate == pytest.approx(1 - np.mean(own), abs=1e-12)
        np.testing.assert_allclose(total.replicates, 1 - score.replicates, atol=1e-12)
        without = [np.atleast_2d(sample.jackknife).mean(0) for sample in (total, score)]
        np.testing.assert_allclose(without[0], 1 - without[1], atol=1e-12)
        assert sum(p.estimate for p in loss.last) == pytest.approx(loss.steps[-1].estimate)
    for cells in table(losses(found), "losses"):
        parts = [cells[f"lost to {step}"].estimate for step in path.steps]
        assert sum(parts) == pytest.approx(1 - cells["macro-F1"].estimate, abs=1e-12)
        assert cells["gold macro-F1"].estimate == pytest.approx(1 - parts[0])


@pytest.mark.parametrize("gold_seeds", [2, 3])
def test_flagged_clips_carry_the_whole_loss(gold_seeds):
    """Also where gold text was learned with other seeds: its seeds answer alike here."""
    gold = answers(0.9, 1)
    runs = [run("gold", gold, "gold", seed) for seed in range(gold_seeds)]
    for seed in range(3):
        rows = [
            replace(r, flags=("looping",), prediction=TOPICS[(n + 1 + seed) % 6])
            if n % 4 == 0
            else r
            for n, r in enumerate(gold)
        ]
        rows[0] = replace(rows[0], flags=("looping", "silent"))
        runs.append(run("eyes", rows, "native", seed))
    found = section(runs)
    for place in ("mean of 3", "English", "French", "Russian"):
        cells = row(found, "eyes", place)
        whole, on_others = cells["lost to recognition"], cells["last step, other clips"]
        assert whole.low > 0.05
        assert cells["last step, flagged clips"].estimate == pytest.approx(whole.estimate)
        assert on_others.estimate == pytest.approx(0, abs=1e-12)
    assert "the 72 flagged of 288 clips, 0.000 (0.000 to 0.000) on the others" in said(
        found, "eyes"
    )
    flags = {cells["language"]: cells for cells in table(found, "flags")}
    assert list(flags) == ["all 3", "English", "French", "Russian"]
    assert [flags[p]["flagged"] for p in flags] == [72, 24, 24, 24]
    assert [flags["all 3"][f] for f in ("looping", "silent", "empty")] == [72, 1, 0]
    right = [r.prediction == r.label for n, r in enumerate(gold) if n % 4]
    assert flags["all 3"]["accuracy on others"].estimate == pytest.approx(np.mean(right))
    hits = [
        r.prediction == r.label
        for made in runs
        if made.system == "eyes"
        for r in made.rows()
        if r.flags
    ]
    assert flags["all 3"]["accuracy on flagged"].estimate == pytest.approx(np.mean(hits))


def test_seeds_count_alike_where_there_are_more_of_one_system():
    """Every clip is flagged, so that nothing can be lost on others."""
    gold = [run("gold", answers(0.8, seed), "gold", seed) for seed in range(2)]
    rows = [[replace(r, flags=("silent",)) for r in answers(0.5, 9 + n)] for n in range(3)]
    cells = row(
        section([*gold, *(run("eyes", rows[n], "native", n) for n in range(3))]), "eyes", "French"
    )
    assert cells["last step, other clips"].estimate == pytest.approx(0, abs=1e-12)
    assert cells["last step, flagged clips"].estimate > 0.1


def test_losses_apart_from_flagged_clips_are_told_so():
    gold = answers(0.9, 1)
    rows = [r if n % 4 == 0 else replace(r, prediction=TOPICS[0]) for n, r in enumerate(gold)]
    rows = [replace(r, flags=("truncated",)) if n % 4 == 0 else r for n, r in enumerate(rows)]
    cells = row(section([run("g", gold, "gold"), run("eyes", rows, "native")]), "eyes", "English")
    assert cells["last step, flagged clips"].estimate == 0
    assert cells["last step, other clips"].low > 0.2


def test_a_language_without_flags_has_no_accuracy_on_them():
    rows = answers(0.5, 1)
    rows[0] = replace(rows[0], flags=("empty",))
    flags = {
        cells["language"]: cells for cells in table(section([run("a", rows, "native")]), "flags")
    }
    assert flags["French"]["accuracy on flagged"] is None
    assert flags["English"]["accuracy on flagged"].note.startswith("the interval is a point")


def test_gains_are_no_losses():
    gold = run("gold", answers(0.5, 1), "gold")
    latin = run("gold_latin", answers(1, 2), "gold_romanized")
    found = section([gold, latin, run("latin", answers(1, 2), "romanized")])
    assert row(found, "latin", "mean of 3")["lost to romanisation"].high < -0.2
    assert "gained. Recognition" in said(found, "latin")
    assert said(found, "latin").split("Romanisation: ")[1].startswith("0.")


def test_nothing_is_claimed_of_systems_that_are_alike():
    """All are right by the same chance, independently of each other."""
    found = section(
        [
            run(name, answers(0.6, seed), view, seed)
            for name, view, start in (
                ("gold", "gold", 0),
                ("gold_latin", "gold_romanized", 10),
                ("latin", "romanized", 20),
            )
            for seed in range(start, start + 3)
        ]
    )
    assert said(found, "latin").count("lost, which the data cannot tell from 0.") == 2


def test_what_the_first_step_holds_depends_on_the_gold_text():
    runs = simulated(romanisation=0.2, recognition=0.2)
    without = [r for r in runs if r.system in ("gold_latin", "latin")]
    cells = row(section(without), "latin", "mean of 3")
    whole = row(section(runs), "latin", "mean of 3")
    first = cells["lost to classifier and romanisation"].estimate
    assert first == pytest.approx(
        whole["lost to classifier"].estimate + whole["lost to romanisation"].estimate
    )
    joint = row(section([r for r in runs if r.system in ("gold", "latin")]), "latin", "mean of 3")
    assert joint["lost to romanisation and recognition"].estimate == pytest.approx(
        whole["lost to romanisation"].estimate + whole["lost to recognition"].estimate
    )
    assert "lost to recognition" not in joint


def test_several_systems_on_gold_text_are_told_apart_by_name_or_not_at_all():
    rows = answers(0.7, 1)
    runs = [run(f"gold_{encoder}", rows, "gold") for encoder in ("xlmr", "furina")]
    found = section([*runs, run("cascade_furina", rows, "native")])
    assert row(found, "cascade_furina", "English")["held against"] == "gold_furina"
    found = section([*runs, run("eyes", rows, "native")])
    assert found is None  # nothing else to tell
    misread = [replace(r, text="b", reference="a") for r in rows]
    found = section([*runs, run("eyes", misread, "native")])
    assert said(found, "eyes").endswith("which of gold_xlmr, gold_furina it is to be held against.")
    assert not found.figures


def test_systems_that_learned_other_languages_are_no_measure():
    rows = [replace(r, text="b", reference="a") for r in answers(0.7, 1)]
    other = run("gold", rows, "gold", train_languages=(*LANGUAGES, "ukr"))
    found = section([other, run("eyes", rows, "native")])
    assert "no system on gold text learned and answers the same languages" in said(found, "eyes")
    part = run("gold", [r for r in rows if r.language != "rus"], "gold")
    part = replace(part, predictions={k: v for k, v in part.predictions.items() if v})
    found = section([part, run("eyes", rows, "native")])
    assert row(found, "eyes", "mean of 2")
    assert any("only 2 of its 3 languages" in words for words in found.words)


def test_runs_that_read_no_transcripts_have_no_such_section():
    assert section([run("ears", answers(0.5, 1), None), run("g", answers(0.5, 2), "gold")]) is None


def misread() -> list[Prediction]:
    """In English "d" is read as "t" in every second clip; in French "le" as "la" and an "s" lost.

    Flagged clips are read as something else altogether.
    """
    rows: list[Prediction] = []
    for n, r in enumerate(answers(0.5, 1)):
        said = {"eng": "Red dogs, and more.", "fra": "le chat est gris", "rus": "да и нет"}
        reference = text = said[r.language]
        if r.language == "eng" and n % 2:
            text = text.replace("d", "t")
        if r.language == "fra":
            text = "la chat est gri"
        flags = ("looping",) if n % 5 == 0 else ()
        rows.append(replace(r, reference=reference, text="zzz zzz" if flags else text, flags=flags))
    return rows


def test_the_most_confused_letters_are_counted():
    rows = misread()
    found = section([run("eyes", rows, "native", 1), run("eyes", rows, "native", 0)])
    letters = {(r["language"], r["said"], r["read"]): r for r in table(found, "confusions-letters")}
    clear = [r for r in rows if r.language == "eng" and not r.flags]
    counted = sum(
        (said, read) == ("d", "t")
        for r in clear
        for said, read in zip(spelling(r.reference), spelling(r.text), strict=True)
    )
    assert set(letters) == {
        ("English", "d", "t"),
        ("French", "e", "a"),
        ("French", "s", "(nothing)"),
    }
    assert letters["English", "d", "t"]["count"] == counted
    occurring = sum(spelling(r.reference).count("d") for r in clear)
    assert letters["English", "d", "t"]["share"] == pytest.approx(counted / occurring)
    assert 1 / 3 < counted / occurring < 2 / 3
    assert letters["French", "s", "(nothing)"]["share"] == pytest.approx(1 / 2)
    counts = [r["count"] for r in table(found, "confusions-letters")]
    assert counts == sorted(counts, reverse=True)


def test_the_most_confused_words_are_counted():
    words = table(section([run("eyes", misread(), "native")]), "confusions-words")
    found = {(r["language"], r["said"], r["read"]): r["share"] for r in words}
    assert found["French", "le", "la"] == 1
    assert found["French", "gris", "gri"] == 1
    assert {said for language, said, _ in found if language == "English"} == {"red", "dogs", "and"}
    assert not any(language == "Russian" for language, *_ in found)


def test_misreadings_are_told_once_for_setups_with_the_same_transcripts():
    rows = misread()
    seen = [
        run("eyes", rows, "native"),
        run("eyes", rows, "native", train_languages=("ukr", "tam")),
    ]
    letters = table(section(seen), "confusions-letters")
    assert {r["setup"] for r in letters} == {"all-languages, zero-shot"}
    assert len(letters) == 3


def test_what_cannot_be_seen_alone_is_named():
    rows = [
        replace(r, reference="कि म", text="कम", flags=())
        if n < 3
        else replace(r, reference="अ", text="अ")
        for n, r in enumerate(answers(0.5, 1))
    ]
    letters = table(section([run("eyes", rows, "native")]), "confusions-letters")
    assert {(r["said"], r["read"]) for r in letters} == {
        ("(space)", "(nothing)"),
        ("◌ि", "(nothing)"),
    }


def test_every_form_prints_the_section():
    runs = simulated(romanisation=0.1, recognition=0.3)
    runs = [
        replace(
            made,
            predictions={
                lang: [
                    replace(r, text="a c", reference="b c", flags=("empty",) * (n < 3))
                    for n, r in enumerate(rows)
                ]
                for lang, rows in made.predictions.items()
            },
        )
        if made.system == "latin"
        else made
        for made in runs
    ]
    found = compare(runs, resamples=300)
    part = losses(found)
    assert [t.name for t in part.tables] == [
        "losses",
        "flags",
        "confusions-letters",
        "confusions-words",
    ]
    assert len({figure.name for figure in part.figures}) == 4  # two paths, several languages
    for figure in part.figures:
        assert figure.chart.to_dict(validate=True)["description"]
    assert "romanisation −" in part.figures[-2].chart.description
    assert "### Macro-F1 lost at each step" in as_markdown(found, [part])
    assert '"lost to romanisation"' in as_json(found, [part])
    page = as_html(found, [part])
    assert all(f'id="{figure.name}"' in page for figure in part.figures)


def test_of_many_languages_the_means_stay_in_sight(monkeypatch):
    monkeypatch.setattr("speechtaxi.report.questions.losses.TOO_LONG", 7)
    found = section(simulated(recognition=0.2))
    assert [(t.name, len(t.rows), t.folded) for t in found.tables] == [
        ("losses-mean", 2, False),
        ("losses", 8, True),
    ]
