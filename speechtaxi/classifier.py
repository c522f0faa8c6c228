"""The shared half of both routes: head and predictions. `speechtaxi.trainable` has its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from speechtaxi import audio
from speechtaxi.batch import Batch, buckets, collate
from speechtaxi.errors import InputError
from speechtaxi.labels import label_set
from speechtaxi.languages import UNKNOWN
from speechtaxi.optimizer import Optimizer
from speechtaxi.types import Flag, Prediction, Utterance

LARGE = 10_000_000
"""Weights above which a batch no longer fits a CPU's cache."""


class AudioClassifier:
    """Classifies audio files; what a model shares with an ensemble of models."""

    device: torch.device
    compute: torch.dtype = torch.float32
    """What layers compute in while classifying (autocast); weights stay in float32."""

    @property
    def at_once(self) -> int:
        """How many clips are best classified together: large models on a CPU lose by batching."""
        return 8

    def eval(self) -> Self:
        """Switch dropout off."""
        raise NotImplementedError

    def prepare(self, utterances: Sequence[Utterance]) -> None:
        """Do for clips read ahead what goes in other batches than theirs, such as to transcribe."""

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> list[Prediction]:
        """Return the predictions of a batch."""
        raise NotImplementedError

    @torch.inference_mode()
    def classify(
        self,
        paths: str | Path | Sequence[str | Path | Utterance],
        *,
        language: str = UNKNOWN,
        batch_seconds: float = 60.0,
        batch_size: int | None = None,
        failed: list[tuple[str, str]] | None = None,
        chunk: int = 64,
    ) -> Iterator[Prediction]:
        """Tell the topic of audio files, in the order given, in bounded memory.

        Args:
            paths: files, folders or glob patterns, or utterances.
            language: ISO 639-3 of files that do not say; a recogniser must know it.
            batch_seconds, batch_size: the most audio and clips in a batch (None: `at_once`); as the
                model classifies clips of similar length together, `chunk` clips are read ahead.
            failed: collects (path, reason) of files that cannot be used; without it they raise.

        Raises:
            InputError: a path does not exist, or (without `failed`) a file cannot be used.
        """
        self.eval()
        batch_size = batch_size or self.at_once
        clips = list[Utterance]()
        for one in [paths] if isinstance(paths, (str, Path)) else paths:
            if isinstance(one, Utterance):
                clips.append(one)
                continue
            try:
                found = list(map(str, audio.find_audio([str(one)])))
                clips += [Utterance(path, language, audio=path) for path in found]
            except InputError as error:
                if failed is None:
                    raise
                failed.append((str(one), str(error)))
        for start in range(0, len(clips), chunk):
            yield from self._classify(
                clips[start : start + chunk], batch_seconds, batch_size, failed
            )

    def _classify(
        self,
        clips: list[Utterance],
        batch_seconds: float,
        batch_size: int,
        failed: list[tuple[str, str]] | None,
    ) -> Iterator[Prediction]:
        waveforms, silent, usable = [], set[str](), list[Utterance]()
        for clip in clips:
            try:
                if clip.audio is None:
                    raise InputError(f"{clip.id} names no audio file")
                waveform = audio.load(clip.audio, clip.start, clip.duration)
            except InputError as error:
                if failed is None:
                    raise
                failed.append((clip.id, str(error)))
                continue
            if audio.is_silent(waveform):
                silent.add(clip.id)
            usable.append(clip)
            waveforms.append(waveform)
        self.prepare(usable)
        seconds = [len(waveform) / audio.SAMPLE_RATE for waveform in waveforms]
        order = sorted(range(len(seconds)), key=seconds.__getitem__)
        rows: dict[int, Prediction] = {}
        for batch_indices in buckets(seconds, order, batch_seconds, batch_size):
            batch = collate(
                [usable[i] for i in batch_indices],
                [waveforms[i] for i in batch_indices],
                [-1] * len(batch_indices),
            ).to(self.device)
            lower = self.compute != torch.float32
            with torch.autocast(self.device.type, self.compute, enabled=lower):
                rows.update(zip(batch_indices, self.predict_step(batch), strict=True))
        for index in range(len(usable)):
            row = rows[index]
            if row.id in silent and "silent" not in row.flags:  # a recogniser tells it too
                row = replace(row, flags=(*row.flags, "silent"))
            yield row


class Classifier(nn.Module, AudioClassifier):
    """One vector per clip, from a route, through one shared head.

    A route defines `embed` (and, if it reads, `read`). Everything else is the same lines for both,
    so that two runs differ in hearing or reading and in nothing else.

    Args:
        labels: a named label set or the labels themselves; linked to `data.labels`.
        lr: peak learning rate of the head and of what is trained from scratch.
        encoder_lr: peak learning rate of the encoder; None uses `lr`.
        weight_decay: AdamW's, for matrices only.
        warmup: share of the steps over which the learning rate rises.
        schedule: how it then falls to zero.
        dropout: before the head.
        label_smoothing: of the cross-entropy.
        class_weights: weigh topics by inverse frequency in the training clips.
    """

    needs: Literal["waveforms", "files", "text"] = "waveforms"
    """What a batch must bring: decoded audio, paths of audio, or gold text alone."""
    route: Literal["e2e", "cascade"]

    def __init__(
        self,
        labels: str | list[str],
        *,
        lr: float = 1e-3,
        encoder_lr: float | None = None,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        schedule: Literal["linear", "cosine"] = "linear",
        dropout: float = 0.1,
        label_smoothing: float = 0.0,
        class_weights: bool = False,
    ) -> None:
        super().__init__()
        self.labels = label_set(labels)
        self.optimizer = Optimizer(lr, encoder_lr, weight_decay, warmup, schedule)
        self.dropout = nn.Dropout(dropout)
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.settings: dict[str, Any] = {}
        """What it was made with: all that a checkpoint holds beside the weights."""
        self.source = ""
        self.temperature = 1.0
        """What logits are divided by for probabilities; `checkpoint.load` sets it."""
        self.calibrated = False
        """Whether the temperature was fitted to dev clips."""
        self.calibrated_on: tuple[str, ...] = ()
        """Languages of those clips; none: it is not told, and all count."""

    def build_head(self, dim: int) -> None:
        """Add the head once the route knows its vector's size."""
        self.head = nn.Linear(dim, len(self.labels))

    def embed(self, batch: Batch) -> Tensor:
        """Return one vector per clip, (B, D)."""
        raise NotImplementedError

    def read(self, utterances: Sequence[Utterance]) -> Sequence[tuple[str | None, str | None]]:
        """Return what the route reads of each clip, and the gold text in the same view."""
        return [(None, None)] * len(utterances)

    def flags(self, utterance: Utterance) -> tuple[Flag, ...]:
        """Return what a user should know of how this clip was read."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def at_once(self) -> int:
        return 1 if self._size > LARGE and self.device.type == "cpu" else 8

    @cached_property
    def _size(self) -> int:
        return sum(weights.numel() for weights in self.parameters())

    def eval(self) -> Self:
        return super().eval() if self.training else self

    def calibrated_for(self, language: str) -> bool:
        """Tell whether probabilities are calibrated in a language."""
        return self.calibrated and self._fitted(language)

    def temperature_for(self, language: str) -> float:
        """Return what logits are divided by: a temperature does not carry over to languages."""
        return self.temperature if self._fitted(language) else 1.0

    def _fitted(self, language: str) -> bool:
        return language in (*(self.calibrated_on or (language,)), UNKNOWN)

    def heard(self, utterance: Utterance) -> tuple[str, float] | None:
        """Return the language that a recogniser told by itself (ISO 639-3), and its probability.

        None where the language was given, or nobody could tell it.
        """
        return None

    def reading_seconds(self, utterances: Sequence[Utterance]) -> float:
        """Return how long it took to transcribe clips, whenever that was; 0 where nothing is."""
        return 0.0

    def reading_parameters(self) -> int:
        """Return the number of weights of what transcribes; 0 where nothing is."""
        return 0

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, (B, C), in the order of `labels`."""
        return self.head(self.dropout(self.embed(batch)))

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> list[Prediction]:
        return self.predictions(batch, self(batch)) if len(batch) else []

    def predictions(self, batch: Batch, logits: Tensor) -> list[Prediction]:
        """Turn logits (B, C) into rows; the temperature changes probabilities, never an answer."""
        answers = logits.argmax(-1).tolist()
        scale = torch.tensor([[self.temperature_for(u.language)] for u in batch.utterances])
        probabilities = (logits.float().cpu() / scale).softmax(-1).tolist()
        rows: list[Prediction] = []
        read = self.read(batch.utterances)
        for utterance, answer, chances, (text, reference), samples in zip(
            batch.utterances, answers, probabilities, read, batch.lengths.tolist(), strict=True
        ):
            rows.append(
                Prediction(
                    id=utterance.id,
                    group=utterance.group or utterance.id,
                    language=utterance.language,
                    label=utterance.label,
                    prediction=self.labels[answer],
                    probabilities=dict(zip(self.labels, chances, strict=True)),
                    text=text,
                    reference=reference,
                    duration=round(samples / audio.SAMPLE_RATE, 3)
                    if samples
                    else utterance.duration,
                    flags=self.flags(utterance),
                )
            )
        return rows
