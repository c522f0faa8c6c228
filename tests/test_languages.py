"""Languages: codes, and what recognisers and synthesisers call them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from speechtaxi.errors import InputError
from speechtaxi.languages import (
    LANGUAGES,
    UNKNOWN,
    distance,
    espeak_voice,
    find,
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


def test_espeak_voices_are_espeaks():
    loader = pytest.importorskip("espeakng_loader")
    files = [path for path in Path(loader.get_data_path(), "lang").rglob("*") if path.is_file()]
    voices = {
        line.split()[1].casefold()
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("language ")
    }
    ours = {code: language.espeak for code, language in LANGUAGES.items()}
    assert {voice for voice in ours.values() if voice} <= voices
    silent = {code for code, voice in ours.items() if voice is None and code in voices}
    assert silent == set(), "eSpeak NG has a voice that the table denies"


def test_what_text_models_have_read():
    read = "asm eng fra guj kan mal mar pan rus tam tel ukr urd vie"
    assert {code for code in SPEECHTAXI if LANGUAGES[code].xlmr} == set(read.split())
    unread = {code for code in SPEECHTAXI if not LANGUAGES[code].furina}
    assert unread == {"bgc", "bht", "nag", "nlx", "peg"}  # Furina was Glot500, that was XLM-R
    assert all(language.furina for language in LANGUAGES.values() if language.xlmr)


def test_what_is_not_published_stays_unknown():
    counted = {code for code in SPEECHTAXI if LANGUAGES[code].clips}
    assert SPEECHTAXI - counted == {"ibo", "nde", "peg", "tw-akuapem", "tw-asante"}
    assert LANGUAGES["fra"].clips == (851, 106, 108)
    assert LANGUAGES["lin"].clips == (560, 61, 75)
    assert all(LANGUAGES[code].clips is None for code in set(LANGUAGES) - SPEECHTAXI)
    # The card's totals, from the largest to the smallest corpus
    totals = {code: sum(LANGUAGES[code].clips) for code in counted}
    assert totals["vie"] == max(totals.values()) == 1073
    assert totals["lin"] == min(totals.values()) == 696
    # About 25,300 clips in all: the five missing corpora are as large as the others
    assert min(totals.values()) < (25_300 - sum(totals.values())) / 5 < max(totals.values())
    for language in LANGUAGES.values():
        assert language.hours is None
        assert language.mms_zeroshot is None


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


# --------------------------------------------------------------------------------- by any name


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_code_and_what_systems_call_it_lead_back(code):
    language = LANGUAGES[code]
    names = {code, code.upper(), language.name, language.name.upper()}
    names |= {language.whisper, language.espeak, code.replace("tw-", "tw-GH-") + "-x-private"}
    if not code.startswith("tw-"):  # MMS hears both as "aka"
        names |= {language.mms, f"{code}_{language.script}"}
    assert {find(name) for name in names if name} == {code}


def test_whispers_names_and_tags():
    """A second list of names, with Whisper's own other names."""
    tokenizer = pytest.importorskip("whisper.tokenizer")
    for name, tag in tokenizer.TO_LANGUAGE_CODE.items():
        assert [whisper_code(find(form)) for form in (name, name.title(), tag)] == [tag] * 3


def test_nllbs_codes():
    nllb = pytest.importorskip("transformers.models.nllb.tokenization_nllb")
    codes = set(nllb.FAIRSEQ_LANGUAGE_CODES) - {"ajp_Arab"}  # withdrawn: one with apc by now
    assert len(codes) > 200
    assert {code for code in codes if find(code) != code[:3]} == set()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pt-BR", "por"),
        ("en_US", "eng"),
        ("cmn_hans_cn", "cmn"),  # FLEURS
        ("azj-script_latin", "azj"),  # MMS
        ("ger", "deu"),  # 639-2/B
        ("fre", "fra"),
        ("iw", "heb"),  # withdrawn
        ("sw", "swh"),
        ("swa", "swh"),
        ("Kiswahili", "swh"),
        ("ku", "kur"),  # not ckb: CLDR's Kurdish is Kurmanji
        ("sorani", "ckb"),
        ("Kurdish, Central", "ckb"),
        ("  Yorùbá ", "yor"),
        ("Dholuo", "luo"),
        ("luo", "luo"),  # of Kenya, though Cameroon has one too
        ("Panjabi", "pan"),
        ("Twi (Asante)", "tw-asante"),
        ("twi-akuapem", "tw-akuapem"),
        ("tw_asante", "tw-asante"),
        ("twi", "twi"),  # which of the two nobody can tell
        ("aka", "aka"),
        ("Ga", "gaa"),
        ("ga", "gle"),
        ("Malay", "msa"),
        ("und", "und"),
    ],
)
def test_names_by_which_people_call_languages(name, code):
    assert find(name) == code
    assert is_code(find(name))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Frensh", "unknown language 'Frensh'; did you mean French [fra]?"),
        ("asante", "unknown language 'asante'; did you mean Asante Twi [tw-asante]?"),
        ("Ndebele", "did you mean Ndebele (Zimbabwe) [nde], South Ndebele [nbl]?"),
        ("ukranian", "did you mean Ukrainian [ukr]"),
        ("xyz", "use a code of ISO 639-3, such as fra, or an English name"),
        ("", "unknown language ''; use a code"),
        ("?!", "use a code"),
        ("no-speech", "use a code"),  # no tag: speech is not Norwegian
        ("Karo", "several languages; use one of Karo (Brazil) [arr], Karo (Ethiopia) [kxh]"),
    ],
)
def test_names_that_are_none_suggest_the_nearest(name, said):
    with pytest.raises(InputError) as caught:
        find(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
