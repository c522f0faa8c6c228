"""Timelines for other programs: Audacity's labels, RTTM, and WebVTT."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

import langcodes

from speechtaxi.languages import UNKNOWN
from speechtaxi.types import Answer


def as_audacity(answers: Iterable[Answer]) -> str:
    r"""Return a label track: start and end in seconds, and the topic with its probability.

    In the standard form of Audacity's manual ("Importing and Exporting Labels"): UTF-8, columns
    parted by tabs. What is no speech has no label.

    Args:
        answers: of one recording, as a label track names none.
    """
    return "".join(
        f"{a.span.start:.6f}\t{a.span.end:.6f}\t{line(a.topic)} {a.probability:.2f}\n"
        for a in speech(answers)
    )


def as_rttm(answers: Iterable[Answer]) -> str:
    """Return Rich Transcription Time Marked lines, for tools that score or draw who speaks when.

    Appendix A of NIST's RT-09 evaluation plan: type SPEAKER, file, channel 1, start and duration in
    seconds, orthography <NA>, speaker type <NA>, the topic in place of the speaker's name, its
    probability as confidence, lookahead <NA>. Fields are parted by blanks, so that blanks (and %)
    in an id or a topic are written as in a URL. What is no speech has no line, as there.
    """
    rows: list[str] = []
    for a in speech(answers):
        start = round(a.span.start, 3)
        duration = max(a.span.end - start, 0.001)  # scorers refuse 0
        rows.append(
            f"SPEAKER {_word(a.id)} 1 {start:.3f} {duration:.3f} "
            f"<NA> <NA> {_word(a.topic)} {a.probability:.4f} <NA>\n"
        )
    return "".join(rows)


def as_webvtt(answers: Iterable[Answer]) -> str:
    """Return subtitles: the topic with its probability, the transcript, and it in Latin letters.

    W3C's WebVTT, with the language of each line (BCP 47). What is no speech has no cue.

    Args:
        answers: of one recording; segments read better than stories, whose text is long.
    """
    cues = ["WEBVTT\n"]
    for number, a in enumerate(speech(answers), 1):
        start = round(1000 * a.span.start)
        end = max(round(1000 * a.span.end), start + 1)  # no cue may end as it begins
        lines = [_escaped(f"{a.topic} ({a.probability:.2f})")]
        for text, romanized in ((a.text, False), (a.romanized, True)):
            if text and line(text) and (not romanized or text != a.text):
                lines.append(f"<lang {tag(a.language, romanized)}>{_escaped(text)}</lang>")
        timing = f"{_clock(start)} --> {_clock(end)}"
        cues.append("\n".join([str(number), timing, *lines, ""]))
    return "\n".join(cues)


def speech(answers: Iterable[Answer]) -> list[Answer]:
    """Return the segments with speech in order of time, and recordings that were not cut."""
    spoken = [answer for answer in answers if answer.probability is not None]
    cut = {answer.id for answer in spoken if answer.kind == "segment"}
    told = [answer for answer in spoken if answer.kind == "segment" or answer.id not in cut]
    places = {id: n for n, id in enumerate(dict.fromkeys(answer.id for answer in told))}
    return sorted(told, key=lambda answer: (places[answer.id], answer.span.start))


def line(text: str) -> str:
    """Return text on one line: no controls, and nothing that UTF-8 cannot write."""
    known = re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text).strip()
    return known.encode("utf-8", "replace").decode()


def tag(language: str, romanized: bool = False) -> str:
    """Return the language as BCP 47 names it, with the script where it was romanised.

    >>> tag("hin"), tag("hin", romanized=True), tag("tw-asante", romanized=True), tag("x y")
    ('hi', 'hi-Latn', 'tw-Latn-asante', 'und')
    """
    known = langcodes.Language.get(language if langcodes.tag_is_valid(language) else UNKNOWN)
    if romanized:
        known = langcodes.Language.make(known.language, script="Latn", variants=known.variants)
    return known.to_tag()


def _word(text: str) -> str:
    known = text.encode("utf-8", "replace").decode()
    return re.sub(r"[\s%\x00-\x20\x7f-\x9f]", lambda found: quote(found[0]), known)


def _escaped(text: str) -> str:
    return line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"
