"""Romanising: equal to uroman itself, remembered, loaded only when needed."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from importlib.metadata import version
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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace uroman by what writes capitals, and return what it is asked."""
    words: list[str] = []

    class Counting:
        def romanize_string(self, text: str, language: str | None) -> str:
            words.append(text)
            return text.upper()

    monkeypatch.setattr("cascade.romanizer._load_uroman", Counting)
    return words


def test_words_are_romanised_once_and_ascii_never(asked: list[str]) -> None:
    one = Romanizer()
    assert one.romanize("да no да") == "ДА no ДА"
    assert one.romanize("нет да") == "НЕТ ДА"
    assert asked == ["да", "нет"]


def test_latin_stays_byte_for_byte(asked: list[str]) -> None:
    latin = "  Ọ̀rọ̀ àwọn\u00a0e\u0301te\u0301 «Đường» ʼn ½ don’t — 3.5 ﬁn "
    one = Romanizer()
    for text in (latin, "", " ", "plain", "Ɛyɛ, ŋutɔ!"):
        assert one.romanize(text, "yor", keep_latin=True) == text
    assert not asked
    mixed = "été ночь très"
    assert one.romanize(mixed) == "ÉTÉ НОЧЬ TRÈS"
    assert one.romanize(mixed, keep_latin=True) == "été НОЧЬ très"  # what is remembered is no trap
    assert one.romanize("été-ночь १२ है।", keep_latin=True) == "ÉTÉ-НОЧЬ १२ है।".upper()
    assert sorted(asked) == sorted([*mixed.split(), "été-ночь", "१२", "है।"])


def test_words_are_kept_for_the_processes_that_come_after(asked: list[str], tmp_path: Path) -> None:
    assert Romanizer(tmp_path / "new").romanize("да нет", "rus") == "ДА НЕТ"
    (file,) = (tmp_path / "new").glob("romanized-*.sqlite")
    assert version("uroman") in file.name  # another version may write something else
    one, two = Romanizer(tmp_path / "new"), Romanizer(tmp_path / "new")
    assert one.romanize("да нет и", "rus") == two.romanize("да нет и", "rus") == "ДА НЕТ И"
    assert sorted(asked) == ["да", "и", "нет"]
    assert one.romanize("да", "ukr") == "ДА"  # another language is another word
    assert len(asked) == 4


def test_a_folder_that_cannot_be_used_is_told_and_done_without(
    asked: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    one = Romanizer(tmp_path / "file")
    assert [one.romanize("да"), one.romanize("нет")] == ["ДА", "НЕТ"]
    (told,) = caplog.messages
    assert told.startswith("romanised words are not kept")
    (tmp_path / f"romanized-{version('uroman')}.sqlite").write_bytes(b"damaged" * 1000)
    assert Romanizer(tmp_path).romanize("да нет") == "ДА НЕТ"
    assert len(caplog.messages) == 2


def test_memory_is_bounded(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade.romanizer.MEMORY", 10)
    one = Romanizer()
    for number in range(100):
        assert one.romanize(f"да{number}") == f"ДА{number}"
        assert len(one._words) <= 10


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


def verses(assets: Path) -> dict[str, list[str]]:
    """Return the texts of Taxi1500 by language."""
    texts = {}
    for table in sorted((assets / "data" / "taxi1500").glob("???.tsv")):
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            texts[table.stem] = [row["text"] for row in rows]
    assert len(texts) > 10
    return texts


@pytest.mark.assets
def test_equals_uroman_on_real_verses(assets: Path, uroman) -> None:
    for language, texts in verses(assets).items():
        for text in random.Random(0).sample(texts, 8):
            assert romanizer().romanize(text, language) == uroman.romanize_string(text, language)


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.timeout(3000)
def test_equals_uroman_on_every_verse(assets: Path, uroman) -> None:
    for language, texts in verses(assets).items():
        for text in texts:
            assert romanizer().romanize(text, language) == uroman.romanize_string(text, language)
