"""Several models that answer as one: E2E and cascade err on different clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch
from typing_extensions import Self

from speechtaxi.batch import Batch
from speechtaxi.classifier import AudioClassifier, Classifier
from speechtaxi.errors import InputError
from speechtaxi.types import Prediction, Utterance


class Ensemble(AudioClassifier):
    """Answers with the mean of its models' probabilities; the first model's labels set the order.

    It is never more confident, on average, than its models are: the greatest mean is at most the
    mean of the greatest.

    Raises:
        InputError: no models, a model that tells no topic, models with different labels.
    """

    def __init__(self, models: Sequence[Classifier]) -> None:
        if not models:
            raise InputError("an ensemble needs models; give run folders or exported model folders")
        first = models[0]
        for model in models:
            if not isinstance(model, Classifier):
                raise InputError(f"{model.source} is a {type(model).__name__}, and tells no topic")
            if other := sorted(set(model.labels) ^ set(first.labels)):
                raise InputError(
                    f"{model.source} and {first.source} cannot answer as one: only one of them "
                    f"knows {', '.join(other)}; train them with the same labels"
                )
        self.models = list(models)
        self.labels = first.labels
        self.source = " + ".join(model.source for model in models)

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities of all models were fitted to dev clips."""
        return all(model.calibrated for model in self.models)

    @property
    def at_once(self) -> int:
        return min(model.at_once for model in self.models)

    def calibrated_for(self, language: str) -> bool:
        """Tell whether all models' probabilities are calibrated in a language."""
        return all(model.calibrated_for(language) for model in self.models)

    @property
    def device(self) -> torch.device:
        """Where the first model computes; batches go to each model's own."""
        return self.models[0].device

    def to(self, device: torch.device | str) -> Self:
        """Move all models."""
        for model in self.models:
            model.to(device)
        return self

    def eval(self) -> Self:
        for model in self.models:
            model.eval()
        return self

    def heard(self, utterance: Utterance) -> tuple[str, float] | None:
        """Return what the first model that tells the language tells; see `Classifier.heard`."""
        told = (model.heard(utterance) for model in self.models)
        return next((heard for heard in told if heard is not None), None)

    def prepare(self, utterances: Sequence[Utterance]) -> None:
        for model in self.models:
            model.prepare(utterances)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> list[Prediction]:
        answers = [model.predict_step(batch.to(model.device)) for model in self.models]
        return [self._mean(rows) for rows in zip(*answers, strict=True)]

    def _mean(self, rows: Sequence[Prediction]) -> Prediction:
        """Return one answer to a clip; text and reference are those of the first that reads."""
        chances = {name: fmean(row.probabilities[name] for row in rows) for name in self.labels}
        return replace(
            next((row for row in rows if row.text is not None), rows[0]),
            prediction=max(chances, key=chances.__getitem__),
            probabilities=chances,
            flags=tuple(dict.fromkeys(flag for row in rows for flag in row.flags)),
        )
