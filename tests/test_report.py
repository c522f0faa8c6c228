"""The report: what it finds, what it does not claim, what it refuses, what it loads (nothing)."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from speechtaxi import cli
from speechtaxi.errors import InputError
from speechtaxi.labels import label_set
from speechtaxi.records import read_predictions, write_predictions, write_run
from speechtaxi.report import charts, main, sections
from speechtaxi.report.comparison import Comparison, compare
from speechtaxi.report.forms.page import as_html
from speechtaxi.report.forms.pictures import overview_chart
from speechtaxi.report.forms.texts import as_json, as_markdown
from speechtaxi.report.forms.words import NO_PAIR, verdict
from speechtaxi.report.runs import Run, read
from speechtaxi.statistics import holm
from speechtaxi.types import Prediction, RunRecord

TOPICS = label_set("news6")
PLANTED = {"eng": (0.9, 0.35), "fra": (0.3, 0.9), "tam": (0.6, 0.6), "ukr": (0.6, 0.6)}


def rows(language: str, right: float, seed: int, clips: int = 96, **more: str) -> list[Prediction]:
    """Answers of a system that is right with a given chance; gold and groups are always alike."""
    rng = np.random.default_rng([seed, *language.encode()])
    made: list[Prediction] = []
    for n in range(clips):
        gold = TOPICS[n % 6]
        answer = gold if rng.random() < right else str(rng.choice(TOPICS))
        odds = {topic: 1.0 if topic == answer else 0.0 for topic in TOPICS}
        made.append(Prediction(f"{language}-{n}", f"s{n}", language, gold, answer, odds, **more))
    return made


def write(folder: Path, predictions: list[Prediction], **record) -> Path:
    write_predictions(folder / "predictions-test.jsonl", predictions)
    known = {"system": folder.name, "train_languages": ("eng", "fra", "tam")}
    write_run(folder, RunRecord(**{**known, **record}))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """E2E is better in English, the cascade in French, neither in Tamil and (unseen) Ukrainian."""
    folder = tmp_path_factory.mktemp("runs")
    e2e = [row for lang, (right, _) in PLANTED.items() for row in rows(lang, right, 1)]
    said = {"text": "rain and wnd", "reference": "Rain, and wind!"}
    read_ = [row for lang, (_, right) in PLANTED.items() for row in rows(lang, right, 2, **said)]
    gold = [replace(row, text=row.reference, reference=None, prediction=row.label) for row in read_]
    return [
        write(folder / "ears", e2e, route="e2e", notes=("synthetic speech",)),
        write(folder / "eyes", read_, route="cascade", view="romanized"),
        write(folder / "gold", gold, route="cascade", view="gold_romanized"),
    ]


@pytest.fixture
def planted(runs, tmp_path) -> list[Path]:
    """Copies of the runs, to be spoilt."""
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]


@dataclass
class Report:
    said: str
    json: dict
    markdown: str
    html: str
    folder: Path


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory) -> Report:
    """The whole report of the runs, by the command, in an interpreter of its own."""
    folder = tmp_path_factory.mktemp("report")
    program = (
        "import sys; from speechtaxi.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'transformers', 'scipy.stats', 'librosa'};"
        "print('heavy:', heavy & set(sys.modules)); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "report", *map(str, runs), "-o", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    texts = [(folder / f"report.{kind}").read_text() for kind in ("json", "md", "html")]
    return Report(done.stdout, json.loads(texts[0]), texts[1], texts[2], folder)


def compared(*runs: Path, common: bool = False) -> Comparison:
    return compare([read(run, "test") for run in runs], common=common, resamples=300)


def test_planted_truth_is_found_and_nothing_else(report):
    better = {d["languages"][0]: d["better"] for d in report.json["differences"]}
    assert better == {"eng": "first", "fra": "second", "tam": None, "ukr": None}
    assert {(d["first"], d["second"]) for d in report.json["differences"]} == {("ears", "eyes")}
    for words in (
        "E2E is better in English",
        "the cascade is better in French",
        "the data cannot tell in Tamil. Where it cannot tell, a true difference as large as the",
        "Zero-shot (Ukrainian)\n  ears against eyes in Ukrainian: the data cannot tell",
        "Note: synthetic speech",
    ):
        assert words in report.said
    first = report.markdown.index("synthetic speech")
    assert first < report.markdown.index("## Verdict") < 500


def test_setups_follow_the_training_languages():
    def setup(language, *trained, said=None):
        return Run(RunRecord("x", "e2e", train_languages=trained, setup=said), Path(), {}).setup(
            language
        )

    assert setup("eng", "eng") == "in-language"
    assert setup("eng", "eng", "fra") == "all-languages"
    assert setup("rus", "eng", "fra") == "zero-shot"
    assert setup("rus", "eng") == setup("rus", "eng", said="in-language") == "zero-shot from eng"
    assert setup("rus", "eng", "fra", said="zero-shot, no family") == "zero-shot, no family"
    assert setup("eng") == setup("eng", said="nonsense") == "unknown"
    assert setup("eng", said="zero-shot") == "zero-shot"


def test_numbers_in_every_form_agree(report, runs):
    found = report.json
    cell = next(c for c in found["scores"] if (c["system"], c["languages"]) == ("ears", ["fra"]))
    own = read_predictions(runs[0] / "predictions-test.jsonl")
    right = [row.label == row.prediction for row in own if row.language == "fra"]
    assert cell["accuracy"]["estimate"] == pytest.approx(np.mean(right))
    assert cell["macro_f1"]["low"] < cell["macro_f1"]["estimate"] < cell["macro_f1"]["high"]
    with (report.folder / "data" / "scores.csv").open() as file:
        lines = {(line["system"], line["language"]): line for line in csv.DictReader(file)}
    high = float(lines["ears", "French"]["macro-F1 high"])
    assert high == pytest.approx(cell["macro_f1"]["high"], abs=1e-6)
    text = "{estimate:.2f} [{low:.2f}, {high:.2f}]".format(**cell["macro_f1"])
    assert f"| {text} |" in report.markdown
    mean = next(m for m in found["mean_scores"] if m["setup"] == "all-languages")
    parts = [c["macro_f1"]["estimate"] for c in found["scores"] if c["system"] == "ears"][:3]
    assert mean["macro_f1"]["estimate"] == pytest.approx(np.mean(parts))
    assert sum(map(sum, found["topics"][0]["confusion"])) == 3 * 96


def test_the_worst_language_is_named(report):
    worst = {(r["system"], r["setup"]): r["worst language"] for r in report.json["tables"]["means"]}
    assert worst["ears", "all-languages"].startswith("French 0.")
    assert worst["eyes", "all-languages"].startswith("English 0.")
    assert worst["ears", "zero-shot"] is None  # there is but one


def test_transcripts_have_error_rates_but_gold_views_do_not(report):
    assert {t["system"] for t in report.json["transcripts"]} == {"eyes"}
    assert report.json["transcripts"][0]["cer"]["estimate"] == pytest.approx(1 / 13)


def test_all_correct_is_a_point_and_says_so(report):
    gold = next(c for c in report.json["scores"] if c["system"] == "gold")
    assert gold["macro_f1"]["low"] == gold["macro_f1"]["high"] == 1
    assert "† the interval is a point" in report.markdown
    assert "† the interval is a point" in report.html


def test_one_group_has_no_interval(tmp_path):
    lone = [replace(row, group="same") for row in rows("eng", 0.5, 1)]
    found = compared(write(tmp_path / "lone", lone, route="e2e"))
    assert np.isnan(found.cells[0].macro_f1.low)
    assert verdict(found)["All-languages (English)"] == [
        NO_PAIR,
        "Not shown to beat the majority baseline: lone.",
    ]
    assert json.loads(as_json(found, sections(found)))["scores"][0]["macro_f1"]["low"] is None
    assert "† no interval: fewer than two groups" in as_markdown(found, sections(found))


def test_other_clips_are_refused_or_cut_to_the_common_ones(planted):
    ears = planted[0] / "predictions-test.jsonl"
    write_predictions(ears, [row for row in read_predictions(ears) if row.id != "fra-7"])
    with pytest.raises(InputError) as refused:
        compared(*planted)
    for word in ("fra", "'ears' 95", "'eyes' 96", "95 in common", "--common"):
        assert word in str(refused.value)
    found = compared(*planted, common=True)
    assert {c.clips for c in found.cells if c.languages == ("fra",)} == {95}
    assert {c.clips for c in found.cells if c.languages == ("eng",)} == {96}
    assert any("95 in common" in warning for warning in found.warnings)


def test_seeds_must_have_the_same_clips_too(tmp_path):
    first = write(tmp_path / "a", rows("eng", 0.5, 1), route="e2e", system="ears", seed=0)
    second = write(tmp_path / "b", rows("eng", 0.5, 2)[:90], route="e2e", system="ears", seed=1)
    with pytest.raises(InputError, match="'ears' 96, 'ears' 90, 90 in common; --common"):
        compared(first, second)
    assert compared(first, second, common=True).cells[0].clips == 90


def test_runs_without_any_common_clip_are_refused(tmp_path):
    first = write(tmp_path / "a", rows("eng", 0.5, 1), route="e2e")
    other = [replace(row, id=f"x{row.id}") for row in rows("eng", 0.5, 2)]
    second = write(tmp_path / "b", other, route="cascade")
    with pytest.raises(InputError, match="0 in common; leave out a run"):
        compared(first, second, common=True)


def test_a_language_that_a_run_does_not_cover_is_an_empty_cell(runs, tmp_path):
    lone = write(tmp_path / "english", rows("eng", 0.8, 3), route="e2e", train_languages=("eng",))
    found = compared(*runs, lone)
    setups = {(c.system, c.languages[0]): c.setup for c in found.cells}
    assert setups["english", "eng"] == "in-language"
    assert ("english", "fra") not in setups
    assert setups["ears", "eng"] == "all-languages"
    assert {d.first for d in found.differences} == {"ears"}  # no cascade has only English


def test_a_mean_over_fewer_languages_is_marked(tmp_path):
    whole = [row for language in ("eng", "fra", "tam") for row in rows(language, 0.6, 1)]
    first = write(tmp_path / "a", whole, route="e2e")
    second = write(tmp_path / "b", whole[:192], route="e2e")
    found = compared(first, second)
    text = as_markdown(found, sections(found))
    assert re.search(r"\*\*\(0\.\d\d over 2\)\*\*", text)


def test_other_gold_labels_are_refused(planted):
    ears = planted[0] / "predictions-test.jsonl"
    changed = read_predictions(ears)
    changed[5] = replace(changed[5], label="economy")
    write_predictions(ears, changed)
    message = r"'eng-5' \(eng\) .*'economy' in 'ears'.*'culture' in 'eyes'"
    with pytest.raises(InputError, match=message):
        compared(*planted)


def test_namesakes_are_refused(runs, tmp_path):
    twin = write(tmp_path / "twin", rows("eng", 0.5, 4), route="e2e", system="ears")
    with pytest.raises(InputError, match=r"2 runs are called 'ears'.*rename `system` in run.json"):
        compared(*runs, twin)


def test_differences_in_what_should_be_alike_are_told(planted, tmp_path):
    odd = rows("eng", 0.5, 5)
    odd[0] = replace(odd[0], group="another")
    odd.append(replace(odd[0], id="eng-unlabelled", label=None))
    record = {"seed": 1, "data_fingerprint": "ffff", "train_languages": (), "skipped": 2}
    strange = write(tmp_path / "strange", odd, route="e2e", **record)
    own = read_predictions(planted[0] / "predictions-test.jsonl")
    write(planted[0], own, route="e2e", seed=0, data_fingerprint="0000")
    read_ = read_predictions(planted[1] / "predictions-test.jsonl")
    write(planted[1], read_, route="cascade", view="romanized", data_fingerprint="ffff")
    warnings = "\n".join(compared(*planted, strange).warnings)
    for words in (
        "seeds differ: 0 (ears); none (eyes, gold); 1 (strange)",
        "training data (fingerprints) differ: 0000 (ears); ffff (eyes)",
        "training languages unknown, so that seen and unseen ones cannot be told apart: strange",
        "runs group the clips differently",
        "strange: 1 clips without a gold label left out",
        "strange: 2 clips skipped",
    ):
        assert words in warnings


def test_other_label_sets_are_refused_or_cut_to_the_common_labels(planted, tmp_path):
    few = [
        replace(row, label="crime", prediction="crime") if row.label == "sport" else row
        for row in rows("eng", 1.0, 5)
    ]
    odds = {**dict.fromkeys(TOPICS, 0.0), "crime": 0.0}
    few = [replace(row, probabilities={**odds, row.prediction: 1.0}) for row in few]
    few = [replace(r, label="sport") if r.label == "crime" else r for r in few]
    strange = write(tmp_path / "strange", few, route="e2e")
    with pytest.raises(InputError, match=r"label sets differ: 'ears' has .*--common"):
        compared(*planted, strange)
    found = compared(*planted, strange, common=True)
    assert "up to 0 clips of other labels are left out" in found.warnings[0]
    cell = next(c for c in found.cells if c.system == "strange")
    assert cell.accuracy.estimate == pytest.approx(5 / 6)  # "crime" counts as wrong


def test_seeds_of_one_system_are_one_score(tmp_path):
    """Three seeds make one system, whose interval is wider than that of its mean answers."""
    three = [
        write(tmp_path / f"s{n}", rows("eng", 0.4 + n / 5, n), route="e2e", system="ears", seed=n)
        for n in range(3)
    ]
    cascade = write(tmp_path / "eyes", rows("eng", 0.6, 9), route="cascade", seed=0)
    found = compared(*three, cascade)
    cell = next(c for c in found.cells if c.system == "ears")
    assert len(cell.seeds) == 3
    assert cell.macro_f1.estimate == pytest.approx(np.mean(cell.seeds))
    alone = compared(three[1]).cells[0].macro_f1
    assert cell.macro_f1.high - cell.macro_f1.low > 1.5 * (alone.high - alone.low)
    assert any("seeds differ" in warning for warning in found.warnings)
    assert found.differences[0].better is None
    with pytest.raises(InputError, match=r"2 runs are called 'ears' and tell of eng.*seed 0"):
        compared(
            *three,
            write(tmp_path / "again", rows("eng", 0.5, 7), route="e2e", system="ears", seed=0),
        )


def test_too_few_resamples_for_the_correction_are_told():
    predictions = {f"l{n:02}": rows(f"l{n:02}", 0.5, 1, 6) for n in range(11)}
    run = Run(RunRecord("x", "e2e"), Path(), predictions)
    assert any("at least 220" in warning for warning in compare([run], resamples=200).warnings)


def test_a_file_alone_is_a_system(tmp_path):
    heard, seen = tmp_path / "heard.jsonl", tmp_path / "seen.jsonl"
    write_predictions(heard, rows("eng", 0.5, 1))
    write_predictions(seen, rows("eng", 0.9, 2, text="words"))
    found = compared(heard, seen)
    routes = [(run.system, run.record.route) for run in found.runs]
    assert routes == [("heard", "e2e"), ("seen", "cascade")]
    assert {c.setup for c in found.cells} == {"unknown"}
    assert found.differences[0].better == "second"


def test_a_file_in_a_run_folder_brings_its_record(runs):
    assert read(runs[0] / "predictions-test.jsonl", "test").system == "ears"


@pytest.mark.parametrize(
    ("break_", "words"),
    [
        (lambda folder: (folder / "run.json").write_text("{"), r"run.json:1: broken JSON"),
        (lambda folder: (folder / "run.json").unlink(), r"run.json"),
        (lambda folder: (folder / "predictions-test.jsonl").write_text("{}\n"), r"test.jsonl:1: "),
        (lambda folder: (folder / "predictions-test.jsonl").write_text(""), "no predictions"),
        (
            lambda folder: (folder / "predictions-test.jsonl").rename(
                folder / "predictions-dev.jsonl"
            ),
            "no predictions for the split 'test'; there are predictions-dev.jsonl",
        ),
        (lambda folder: (folder / "predictions-test.jsonl").unlink(), "run `speechtaxi test`"),
        (
            lambda folder: write_predictions(
                folder / "predictions-test.jsonl",
                [replace(row, label=None) for row in rows("eng", 0.5, 1)],
            ),
            "no row has a gold label",
        ),
    ],
)
def test_broken_runs_are_told_in_one_line(planted, tmp_path, capsys, break_, words):
    break_(planted[1])
    assert cli.main(["report", *map(str, planted), "-o", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert re.search(words, told[0])


@pytest.mark.parametrize("option", [("--resamples", "10"), ("--seed", "-1")])
def test_silly_options_are_refused(runs, tmp_path, option):
    with pytest.raises(InputError, match=option[0]):
        main([str(runs[0]), "-o", str(tmp_path / "out"), *option])


def test_output_must_not_be_a_file(runs):
    with pytest.raises(InputError, match="give a folder"):
        main([str(runs[0]), "-o", str(runs[0] / "run.json")])


def test_pictures_stand_beside_the_page(report):
    pictures = [path.read_bytes() for path in report.folder.rglob("*.png")]
    assert pictures
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert not list(report.folder.rglob("*.part"))  # no drafts left


def test_charts_are_valid_vega_lite(runs):
    found = compared(*runs)
    for chart in (
        overview_chart(found),
        charts.score_chart(found, found.cells[:2], "container"),
        charts.forest_chart(found.differences, 1),
        charts.confusion_chart(found.topics[0], found.labels),
        charts.transcript_chart(found),
    ):
        assert chart.to_dict(validate=True)


def test_names_cannot_break_the_page(tmp_path):
    name = "</script><b>a|b</b>"
    run = write(tmp_path / "run", rows("eng", 0.5, 1), route="e2e", system=name, notes=(name,))
    found = compared(run)
    page = as_html(found, sections(found))
    assert name not in page
    assert "&lt;b&gt;a|b&lt;/b&gt;" in page
    assert "a\\|b" in as_markdown(found, sections(found))


def test_a_report_imports_no_torch(report):
    assert report.said.strip().splitlines()[-1] == "heavy: set()"


def test_help_imports_next_to_nothing():
    program = (
        "import sys; from speechtaxi.report import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'numpy', 'altair', 'jinja2', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("set()")


def test_claims_are_corrected_for_their_number(tmp_path):
    """Eight pairs of systems that are all alike: no mean may be claimed on a raw p below .05."""
    runs = []
    for n in range(6):
        answers = [row for lang in ("eng", "fra") for row in rows(lang, 0.5, 30 + n)]
        route = "e2e" if n < 2 else "cascade"
        runs.append(write(tmp_path / f"run{n}", answers, route=route))
    found = compared(*runs)
    assert len(found.mean_differences) == 8
    assert [d.p_holm for d in found.mean_differences] == holm([d.p for d in found.mean_differences])
    for e2e, cascade in {(d.first, d.second) for d in found.differences}:
        pair = [d for d in found.differences if (d.first, d.second) == (e2e, cascade)]
        assert [d.p_holm for d in pair] == holm([d.p for d in pair])
    assert not any(d.better for d in (*found.mean_differences, *found.differences))
