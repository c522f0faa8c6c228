"""`speechtaxi compare`: the short form of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_report import compared, rows, write

from speechtaxi import cli
from speechtaxi.errors import InputError
from speechtaxi.report.pair import differences, main


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[Path]:
    """The first is better in English; the second was also tested on Tamil."""
    folder = tmp_path_factory.mktemp("pair")
    ears = [*rows("eng", 0.95, 1), *rows("fra", 0.6, 1)]
    eyes = [*rows("eng", 0.4, 2), *rows("fra", 0.6, 2), *rows("tam", 0.6, 2)]
    return [
        write(folder / "ears", ears, route="e2e"),
        write(folder / "eyes", eyes, route="cascade"),
    ]


def test_tells_what_the_report_tells(pair):
    found, warnings = differences(*pair, resamples=300)
    assert warnings == []
    assert [d.languages for d in found] == [("eng", "fra"), ("eng",), ("fra",)]
    assert [d.better for d in found[1:]] == ["first", None]
    report = {d.languages: d for d in compared(*pair).differences}
    assert found[1].difference.estimate == report[("eng",)].difference.estimate
    assert found[0].difference.estimate == pytest.approx(
        (found[1].difference.estimate + found[2].difference.estimate) / 2
    )


def test_prints_a_table_and_json(pair, capsys):
    assert cli.main(["compare", *map(str, pair), "--resamples", "300"]) == 0
    said = capsys.readouterr().out
    for words in ("ears minus eyes", "mean of 2", "English", "French", "cannot tell"):
        assert words in said
    assert "Tamil" not in said
    assert cli.main(["compare", *map(str, pair), "--resamples", "300", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["differences"]
    assert [d["better"] for d in found[1:]] == ["first", None]


def test_two_versions_of_one_system_are_told_apart_by_folder(tmp_path):
    old = write(tmp_path / "old", rows("eng", 0.5, 1), route="e2e", system="ears")
    new = write(tmp_path / "new", rows("eng", 0.9, 2), route="e2e", system="ears")
    [found], _ = differences(new, old, resamples=300)
    assert (found.first, found.second, found.better) == (str(new), str(old), "first")


def test_setups_need_not_be_alike(tmp_path):
    lone = write(tmp_path / "a", rows("eng", 0.5, 1), route="e2e", train_languages=("eng",))
    every = write(tmp_path / "b", rows("eng", 0.9, 2), route="e2e")
    assert differences(every, lone, resamples=300)[0][0].better == "first"


def test_no_common_language_is_refused(tmp_path):
    one = write(tmp_path / "a", rows("eng", 0.5, 1), route="e2e")
    two = write(tmp_path / "b", rows("fra", 0.5, 1), route="e2e")
    with pytest.raises(InputError, match="no language in common"):
        differences(one, two)
    with pytest.raises(InputError, match="at least 200"):
        main([str(one), str(two), "--resamples", "9"])
