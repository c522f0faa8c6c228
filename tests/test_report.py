"""The report: what it finds, what it does not claim, what it refuses, what it loads (nothing)."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from speechtaxi import cli
from speechtaxi.errors import InputError
from speechtaxi.labels import label_set
from speechtaxi.records import read_predictions, write_predictions, write_run
from speechtaxi.report import main
from speechtaxi.report.comparison import compare
from speechtaxi.report.runs import Run, read
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


@pytest.fixture
def planted(tmp_path: Path) -> list[Path]:
    """E2E is better in English, the cascade in French, neither in Tamil and (unseen) Ukrainian."""
    e2e = [row for lang, (right, _) in PLANTED.items() for row in rows(lang, right, 1)]
    said = {"text": "rain and wnd", "reference": "Rain, and wind!"}
    read_ = [row for lang, (_, right) in PLANTED.items() for row in rows(lang, right, 2, **said)]
    gold = [replace(row, text=row.reference, reference=None, prediction=row.label) for row in read_]
    return [
        write(tmp_path / "ears", e2e, route="e2e", notes=("synthetic speech",)),
        write(tmp_path / "eyes", read_, route="cascade", view="romanized"),
        write(tmp_path / "gold", gold, route="cascade", view="gold_romanized"),
    ]


def report(*runs: Path, output: Path, more: tuple[str, ...] = ()) -> dict:
    argv = [*map(str, runs), "-o", str(output), "--resamples", "400", *more]
    assert main(argv) == 0
    return json.loads((output / "report.json").read_text())


def test_planted_truth_is_found_and_nothing_else(planted, tmp_path, capsys):
    found = report(*planted, output=tmp_path / "out")
    better = {d["languages"][0]: d["better"] for d in found["differences"]}
    assert better == {"eng": "e2e", "fra": "cascade", "tam": None, "ukr": None}
    assert {(d["e2e"], d["cascade"]) for d in found["differences"]} == {("ears", "eyes")}
    said = capsys.readouterr().out
    for words in (
        "E2E is better in English",
        "the cascade is better in French",
        "the data cannot tell in Tamil",
        "Zero-shot (Ukrainian)\n  ears against eyes in Ukrainian: the data cannot tell",
        "Note: synthetic speech",
    ):
        assert words in said
    markdown = (tmp_path / "out/report.md").read_text()
    assert markdown.index("synthetic speech") < markdown.index("## Verdict") < 500


def test_setups_follow_the_training_languages():
    def setup(language, *trained, said=None):
        return Run(RunRecord("x", "e2e", train_languages=trained, setup=said), Path(), {}).setup(
            language
        )

    assert setup("eng", "eng") == "in-language"
    assert setup("eng", "eng", "fra") == "all-languages"
    assert setup("rus", "eng", "fra") == setup("rus", "eng", said="in-language") == "zero-shot"
    assert setup("eng") == setup("eng", said="nonsense") == "unknown"
    assert setup("eng", said="zero-shot") == "zero-shot"


def test_numbers_in_every_form_agree(planted, tmp_path):
    out = tmp_path / "out"
    found = report(*planted, output=out)
    cell = next(c for c in found["scores"] if (c["system"], c["languages"]) == ("ears", ["fra"]))
    own = [row for row in read_predictions(planted[0] / "predictions-test.jsonl")]
    right = [row.label == row.prediction for row in own if row.language == "fra"]
    assert cell["accuracy"]["estimate"] == pytest.approx(np.mean(right))
    assert cell["macro_f1"]["low"] < cell["macro_f1"]["estimate"] < cell["macro_f1"]["high"]
    with (out / "scores.csv").open() as file:
        row = next(
            r for r in csv.DictReader(file) if r["system"] == "ears" and r["language"] == "French"
        )
    assert float(row["macro-F1 high"]) == pytest.approx(cell["macro_f1"]["high"], abs=1e-6)
    text = "{estimate:.2f} [{low:.2f}, {high:.2f}]".format(**cell["macro_f1"])
    assert f"| {text} |" in (out / "report.md").read_text()
    mean = next(m for m in found["mean_scores"] if m["setup"] == "all-languages")
    parts = [c["macro_f1"]["estimate"] for c in found["scores"] if c["system"] == "ears"][:3]
    assert mean["macro_f1"]["estimate"] == pytest.approx(np.mean(parts))
    assert sum(map(sum, found["topics"][0]["confusion"])) == 3 * 96


def test_transcripts_have_error_rates_but_gold_views_do_not(planted, tmp_path):
    found = report(*planted, output=tmp_path / "out")
    assert {t["system"] for t in found["transcripts"]} == {"eyes"}
    assert found["transcripts"][0]["cer"]["estimate"] == pytest.approx(1 / 13)


def test_all_correct_is_a_point_and_says_so(planted, tmp_path):
    found = report(*planted, output=tmp_path / "out")
    gold = next(c for c in found["scores"] if c["system"] == "gold")
    assert gold["macro_f1"]["low"] == gold["macro_f1"]["high"] == 1
    assert "† the interval is a point" in (tmp_path / "out/report.md").read_text()
    assert "† the interval is a point" in (tmp_path / "out/report.html").read_text()


def test_one_group_has_no_interval(tmp_path):
    lone = [replace(row, group="same") for row in rows("eng", 0.5, 1)]
    run = write(tmp_path / "lone", lone, route="e2e")
    found = report(run, output=tmp_path / "out")
    assert found["scores"][0]["macro_f1"]["low"] is None
    assert (
        "Not shown to beat the majority baseline: lone."
        in found["verdict"]["All-languages (English)"]
    )
    assert "nothing is said about hearing" in (tmp_path / "out/report.md").read_text()


def test_other_clips_are_refused_or_cut_to_the_common_ones(planted, tmp_path):
    ears = planted[0] / "predictions-test.jsonl"
    write_predictions(ears, [row for row in read_predictions(ears) if row.id != "fra-7"])
    with pytest.raises(InputError) as refused:
        report(*planted, output=tmp_path / "out")
    for word in ("fra", "'ears' 95", "'eyes' 96", "95 in common", "--common"):
        assert word in str(refused.value)
    assert not (tmp_path / "out").exists()
    found = report(*planted, output=tmp_path / "out", more=("--common",))
    assert {c["clips"] for c in found["scores"] if c["languages"] == ["fra"]} == {95}
    assert {c["clips"] for c in found["scores"] if c["languages"] == ["eng"]} == {96}
    assert any("95 in common" in warning for warning in found["warnings"])


def test_runs_without_any_common_clip_are_refused(tmp_path):
    first = write(tmp_path / "a", rows("eng", 0.5, 1), route="e2e")
    other = [replace(row, id=f"x{row.id}") for row in rows("eng", 0.5, 2)]
    second = write(tmp_path / "b", other, route="cascade")
    with pytest.raises(InputError, match="0 in common; leave out a run"):
        report(first, second, output=tmp_path / "out", more=("--common",))


def test_a_language_that_a_run_does_not_cover_is_an_empty_cell(planted, tmp_path):
    lone = write(tmp_path / "english", rows("eng", 0.8, 3), route="e2e", train_languages=("eng",))
    found = report(*planted, lone, output=tmp_path / "out")
    setups = {(c["system"], c["languages"][0]): c["setup"] for c in found["scores"]}
    assert setups["english", "eng"] == "in-language"
    assert ("english", "fra") not in setups
    assert setups["ears", "eng"] == "all-languages"
    pairs = {d["e2e"] for d in found["differences"]}
    assert pairs == {"ears"}  # no cascade was trained on English alone


def test_a_mean_over_fewer_languages_is_marked(tmp_path):
    whole = [row for language in ("eng", "fra", "tam") for row in rows(language, 0.6, 1)]
    runs = [
        write(tmp_path / "a", whole, route="e2e"),
        write(tmp_path / "b", whole[:192], route="e2e"),
    ]
    report(*runs, output=tmp_path / "out")
    assert re.search(r"\*\*\(0\.\d\d over 2\)\*\*", (tmp_path / "out/report.md").read_text())


def test_other_gold_labels_are_refused(planted, tmp_path):
    ears = planted[0] / "predictions-test.jsonl"
    changed = read_predictions(ears)
    changed[5] = replace(changed[5], label="economy")
    write_predictions(ears, changed)
    with pytest.raises(
        InputError, match=r"'eng-5' \(eng\) .*'economy' in 'ears'.*'culture' in 'eyes'"
    ):
        report(*planted, output=tmp_path / "out")


def test_namesakes_are_refused(planted, tmp_path):
    twin = write(tmp_path / "twin", rows("eng", 0.5, 4), route="e2e", system="ears")
    with pytest.raises(InputError, match=r"2 runs are called 'ears'.*rename `system` in run.json"):
        report(*planted, twin, output=tmp_path / "out")


def test_differences_in_what_should_be_alike_are_told(planted, tmp_path):
    odd = [replace(r, probabilities={**r.probabilities, "crime": 0.0}) for r in rows("eng", 0.5, 5)]
    odd[0] = replace(odd[0], group="another")
    odd.append(replace(odd[0], id="eng-unlabelled", label=None))
    record = {"seed": 1, "data_fingerprint": "ffff", "train_languages": (), "skipped": 2}
    strange = write(tmp_path / "strange", odd, route="e2e", **record)
    write(
        planted[0],
        read_predictions(planted[0] / "predictions-test.jsonl"),
        route="e2e",
        seed=0,
        data_fingerprint="0000",
    )
    warnings = "\n".join(report(*planted, strange, output=tmp_path / "out")["warnings"])
    for words in (
        "label sets differ",
        "seeds differ: 0 (ears); 1 (strange)",
        "training data (fingerprints) differ: 0000 (ears); ffff (strange)",
        "training languages unknown, so that seen and unseen ones cannot be told apart: strange",
        "runs group the clips differently",
        "strange: 1 clips without a gold label left out",
        "strange: 2 clips skipped",
    ):
        assert words in warnings


def test_too_few_resamples_for_the_correction_are_told():
    run = Run(
        RunRecord("x", "e2e"), Path(), {f"l{n:02}": rows(f"l{n:02}", 0.5, 1, 6) for n in range(11)}
    )
    assert any("at least 220" in warning for warning in compare([run], resamples=200).warnings)


def test_a_file_alone_is_a_system(tmp_path):
    heard, seen = tmp_path / "heard.jsonl", tmp_path / "seen.jsonl"
    write_predictions(heard, rows("eng", 0.5, 1))
    write_predictions(seen, rows("eng", 0.9, 2, text="words"))
    found = report(heard, seen, output=tmp_path / "out")
    assert [(r["system"], r["route"]) for r in found["runs"]] == [
        ("heard", "e2e"),
        ("seen", "cascade"),
    ]
    assert {c["setup"] for c in found["scores"]} == {"unknown"}
    assert found["differences"][0]["better"] == "cascade"


def test_a_file_in_a_run_folder_brings_its_record(planted):
    assert read(planted[0] / "predictions-test.jsonl", "test").system == "ears"


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
def test_silly_options_are_refused(planted, tmp_path, option):
    with pytest.raises(InputError, match=option[0]):
        main([str(planted[0]), "-o", str(tmp_path / "out"), *option])


def test_output_must_not_be_a_file(planted):
    with pytest.raises(InputError, match="give a folder"):
        main([str(planted[0]), "-o", str(planted[0] / "run.json")])


class Loads(HTMLParser):
    """Collects what a page would load, and checks that its tags are paired."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        names = {"src", "href", "srcset", "data", "action", "poster"}
        self.found += [f"{tag} {name}={value}" for name, value in attrs if name in names]
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_loads_nothing(planted, tmp_path):
    report(*planted, output=tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert loads.open == []
    assert "default-src 'none'" in page  # and the browser would refuse it
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    addresses = set(re.findall(r"https?://[\w.]+", re.sub(r"http://www\.w3\.org", "", page)))
    assert addresses <= {"https://vega.github.io", "https://github.com"}  # names, in vega's code
    assert len(page) < 5_000_000
    assert (tmp_path / "out/overview.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").glob(".*"))  # no drafts left


def test_every_chart_has_a_place_and_words(planted, tmp_path):
    report(*planted, output=tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', page, re.DOTALL)[1])
    places = re.findall(r'class="chart" id="([\w-]+)"', page)
    assert sorted(specs) == sorted(places)
    assert all(spec["description"] for spec in specs.values())
    assert {place.split("-")[0] for place in places} == {
        "means",
        "forests",
        "languages",
        "transcripts",
        "confusions",
    }


def test_names_cannot_break_the_page(tmp_path):
    name = "</script><b>a|b</b>"
    run = write(tmp_path / "run", rows("eng", 0.5, 1), route="e2e", system=name, notes=(name,))
    report(run, output=tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert name not in page
    assert "&lt;b&gt;a|b&lt;/b&gt;" in page
    assert "a\\|b" in (tmp_path / "out/report.md").read_text()


def test_a_report_needs_no_torch(planted, tmp_path):
    """In a fresh interpreter: neither torch nor its company are imported, nor SciPy."""
    program = (
        "import sys; from speechtaxi.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'transformers', 'sklearn', 'scipy', 'librosa'};"
        "print(heavy & set(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    argv = ["report", *map(str, planted), "-o", str(tmp_path / "out"), "--resamples", "200"]
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip().splitlines()[-1] == "set()"
    assert done.stdout.strip().endswith("report.html")


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
