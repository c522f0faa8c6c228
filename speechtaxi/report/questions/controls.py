"""The section that tells whether the comparison is fair: leaks, blind baselines, skipped clips."""

from __future__ import annotations

from collections.abc import Sequence

from speechtaxi.report.comparison import Comparison
from speechtaxi.report.questions.blind import baselines
from speechtaxi.report.questions.coverage import coverage
from speechtaxi.report.questions.leakage import leakage
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Section, Table
from speechtaxi.report.sources import compared_clips
from speechtaxi.types import Utterance


def controls(
    found: Comparison, utterances: Sequence[Utterance] = (), given: Sequence[Run] = ()
) -> Section:
    """Tell what could make the comparison unfair, as far as predictions and manifests show it.

    Args:
        utterances: what the manifests behind the runs hold (`read_sources`).
        given: the runs as they were read, before they were brought to the same clips; without them
            a clip that only some runs have goes unseen.
    """
    compared = compared_clips(found, utterances)
    words: list[str] = []
    tables: list[Table] = []
    for told, shown in (
        leakage(found, compared, utterances),
        baselines(found, compared, utterances),
        coverage(found, given or found.runs),
    ):
        words += told
        tables += shown
    return Section("controls", "Controls", words, tables=tables)
