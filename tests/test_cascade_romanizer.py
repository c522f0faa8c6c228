"""Romanising: equal to uroman itself, remembered, loaded only when needed."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.romanizer import Romanizer, romanizer


@pytest.fixture(scope="module")
def uroman():
    return romanizer()._uroman


@pytest.mark.parametrize(
    "text",
    [
        "007 12 000 1 1/2 3.50 ½ ٣٤ १२ ३४५",
        "１２\u3000３ ½",
        "五 百 三十 万",
        " two  spaces\u00a0and\u200da tab\tthere\n",
        "⠓⠑⠇⠇⠕ ⠼⠁",
        "བོད་ཡིག སྐད",
        "ไทย ภาษา",
        "Ọ̀rọ̀ àwọn «été» don't",
        "اردو زبان، ہے؟",
        "",
    ],
)
@pytest.mark.parametrize("language", [None, "eng", "tw-asante"])
def test_equals_uroman(uroman, text: str, language: str | None) -> None:
    assert romanizer().romanize(text, language) == uroman.romanize_string(text, language)


def test_ascii_is_unchanged_in_uroman_too(uroman) -> None:
    everything = "".join(map(chr, range(128)))
    for text in (everything, everything[::-1], "x1y22 3.5e7 c'est 0,5% AND so-on"):
        for language in (None, "lav", "lit", "eng"):
            assert uroman.romanize_string(text, language) == text


def test_languages_have_memories_of_their_own() -> None:
    one = romanizer()
    assert one.romanize("Его") == "Ego"
    assert one.romanize("Его", "rus") == "Yego"
    assert one.romanize("Его", "ukr") == "Eho"
    assert one.romanize("Его") == "Ego"


def test_words_are_romanised_once_and_ascii_never(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Counting:
        def romanize_string(self, text: str, language: str | None) -> str:
            asked.append(text)
            return text.upper()

    one = Romanizer()
    one._uroman = Counting()
    assert one.romanize("да no да") == "ДА no ДА"
    assert one.romanize("нет да") == "НЕТ ДА"
    assert asked == ["да", "нет"]


def test_shared_and_free_of_torch() -> None:
    assert romanizer() is romanizer()
    source = "import sys, importlib.util as u\n" + (
        "spec = u.spec_from_file_location('r', sys.argv[1]); m = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(m)\n"
        "assert m.Romanizer().romanize('plain') == 'plain'\n"
        "assert not {'torch', 'uroman'} & set(sys.modules)"
    )
    room = Path(__file__).parents[1] / "cascade" / "romanizer.py"
    subprocess.run([sys.executable, "-c", source, str(room)], check=True)


@pytest.mark.assets
def test_equals_uroman_on_real_verses(assets: Path, uroman) -> None:
    tables = sorted((assets / "data" / "taxi1500").glob("???.tsv"))
    assert tables
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            texts = [
                row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]
        for text in random.Random(0).sample(texts, 12):
            assert romanizer().romanize(text, table.stem) == uroman.romanize_string(
                text, table.stem
            )
