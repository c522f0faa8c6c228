"""What reads: transcript, text encoder, shared head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cascade.asr import SpeechRecognizer, open_recognizer
from cascade.asr.decoding import Decoding
from cascade.encoder import open_text_encoder
from cascade.romanizer import romanizer
from cascade.transcriber import Transcriber, check_unsupported
from speechtaxi import audio
from speechtaxi.batch import Batch
from speechtaxi.classifier import Classifier
from speechtaxi.errors import InputError
from speechtaxi.languages import UNKNOWN
from speechtaxi.store import TranscriptStore, default_path
from speechtaxi.types import Flag, Utterance

View = Literal["native", "romanized", "english", "gold", "gold_romanized"]

RECENT = 1000
"""How many clips' readings are remembered; in training and testing, all of the stage are."""


@dataclass(frozen=True)
class Reading:
    """What was read of a clip."""

    text: str
    reference: str | None
    flags: tuple[Flag, ...]
    seconds: float
    """Spent on transcribing it."""
    heard: tuple[str, float] | None = None
    """The language that the recogniser told (ISO 639-3), and its probability."""


class TextModel(Classifier):
    """Reads what a recogniser wrote and tells the topic.

    The view is part of the model: what was trained on romanised text is never given native script.

    Args:
        labels: see `Classifier`.
        view: "native" or "romanized" transcripts; "english", what the recogniser translates into;
            or the manifest's text: "gold", "gold_romanized".
        romanize: what the romanised views romanise: "all", or words that are "non_latin" alone, so
            that Latin script keeps its diacritics, byte for byte.
        recognizer: who transcribes (see `cascade.open_recognizer`); not for gold views.
        decoding: options of the recogniser (see `cascade.asr.Decoding`): beam_size, guards...
        unsupported, fallback: what becomes of languages that the recogniser does not know (see
            `cascade.Transcriber`); the fallback, by name, is for the romanised view alone.
        store: SQLite file of transcripts; None is the user's cache.
        encoder: "ngrams", or a hub id or folder of a transformers text encoder.
        adapters: peft adapters, by hub id or folder, merged into the encoder in this order.
        max_tokens: the encoder reads no more of a text.
        encoder_config: builds the encoder without weights; set by checkpoints.
        freeze, lora: what of the encoder is trained, see `e2e.SpeechClassifier`.
        training: see `Classifier`.
    """

    route = "cascade"

    def __init__(
        self,
        labels: str | list[str],
        *,
        view: View = "romanized",
        romanize: Literal["all", "non_latin"] = "all",
        recognizer: str | None = None,
        decoding: dict[str, Any] | None = None,
        unsupported: str | dict[str, str] = "skip",
        fallback: str | None = None,
        store: str | None = None,
        encoder: str = "ngrams",
        adapters: list[str] | None = None,
        max_tokens: int = 256,
        encoder_config: dict[str, Any] | None = None,
        freeze: str = "none",
        lora: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(labels, **training)
        self.view: View = view
        self.gold = view.startswith("gold")
        if self.gold == (recognizer is not None):
            raise InputError(
                f"the view '{view}' reads the manifest's text; leave model.recognizer out"
                if self.gold
                else f"the view '{view}' reads transcripts; name a recogniser in model.recognizer"
            )
        if romanize != "all" and "romanized" not in view:
            raise InputError(
                f"the view '{view}' is not romanised; leave model.romanize out, or use "
                f"--model.view {'gold_' if self.gold else ''}romanized"
            )
        self.romanize = romanize
        self.decoding = Decoding.of(decoding, "translate" if view == "english" else "transcribe")
        check_unsupported(unsupported, fallback is not None)
        if fallback is not None and view != "romanized":
            raise InputError(
                f"the view '{view}' takes no romanised transcripts: use --model.view romanized, or "
                "--model.unsupported skip or {bgc: hin}"
            )
        self.unsupported, self.fallback = unsupported, fallback
        self.needs = "text" if self.gold else "files"
        self.encoder = open_text_encoder(
            encoder,
            adapters=adapters or (),
            config=encoder_config,
            max_tokens=max_tokens,
            freeze=freeze,
            lora=lora,
        )
        self.frozen = freeze == "all"
        if self.frozen and lora is not None:
            raise InputError("LoRA trains an encoder that freeze: all keeps; leave out one of them")
        self.settings = {
            "labels": self.labels,
            "view": view,
            "romanize": romanize,
            "recognizer": recognizer,
            "decoding": decoding,
            "unsupported": unsupported,
            "fallback": fallback,
            "store": store,
            "encoder": encoder,
            "encoder_config": self.encoder.config,
            "freeze": freeze,
            "lora": lora,
            **training,
        }
        self.recognizer, self.store = recognizer, store
        self._transcriber: Transcriber | None = None  # a plain holder: its weights are not ours
        self._readings: dict[Utterance, Reading] = {}
        self._remembered = RECENT
        self.build_head(self.encoder.dim)

    def train(self, mode: bool = True) -> TextModel:
        """Switch modes; a frozen encoder stays as it was trained, without dropout."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def merge_lora(self) -> None:
        """Add what LoRA has learned to the encoder's matrices; without LoRA, do nothing."""
        if self.settings["lora"] is not None:
            self.encoder.merge_lora()
            self.settings.update(lora=None, encoder_config=self.encoder.config)

    @property
    def reading_device(self) -> torch.device:
        """Where a recogniser computes."""
        return self.device

    @property
    def transcriber(self) -> Transcriber:
        """The frozen recogniser with its store, opened when first needed.

        Raises:
            InputError: there is no such recogniser, or it cannot spell what the view needs.
        """
        if self._transcriber is None:
            assert self.recognizer is not None
            store = TranscriptStore(self.store or default_path())

            def opened(name: str, decoding: Decoding) -> SpeechRecognizer:
                return open_recognizer(
                    name,
                    device=str(self.reading_device),
                    decoding=decoding,
                    digest=lambda path: store.digest(path, audio.digest),
                )

            recognizer = opened(self.recognizer, self.decoding)
            if self.view == "native" and recognizer.spells == "uroman":
                raise InputError(
                    f"{self.recognizer} spells uroman letters, not the native script; "
                    "use --model.view romanized"
                )
            if self.romanize == "non_latin" and recognizer.spells == "uroman":
                raise InputError(
                    f"{self.recognizer} spells uroman letters in every language; "
                    "use --model.romanize all"
                )
            self._transcriber = Transcriber(
                recognizer,
                store,
                unsupported=self.unsupported,
                fallback=self.fallback and opened(self.fallback, Decoding()),
            )
        return self._transcriber

    def logits_of(self, texts: Sequence[str]) -> Tensor:
        """Return logits (B, C) of texts as the view spells them."""
        return self.head(self.dropout(self.encoder(texts)))

    def prepare(self, utterances: Sequence[Utterance]) -> None:
        if not self.gold:
            self._read(utterances)

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder([reading.text for reading in self._read(batch.utterances)])

    def read(self, utterances: Sequence[Utterance]) -> list[tuple[str, str | None]]:
        return [(reading.text, reading.reference) for reading in self._read(utterances)]

    def flags(self, utterance: Utterance) -> tuple[Flag, ...]:
        return self._read([utterance])[0].flags

    def heard(self, utterance: Utterance) -> tuple[str, float] | None:
        return self._read([utterance])[0].heard

    def reading_seconds(self, utterances: Sequence[Utterance]) -> float:
        return sum(reading.seconds for reading in self._read(utterances))

    def reading_parameters(self) -> int:
        return 0 if self.gold else self.transcriber.parameters

    def _read(self, utterances: Sequence[Utterance]) -> list[Reading]:
        new = [u for u in dict.fromkeys(utterances) if u not in self._readings]
        if len(self._readings) + len(new) > self._remembered:
            self._readings.clear()
            new = list(dict.fromkeys(utterances))
        if new:
            read = map(self._gold, new) if self.gold else self._transcripts(new)
            self._readings.update(zip(new, read, strict=True))
        return [self._readings[u] for u in utterances]

    def _gold(self, utterance: Utterance) -> Reading:
        if not utterance.text:
            raise InputError(
                f"{utterance.id} has no text, and the view '{self.view}' reads the manifest's; "
                "to classify audio, train on the transcripts of a recogniser"
            )
        text = utterance.text
        if self.view == "gold_romanized":
            text = self._romanized(text, utterance.language)
        return Reading(text, None, (), 0.0)

    def _romanized(self, text: str, language: str) -> str:
        # beside the transcripts, which are kept or not for the same reasons
        one = romanizer(str(Path(self.store or default_path()).parent))
        return one.romanize(text, language, keep_latin=self.romanize == "non_latin")

    def _transcripts(self, utterances: Sequence[Utterance]) -> list[Reading]:
        transcriber = self.transcriber
        readings: list[Reading] = []
        for utterance, transcript in zip(
            utterances, transcriber.transcribe(utterances), strict=True
        ):
            assert transcript is not None  # without on_error, what cannot be transcribed raises
            text = transcript.text
            reference = None if self.view == "english" else utterance.text
            language, sure = utterance.language, transcript.heard_probability
            if language == UNKNOWN and transcript.heard:
                language = transcript.heard
            if self.view == "romanized":
                if transcriber.recognizer.spells == "native" and "fallback" not in transcript.flags:
                    text = self._romanized(text, language)
                reference = reference and self._romanized(reference, language)
            heard = (transcript.heard, sure) if transcript.heard and sure is not None else None
            flags, seconds = transcript.flags, transcript.seconds
            readings.append(Reading(text, reference or None, flags, seconds, heard))
        return readings
