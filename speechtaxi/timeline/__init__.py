"""Topics over time: one summary of a recording, its stories, and files that show them."""

from speechtaxi.timeline.formats import as_audacity, as_rttm, as_webvtt
from speechtaxi.timeline.page import Mark, Marks, as_html
from speechtaxi.timeline.stories import CHANGE, PAUSE, stories, summarize

__all__ = [
    "CHANGE",
    "PAUSE",
    "Mark",
    "Marks",
    "as_audacity",
    "as_html",
    "as_rttm",
    "as_webvtt",
    "stories",
    "summarize",
]
