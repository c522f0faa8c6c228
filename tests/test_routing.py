"""Which model answers for which language: chosen by a report, followed by `classify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_report import compared, rows, write

from speechtaxi.errors import InputError
from speechtaxi.report.questions.router import choices, router
from speechtaxi.routing import is_report, routed


@pytest.fixture
def found(tmp_path):
    """E2E is better in English, the cascade in French and in unseen Ukrainian, neither in Tamil."""
    right = {"eng": (0.95, 0.4), "fra": (0.4, 0.95), "tam": (0.6, 0.6), "ukr": (0.5, 0.9)}
    ears = [row for lang, (share, _) in right.items() for row in rows(lang, share, 1)]
    eyes = [row for lang, (_, share) in right.items() for row in rows(lang, share, 2)]
    gold = [row for lang in right for row in rows(lang, 1.0, 3)]
    return compared(
        write(tmp_path / "ears", ears, route="e2e", parameters=10),
        write(tmp_path / "eyes", eyes, route="cascade", view="romanized", parameters=5),
        write(tmp_path / "gold", gold, route="cascade", view="gold_romanized", parameters=1),
    )


def test_the_best_is_chosen_and_its_equals_are_named(found):
    chosen = {choice.language: choice for choice in choices(found)}
    systems = {language: choice.system for language, choice in chosen.items()}
    tied = systems.pop("tam")
    assert systems == {"eng": "ears", "fra": "eyes", "ukr": "eyes", "und": "eyes"}
    assert chosen["tam"].tied == (f"{'ears' if tied == 'eyes' else 'eyes'} (all-languages)",)
    assert chosen["eng"].tied == ()
    assert chosen["ukr"].setup == chosen["und"].setup == "zero-shot"


def test_of_equals_the_smallest_is_chosen(tmp_path):
    runs = [
        write(tmp_path / name, rows("eng", 0.6, 1), route="e2e", parameters=size)
        for name, size in (("large", 9), ("small", 3), ("unknown", None))
    ]
    [choice] = choices(compared(*runs))
    assert choice.system == "small"
    assert len(choice.tied) == 2


def test_the_section_names_runs(found):
    section = router(found)
    assert section is not None
    table = section.tables[0]
    assert [row["language"] for row in table.rows][-1] == "any other"
    assert str(table.rows[0]["run"]).endswith("ears")


def report(folder: Path, **chosen: str) -> Path:
    folder.mkdir()
    router = {language: {"run": run} for language, run in chosen.items()}
    (folder / "report.json").write_text(json.dumps({"router": router}))
    return folder


def test_a_report_leads_to_a_run(tmp_path, monkeypatch):
    folder = report(tmp_path / "report", eng="runs/ears", und="runs/eyes/predictions-test.jsonl")
    for name in ("ears", "eyes"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "eyes" / "predictions-test.jsonl").touch()
    assert is_report(folder)
    assert not is_report(tmp_path / "runs")
    monkeypatch.chdir(folder)  # anywhere: runs are looked for beside the report, too
    assert routed(folder, "eng") == tmp_path / "runs" / "ears"
    assert routed(folder / "report.json", "swh") == tmp_path / "runs" / "eyes"


def test_what_a_report_cannot_tell_is_one_line(tmp_path):
    folder = report(tmp_path / "report", eng="runs/ears")
    with pytest.raises(InputError, match="no model for swh; give --language, one of eng"):
        routed(folder, "swh")
    with pytest.raises(InputError, match="models by language only; give --language"):
        routed(folder, "und")
    with pytest.raises(InputError, match="chose the run runs/ears for eng, which is not there"):
        routed(folder, "eng")
    (folder / "report.json").write_text("{}")
    with pytest.raises(InputError, match="no report that chooses models"):
        routed(folder, "eng")
    with pytest.raises(InputError, match="No such file"):
        routed(tmp_path / "none", "eng")
