"""Languages: the 28 of SpeechTaxi, and what recognisers and synthesisers call them.

Sources: SpeechTaxi (arXiv 2409.06372) for codes; the language lists of openai-whisper 20250625,
MMS-1b-all (arXiv 2305.13516) and eSpeak NG 1.52 for what systems call them; Glottolog
v4.0-26-gb2138530b3 (Hammarström, Forkel & Haspelmath, doi.org/10.5281/zenodo.596479, CC BY 4.0) for
families (shortened) and places (rounded to hundredths of a degree).

Phonological distances are left out: URIEL's tables (lang2vec 1.1.2) know no sound inventory of
Haryanvi, Bhattiyali, Central Kurdish and Nahali, and are under a share-alike licence.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt

import langcodes

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
LANGUAGES = {row[0]: Language(*row, in_speechtaxi=place < 28) for place, row in enumerate(_ROWS)}

_WHISPERS_OWN = {"fil": "tl", "jv": "jw"}
"""Tags that are outdated, and still Whisper's: of Tagalog and of Javanese."""

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


def espeak_voice(code: str) -> str | None:
    """Return eSpeak NG's voice; a language outside the table is tried by its shortest tag.

    >>> espeak_voice("tam"), espeak_voice("ewe"), espeak_voice("ita")
    ('ta', None, 'it')
    """
    if code in LANGUAGES:
        return LANGUAGES[code].espeak
    return None if code == UNKNOWN else langcodes.standardize_tag(code)
