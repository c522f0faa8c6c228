"""Languages: the 28 of SpeechTaxi, who knows them, and what people and systems call them.

Sources, by column:
- codes and clips: SpeechTaxi (arXiv 2409.06372) and the card of its data set on the hub. Hours are
  published as a sum only (80 h), as are the 1,078 languages that MMS-ZeroShot was trained in
  (arXiv 2407.17852: a number, no list that we could find), hence None;
- scripts: the usual ones; those of Bhattiyali, Naga Pidgin, Nahali and Pengo are assumed until they
  are read off the data;
- whisper: the list of openai-whisper 20250625; mms: the adapters of MMS-1b-all (arXiv 2305.13516);
  espeak: the voices of eSpeak NG 1.52;
- xlmr: the 100 languages in the README of fairseq's examples/xlmr (arXiv 1911.02116; its Kurdish is
  Kurmanji);
- furina: the languages of Glot500 (arXiv 2305.12182), of which Furina (arXiv 2401.06620) saw a
  twentieth: miscellaneous/languages_stats.csv in cisnlp/Glot500, from 30,000 sentences on;
- families (shortened) and places (rounded to hundredths of a degree): Glottolog v4.0-26-gb2138530b3
  (Hammarström, Forkel & Haspelmath, doi.org/10.5281/zenodo.596479, CC BY 4.0);
- Seamless: docs/m4t/README.md in facebookresearch/seamless_communication, the languages of speech
  that large (v1 and v2) takes in;
- names of all other languages: the IANA registry of language subtags (BCP 47) within langcodes.

Phonological distances are left out: URIEL's tables (lang2vec 1.1.2) know no sound inventory of
Haryanvi, Bhattiyali, Central Kurdish and Nahali, and are under a share-alike licence.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from math import asin, cos, radians, sin, sqrt
from typing import Any, cast

import langcodes

from speechtaxi.errors import InputError

UNKNOWN = "und"
"""ISO 639-3 for "not determined"."""

EARTH_RADIUS = 6371.0
"""Mean, in km."""


@dataclass(frozen=True, slots=True)
class Language:
    """One language and its names in other systems; None where the system does not know it."""

    code: str
    """ISO 639-3, or the corpus code of a variety."""
    name: str
    script: str
    """ISO 15924."""
    whisper: str | None
    mms: str | None
    espeak: str | None
    family: str
    """The top family, and a branch of the two large ones: "Indo-European: Germanic". Naga Pidgin is
    a creole that took its words from Assamese; it stands with them, as in Glottolog."""
    latitude: float
    longitude: float
    """In degrees, north and east: one point for a language, however far it is spoken; both Twi
    varieties have that of Akan."""
    in_speechtaxi: bool = True
    xlmr: bool = False
    furina: bool = False
    """Text of Glot500, and so of Furina; both Twi varieties stand there as one."""
    mms_zeroshot: bool | None = None
    """Whether it was trained on; None: not published. It writes romanised text of any language."""
    clips: tuple[int, int, int] | None = None
    """Train, dev and test clips in SpeechTaxi; None: not published."""
    hours: float | None = None
    """Of speech in SpeechTaxi; None: not published."""


_INDO_ARYAN = "Indo-European: Indo-Aryan"
_BENUE_CONGO = "Atlantic-Congo: Benue-Congo"
_KWA = "Atlantic-Congo: Kwa"
_ROWS: tuple[tuple[str, str, str, str | None, str | None, str | None, str, float, float], ...] = (
    ("asm", "Assamese", "Beng", "as", "asm", "as", _INDO_ARYAN, 26.09, 91.29),
    ("bgc", "Haryanvi", "Deva", None, "bgc", None, _INDO_ARYAN, 29.02, 76.04),
    ("bht", "Bhattiyali", "Deva", None, "bht", None, _INDO_ARYAN, 32.40, 76.03),
    ("ckb", "Central Kurdish", "Arab", None, "ckb", None, "Indo-European: Iranian", 35.65, 45.81),
    ("eng", "English", "Latn", "en", "eng", "en-us", "Indo-European: Germanic", 53.00, -1.00),
    ("ewe", "Ewe", "Latn", None, "ewe", None, _KWA, 6.46, 0.81),
    ("fra", "French", "Latn", "fr", "fra", "fr", "Indo-European: Italic", 48.00, 2.00),
    ("guj", "Gujarati", "Gujr", "gu", "guj", "gu", _INDO_ARYAN, 22.69, 71.10),
    ("ibo", "Igbo", "Latn", None, "ibo", None, _BENUE_CONGO, 4.63, 7.23),
    ("kan", "Kannada", "Knda", "kn", "kan", "kn", "Dravidian", 13.59, 76.12),
    ("lin", "Lingala", "Latn", "ln", "lin", None, _BENUE_CONGO, 1.40, 19.78),
    ("luo", "Luo", "Latn", None, "luo", None, "Nilotic", -0.93, 34.49),
    ("mal", "Malayalam", "Mlym", "ml", "mal", "ml", "Dravidian", 9.59, 76.77),
    ("mar", "Marathi", "Deva", "mr", "mar", "mr", _INDO_ARYAN, 17.93, 76.67),
    ("nag", "Naga Pidgin", "Latn", None, "nag", None, _INDO_ARYAN, 25.25, 93.44),
    ("nde", "Ndebele (Zimbabwe)", "Latn", None, None, None, _BENUE_CONGO, -20.25, 27.41),
    ("nlx", "Nahali", "Deva", None, None, None, _INDO_ARYAN, 21.43, 74.83),
    ("pan", "Punjabi", "Guru", "pa", "pan", "pa", _INDO_ARYAN, 30.04, 75.67),
    ("peg", "Pengo", "Orya", None, "peg", None, "Dravidian", 19.34, 83.66),
    ("rus", "Russian", "Cyrl", "ru", "rus", "ru", "Indo-European: Slavic", 59.00, 50.00),
    ("tam", "Tamil", "Taml", "ta", "tam", "ta", "Dravidian", 10.52, 78.83),
    ("tel", "Telugu", "Telu", "te", "tel", "te", "Dravidian", 16.45, 78.70),
    ("tw-akuapem", "Akuapem Twi", "Latn", None, "aka", None, _KWA, 6.35, -1.33),
    ("tw-asante", "Asante Twi", "Latn", None, "aka", None, _KWA, 6.35, -1.33),
    ("ukr", "Ukrainian", "Cyrl", "uk", "ukr", "uk", "Indo-European: Slavic", 48.18, 24.40),
    ("urd", "Urdu", "Arab", "ur", "urd-script_arabic", "ur", _INDO_ARYAN, 25.00, 67.00),
    ("vie", "Vietnamese", "Latn", "vi", "vie", "vi", "Austroasiatic", 20.68, 105.77),
    ("yor", "Yoruba", "Latn", "yo", "yor", None, _BENUE_CONGO, 7.15, 3.67),
    # Beyond SpeechTaxi: languages of Taxi1500 tables with a synthesised voice
    ("ben", "Bengali", "Beng", "bn", "ben", "bn", _INDO_ARYAN, 24.00, 90.00),
    ("deu", "German", "Latn", "de", "deu", "de", "Indo-European: Germanic", 48.65, 12.47),
    ("hau", "Hausa", "Latn", "ha", "hau", None, "Afro-Asiatic", 11.15, 8.78),
    ("hin", "Hindi", "Deva", "hi", "hin", "hi", _INDO_ARYAN, 25.00, 77.00),
    ("spa", "Spanish", "Latn", "es", "spa", "es", "Indo-European: Italic", 40.44, -1.12),
    ("swh", "Swahili", "Latn", "sw", "swh", "sw", _BENUE_CONGO, -8.26, 37.62),
)
_XLMR = "asm ben deu eng fra guj hau hin kan mal mar pan rus spa swh tam tel ukr urd vie"
_NOT_IN_GLOT500 = "bgc bht nag nlx peg"
_CLIPS = """
asm 732/88/98    bgc 729/87/100   bht 726/88/98    ckb 723/82/93    eng 569/74/81    ewe 724/86/98
fra 851/106/108  guj 740/89/100   kan 740/89/100   lin 560/61/75    luo 738/88/100   mal 724/89/100
mar 733/87/99    nag 739/89/100   nlx 672/85/92    pan 739/88/100   rus 822/102/107  tam 733/89/100
tel 722/85/96    ukr 751/89/97    urd 674/80/95    vie 856/106/111  yor 739/88/100
"""
"""Train, dev and test."""


def _languages() -> Iterator[Language]:
    counts = re.findall(r"(\S+) (\d+)/(\d+)/(\d+)", _CLIPS)
    clips = {code: (int(train), int(dev), int(test)) for code, train, dev, test in counts}
    for place, row in enumerate(_ROWS):
        yield Language(
            *row,
            in_speechtaxi=place < 28,
            xlmr=row[0] in _XLMR.split(),
            furina=row[0] not in _NOT_IN_GLOT500.split(),
            clips=clips.get(row[0]),
        )


LANGUAGES = {language.code: language for language in _languages()}

_WHISPERS_OWN = {"fil": "tl", "jv": "jw", "nb": "no"}
"""Tags that are outdated, and still Whisper's: of Tagalog and of Javanese. Bokmål is Norwegian."""

_FROM_WHISPER = {row.whisper: code for code, row in LANGUAGES.items() if row.whisper is not None}


def is_code(code: str) -> bool:
    """Tell whether `code` is in the table, is ISO 639-3 in form, or is "und".

    >>> is_code("tw-asante"), is_code("deu"), is_code("German")
    (True, True, False)
    """
    return code in LANGUAGES or (len(code) == 3 and code.isascii() and code.islower())


def name_of(code: str) -> str:
    """Return the English name where the table has one, else the code.

    >>> name_of("lin"), name_of("xyz")
    ('Lingala', 'xyz')
    """
    return LANGUAGES[code].name if code in LANGUAGES else code


def distance(one: str, other: str) -> float | None:
    """Return the great-circle distance in km; None where the table lacks either language.

    >>> round(distance("eng", "fra")), distance("eng", "xyz")
    (595, None)
    """
    if one not in LANGUAGES or other not in LANGUAGES:
        return None
    here, there = LANGUAGES[one], LANGUAGES[other]
    north, south = radians(here.latitude), radians(there.latitude)
    east = radians(there.longitude - here.longitude)
    haversine = sin((south - north) / 2) ** 2 + cos(north) * cos(south) * sin(east / 2) ** 2
    return 2 * EARTH_RADIUS * asin(sqrt(haversine))


def whisper_code(code: str) -> str | None:
    """Return Whisper's language tag (ISO 639-1, or 639-3 where 639-1 has none).

    A language outside the table is mapped through its macrolanguage, as CLDR does; whether a given
    checkpoint knows the tag is for its recogniser to say. None: not in Whisper, or not determined.

    >>> whisper_code("urd"), whisper_code("bgc"), whisper_code("ekk")
    ('ur', None, 'et')
    """
    if code in LANGUAGES:
        return LANGUAGES[code].whisper
    if code == UNKNOWN:
        return None
    tag = langcodes.standardize_tag(code, macro=True)
    return _WHISPERS_OWN.get(tag, tag)


def from_whisper(tag: str) -> str:
    """Return ISO 639-3 of Whisper's language tag; a macrolanguage's code where it tells no more.

    >>> from_whisper("ur"), from_whisper("sw"), from_whisper("et")
    ('urd', 'swh', 'est')
    """
    if tag in _FROM_WHISPER:
        return _FROM_WHISPER[tag]
    return langcodes.Language.get(tag, normalize=False).to_alpha3()


def mms_code(code: str) -> str | None:
    """Return the name of MMS-1b-all's adapter; a language outside the table goes by its own code.

    >>> mms_code("urd"), mms_code("nde"), mms_code("kin")
    ('urd-script_arabic', None, 'kin')
    """
    if code in LANGUAGES:
        return LANGUAGES[code].mms
    return None if code == UNKNOWN else code


_SEAMLESS = """
afr amh arb ary arz asm ast azj bel ben bos bul cat ceb ces ckb cmn cym dan deu ell eng est eus fin
fra fuv gaz gle glg guj heb hin hrv hun hye ibo ind isl ita jav jpn kam kan kat kaz kea khk khm kir
kor lao lit ltz lug luo lvs mai mal mar mkd mlt mni mya nld nno nob npi nya oci ory pan pbt pes pol
por ron rus slk slv sna snd som spa srp swe swh tam tel tgk tgl tha tur ukr urd uzn vie xho yor yue
zlm zul
"""
"""Languages of speech that Seamless M4T large knows."""

_SEAMLESS_FOR = """
ara arb, aze azj, ekk est, fas pes, fil tgl, ful fuv, lav lvs, mon khk, msa zlm, nep npi, nor nob,
ori ory, orm gaz, pus pbt, swa swh, uzb uzn, zho cmn, zsm zlm
"""
"""A macrolanguage, or another of its languages, and the one that stands for it there."""


def seamless_code(code: str) -> str | None:
    """Return Seamless M4T's code of a spoken language; None where it does not know it.

    >>> seamless_code("urd"), seamless_code("ekk"), seamless_code("tw-asante")
    ('urd', 'est', None)
    """
    stand_ins: dict[str, str] = dict(re.findall(r"(\w+) (\w+)", _SEAMLESS_FOR))
    code = stand_ins.get(code, code)
    return code if code in _SEAMLESS.split() else None


def espeak_voice(code: str) -> str | None:
    """Return eSpeak NG's voice; a language outside the table is tried by its shortest tag.

    >>> espeak_voice("tam"), espeak_voice("ewe"), espeak_voice("ita")
    ('ta', None, 'it')
    """
    if code in LANGUAGES:
        return LANGUAGES[code].espeak
    return None if code == UNKNOWN else langcodes.standardize_tag(code)


# ------------------------------------------------------------------------------------- by any name

_ALSO = "fas Farsi, ell Greek, kmr Kurmanji, cmn Mandarin, mya Myanmar, nno Nynorsk, ckb Sorani"
"""Common names that the registry lacks."""


def find(name: str) -> str:
    """Return our code of a language, by whatever it is commonly called.

    Known are our codes, ISO 639-1, 639-2 (both kinds) and 639-3, English names in any order of
    words, and tags that begin with a code: of BCP 47, NLLB, FLEURS, MMS and eSpeak NG. A capital
    first letter makes a name of what is a code too: "Ga" is Ga, "ga" is Irish. A macrolanguage
    stands for the language of the table that CLDR takes for it: "sw" is "swh".

    Raises:
        InputError: no language is called so, or several are.

    >>> find("French"), find("pt-BR"), find("tam_Taml"), find("Twi (Asante)"), find("und")
    ('fra', 'por', 'tam', 'tw-asante', 'und')
    """
    text = name.strip()
    tag = text.lower().replace("_", "-").partition("-script-")[0]
    first, *rest = tag.split("-")
    codes, names = _codes(), _names()
    called = names.get(_key(text), ())
    if text.istitle() and len(called) == 1:
        return next(iter(called))
    if tag in LANGUAGES:
        return tag
    if first in codes and (not rest or langcodes.tag_is_valid(tag)):
        varieties = {f"{langcodes.standardize_tag(first)}-{part}" for part in rest}
        return next(iter(varieties & LANGUAGES.keys()), codes[first])
    if len(called) == 1:
        return next(iter(called))
    if called:
        raise InputError(
            f"'{name}' is the name of several languages; use one of {_named(sorted(called))}"
        )
    raise InputError(f"unknown language '{name}'; {_advice(_key(text))}")


def _key(name: str) -> str:
    """Return the words without accents, in one order: "Kurdish, Central" is Central Kurdish."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return " ".join(sorted(re.findall(r"\w+", plain.casefold())))


@cache
def _registry() -> dict[str, Mapping[str, Any]]:
    """Return subtag -> what IANA's registry of language subtags says of a language."""
    from langcodes.registry_parser import parse_registry  # 0.1 s

    beyond = ("special", "private-use", "collection")
    records = cast("Iterator[Mapping[str, Any]]", parse_registry())
    return {
        record["Subtag"]: record
        for record in records
        if record["Type"] == "language"
        and (record["Subtag"] == UNKNOWN or record.get("Scope") not in beyond)
    }


@cache
def _codes() -> dict[str, str]:
    """Return every ISO 639 code -> ours."""
    codes: dict[str, str] = {}
    for subtag, record in _registry().items():
        code = current = record.get("Preferred-Value", subtag)
        if len(current) == 2:
            language = langcodes.Language.make(language=current)
            code = language.to_alpha3()
            codes[language.to_alpha3(variant="B")] = code
        codes[subtag] = codes[code] = code
    for ours in LANGUAGES.keys() & codes.keys():
        codes[codes[langcodes.standardize_tag(ours, macro=True)]] = ours
    return {name: codes[code] for name, code in codes.items()}


@cache
def _names() -> dict[str, set[str]]:
    """Return the key of a name -> codes; the table's names go before the registry's.

    There full names go before those without their brackets, "Greek (to 1453)", and languages of
    ISO 639-1 before others.
    """
    codes = _codes()
    ranks: list[defaultdict[str, set[str]]] = [defaultdict(set) for _ in range(5)]
    also: list[tuple[str, str]] = re.findall(r"(\w+) (\w+)", _ALSO)
    for code, name in [(code, name_of(code)) for code in LANGUAGES] + also:
        ranks[0][_key(name)].add(code)
    for subtag, record in _registry().items():
        if "Deprecated" in record:
            continue
        for name in record["Description"]:
            bare = re.sub(r"\(.*?\)", "", name)
            rank = 1 + (len(subtag) > 2)
            ranks[rank][_key(name)].add(codes[subtag])
            ranks[rank + 2][_key(bare)].add(codes[subtag])
    names: dict[str, set[str]] = {}
    for rank in reversed(ranks):
        names |= rank
    return names


def _named(codes: Iterable[str]) -> str:
    def name(code: str) -> str:
        if code in LANGUAGES:
            return LANGUAGES[code].name
        return next(
            record["Description"][0]
            for subtag, record in _registry().items()
            if _codes()[subtag] == code and "Deprecated" not in record
        )

    return ", ".join(f"{name(code)} [{code}]" for code in dict.fromkeys(codes))


def _advice(key: str) -> str:
    """Tell what may have been meant: names that hold all the words, or nearly the same name."""
    names, words = _names(), set(key.split())
    near = [other for other in names if words and words <= set(other.split())]
    near = sorted(near, key=len)[:4] or get_close_matches(key, names, 3, 0.75)
    if near:
        return f"did you mean {_named(code for other in near for code in sorted(names[other]))}?"
    return "use a code of ISO 639-3, such as fra, or an English name, such as French"
