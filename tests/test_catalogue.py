"""`speechtaxi languages`: rows, filters and forms."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest
from rich.text import Text

from speechtaxi import cli
from speechtaxi.catalogue import FORMATS, SYSTEMS, main, select
from speechtaxi.errors import InputError
from speechtaxi.languages import LANGUAGES


@pytest.fixture
def read(capsys):
    """Return a function that runs the command and reads its JSONL."""

    def run(*arguments: str) -> list[dict]:
        assert main([*arguments, "--format", "jsonl"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def codes(rows) -> set[str]:
    return {row["code"] for row in rows}


def test_speechtaxi_has_28_and_the_table_more(read):
    assert len(read()) == 28
    assert codes(read("--all")) == set(LANGUAGES)


def test_what_systems_lack(read):
    rows = read()
    lacked = {field: sum(row[field] is False for row in rows) for field in SYSTEMS}
    assert lacked == {
        "whisper": 12,
        "mms": 2,
        "mms_zeroshot": 0,
        "espeak": 14,
        "xlmr": 14,
        "furina": 5,
    }


def test_a_row_tells_unknown_from_no(read):
    [row] = read("Igbo")
    assert row == {
        "code": "ibo",
        "name": "Igbo",
        "script": "Latn",
        "family": "Atlantic-Congo: Benue-Congo",
        "hours": None,
        "train": None,
        "dev": None,
        "test": None,
        "whisper": False,
        "mms": "ibo",
        "mms_zeroshot": None,
        "espeak": False,
        "xlmr": False,
        "furina": True,
    }
    [urdu] = read("ur")
    assert (urdu["train"], urdu["dev"], urdu["test"]) == (674, 80, 95)
    assert (urdu["whisper"], urdu["mms"], urdu["xlmr"]) == ("ur", "urd-script_arabic", True)


def test_what_is_not_in_speechtaxi_has_no_clips_there(read):
    [german] = read("deu")
    assert (german["hours"], german["train"], german["dev"], german["test"]) == (0, 0, 0, 0)


def test_named_languages_come_in_their_order_and_once(read):
    assert [row["code"] for row in read("Ukrainian", "fr", "fra_Latn", "de")] == [
        "ukr",
        "fra",
        "deu",
    ]


def test_filters(read):
    assert codes(read("--family", "Dravidian")) == {"kan", "mal", "peg", "tam", "tel"}
    assert codes(read("--family", "slavic", "kwa")) == {
        "rus",
        "ukr",
        "ewe",
        "tw-akuapem",
        "tw-asante",
    }
    assert codes(read("--script", "arab", "Cyrl")) == {"ckb", "urd", "rus", "ukr"}
    assert codes(read("--all", "--family", "afro-asiatic")) == {"hau"}
    assert codes(read("--known_by", "furina", "--script", "Arab")) == {"ckb", "urd"}
    assert codes(read("--known_by", "whisper", "xlmr", "--script", "Arab")) == {"urd"}
    assert codes(read("tam", "fra", "--family", "dravidian")) == {"tam"}
    unheard = "bgc bht ckb ewe ibo luo nag nde nlx peg tw-akuapem tw-asante"
    assert codes(read("--known_by", "whisper")) == codes(read()) - set(unheard.split())


def test_nothing_passes(capsys):
    assert main(["--known_by", "mms_zeroshot", "--format", "jsonl"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "no language is known to pass all filters\n"


@pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_separated_values_hold_what_json_holds(read, capsys, form, delimiter):
    rows = read("--all")
    assert main(["--all", "--format", form]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out), delimiter=delimiter))
    said = {None: "?", False: "-", True: "yes"}
    assert table == [
        {
            name: str(cell if type(cell) is int else said.get(cell, cell))
            for name, cell in row.items()
        }
        for row in rows
    ]


def test_markdown_is_a_table(capsys):
    assert main(["fra", "nde", "--format", "markdown"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert {len(line) for line in lines} == {12}
    assert lines[1] == ["---"] * 12
    french, ndebele = (dict(zip(lines[0], line, strict=True)) for line in lines[2:])
    assert french["train/dev/test"] == "851/106/108"
    assert (french["Whisper"], french["XLM-R"], french["MMS-ZeroShot"]) == ("fr", "yes", "?")
    assert (ndebele["Whisper"], ndebele["train/dev/test"], ndebele["hours"]) == ("-", "?", "?")


@pytest.mark.parametrize("width", ["60", "100", "200"])
def test_the_table_loses_nothing_however_narrow(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["urd"]) == 0
    page = Text.from_ansi(capsys.readouterr().out).plain
    assert "…" not in page
    assert max(map(len, page.splitlines())) <= int(width)
    assert "known to Whisper 1, MMS-1b-all 1, MMS-ZeroShot ?," in " ".join(page.split())


def test_a_page_for_a_pipe_keeps_a_language_on_a_line(capsys):
    assert main([]) == 0
    page = capsys.readouterr().out
    [line] = [line for line in page.splitlines() if line.strip().startswith("urd")]
    assert line.split() == [
        *("urd", "Urdu", "Arab", "Indo-European:", "Indo-Aryan", "?", "674/80/95"),
        *("ur", "urd-script_arabic", "?", "ur", "yes", "yes"),
    ]
    assert "28 languages; known to Whisper 16, MMS-1b-all 26, MMS-ZeroShot ?" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"names": ["Frensh"]}, "did you mean French [fra]?"),
        ({"names": ["Italian"]}, "the table has no row for ita; it has asm, bgc,"),
        ({"scripts": ["Latin"]}, "no script 'Latin'; use one of Arab, Beng,"),
        ({"families": ["Bantu"]}, "no family 'Bantu'; use one of Afro-Asiatic,"),
    ],
)
def test_what_the_table_does_not_have(arguments, said):
    with pytest.raises(InputError) as caught:
        select(**arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize("arguments", [["--format", "xml"], ["--known_by", "nobody"]])
def test_choices(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "invalid choice" in capsys.readouterr().err


def test_the_command_is_listed(capsys):
    assert cli.main(["languages", "eng", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["code"] == "eng"
    assert cli.main(["languages", "Frensh"]) == 2
    assert capsys.readouterr().err.startswith("speechtaxi languages: unknown language 'Frensh';")


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from speechtaxi import cli\n"
        "try: cli.main(['languages', '--help'])\nexcept SystemExit: pass\n"
        "print([n for n in ('torch', 'numpy', 'rich', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert all(form in done.stdout for form in FORMATS)
