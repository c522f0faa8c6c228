"""What of a run is done, what failed and why: each recording that was found is one or the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from speechtaxi import audio
from speechtaxi.errors import InputError
from speechtaxi.results import Results
from speechtaxi.types import Answer, Utterance


class Ledger:
    """Counts what is done, and keeps it in the results, where there are any.

    Args:
        sink: where rows go; None for a table.
        begins: tell the results what is in hand, so that they know what a process died of.
    """

    def __init__(self, sink: Results | None, begins: bool) -> None:
        self.sink, self.begins = sink, begins
        self.done = 0
        self.lost: list[tuple[Utterance, str]] = []
        self._keys: dict[str, str] = {}

    def fail(self, recording: Utterance, why: str) -> None:
        """Note that a recording has no answers."""
        self.lost.append((recording, why))
        if self.sink:
            key = self._keys.pop(recording.id, "")
            self.sink.fail(key, recording.id, recording.audio or "", why)

    def keep(self, recording: Utterance, answers: Sequence[Answer]) -> None:
        """Note the answers to a recording."""
        self.done += 1
        if self.sink:
            self.sink.write(self._keys.pop(recording.id), answers)

    def undone(self, recordings: Iterable[Utterance]) -> Iterator[Iterable[Utterance]]:
        """Yield runs of what is to be done: what was in hand when a process died stands alone."""

        def suspect(recording: Utterance) -> str:
            return recording.id if self.sink and self.sink.suspect(recording.id) else ""

        for _, run in groupby(recordings, suspect):
            yield filter(self._is_undone, run)

    def _is_undone(self, recording: Utterance) -> bool:
        if self.sink is None:
            return True
        try:
            key = audio.digest(recording.audio or "", recording.start, recording.duration)
            if self.sink.skip(key, recording.id):
                self.done += 1
                return False
            self._keys[recording.id] = key
            if self.begins:
                self.sink.begin(key, recording.id)
        except InputError as error:
            self.fail(recording, str(error))
            return False
        return True
