"""Languages: codes, and what recognisers and synthesisers call them."""

from __future__ import annotations

import pytest

from speechtaxi.languages import (
    LANGUAGES,
    UNKNOWN,
    espeak_voice,
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
