"""Transfer: the matrix, setups side by side, what explains scores, what is not claimed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speechtaxi.labels import label_set
from speechtaxi.languages import LANGUAGES, distance
from speechtaxi.report.board import Gap
from speechtaxi.report.comparison import Comparison, compare
from speechtaxi.report.forms.texts import as_json, as_markdown
from speechtaxi.report.questions.explained import explained, pairs_of
from speechtaxi.report.questions.setups import side_by_side
from speechtaxi.report.questions.transfer import matrix, max_t, transfer
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Section
from speechtaxi.statistics import Sample, share_as_extreme
from speechtaxi.statistics.regression import PENALTY, fit, ridge
from speechtaxi.types import Prediction, RunRecord

TOPICS = label_set("news6")
# Scripts that lie far apart and near, within families and across
WIDE = ("eng", "ewe", "lin", "vie", "mar", "hin", "ckb", "urd", "rus", "ukr", "asm", "ben")


def rows(language: str, right: float, seed: int, clips: int = 96, **more) -> list[Prediction]:
    """Answers of a system that is right with a given chance; gold and groups are always alike."""
    rng = np.random.default_rng([seed, *language.encode()])
    made: list[Prediction] = []
    for n in range(clips):
        gold = TOPICS[n % 6]
        answer = gold if rng.random() < right else str(rng.choice(TOPICS))
        odds = {topic: float(topic == answer) for topic in TOPICS}
        made.append(Prediction(f"{n:03}", f"s{n}", language, gold, answer, odds, **more))
    return made


def run(trained, right: dict[str, float], seed: int = 0, said=None, number=None) -> Run:
    """A run trained on some languages, with its chance to be right in each."""
    record = RunRecord("ears", "e2e", train_languages=tuple(trained), setup=said, seed=number)
    predictions = {language: rows(language, chance, seed) for language, chance in right.items()}
    return Run(record, Path(), predictions)


def every_pair(languages, chance, seed: int = 0) -> list[Run]:
    """A run from each language, tested in all of them: `chance(source, target)` is right."""
    return [
        run((source,), {target: chance(source, target) for target in languages}, seed + n)
        for n, source in enumerate(languages)
    ]


def same_script(source: str, target: str) -> bool:
    return LANGUAGES[source].script == LANGUAGES[target].script


def table(section: Section, name: str) -> list[dict]:
    return [dict(row) for one in section.tables if one.name == name for row in one.rows]


def told(section: Section) -> str:
    return "\n".join(section.words)


@pytest.fixture(scope="module")
def by_script() -> Comparison:
    """Same-script pairs transfer as if in-language; nothing else matters."""
    runs = every_pair(WIDE, lambda source, target: 0.8 if same_script(source, target) else 0.25)
    return compare(runs, resamples=400)


def test_the_matrix_tells_what_is_lost(by_script):
    section = matrix(by_script)
    cells = {(r["source"], r["target"]): r for r in table(section, "transfer")}
    assert len(cells) == 12 * 12
    own = {run.record.train_languages[0]: run.predictions for run in by_script.runs}

    def f1(source, target):
        clips = own[source][target]
        answers = [row.prediction for row in clips]
        return f1_score([row.label for row in clips], answers, average="macro", zero_division=0)

    cell = cells["Russian", "English"]
    assert cell["macro-F1"].estimate == pytest.approx(f1("rus", "eng"))
    lost = cell["minus in-language"]
    assert lost.estimate == pytest.approx(f1("rus", "eng") - f1("eng", "eng"))
    assert lost.low < lost.estimate < lost.high < 0
    assert cells["English", "English"]["minus in-language"] is None
    names = {LANGUAGES[code].name: code for code in WIDE}
    lost = {pair for pair, r in cells.items() if r["finding"] == "loss"}
    apart = {(s, t) for s, t in cells if not same_script(names[s], names[t])}
    assert lost == apart  # all of them, and no other
    assert all(r["finding"] != "gain" for r in cells.values())
    assert "mean over 132 pairs. 112 of them lose, 0 gain; in 20" in told(section)
    average = np.mean([r["minus in-language"].estimate for r in cells.values() if r["p"]])
    assert f"changes macro-F1 by −{-average:.3f} [−" in told(section)


def test_a_matrix_without_any_loss_claims_none():
    found = compare(every_pair(WIDE, lambda *_: 0.5), resamples=400)
    findings = {row["finding"] for row in table(matrix(found), "transfer")}
    assert findings == {"cannot tell", None}


def test_a_matrix_needs_two_sources_and_tells_where_nothing_is_in_language():
    one = run(("eng",), {"eng": 0.8, "fra": 0.5})
    assert matrix(compare([one], resamples=300)) is None
    variant = run(("fra",), {"eng": 0.5}, said="zero-shot from fra, adapted")
    assert matrix(compare([one, variant], resamples=300)) is None
    two = [run((source,), {"tam": 0.5}, n) for n, source in enumerate(("eng", "fra"))]
    section = matrix(compare(two, resamples=300))
    assert "no target has an in-language run" in told(section)
    assert [row["minus in-language"] for row in table(section, "transfer")] == [None, None]


def brute_max_t(tested, null):
    """Step-down max-T, one gap and one exchange after the other."""
    spread = np.sqrt((null**2).mean(1))
    size, chance = np.abs(tested) / spread, np.abs(null) / spread[:, None]
    adjusted, least = {}, 0.0
    left = list(range(len(size)))
    while left:
        first = max(left, key=lambda k: size[k])
        beyond = sum(
            max(chance[k, r] for k in left) >= size[first] - 1e-12 for r in range(null.shape[1])
        )
        adjusted[first] = least = max(least, (1 + beyond) / (1 + null.shape[1]))
        left.remove(first)
    return [adjusted[k] for k in range(len(size))]


def gap(tested, null) -> Gap:
    return Gap(Sample(np.array([tested]), np.zeros(1), np.zeros(1)), tested, null)


def test_max_t_is_the_step_down_of_the_book():
    rng = np.random.default_rng(3)
    null = rng.normal(size=(7, 99)) * rng.uniform(0.1, 3, (7, 1))
    tested = rng.normal(size=7) * 2 * null.std(1)
    gaps = [gap(t, n) for t, n in zip(tested, null, strict=True)]
    assert max_t(gaps) == pytest.approx(brute_max_t(tested, null))
    assert max_t(gaps[:1]) == [share_as_extreme(tested[0], null[0])]
    assert all(p >= g.p - 1e-9 for p, g in zip(max_t(gaps), gaps, strict=True))
    assert max_t([gap(0.0, np.zeros(99)), gaps[0]])[0] == 1  # two systems alike in every answer
    assert max_t([]) == []


def test_max_t_holds_its_level_and_finds_what_holm_cannot():
    rng = np.random.default_rng(5)
    false, found = 0, 0
    for _ in range(300):
        shared = rng.normal(size=(40, 1))
        groups = 0.7 * shared + rng.normal(size=(40, 30))
        groups[:, 0] += 1.2
        null = rng.choice([-1, 1], (299, 40)) @ groups / 40
        p = max_t([gap(t, n) for t, n in zip(groups.mean(0), null.T, strict=True)])
        false += min(p[1:]) < 0.05
        found += p[0] < 0.05
    assert false / 300 < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert found / 300 > 0.9  # Holm's least p is 30 / 300


def test_gain_in_exactly_two_languages():
    languages = ("eng", "fra", "rus", "tam", "urd", "yor")
    gaining = {"fra": 0.9, "tam": 0.9}
    alone = [run((code,), {code: 0.45}, n) for n, code in enumerate(languages)]
    together = run(languages, {code: gaining.get(code, 0.45) for code in languages}, 50)
    section = side_by_side(compare([*alone, together], resamples=600))
    found = {r["language"]: r for r in table(section, "setup-gains")}
    better = {name for name, r in found.items() if r["finding"] == "gain"}
    assert better - {"mean of 6"} == {"French", "Tamil"}
    assert not any(r["finding"] == "loss" for r in found.values())
    assert "gain in French, Tamil; the data cannot tell in 4 of 6." in told(section)
    wide = {r["language"]: r for r in table(section, "setups")}
    gain = wide["French"]["gain of all-languages"]
    scores = [wide["French"][setup].estimate for setup in ("all-languages", "in-language")]
    assert gain.estimate == pytest.approx(scores[0] - scores[1])
    assert found["French"]["difference"] == gain
    mean = np.mean([wide[name]["gain of all-languages"].estimate for name in wide])
    assert found["mean of 6"]["difference"].estimate == pytest.approx(mean)


def test_zero_shot_is_held_against_all_languages_where_nothing_is_in_language():
    languages = ("eng", "fra", "tam")
    together = run(languages, dict.fromkeys(languages, 0.9))
    other = run(("rus", "yor"), dict.fromkeys(languages, 0.3), 1)
    section = side_by_side(compare([together, other, run(("fra",), {"fra": 0.8})], resamples=600))
    found = {(r["setup"], r["minus"], r["language"]): r for r in table(section, "setup-gains")}
    assert {key for key in found if key[0] == "zero-shot"} == {
        ("zero-shot", "in-language", "French"),
        ("zero-shot", "all-languages", "mean of 2"),
        ("zero-shot", "all-languages", "English"),
        ("zero-shot", "all-languages", "Tamil"),
    }
    assert all(found[key]["finding"] == "loss" for key in found if key[0] == "zero-shot")
    for words in (
        "ears, zero-shot minus in-language: −",
        "mean over 2 languages (loss). By language: loss in all 2.",
    ):
        assert words in told(section)


def test_seeds_go_into_gains():
    languages = ("eng", "fra")
    alone = [run(("eng",), {"eng": 0.2 + 0.3 * n}, n, number=n) for n in range(3)]
    together = [run(languages, {"eng": 0.6}, 10 + n, number=n) for n in range(3)]
    one = side_by_side(compare([alone[1], together[1]], resamples=300))
    three = side_by_side(compare([*alone, *together], resamples=300))
    wide, narrow = (table(s, "setups")[0]["gain of all-languages"] for s in (three, one))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_script_explains_and_geography_does_not(by_script):
    section = explained(by_script)
    found = {r["feature"]: r["importance"] for r in table(section, "transfer-features")}
    first = table(section, "transfer-features")[0]
    assert first["feature"] == "same script"
    assert first["effect of one SD"] > 0.1
    assert found["same script"].low > 0.1
    for name in ("distance (1,000 km)", "same family"):
        assert abs(found[name].estimate) < 0.01
        assert found[name].low <= 0.005
    (measure,) = table(section, "transfer-fit")
    assert (measure["pairs"], measure["target languages"]) == (132, 12)
    assert measure["R²"].low > 0.5
    words = told(section)
    assert re.search(r"explains part .*132 pairs, 12 target languages", words)
    assert re.search(r"shuffling adds: same script \(\+0\.\d+\)", words)
    assert "Left out, as not known for all or the same for all: shared trigrams, training" in words


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_not_explained(seed):
    rng = np.random.default_rng(seed)
    found = compare(every_pair(WIDE[::2], lambda *_: rng.uniform(0.2, 0.9), seed), resamples=300)
    section = explained(found)
    assert table(section, "transfer-features") == []
    assert section.figures == []
    assert len(table(section, "transfer-fit")) == 1
    assert "not shown to predict unseen languages better" in told(section)
    assert "explains part" not in told(section)


@pytest.mark.parametrize(
    ("sources", "targets", "fits"),
    [
        (("eng",), WIDE[1:], False),  # 11 pairs
        (("eng", "fra", "tam", "yor"), ("rus", "ukr", "urd"), False),  # 12 pairs, 3 targets
        (("eng", "fra", "tam"), ("rus", "ukr", "urd", "ckb"), True),
    ],
)
def test_few_pairs_are_refused_in_words(sources, targets, fits):
    rng = np.random.default_rng(1)
    runs = [
        run((source,), {target: rng.uniform(0.2, 0.9) for target in targets}, n)
        for n, source in enumerate(sources)
    ]
    section = explained(compare(runs, resamples=300))
    number = len(sources) * len(targets)
    assert bool(section.tables) == fits
    assert (
        f"Too few zero-shot scores to explain (at least 12 pairs and 4 target languages are "
        f"needed): ears ({number} pairs, {len(targets)} target languages)." in told(section)
    ) != fits


def test_scores_that_never_differ_are_told():
    runs = [run((source,), dict.fromkeys(WIDE[2:], 1.0)) for source in WIDE[:2]]
    section = explained(compare(runs, resamples=300))
    assert "nothing to explain, as no score or no feature differs (20 pairs" in told(section)


def test_nothing_zero_shot_is_no_section():
    assert transfer(compare([run(("eng", "fra"), {"eng": 0.5})], resamples=300)) == []


def test_features_of_pairs():
    """Of several sources the nearest counts; hearing borrows the texts of who reads."""
    said = {"eng": "stones", "rus": "камни", "fra": "stone"}
    heard = {code: rows(code, 0.5, 1) for code in said}
    read = {
        code: rows(code, 0.5, 2, text=f"{text}x", reference=text) for code, text in said.items()
    }
    record = RunRecord("ears", "e2e", train_languages=("eng", "rus"), clips={"train": 100})
    eyes = replace(record, system="eyes", route="cascade", view="romanized", clips={})
    found = compare([Run(record, Path(), heard), Run(eyes, Path(), read)], resamples=300)
    trigrams = {
        code: frozenset(f" {text} "[n : n + 3] for n in range(len(text)))
        for code, text in said.items()
    }
    for system, cer, clips in (("ears", None, np.log(100)), ("eyes", 1 / 5, None)):
        pairs = pairs_of(found, system, {"eyes": trigrams})
        assert list(pairs.targets) == ["fra"]
        assert {name: values[0] for name, values in pairs.features.items()} == {
            "same script": 1,
            "same family": 1,
            "same branch": 0,
            "distance (1,000 km)": distance("eng", "fra") / 1000,
            "shared trigrams": pytest.approx(4 / 5),  # not "ne "
            "training clips (log)": clips,
            "CER": pytest.approx(cer) if cer else None,
        }
    refused = "ears (1 pair, 1 target language), eyes (1 pair, 1 target language)."
    assert refused in told(explained(found))


def test_a_language_beyond_the_table_is_no_error():
    runs = every_pair(("eng", "kin", "rus", "ekk"), lambda *_: 0.5)
    pairs = pairs_of(compare(runs, resamples=300), "ears", {})
    assert pairs.features["same script"].count(None) == 10
    assert pairs.known == {}


def test_ridge_and_held_out_errors_are_scikit_learns():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, 4)) * (1, 10, 0.1, 1)
    features[:, 3] = 1  # never varies
    targets = [f"t{n % 6}" for n in range(60)]
    scores = features @ (0.1, 0.02, 0, 0) + rng.normal(size=60) * 0.1
    model = make_pipeline(StandardScaler(), Ridge(alpha=PENALTY))
    weights, offset = ridge(features, scores)
    assert features @ weights + offset == pytest.approx(
        model.fit(features, scores).predict(features)
    )
    held_out = cross_val_predict(model, features, scores, groups=targets, cv=LeaveOneGroupOut())
    found = fit(features, scores, targets, list("abcd"))
    assert found.rmse == pytest.approx(np.sqrt(np.mean((held_out - scores) ** 2)))
    means = np.array([scores[np.array(targets) != t].mean() for t in targets])
    assert found.rmse_of_mean == pytest.approx(np.sqrt(np.mean((means - scores) ** 2)))
    assert found.r2.estimate == pytest.approx(1 - (found.rmse / found.rmse_of_mean) ** 2)
    assert found.importances["a"].low > 0.02
    assert found.importances["b"].low > 0.02
    assert found.importances["d"].estimate == 0
    assert abs(found.importances["c"].estimate) < 0.01


def test_a_feature_of_targets_alone_has_importance_too():
    """As CER of a target: within one held-out language it never varies."""
    rng = np.random.default_rng(4)
    places = np.repeat(np.arange(12), 5)
    cer = rng.uniform(0, 1, 12)[places]
    scores = 0.9 - 0.6 * cer + rng.normal(size=60) * 0.02
    found = fit(
        np.stack([cer, rng.normal(size=60)], 1), scores, [str(p) for p in places], ["CER", "noise"]
    )
    assert found.explains
    assert found.importances["CER"].low > 0.1
    assert found.importances["noise"].low <= 0 < 0.01 > found.importances["noise"].estimate
    assert found.effects["CER"] < -0.1


def test_every_form_prints_the_sections(by_script):
    extra = run(WIDE, dict.fromkeys(WIDE, 0.7), 99)
    found = compare([*by_script.runs, extra], resamples=300)
    found_sections = transfer(found)
    assert [s.name for s in found_sections] == ["transfer", "setups", "transfer-explained"]
    for section in found_sections:
        assert section.figures
        for figure in section.figures:
            assert figure.chart.to_dict(validate=True)["description"]
    setups = found_sections[1]
    assert len(set(setups.legend.values())) == len(setups.legend) == 3
    assert "Macro-F1 by setup" in as_markdown(found, found_sections)
    assert json.loads(as_json(found, found_sections))


def test_numbers_stand_in_small_matrices_only(by_script):
    (figure,) = matrix(by_script).figures
    assert json.dumps(figure.chart.to_dict()).count('"text"') >= 2
    many = list(LANGUAGES)[:13]
    runs = every_pair(many, lambda *_: 0.5)
    (figure,) = matrix(compare(runs, resamples=20)).figures
    assert '"type": "text"' not in json.dumps(figure.chart.to_dict())
