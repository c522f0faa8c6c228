"""Clips in, transcripts out: whatever the recogniser, nothing is transcribed twice."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from cascade.asr import SpeechRecognizer
from cascade.asr.decoding import LOOPING, compression_ratio
from cascade.asr.pieces import joined, pieces
from speechtaxi import audio
from speechtaxi.batch import buckets
from speechtaxi.errors import InputError
from speechtaxi.languages import is_code
from speechtaxi.store import TranscriptStore, key
from speechtaxi.types import Flag, Transcript, Utterance

Unsupported = Literal["skip", "romanized"] | Mapping[str, str]
"""What becomes of a language that the recogniser does not know: an empty transcript; another
recogniser's, romanised; or that of a related language, named for each."""

Result = TypeVar("Result")


Clips = Mapping[str, Utterance]
"""Clips by their key in the store."""

Heard = tuple[Clips, list[Transcript], list[tuple[Utterance, InputError]]]
"""A batch, what was heard of it, and what could not be read."""


@dataclass(frozen=True)
class Way:
    """Who is asked for a language, and as what."""

    recognizer: SpeechRecognizer
    language: str
    flag: Flag | None = None


class Transcriber:
    """A recogniser with a memory: finds transcripts in the store, and makes those that are missing.

    What the recogniser does not know is never guessed: it is flagged, whatever becomes of it.

    Args:
        batch_seconds: most audio in a batch, padding included.
        batch_size: most clips in a batch.
        unsupported: "skip" leaves the text of an unknown language empty; {"bgc": "hin"} takes
            Haryanvi for Hindi, and skips what is not named; "romanized" asks the fallback.
        fallback: a recogniser that spells uroman.

    Raises:
        InputError: the fallback is absent, unasked for or not romanised, or a code is wrong.
    """

    def __init__(
        self,
        recognizer: SpeechRecognizer,
        store: TranscriptStore,
        *,
        batch_seconds: float = 120.0,
        batch_size: int = 8,
        unsupported: Unsupported = "skip",
        fallback: SpeechRecognizer | None = None,
    ) -> None:
        check_unsupported(unsupported, fallback is not None)
        if fallback is not None and fallback.spells != "uroman":
            raise InputError(
                "the fallback writes native script; name a recogniser that spells uroman, such as "
                "mms-meta/mms-zeroshot-300m"
            )
        self.recognizer, self.store = recognizer, store
        self.batch_seconds, self.batch_size = batch_seconds, batch_size
        self.unsupported, self.fallback = unsupported, fallback

    @property
    def fingerprint(self) -> str:
        """The recogniser's, and what becomes of languages that it does not know."""
        if self.unsupported == "skip":
            return self.recognizer.fingerprint
        other = self.fallback and self.fallback.fingerprint
        policy = other or json.dumps(dict(self.unsupported), sort_keys=True)
        return f"{self.recognizer.fingerprint}; unsupported languages: {policy}"

    @property
    def parameters(self) -> int:
        """The weights of all recognisers that may be asked."""
        return self.recognizer.parameters + (self.fallback.parameters if self.fallback else 0)

    def transcribe(
        self,
        utterances: Sequence[Utterance],
        *,
        on_error: Callable[[Utterance, InputError], None] | None = None,
        progress: Callable[[int], None] | None = None,
        spread: Callable[[Iterable[Clips]], Iterator[Heard]] | None = None,
    ) -> list[Transcript | None]:
        """Return a transcript for each clip, in order; whatever was finished is in the store.

        Args:
            on_error: is told of a clip that cannot be read, whose transcript is then None.
            progress: is told how many more clips are finished (found, transcribed or failed).
            spread: lets others, elsewhere, `hear` the batches; None does it here.

        Raises:
            InputError: a clip cannot be read, and there is no `on_error`.
        """

        def attempt(step: Callable[[Utterance], Result], clip: Utterance) -> Result | None:
            try:
                return step(clip)
            except InputError as error:
                if on_error is None:
                    raise
                on_error(clip, error)
                return None

        digests = [attempt(self._digest, clip) for clip in utterances]
        clips = list(zip(utterances, digests, strict=True))
        own = {clip.language: Way(self.recognizer, clip.language) for clip in utterances}
        keys = [digest and _key(clip, digest, own[clip.language]) for clip, digest in clips]
        done = self.store.get({name for name in keys if name is not None})
        # Only now, as to tell what is supported may take the weights
        new = {
            c.language
            for (c, _), name in zip(clips, keys, strict=True)
            if name and name not in done
        }
        ways: dict[str, Way | None] = own | {language: self._way(language) for language in new}
        for place, (clip, digest) in enumerate(clips):
            way = ways[clip.language]
            if digest is not None and way is not None and way.flag:
                keys[place] = _key(clip, digest, way)
        done |= self.store.get({name for name in keys if name is not None} - done.keys())
        missing = {
            name: clip
            for name, clip in zip(keys, utterances, strict=True)
            if name is not None and name not in done and ways[clip.language] is not None
        }
        seconds = {
            name: length
            for name, clip in missing.items()
            if (length := attempt(_seconds, clip)) is not None
        }
        times = Counter(keys)
        if progress is not None:
            progress(len(keys) - sum(times[name] for name in seconds))
        batches = self._batches(missing, seconds, ways)
        work = ({name: missing[name] for name in names} for names in batches)
        for batch, transcripts, failed in (spread or self._here)(work):
            if transcripts:
                self.store.put(transcripts)
                done |= {transcript.key: transcript for transcript in transcripts}
            for clip, error in failed:
                if on_error is None:
                    raise error
                on_error(clip, error)
            if progress is not None:
                progress(sum(times[name] for name in batch))
        return [
            None if name is None else _told(done.get(name), ways[clip.language], name, clip)
            for name, clip in zip(keys, utterances, strict=True)
        ]

    def hear(self, batch: Clips) -> Heard:
        """Transcribe a batch of `transcribe`, whatever the store holds, and put nothing there."""
        waves: dict[str, np.ndarray] = {}
        failed: list[tuple[Utterance, InputError]] = []
        for name, clip in batch.items():
            try:
                waves[name] = _load(clip)
            except InputError as error:
                failed.append((clip, error))
        way = self._way(next(iter(batch.values())).language)
        assert way is not None
        return batch, self._listen(waves, way) if waves else [], failed

    def _here(self, batches: Iterable[Clips]) -> Iterator[Heard]:
        return map(self.hear, batches)

    def _digest(self, clip: Utterance) -> str:
        if clip.audio is None:
            raise InputError(f"{clip.id} has no audio to transcribe")
        return self.store.digest(clip.audio, audio.digest)

    def _way(self, language: str) -> Way | None:
        """Return who is to be asked for a language; None where nobody knows it."""
        if self.recognizer.supports(language):
            return Way(self.recognizer, language)
        if self.fallback is not None and self.fallback.supports(language):
            return Way(self.fallback, language, "fallback")
        related = {} if isinstance(self.unsupported, str) else self.unsupported
        if language not in related:
            return None
        if not self.recognizer.supports(related[language]):
            raise InputError(
                f"unsupported: {language} is to be transcribed as {related[language]}, which the "
                "recogniser does not know either; name another language"
            )
        return Way(self.recognizer, related[language], "related_language")

    def _batches(
        self,
        clips: dict[str, Utterance],
        seconds: dict[str, float],
        ways: dict[str, Way | None],
    ) -> Iterable[list[str]]:
        """Yield keys of clips in one language and of similar length."""

        def asked(name: str) -> tuple[str, str, bool]:
            way = ways[clips[name].language]
            assert way is not None
            return way.flag or "", way.language, way.recognizer is self.fallback

        order = sorted(seconds, key=lambda name: (asked(name), seconds[name], name))
        for _, group in itertools.groupby(order, key=asked):
            names = list(group)
            lengths = [seconds[name] for name in names]
            for batch in buckets(lengths, range(len(names)), self.batch_seconds, self.batch_size):
                yield [names[number] for number in batch]

    def _listen(self, waves: dict[str, np.ndarray], way: Way) -> list[Transcript]:
        started = time.perf_counter()
        results = self._recognize(list(waves.values()), way)
        seconds = (time.perf_counter() - started) / len(waves)
        transcripts: list[Transcript] = []
        for (name, wave), result in zip(waves.items(), results, strict=True):
            ratio = compression_ratio(result.text)
            found: dict[Flag, bool] = {
                "empty": not result.text.strip(),
                "looping": ratio > LOOPING,
                "silent": audio.is_silent(wave),
            }
            raised = (flag for flag, is_so in found.items() if is_so)
            transcripts.append(
                replace(
                    result,
                    key=name,
                    language=way.language,
                    compression_ratio=ratio,
                    flags=tuple(dict.fromkeys((*raised, *result.flags))),
                    seconds=seconds,
                )
            )
        return transcripts

    def _recognize(self, waves: list[np.ndarray], way: Way) -> list[Transcript]:
        recognizer, language, seconds = way.recognizer, way.language, way.recognizer.longest
        if seconds is None or max(map(len, waves)) <= seconds * audio.SAMPLE_RATE:
            return recognizer.transcribe(waves, language)
        size = max(1, min(self.batch_size, int(self.batch_seconds / seconds)))
        results: list[Transcript] = []
        for wave in waves:
            parts = list(pieces(wave, round(seconds * audio.SAMPLE_RATE)))
            blocks = (parts[n : n + size] for n in range(0, len(parts), size))
            read = [t for block in blocks for t in recognizer.transcribe(block, language)]
            results.append(joined(read))
        return results


def check_unsupported(unsupported: Unsupported, fallback: bool) -> None:
    """Check what is to become of languages that a recogniser does not know.

    Raises:
        InputError: there is no such policy, or a fallback is absent or has nothing to do.
    """
    if isinstance(unsupported, Mapping):
        if wrong := [code for pair in unsupported.items() for code in pair if not is_code(code)]:
            raise InputError(f"unsupported: {wrong[0]} is no ISO 639-3 code such as bgc or hin")
    elif unsupported not in ("skip", "romanized"):
        raise InputError(
            f"unsupported: '{unsupported}' is neither skip nor romanized; a related language is "
            "named as {bgc: hin}"
        )
    if fallback != (unsupported == "romanized"):
        raise InputError(
            "a fallback recogniser is for unsupported languages alone; give unsupported: romanized"
            if fallback
            else "unsupported: romanized needs a recogniser that spells uroman; name it in fallback"
        )


def _key(clip: Utterance, digest: str, way: Way) -> str:
    return key(digest, clip.start, clip.duration, way.recognizer.fingerprint, way.language)


def _told(found: Transcript | None, way: Way | None, name: str, clip: Utterance):
    """Return what is told of a clip: its transcript, and that its language is not known."""
    if way is None:
        flags: tuple[Flag, ...] = ("unsupported_language",)
        return found or Transcript(name, "", language=clip.language, flags=flags)
    if found is None or way.flag is None:
        return found
    return replace(found, flags=(*found.flags, way.flag))


def _seconds(clip: Utterance) -> float:
    assert clip.audio is not None
    return clip.duration or max(audio.probe(clip.audio).seconds - clip.start, 0.0)


def _load(clip: Utterance) -> np.ndarray:
    assert clip.audio is not None
    return audio.load(clip.audio, clip.start, clip.duration)
