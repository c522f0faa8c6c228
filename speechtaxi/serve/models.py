"""The models that are served, each with what it can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN
from speechtaxi.types import Utterance

if TYPE_CHECKING:
    from speechtaxi.recordings import Cut, Romanize, Teller

CUT_ABOVE = 30.0
"""Seconds of a recording that is not cut."""


@dataclass(frozen=True)
class Served:
    """A model and what is told of it."""

    name: str
    route: Literal["e2e", "cascade", "ensemble"]
    teller: Teller
    labels: tuple[str, ...]
    languages: tuple[str, ...]
    """It was trained in (ISO 639-3), where that is known."""
    reads: bool

    def transcripts(self, cuts: Sequence[Cut]) -> dict[str, Any]:
        """Return what is said in recordings, by their ids; see `shapes.Transcribed`."""
        romanize = romanize_with()
        transcriber: Any = self.teller.model.transcriber  # type: ignore[attr-defined]
        native = transcriber.recognizer.spells == "native"
        clips = [clip for one in cuts for clip in one.clips]
        read = dict(zip((clip.id for clip in clips), transcriber.transcribe(clips), strict=True))
        told: dict[str, Any] = {}
        for one in cuts:
            segments: list[dict[str, Any]] = []
            for clip in one.clips:
                transcript = read[clip.id]
                language = (clip.language == UNKNOWN and transcript.heard) or clip.language
                text = transcript.text
                segments.append(
                    {
                        "start": round(clip.start, 3),
                        "end": round(clip.start + (clip.duration or one.seconds), 3),
                        "text": text,
                        "romanized": romanize(text, language) if native else text,
                        "language": language,
                        "heard": transcript.heard_probability,
                        "flags": list(transcript.flags),
                    }
                )
            told[one.recording.id] = {"system": self.name, **joined(segments)} | {
                "segments": [] if one.spans is None else segments
            }
        return told


def joined(segments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the transcript of the whole: the language is that of most speech.

    >>> part = {"text": "da", "romanized": "da", "language": "rus", "heard": None, "flags": []}
    >>> joined([part | {"start": 0, "end": 1}, part | {"start": 1, "end": 2}])["text"]
    'da da'
    """
    seconds: Counter[str] = Counter()
    for one in segments:
        seconds[one["language"]] += one["end"] - one["start"]
    language = max(seconds, key=seconds.__getitem__, default=UNKNOWN)
    sure = [
        (one["heard"], one["end"] - one["start"])
        for one in segments
        if one["language"] == language and one["heard"] is not None
    ]
    return {
        "text": " ".join(one["text"].strip() for one in segments if one["text"].strip()),
        "romanized": " ".join(
            one["romanized"].strip() for one in segments if one["romanized"].strip()
        ),
        "language": language,
        "heard": sum(h * n for h, n in sure) / sum(n for _, n in sure) if sure else None,
        "flags": list(dict.fromkeys(flag for one in segments for flag in one["flags"])),
    }


def romanize_with() -> Romanize:
    """Return what spells texts in Latin letters; it is loaded once."""
    from cascade.romanizer import romanizer

    return romanizer().romanize


def open_models(
    folders: Sequence[str], private: Path, device: str = "auto", threads: int = 1,
    ensemble: bool = False,
) -> list[Served]:  # fmt: skip
    """Open models and try each once, so that the first request finds them awake.

    Transcripts are kept below `private`, not in the user's store.

    Args:
        ensemble: also answer with the mean of all.

    Raises:
        InputError: a model cannot be opened, or reads only what a manifest says.
    """
    import torch

    from speechtaxi import load
    from speechtaxi.classifier import Classifier
    from speechtaxi.ensemble import Ensemble
    from speechtaxi.recordings import Teller, name_of

    torch.set_num_threads(threads)
    cuda = device == "auto" and torch.cuda.is_available()
    served: list[Served] = []
    for folder in folders:
        model = load(folder)
        if not isinstance(model, Classifier):
            raise InputError(f"{folder} is a {type(model).__name__}, and tells no topic")
        if model.needs == "text":
            raise InputError(
                f"{folder} reads the text of a manifest, and no audio; serve a cascade that was "
                "trained on the transcripts of a recogniser"
            )
        model.to("cuda" if cuda else device.replace("auto", "cpu"))
        reads = model.route == "cascade"
        if reads:
            model.store = str(private / "transcripts.sqlite")  # type: ignore[assignment]
        name, taken = name_of(folder), {one.name for one in served}
        if name in taken:
            name = f"{name} ({len(served) + 1})"
        served.append(
            Served(
                name, model.route, Teller(model, name), tuple(model.labels),
                trained_in(folder), reads,
            )
        )  # fmt: skip
    if ensemble and len(served) > 1:
        name = " + ".join(one.name for one in served)
        model = Ensemble([one.teller.model for one in served])  # type: ignore[misc]
        languages = tuple(dict.fromkeys(code for one in served for code in one.languages))
        served.append(
            Served(name, "ensemble", Teller(model, name), tuple(model.labels), languages, False)
        )
    try_out(served, private)
    return served


def trained_in(folder: str) -> tuple[str, ...]:
    """Return the languages that a run was trained in; an exported folder does not tell them."""
    from speechtaxi.records import read_run

    return read_run(folder).train_languages if (Path(folder) / "run.json").is_file() else ()


def try_out(served: Sequence[Served], private: Path) -> None:
    """Let each model hear a second of noise; wake what listens for speech, too.

    Raises:
        InputError: one cannot.
    """
    import numpy as np
    import soundfile

    from speechtaxi.segment import open_segmenter

    open_segmenter()
    noise = 0.05 * np.random.default_rng(0).standard_normal(16_000)
    path = private / "noise.wav"
    soundfile.write(path, noise.astype(np.float32), 16_000)

    def fail(recording: Utterance, why: str) -> None:
        raise InputError(why)

    for one in served:
        list(one.teller.answers([Utterance("noise", UNKNOWN, audio=str(path))], fail))
    path.unlink()
