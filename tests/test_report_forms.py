"""Every form of a report tells the same; a rerun does only what is needed; watching is patient."""

from __future__ import annotations

import csv
import importlib.resources
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import altair as alt
import jsonschema
import pyarrow.parquet
import pytest
from test_report import compared, rows, write

from speechtaxi import cli, report
from speechtaxi.errors import InputError
from speechtaxi.records import read_predictions, write_predictions
from speechtaxi.report.folder import STATE, File, Folder
from speechtaxi.report.forms.latex import MOST_ROWS, escape, latex
from speechtaxi.report.forms.pictures import pictures
from speechtaxi.report.forms.texts import SCHEMA, as_csv, as_markdown, as_parquet, numbers
from speechtaxi.report.section import Figure, Section, Table
from speechtaxi.statistics import Interval

NAN = float("nan")
HOSTILE = r"a\b_c%d&e#f$g{h}~i^j <k> [l] * -- ``m'' | " + "\n\t−±†"
FAST = ("--resamples", "200", "--forms", "json,csv")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """E2E is better in English, and neither in Tamil."""
    folder = tmp_path_factory.mktemp("runs")
    said = {"text": "rain and wnd", "reference": "Rain, and wind!"}
    heard = rows("eng", 0.95, 1) + rows("tam", 0.6, 1)
    seen = rows("eng", 0.3, 2, **said) + rows("tam", 0.6, 2, **said)
    return [
        write(folder / "ears_a", heard, route="e2e", notes=("synthetic speech",), seed=0),
        write(folder / "eyes", seen, route="cascade", view="romanized", seed=0),
    ]


@pytest.fixture
def copies(runs, tmp_path) -> list[Path]:
    """Copies of the runs, to be changed."""
    return [Path(shutil.copytree(run, tmp_path / "runs" / run.name)) for run in runs]


@pytest.fixture(scope="module")
def found(runs):
    return compared(*runs)


@pytest.fixture(scope="module")
def sections(found) -> list[Section]:
    return report.sections(found)


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory) -> Path:
    """A whole report in all forms, by the command."""
    folder = tmp_path_factory.mktemp("out") / "report"
    options = ["--resamples", "300", "--examples", "0"]
    assert cli.main(["report", *map(str, runs), "-o", str(folder), *options]) == 0
    return folder


def tables_of(sections: list[Section]) -> list[Table]:
    return [table for section in sections for table in section.tables if table.rows]


def figures_of(sections: list[Section]) -> list[Figure]:
    return [figure for section in sections for figure in section.figures]


def stamps(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


# ------------------------------------------------------------------------------------- layout


def test_a_newcomer_finds_the_page(made, sections):
    assert sorted(path.name for path in made.iterdir() if path.name != STATE) == [
        "data",
        "figures",
        "latex",
        "report.html",
        "report.json",
        "report.md",
    ]
    tables = {table.name for table in tables_of(sections)}
    figures = {figure.name for figure in figures_of(sections)}
    for kind in ("csv", "parquet"):
        assert {path.stem for path in (made / "data").glob(f"*.{kind}")} == tables
        stems = {path.stem for path in (made / "data" / "figures").glob(f"*.{kind}")}
        assert figures <= stems  # a chart of several data sets has a second file
        assert {re.sub(r"-[23]$", "", stem) for stem in stems - figures} <= figures
    for kind in ("svg", "png"):
        assert {p.stem for p in (made / "figures").glob(f"*.{kind}")} == {*figures, "overview"}
    assert {path.stem for path in (made / "latex").iterdir()} == {*tables, "tables"}


# -------------------------------------------------------------------------------- JSON, schema


@pytest.fixture(scope="module")
def judge() -> jsonschema.Draft202012Validator:
    text = (
        importlib.resources.files("speechtaxi.report.forms")
        .joinpath("schema.json")
        .read_text("utf-8")
    )
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == SCHEMA
    return jsonschema.Draft202012Validator(schema)


def test_json_keeps_its_schema(made, judge):
    whole = json.loads((made / "report.json").read_text("utf-8"))
    assert whole["$schema"] == SCHEMA
    judge.validate(whole)
    assert {name for part in whole["sections"] for name in (t["name"] for t in part["tables"])} == {
        *whole["tables"]
    }
    assert whole["router"]["eng"]["system"] == "ears_a"


def test_json_keeps_its_schema_where_much_is_unknown(tmp_path, judge):
    """One group, no gold text, no second system, nothing known of the training."""
    lone = [replace(row, group="same") for row in rows("eng", 0.5, 1)]
    found = compared(write(tmp_path / "lone", lone, route="baseline", train_languages=()))
    files = {file.name: file for file in report.files(found, report.sections(found), ["json"])}
    whole = json.loads(files["report.json"].make())
    judge.validate(whole)
    assert whole["scores"][0]["macro_f1"]["low"] is None
    assert whole["router"] == {}


@pytest.mark.parametrize(
    "break_",
    [
        lambda whole: whole.pop("scores"),
        lambda whole: whole.update(surprise=1),
        lambda whole: whole["scores"][0].update(best="yes"),
        lambda whole: whole["scores"][0].pop("macro_f1"),
        lambda whole: whole["scores"][0]["macro_f1"].update(low="0.5"),
        lambda whole: whole["differences"][0].update(p=1.5),
        lambda whole: whole["differences"][0].update(better="ears"),
        lambda whole: whole["runs"][0].update(route="both"),
        lambda whole: whole["tables"]["means"].append([1]),
        lambda whole: whole["router"]["eng"].pop("run"),
        lambda whole: whole.update({"$schema": "urn:speechtaxi:report:0"}),
    ],
)
def test_a_broken_report_does_not_keep_the_schema(made, judge, break_):
    whole = json.loads((made / "report.json").read_text("utf-8"))
    break_(whole)
    assert not judge.is_valid(whole)


# ------------------------------------------------------------------------------- CSV, Parquet


def test_csv_and_parquet_hold_what_tables_and_json_say(made):
    whole = json.loads((made / "report.json").read_text("utf-8"))
    for name, said in whole["tables"].items():
        table = pyarrow.parquet.read_table(made / "data" / f"{name}.parquet").to_pylist()
        with (made / "data" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        assert len(table) == len(lines) == len(said)
        for row, line, told in zip(table, lines, said, strict=True):
            assert row.keys() == line.keys()
            for column, value in told.items():
                if isinstance(value, dict):
                    assert row[column] == value["estimate"]
                    assert row[f"{column} low"] == value["low"]
                    assert row[f"{column} high"] == value["high"]
                else:
                    assert row[column] == value
            for column, value in row.items():
                if isinstance(value, float):
                    assert float(line[column]) == pytest.approx(value, abs=1e-6)
                else:
                    assert line[column] == ("" if value is None else str(value))


def test_a_figure_s_data_are_what_it_draws(made, found):
    drawn = pyarrow.parquet.read_table(made / "data" / "figures" / "language-eng.parquet")
    scores = {s.system: s.macro_f1 for s in found.cells if s.languages == ("eng",)}
    assert {row["system"]: row["macro-F1"] for row in drawn.to_pylist()} == {
        system: pytest.approx(score.estimate) for system, score in scores.items()
    }


def test_other_shapes_of_data():
    """Figures of several data, of data frames' kind, of nested values; cells of mixed kinds."""
    few = alt.Chart(alt.Data(values=[{"x": 1, "y": [1, 2]}, {"x": 2}])).mark_point()
    many = alt.Chart(alt.Data(values=[{"z": n} for n in range(3)])).mark_point()
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule()
    facet = alt.layer(few, data=alt.Data(values=[{"f": "a"}, {"f": "b"}])).facet("f:N")
    part = Section(
        "s", "S", figures=[Figure("one", "", few + many + zero + many), Figure("two", "", facet)]
    )
    found = numbers([part])
    assert found["figures/one"] == [{"z": 0}, {"z": 1}, {"z": 2}]
    assert found["figures/one-2"] == [{"x": 1, "y": "[1, 2]"}, {"x": 2}]
    assert found["figures/two"] in ([{"f": "a"}, {"f": "b"}], found["figures/one-2"])
    mixed = [{"a": 1, "b": "x", "c": NAN}, {"a": 2.5, "b": 3, "c": None}, {"a": None, "d": True}]
    read = pyarrow.parquet.read_table(io.BytesIO(as_parquet(mixed))).to_pylist()
    assert [row["a"] for row in read] == [1.0, 2.5, None]
    assert [row["b"] for row in read] == ["x", "3", None]
    assert [row["c"] for row in read] == [None] * 3
    assert as_csv(mixed) == "a,b,c,d\n1,x,,\n2.5,3,,\n,,,True\n"


def test_names_are_told_apart():
    """ "a b" and "a-b" give the same name for a file."""
    table, chart = Table("t", "", [{"x": 1}]), alt.Chart(alt.Data(values=[])).mark_point()
    parts = [
        Section("1", "", figures=[Figure("t", "", chart)], tables=[table]),
        Section("2", "", figures=[Figure("t", "", chart)], tables=[table, table]),
    ]
    apart = report.named_apart(parts)
    assert [t.name for t in tables_of(apart)] == ["t", "t-no2", "t-no3"]
    assert [f.name for f in figures_of(apart)] == ["t", "t-no2"]


# ----------------------------------------------------------------------------------- pictures


def test_pictures_stand_alone(made, found, sections):
    for picture in (made / "figures").glob("*.svg"):
        root = xml.fromstring(picture.read_text("utf-8"))
        words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "synthetic speech" in words
        assert not re.search(r'(href|src)="(?!#)', picture.read_text("utf-8"))
        ground = root.find("{http://www.w3.org/2000/svg}rect")
        assert ground is not None
        assert ground.get("fill") == "white"
        png = picture.with_suffix(".png").read_bytes()
        assert png.startswith(b"\x89PNG")
        size = [int.from_bytes(png[n : n + 4], "big") for n in (16, 20)]
        assert size == pytest.approx(
            [2 * float(root.get(k, "")) for k in ("width", "height")], 0.02
        )
    names = [path.name for path in (made / "figures").glob("difference*.svg")]
    assert len(names) == 1
    text = (made / "figures" / names[0]).read_text("utf-8")
    for word in ("E2E better", "cascade better", "cannot tell", "English"):
        assert f">{word}</text>" in text
    for spec in pictures(found, sections).values():
        assert alt.Chart.from_dict(spec).to_dict(validate=True)
        assert "container" not in json.dumps(spec)


# ----------------------------------------------------------------------------------- Markdown


def test_markdown_shows_no_markup_of_others(tmp_path):
    name = "<b>x</b><!-- "
    run = write(tmp_path / "run", rows("eng", 0.5, 1), route="e2e", system=name, notes=(name,))
    text = as_markdown(found := compared(run), report.sections(found))
    assert not re.search(r"(?<!\\)<[a-zA-Z/!?]", text)
    assert r"\<b>x\</b>\<!--" in text


# -------------------------------------------------------------------------------------- LaTeX


def read_tex(text: str) -> list[list[str]]:
    """Return the cells of a table's rows, having checked what TeX would choke on."""
    plain = re.sub(r"\\\\", "\x01", text)  # ends of rows
    plain = re.sub(r"\\[{}$&#%_,]", "\x02", plain)  # escaped signs
    plain = re.sub(r"(?m)%$", "", plain)
    assert not re.search(r"[#%~^_\x00]", plain), "a special sign is not escaped"
    assert plain.count("$") % 2 == 0
    assert plain.isascii() or not re.search("[−†±]", plain)
    depth, opened = 0, []
    for mark in re.finditer(r"\\(begin|end)\{(\w+)\}|[{}]", plain):
        if mark[1] == "begin":
            opened.append((mark[2], depth))
        elif mark[1] == "end":
            assert opened.pop() == (mark[2], depth)
        else:
            depth += 1 if mark[0] == "{" else -1
            assert depth >= 0
    assert depth == 0
    assert opened == []
    kinds = re.search(r"\\begin\{(?:tabular|longtable)\}\{@\{\}(.*)@\{\}\}", plain)
    assert kinds is not None
    columns = len(re.sub(r"p\{[^}]*\}", "p", kinds[1]))
    lines = [line for line in plain.split("\n") if line.endswith(" \x01")]
    cells = [line.removesuffix(" \x01").split(" & ") for line in lines]
    assert {len(row) for row in cells} == {columns}
    assert all(line.count("&") == columns - 1 for line in lines)
    # After the end of a row, TeX would take these for its arguments
    assert not re.search(r"\x01\s*[\[*]", plain)
    return cells


def test_every_table_is_sound_latex(made, sections):
    for table in tables_of(sections):
        text = (made / "latex" / f"{table.name}.tex").read_text("utf-8")
        cells = read_tex(text)
        heads = 2 if len(table.rows) > MOST_ROWS else 1
        assert len(cells) == len(table.rows) + heads + (table.total is not None)
        assert text.count("\\caption{") == text.count(f"\\label{{tab:{table.name}}}") == 1
        assert ("longtable" in text) == (heads == 2)
    whole = (made / "latex" / "tables.tex").read_text("utf-8")
    names = re.findall(r"\\input\{(.*)\}", whole)
    assert names == [table.name for table in tables_of(sections)]
    for used in ("booktabs", "longtable", "graphicx", "pdflscape"):
        assert used in whole


def test_hostile_words_are_printed_as_they_are():
    row = {"system": HOSTILE, "[x]": "* [1]", "macro-F1": Interval(-0.5, -0.25, 0.1, HOSTILE)}
    for number in (1, MOST_ROWS + 1):
        text = latex(Table("t_1", HOSTILE, [row] * number, total=row))
        cells = read_tex(text)
        assert cells[0][1] == "{[}x{]}"
        assert cells[-1][2].startswith("$-$0.50 {\\scriptsize [$-$0.25, 0.10]}")
        assert "\\label{tab:t-1}" in text


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("xlsr_300m & 5 %", r"xlsr\_300m \& 5 \%"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("a--b---c", "a-{}-b-{}-{}-c"),
        ("`` ''", "`{}` '{}'"),
        ("–", "--"),
        ("two\r\nlines\x00\x1b", "two lines"),
        ("தமிழ் Україна", "தமிழ் Україна"),
    ],
)
def test_escape(said, printed):
    assert escape(said) == printed


def test_the_best_are_bold(made, found):
    tied = {(s.system, s.languages) for s in found.cells if s.best}
    assert tied == {("ears_a", ("eng",)), ("ears_a", ("tam",)), ("eyes", ("tam",))}
    for name, table in (("macro-f1-all-languages", (3, 4)), ("scores", None)):
        cells = read_tex((made / "latex" / f"{name}.tex").read_text("utf-8"))
        if table:
            bold = {row[0]: [("textbf" in row[n]) for n in table] for row in cells[1:3]}
            assert bold == {"English": [True, False], "Tamil": [True, True]}
        else:
            head, *body = cells
            assert "best" not in head  # bold says it
            column = head.index("macro-F1")
            assert {(row[0], row[2]) for row in body if "textbf" in row[column]} == {
                ("ears\x02a", "English"),
                ("ears\x02a", "Tamil"),
                ("eyes", "Tamil"),
            }


ENGINE = next(filter(None, map(shutil.which, ("lualatex", "xelatex", "pdflatex", "tectonic"))), "")


@pytest.mark.skipif(not ENGINE, reason="no TeX engine here")
def test_latex_compiles(made, tmp_path):
    folder = Path(shutil.copytree(made / "latex", tmp_path / "latex"))
    quiet = [] if ENGINE.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    subprocess.run([ENGINE, *quiet, "tables.tex"], cwd=folder, check=True, timeout=120)
    assert (folder / "tables.pdf").stat().st_size > 1000


# ------------------------------------------------------------------------------------- reruns


def test_nothing_changed_nothing_done(made, runs, capsys):
    before = stamps(made)
    again = ["report", *map(str, runs), "-o", str(made), "--resamples", "300", "--examples", "0"]
    assert cli.main(again) == 0
    assert "nothing has changed" in capsys.readouterr().out
    assert stamps(made) == before
    (made / "report.md").unlink()
    assert cli.main(again) == 0
    assert (made / "report.md").exists()
    after = stamps(made)
    pictures = {name for name in before if name.startswith("figures/")}
    assert pictures
    assert all(after[name] == before[name] for name in pictures)  # were drawn already


def test_changes_are_seen(copies, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["report", *map(str, copies), "-o", str(out), *FAST]

    def said(*more: str) -> str:
        assert cli.main([*command, *more]) == 0
        return capsys.readouterr().out

    assert "nothing has changed" not in said()
    assert "nothing has changed" in said()
    for option in (("--seed", "1"), ("--common",), ("--resamples", "201"), ("--forms", "json")):
        assert "nothing has changed" not in said(*option)
    said()
    record = json.loads((copies[0] / "run.json").read_text())
    (copies[0] / "run.json").write_text(json.dumps(record | {"seed": 7}))
    assert "nothing has changed" not in said()
    file = copies[0] / "predictions-test.jsonl"
    write_predictions(file, rows("eng", 0.3, 3) + rows("tam", 0.6, 1))
    assert "ears_a is better" not in said()
    (out / STATE).write_text("{}")  # broken: as if there were none
    assert "nothing has changed" not in said()


def test_only_own_leftovers_are_removed(copies, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["report", *map(str, copies), "-o", str(out), *FAST]
    assert cli.main(command) == 0
    (out / "data" / "mine.csv").write_text("x\n")
    assert cli.main([*command, "--forms", "json"]) == 0
    assert sorted(stamps(out)) == [STATE, "data/mine.csv", "report.json"]


def test_a_state_from_elsewhere_removes_nothing_outside(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").touch()
    state = {"inputs": None, "made": {"../precious": "", str(tmp_path / "precious"): ""}}
    (tmp_path / "out" / STATE).write_text(json.dumps(state))
    Folder(tmp_path / "out").write([File("a", lambda: "a")], {})
    assert (tmp_path / "precious").exists()


def test_a_report_broken_off_is_written_anew(tmp_path):
    def fail() -> str:
        raise KeyboardInterrupt

    old = [File("a", lambda: "a of old", "old"), File("b", lambda: "b of old", "old")]
    new = [File("a", lambda: "a of new", "new"), File("c", lambda: "c"), File("b", fail, "new")]
    Folder(tmp_path).write(old, {"of": "old"})
    assert Folder(tmp_path).is_of({"of": "old"})
    with pytest.raises(KeyboardInterrupt):
        Folder(tmp_path).write(new, {"of": "new"})
    assert not Folder(tmp_path).is_of({"of": "old"})
    assert not Folder(tmp_path).is_of({"of": "new"})
    Folder(tmp_path).write(old, {"of": "old"})
    assert (tmp_path / "a").read_text() == "a of old"  # "a" had been replaced
    assert sorted(stamps(tmp_path)) == [STATE, "a", "b"]


# ----------------------------------------------------------------------------------- watching


def test_watching_waits_for_what_comes(copies, tmp_path, capsys):
    """A run without predictions is left out; a half-written file is waited for."""
    out, file = tmp_path / "out", copies[1] / "predictions-test.jsonl"
    whole = file.read_text()
    file.unlink()
    systems: list[list[str]] = []

    def then(step: int) -> None:
        found = json.loads((out / "report.json").read_text())
        systems.append([run["system"] for run in found["runs"]])
        if step == 0:
            file.write_text(whole[:5000])  # breaks off within a row
        elif step == 2:
            file.write_text(whole[:9000])  # grows: is not even read
        elif step == 3:
            file.write_text(whole)
        elif step == 6:
            raise KeyboardInterrupt

    steps = iter(range(9))
    forms = {"resamples": 200, "forms": ["json"]}
    report.watch(copies, out, pause=lambda _: then(next(steps)), **forms)
    assert systems == [["ears_a"]] * 5 + [["ears_a", "eyes"]] * 2
    told = capsys.readouterr()
    assert told.err.count("Waiting for a change") == 1
    assert re.search(r"test\.jsonl:\d+: broken JSON", told.err)
    assert told.err.count(f"Waiting for {file}") == 1
    assert told.out.count("report.json") == 0
    assert next(steps) == 7  # Ctrl-C ended it


def test_watching_nothing_yet(tmp_path, capsys):
    (tmp_path / "run").mkdir()

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    report.watch([tmp_path / "run"], tmp_path / "out", pause=stop)
    assert "Waiting for" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (lambda runs, at: [runs[0], runs[0], "-o", at / "out"], "given twice; name each run once"),
        (
            lambda runs, at: [runs[0], runs[0] / "predictions-test.jsonl", "-o", at / "out"],
            r"predictions-test.jsonl: is given twice \(as .*ears_a too\)",
        ),
        (lambda runs, at: [at, "-o", at / "out"], "no predictions for the split 'test'; run"),
        (lambda runs, at: [at / "none", "-o", at / "out"], "none: No such file"),
        (lambda runs, at: [runs[0], "-o", runs[0] / "run.json"], "is a file; give a folder"),
        (lambda runs, at: [runs[0], "-o", runs[0] / "run.json" / "x"], "cannot be written"),
        (lambda runs, at: [runs[0], "-o", "/proc/none"], "/proc/none: cannot be written"),
        (lambda runs, at: [runs[0], "-o", at, "--forms", "html,doc"], "unknown 'doc'; use some of"),
        (lambda runs, at: [runs[0], "-o", at, "--forms", ""], "unknown ''"),
    ],
)
def test_what_cannot_be_is_one_line(runs, tmp_path, capsys, command, words):
    assert cli.main(["report", *map(str, command(runs, tmp_path))]) == 2
    told = capsys.readouterr()
    assert re.search(words, told.err)
    assert len(told.err.splitlines()) == 1
    assert told.out == ""
    assert not (tmp_path / "out").exists()


def test_one_path_twice_is_refused(runs, tmp_path):
    with pytest.raises(InputError, match="given twice"):
        report.write([runs[0], runs[0]], tmp_path / "out")


def test_runs_are_read_before_a_folder_is_made(runs, tmp_path):
    file = tmp_path / "half.jsonl"
    file.write_text((runs[0] / "predictions-test.jsonl").read_text()[:-20])
    with pytest.raises(InputError, match=r"half.jsonl:192: broken JSON"):
        report.main([str(file), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    assert len(read_predictions(runs[0] / "predictions-test.jsonl")) == 192
