"""Clips in, transcripts out: whatever the recogniser, nothing is transcribed twice."""

from __future__ import annotations

import hashlib
import itertools
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from speechtaxi import audio, checkpoint
from speechtaxi.batch import LONGEST, buckets
from speechtaxi.errors import InputError
from speechtaxi.store import TranscriptStore, key
from speechtaxi.types import Flag, Transcript, Utterance

LOOPING = 2.4
"""Texts that compress better repeat themselves (Whisper's threshold, arXiv 2212.04356, 4.5)."""

DECODING = "greedy-1"
"""Part of every fingerprint; to be raised when a change here changes what is written."""

Result = TypeVar("Result")


class SpeechRecognizer(Protocol):
    """What every recogniser can do; it loads its weights when they are first needed."""

    fingerprint: str
    """Model, weights, task and decoding options: two that are equal write the same."""

    longest: float | None
    """Seconds that it hears at once: longer clips are cut for it; None where it does so itself."""

    @property
    def spells(self) -> Literal["native", "uroman"]:
        """Whether it writes native script, or the Latin letters of uroman for every language."""
        ...

    @property
    def parameters(self) -> int:
        """The number of its weights."""
        ...

    def supports(self, language: str) -> bool:
        """Tell whether it can be asked for a language (ISO 639-3 or "und")."""
        ...

    def transcribe(self, waveforms: list[np.ndarray], language: str) -> list[Transcript]:
        """Write what is said in float32 waveforms (samples,) at 16 kHz, all in one language.

        Key, language, compression ratio, seconds and flags other than "truncated" are left out.
        The language heard, and its probability, are told of "und" alone, by those that can tell.
        """
        ...


class TrainedRecognizer:
    """A `cascade.Recognizer` that was fitted here: it needs no language, and tries any."""

    longest = LONGEST

    def __init__(
        self, folder: str, device: str, fingerprint: str, allow_remote_code: tuple[str, ...]
    ) -> None:
        self.folder, self.device, self.fingerprint = folder, device, fingerprint
        self.allow_remote_code = allow_remote_code

    @cached_property
    def _model(self):
        model = checkpoint.load(self.folder, allow_remote_code=self.allow_remote_code)
        if not hasattr(model, "recognize"):
            raise InputError(f"{self.folder} is a {type(model).__name__}, not a recogniser")
        return model.to(self.device)

    @property
    def spells(self) -> Literal["native", "uroman"]:
        return self._model.spells

    @property
    def parameters(self) -> int:
        return sum(weights.numel() for weights in self._model.parameters())

    def supports(self, language: str) -> bool:
        return True

    def transcribe(self, waveforms: list[np.ndarray], language: str) -> list[Transcript]:
        padded = pad_sequence([torch.from_numpy(wave) for wave in waveforms], batch_first=True)
        lengths = torch.tensor([len(wave) for wave in waveforms])
        texts = self._model.recognize(padded.to(self.device), lengths.to(self.device))
        return [Transcript("", text) for text in texts]


def open_recognizer(
    spec: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    digest: Callable[[str], str] = audio.digest,
    allow_remote_code: tuple[str, ...] = (),
) -> SpeechRecognizer:
    """Return a recogniser by name; its weights wait until there is something to transcribe.

    Args:
        spec: "whisper:NAME" is openai-whisper by name or .pt file; else a run folder or exported
            folder of a `cascade.Recognizer`, or a folder or hub id of a transformers Whisper or
            CTC model.
        dtype: float32, float16 or bfloat16; part of the fingerprint, as it may change a text.
        digest: how to hash a file of weights (a store remembers).
        allow_remote_code: pretrained encoders whose own modelling code may be run, by name.

    Raises:
        InputError: there is no such recogniser, or it cannot be reached.
    """
    settings = f"transcribe {DECODING} {dtype}"
    if spec.startswith("whisper:"):
        from cascade.whisper import OpenAIWhisper, openai_revision

        name = spec.removeprefix("whisper:")
        revision = openai_revision(name) or digest(name)
        return OpenAIWhisper(name, device, dtype, f"openai-whisper:{revision} {settings}")
    folder = Path(spec)
    if checkpoint.is_model(folder) or (folder / "checkpoints").is_dir():
        revision = digest(str(checkpoint.weights_file(folder)))
        fingerprint = f"speechtaxi:{revision} transcribe {DECODING} float32"
        return TrainedRecognizer(spec, device, fingerprint, allow_remote_code)
    local = folder.exists()
    if not local and (folder.is_absolute() or spec.startswith(".") or spec.count("/") > 1):
        raise InputError(f"there is no recogniser {spec}; fit one, or give another folder")
    if local and not (folder / "config.json").is_file():
        raise InputError(
            f"{spec} is no recogniser: it holds no config.json; give a model folder, a run folder, "
            "a hub id, or whisper:FILE.pt"
        )
    from transformers import AutoConfig

    from cascade.ctc import FAMILIES, CTCRecognizer
    from cascade.whisper import TransformersWhisper
    from speechtaxi.hub import from_hub

    config = from_hub(AutoConfig, spec)
    revision = _folder_digest(folder, digest) if local else f"{spec}@{config._commit_hash}"
    fingerprint = f"transformers:{revision} {settings}"
    if config.model_type == "whisper":
        return TransformersWhisper(spec, device, dtype, fingerprint)
    if config.model_type in FAMILIES:
        return CTCRecognizer(spec, device, dtype, fingerprint)
    raise InputError(
        f"{spec} is a {config.model_type} model, not a recogniser that is known here: "
        f"whisper, {', '.join(sorted(FAMILIES))}"
    )


def _folder_digest(folder: Path, digest: Callable[[str], str]) -> str:
    """Hash a model folder: weights in one format, configuration, vocabulary."""
    weights = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    settings = (path for suffix in ("json", "txt", "model") for path in folder.glob(f"*.{suffix}"))
    lines = sorted(f"{path.name} {digest(str(path))}" for path in {*weights, *settings})
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def compression_ratio(text: str) -> float:
    """Return how well a text compresses: letters / compressed size.

    Whisper divides UTF-8 bytes, which calls a third of ordinary Tamil verses loops, since letters
    beyond Latin take two or three similar bytes each; here every letter takes one, in any script.

    >>> compression_ratio("और फिर " * 30) > LOOPING > compression_ratio("और फिर वह चला गया")
    True
    """
    numbers = {letter: number % 256 for number, letter in enumerate(dict.fromkeys(text))}
    return len(text) / len(zlib.compress(bytes(numbers[letter] for letter in text)))


class Transcriber:
    """A recogniser with a memory: finds transcripts in the store, and makes those that are missing.

    Args:
        batch_seconds: most audio in a batch, padding included.
        batch_size: most clips in a batch.
    """

    def __init__(
        self,
        recognizer: SpeechRecognizer,
        store: TranscriptStore,
        *,
        batch_seconds: float = 120.0,
        batch_size: int = 8,
    ) -> None:
        self.recognizer, self.store = recognizer, store
        self.batch_seconds, self.batch_size = batch_seconds, batch_size

    def transcribe(
        self,
        utterances: Sequence[Utterance],
        *,
        on_error: Callable[[Utterance, InputError], None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Transcript | None]:
        """Return a transcript for each clip, in order; whatever was finished is in the store.

        Args:
            on_error: is told of a clip that cannot be read, whose transcript is then None.
            progress: is told how many more clips are finished (found, transcribed or failed).

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

        keys = [attempt(self._key, clip) for clip in utterances]
        done = self.store.get({name for name in keys if name is not None})
        missing = {
            name: clip
            for name, clip in zip(keys, utterances, strict=True)
            if name is not None and name not in done
        }
        for name, clip in missing.items():
            if not self.recognizer.supports(clip.language):
                flags: tuple[Flag, ...] = ("unsupported_language",)
                done[name] = Transcript(name, "", language=clip.language, flags=flags)
        seconds = {
            name: length
            for name, clip in missing.items()
            if name not in done and (length := attempt(_seconds, clip)) is not None
        }
        times = Counter(keys)
        if progress is not None:
            progress(len(keys) - sum(times[name] for name in seconds))
        for names in self._batches(missing, seconds):
            waves = {name: attempt(_load, missing[name]) for name in names}
            heard = {name: wave for name, wave in waves.items() if wave is not None}
            if heard:
                batch = self._listen(heard, missing[names[0]].language)
                self.store.put(batch)
                done |= {transcript.key: transcript for transcript in batch}
            if progress is not None:
                progress(sum(times[name] for name in names))
        return [None if name is None else done.get(name) for name in keys]

    def _key(self, clip: Utterance) -> str:
        if clip.audio is None:
            raise InputError(f"{clip.id} has no audio to transcribe")
        digest = self.store.digest(clip.audio, audio.digest)
        return key(digest, clip.start, clip.duration, self.recognizer.fingerprint, clip.language)

    def _batches(
        self, clips: dict[str, Utterance], seconds: dict[str, float]
    ) -> Iterable[list[str]]:
        """Yield keys of clips in one language and of similar length."""
        order = sorted(seconds, key=lambda name: (clips[name].language, seconds[name], name))
        for _, group in itertools.groupby(order, key=lambda name: clips[name].language):
            names = list(group)
            lengths = [seconds[name] for name in names]
            for batch in buckets(lengths, range(len(names)), self.batch_seconds, self.batch_size):
                yield [names[number] for number in batch]

    def _listen(self, waves: dict[str, np.ndarray], language: str) -> list[Transcript]:
        started = time.perf_counter()
        results = self._recognize(list(waves.values()), language)
        seconds = (time.perf_counter() - started) / len(waves)
        transcripts: list[Transcript] = []
        for (name, wave), result in zip(waves.items(), results, strict=True):
            ratio = compression_ratio(result.text)
            found: dict[Flag, bool] = {
                "empty": not result.text.strip(),
                "looping": ratio > LOOPING,
                "truncated": "truncated" in result.flags,
                "silent": audio.is_silent(wave),
            }
            transcripts.append(
                replace(
                    result,
                    key=name,
                    language=language,
                    compression_ratio=ratio,
                    flags=tuple(flag for flag, raised in found.items() if raised),
                    seconds=seconds,
                )
            )
        return transcripts

    def _recognize(self, waves: list[np.ndarray], language: str) -> list[Transcript]:
        seconds = self.recognizer.longest
        if seconds is None or max(map(len, waves)) <= seconds * audio.SAMPLE_RATE:
            return self.recognizer.transcribe(waves, language)
        size = max(1, min(self.batch_size, int(self.batch_seconds / seconds)))
        results: list[Transcript] = []
        for wave in waves:
            parts = list(pieces(wave, round(seconds * audio.SAMPLE_RATE)))
            blocks = (parts[n : n + size] for n in range(0, len(parts), size))
            read = [t for block in blocks for t in self.recognizer.transcribe(block, language)]
            results.append(Transcript("", " ".join(part.text for part in read if part.text)))
        return results


def pieces(wave: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """Cut a waveform (samples,) into pieces of at most `longest` samples, where it is quiet.

    A cut is made before the quietest tenth of a second in the last quarter of what could be taken.
    """
    frame = audio.SAMPLE_RATE // 10
    while len(wave) > longest:
        first = longest * 3 // 4
        count = (longest - first) // frame
        frames = wave[first : first + count * frame].reshape(count, frame)
        cut = first + int(np.square(frames).sum(1).argmin()) * frame
        yield wave[:cut]
        wave = wave[cut:]
    yield wave


def _seconds(clip: Utterance) -> float:
    assert clip.audio is not None
    return clip.duration or max(audio.probe(clip.audio).seconds - clip.start, 0.0)


def _load(clip: Utterance) -> np.ndarray:
    assert clip.audio is not None
    return audio.load(clip.audio, clip.start, clip.duration)
