"""Languages: codes, and what recognisers and synthesisers call them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from speechtaxi.languages import (
    LANGUAGES,
    UNKNOWN,
    distance,
    espeak_voice,
    from_whisper,
    is_code,
    mms_code,
    name_of,
    whisper_code,
)

SPEECHTAXI = {code for code, language in LANGUAGES.items() if language.in_speechtaxi}


def test_speechtaxi_has_28_languages_and_each_knows_its_code():
    assert len(SPEECHTAXI) == 28
    assert all(code == language.code for code, language in LANGUAGES.items())


def test_what_recognisers_and_the_synthesiser_cover():
    voiced = "asm eng fra guj kan mal mar pan rus tam tel ukr urd vie"
    assert {code for code in SPEECHTAXI if espeak_voice(code)} == set(voiced.split())
    heard = f"{voiced} lin yor"
    assert {code for code in SPEECHTAXI if whisper_code(code)} == set(heard.split())
    assert {code for code in SPEECHTAXI if not mms_code(code)} == {"nde", "nlx"}


def test_whisper_codes_are_whispers():
    tokenizer = pytest.importorskip("whisper.tokenizer")
    known = {code: whisper_code(code) for code in LANGUAGES if whisper_code(code)}
    assert {tag for tag in known.values() if tag not in tokenizer.LANGUAGES} == set()


def test_whispers_tags_lead_to_codes_and_back():
    tokenizer = pytest.importorskip("whisper.tokenizer")
    codes = {tag: from_whisper(tag) for tag in tokenizer.LANGUAGES}
    assert {tag: whisper_code(code) for tag, code in codes.items()} == {tag: tag for tag in codes}
    assert all(map(is_code, codes.values()))
    assert codes["tl"] == "tgl"  # Tagalog, which CLDR calls by Filipino's tag
    assert codes["jw"] == "jav"


@pytest.mark.parametrize("code", ["eng", "tw-akuapem", "und", "ekk"])
def test_codes(code):
    assert is_code(code)


@pytest.mark.parametrize("code", ["", "en", "ENG", "english", "tw-other", "ñan", "e1g?"])
def test_what_is_no_code(code):
    assert not is_code(code)


def test_beyond_the_table():
    assert whisper_code("ekk") == "et"  # Standard Estonian, by its macrolanguage
    assert mms_code("kin") == "kin"
    assert espeak_voice("ita") == "it"
    assert name_of("kin") == "kin"


def test_an_undetermined_language_is_nobodys():
    assert whisper_code(UNKNOWN) is None
    assert mms_code(UNKNOWN) is None
    assert espeak_voice(UNKNOWN) is None


@pytest.mark.parametrize("code", ["tw-akuapem", "tw-asante"])
def test_both_twi_varieties_share_one_adapter(code):
    assert mms_code(code) == "aka"
    assert whisper_code(code) is None


def test_families_and_branches():
    top = Counter(language.family.split(":")[0] for language in LANGUAGES.values())
    assert top == {
        "Indo-European": 18,
        "Atlantic-Congo": 8,
        "Dravidian": 5,
        "Nilotic": 1,
        "Austroasiatic": 1,
        "Afro-Asiatic": 1,
    }
    branches = {LANGUAGES[code].family for code in ("rus", "ukr")}
    assert branches == {"Indo-European: Slavic"}
    assert LANGUAGES["nag"].family == LANGUAGES["asm"].family  # a creole with Assamese words
    for name in ("Indo-European", "Atlantic-Congo"):  # with a branch, wherever they stand
        assert not any(language.family == name for language in LANGUAGES.values())


def test_distances_are_those_of_the_vectors():
    """Against the angle between the two places' vectors."""

    def vector(code):
        place = np.radians((LANGUAGES[code].latitude, LANGUAGES[code].longitude))
        (north, east), (level, side) = np.sin(place), np.cos(place)
        return np.array([level * side, level * east, north])

    for one, other in (("eng", "fra"), ("tam", "yor"), ("nde", "rus"), ("spa", "vie")):
        angle = np.arccos(vector(one) @ vector(other))
        assert distance(one, other) == pytest.approx(6371 * angle)
        assert distance(other, one) == distance(one, other)
    assert distance("tw-asante", "tw-akuapem") == 0
    assert distance("eng", "kin") is None


def test_india_lies_in_india():
    """Every language with an Indian script of its own lies there or in Bangladesh."""
    own = {"Beng", "Deva", "Gujr", "Guru", "Knda", "Mlym", "Orya", "Taml", "Telu"}
    for language in LANGUAGES.values():
        if language.script in own:
            assert 8 < language.latitude < 34, language
            assert 70 < language.longitude < 94, language
