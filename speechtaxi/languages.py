"""Languages: the 28 of SpeechTaxi, and what recognisers and synthesisers call them.

Sources: SpeechTaxi (arXiv 2409.06372) for codes; the language lists of openai-whisper 20250625,
MMS-1b-all (arXiv 2305.13516) and eSpeak NG 1.52 for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import langcodes

UNKNOWN = "und"
"""ISO 639-3 for "not determined"."""


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
    in_speechtaxi: bool = True


_ROWS: tuple[tuple[str, str, str, str | None, str | None, str | None], ...] = (
    ("asm", "Assamese", "Beng", "as", "asm", "as"),
    ("bgc", "Haryanvi", "Deva", None, "bgc", None),
    ("bht", "Bhattiyali", "Deva", None, "bht", None),
    ("ckb", "Central Kurdish", "Arab", None, "ckb", None),
    ("eng", "English", "Latn", "en", "eng", "en-us"),
    ("ewe", "Ewe", "Latn", None, "ewe", None),
    ("fra", "French", "Latn", "fr", "fra", "fr"),
    ("guj", "Gujarati", "Gujr", "gu", "guj", "gu"),
    ("ibo", "Igbo", "Latn", None, "ibo", None),
    ("kan", "Kannada", "Knda", "kn", "kan", "kn"),
    ("lin", "Lingala", "Latn", "ln", "lin", None),
    ("luo", "Luo", "Latn", None, "luo", None),
    ("mal", "Malayalam", "Mlym", "ml", "mal", "ml"),
    ("mar", "Marathi", "Deva", "mr", "mar", "mr"),
    ("nag", "Naga Pidgin", "Latn", None, "nag", None),
    ("nde", "Ndebele (Zimbabwe)", "Latn", None, None, None),
    ("nlx", "Nahali", "Deva", None, None, None),
    ("pan", "Punjabi", "Guru", "pa", "pan", "pa"),
    ("peg", "Pengo", "Orya", None, "peg", None),
    ("rus", "Russian", "Cyrl", "ru", "rus", "ru"),
    ("tam", "Tamil", "Taml", "ta", "tam", "ta"),
    ("tel", "Telugu", "Telu", "te", "tel", "te"),
    ("tw-akuapem", "Akuapem Twi", "Latn", None, "aka", None),
    ("tw-asante", "Asante Twi", "Latn", None, "aka", None),
    ("ukr", "Ukrainian", "Cyrl", "uk", "ukr", "uk"),
    ("urd", "Urdu", "Arab", "ur", "urd-script_arabic", "ur"),
    ("vie", "Vietnamese", "Latn", "vi", "vie", "vi"),
    ("yor", "Yoruba", "Latn", "yo", "yor", None),
    # Beyond SpeechTaxi: languages of Taxi1500 tables with a synthesised voice
    ("ben", "Bengali", "Beng", "bn", "ben", "bn"),
    ("deu", "German", "Latn", "de", "deu", "de"),
    ("hau", "Hausa", "Latn", "ha", "hau", None),
    ("hin", "Hindi", "Deva", "hi", "hin", "hi"),
    ("spa", "Spanish", "Latn", "es", "spa", "es"),
    ("swh", "Swahili", "Latn", "sw", "swh", "sw"),
)
LANGUAGES = {row[0]: Language(*row, in_speechtaxi=place < 28) for place, row in enumerate(_ROWS)}


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
    return langcodes.standardize_tag(code, macro=True)


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
