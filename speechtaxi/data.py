"""The one data module of both routes: manifests in, batches of similar length out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from speechtaxi import audio, records
from speechtaxi.batch import Batch, LengthBatchSampler, collate
from speechtaxi.errors import InputError
from speechtaxi.labels import label_set
from speechtaxi.splits import with_splits
from speechtaxi.types import Split, Utterance

log = logging.getLogger(__name__)

LETTERS_PER_SECOND = 15.0
"""About what is read aloud in a second: gives clips that are only text a length."""


class Clips(Dataset[Batch]):
    """Utterances as batches: indexed by a list of positions, it decodes and pads them.

    Decoded clips are kept in memory as 16-bit samples up to `cache_bytes`. A file that turns out to
    be damaged is named once and left out.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        seconds: Sequence[float],
        labels: Mapping[str, int],
        hear: bool,
        cache_bytes: float,
    ) -> None:
        self.utterances, self.seconds = utterances, seconds
        self.labels, self.hear = labels, hear
        self.cache_bytes = cache_bytes
        self.cache: dict[int, np.ndarray] = {}
        self.damaged: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, indices: list[int]) -> Batch:
        kept, waveforms = list[Utterance](), list[np.ndarray]()
        for index in indices:
            utterance = self.utterances[index]
            if utterance.id in self.damaged:
                continue
            try:
                waveforms.append(self._waveform(index) if self.hear else np.zeros(0, np.float32))
                kept.append(utterance)
            except InputError as error:
                self.damaged[utterance.id] = str(error)
                log.warning("skipped %s: %s", utterance.id, error)
        labels = [self.labels.get(u.label, -1) if u.label else -1 for u in kept]
        return collate(kept, waveforms, labels)

    def _waveform(self, index: int) -> np.ndarray:
        if index in self.cache:
            return self.cache[index].astype(np.float32) / 32767
        utterance = self.utterances[index]
        assert utterance.audio is not None
        waveform = audio.load(utterance.audio, utterance.start, utterance.duration)
        self.cache_bytes -= 2 * len(waveform)
        if self.cache_bytes > 0:
            self.cache[index] = np.round(waveform * 32767).astype(np.int16)
            return self.cache[index].astype(np.float32) / 32767
        return waveform


class SpeechDataModule(LightningDataModule):
    """Clips for training and scoring, the same for a route that hears and one that reads.

    Args:
        manifest: one or several manifests (JSONL, CSV, TSV, Parquet, a folder of label folders).
        labels: a named label set (taxi1500, sib200, news6) or the labels themselves; None where no
            topic is needed, as for a recogniser.
        columns: our field to the manifest's column, where names differ.
        label_names: the manifest's label to ours, where names differ.
        language: ISO 639-3 for manifests without a language column.
        languages: languages to train and validate on; None takes all.
        test_languages: languages to test and predict on; None takes `languages`.
        test_split: the split that `test` and `predict` use.
        dev_share, test_share: where the manifests have no dev or test split, the share of groups
            (verses, sentences; clips where there is no group) that becomes one, chosen by hash.
            With either, clips of a manifest without any split are for training.
        batch_seconds: the most audio in a batch, padding included.
        batch_size: the most clips in a batch.
        max_seconds: longer clips are cut to this.
        language_temperature: above 1 it evens out how often languages are drawn in training.
        leakage: what to do with training clips whose verse or sentence (`group`) is also in dev or
            test, in any language: refuse ("error") or leave them out ("drop").
        damaged: what to do with files that cannot be read: refuse ("error") or leave out ("skip").
        workers: decoding processes; 0 decodes in the training process, which is best on few cores.
        cache_gib: memory for decoded audio.
        seed: of the shuffle.
    """

    def __init__(
        self,
        manifest: str | list[str],
        labels: str | list[str] | None = None,
        columns: dict[str, str] | None = None,
        label_names: dict[str, str] | None = None,
        language: str | None = None,
        languages: list[str] | None = None,
        test_languages: list[str] | None = None,
        test_split: Literal["train", "dev", "test", "predict"] = "test",
        dev_share: float = 0.0,
        test_share: float = 0.0,
        batch_seconds: float = 120.0,
        batch_size: int = 16,
        max_seconds: float = 60.0,
        language_temperature: float = 1.0,
        leakage: Literal["error", "drop"] = "error",
        damaged: Literal["error", "skip"] = "skip",
        workers: int = 0,
        cache_gib: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.manifests = [manifest] if isinstance(manifest, str) else manifest
        self.labels = label_set(labels) if labels is not None else None
        self.columns, self.label_names, self.language = columns, label_names, language
        self.languages, self.test_languages = languages, test_languages
        self.test_split = test_split
        self.shares: dict[Split, float] = {"dev": dev_share, "test": test_share}
        self.batch_seconds, self.batch_size, self.max_seconds = (
            batch_seconds,
            batch_size,
            max_seconds,
        )
        self.language_temperature, self.seed = language_temperature, seed
        self.leakage, self.damaged = leakage, damaged
        self.workers, self.cache_gib = workers, cache_gib
        self.clips: dict[str, Clips] = {}
        self.skipped: dict[str, str] = {}
        self.first_epoch = 0
        self.bring: Callable[[Batch], Batch] | None = None
        """Adds what a model already knows of the clips of a batch; set by the model."""
        self._utterances: list[Utterance] | None = None

    @property
    def utterances(self) -> list[Utterance]:
        """All rows of the manifests, checked against the labels."""
        if self._utterances is None:
            rows = [
                row
                for path in self.manifests
                for row in records.read_manifest(
                    path, columns=self.columns, labels=self.label_names, language=self.language
                )
            ]
            repeated = [name for name, n in Counter(row.id for row in rows).items() if n > 1]
            if repeated:
                raise InputError(
                    f"id {repeated[0]} is in more than one of {', '.join(self.manifests)}; "
                    "ids must be unique"
                )
            if self.labels is not None:
                for row in rows:
                    if row.label is not None and row.label not in self.labels:
                        raise InputError(
                            f"{row.id} has the label '{row.label}', which is not in the label set "
                            f"{self.labels}; map it with data.label_names or mend data.labels"
                        )
            self._utterances = with_splits(rows, self.shares)
        return self._utterances

    def select(self, split: str) -> list[Utterance]:
        """Return the clips of a split in the languages asked for.

        Raises:
            InputError: a language or the split is not in the manifests, or a training clip lacks a
                label.
        """
        wanted = self.languages
        if split not in ("train", "dev") and self.test_languages is not None:
            wanted = self.test_languages
        there = sorted({row.language for row in self.utterances})
        for language in wanted or ():
            if language not in there:
                raise InputError(
                    f"no clip of {', '.join(self.manifests)} is in '{language}'; there are: "
                    f"{', '.join(there)}"
                )
        rows = [r for r in self.utterances if r.split == split and r.language in (wanted or there)]
        if not rows:
            splits = Counter(r.split for r in self.utterances if r.language in (wanted or there))
            raise InputError(
                f"no clip of {', '.join(self.manifests)} is in split '{split}'"
                f"{' in ' + ', '.join(wanted) if wanted else ''}; there are: {dict(splits)}"
                "; --data.dev_share 0.1 --data.test_share 0.2 make splits where there are none"
            )
        if self.labels is not None and split in ("train", "dev"):
            bare = [row.id for row in rows if row.label is None]
            if bare:
                raise InputError(
                    f"{len(bare)} clips of split '{split}' have no label, such as {bare[0]}"
                )
        return rows

    def setup(self, stage: str) -> None:
        """Choose, check and measure the clips that a stage needs."""
        model = self.trainer.lightning_module if self.trainer else None
        needs = getattr(model, "needs", "waveforms")
        splits = {"fit": ("train", "dev"), "validate": ("dev",)}.get(stage, (self.test_split,))
        chosen = {split: self.select(split) for split in splits if split not in self.clips}
        if "train" in chosen:
            chosen["train"] = self._without_leaks(chosen["train"])
        index = {label: i for i, label in enumerate(self.labels or ())}
        for split, rows in chosen.items():
            rows, seconds = self._texts(rows) if needs == "text" else self._measured(rows)
            cache = self.cache_gib * 2**30 / len(splits)
            self.clips[split] = Clips(rows, seconds, index, needs == "waveforms", cache)

    def _without_leaks(self, train: list[Utterance]) -> list[Utterance]:
        held_out = {row.group for row in self.utterances if row.split in ("dev", "test")} - {None}
        leaks = [row for row in train if row.group in held_out]
        if not leaks or self.labels is None:  # a recogniser learns no topic
            return train
        if self.leakage == "error":
            raise InputError(
                f"{len(leaks)} training clips share their group with dev or test clips, such as "
                f"{leaks[0].id} (group {leaks[0].group}); split by group, or leave them out with "
                "--data.leakage drop"
            )
        log.warning("left out %d training clips whose group is in dev or test", len(leaks))
        return [row for row in train if row.group not in held_out]

    @staticmethod
    def _texts(rows: list[Utterance]) -> tuple[list[Utterance], list[float]]:
        """Return clips, and about how long each text would be if it were read aloud."""
        return rows, [max(1.0, len(row.text or "") / LETTERS_PER_SECOND) for row in rows]

    def _measured(self, rows: list[Utterance]) -> tuple[list[Utterance], list[float]]:
        """Return clips and their seconds; leave out, or refuse, files that cannot be read."""
        kept: list[Utterance] = []
        lengths: list[float] = []
        known: dict[str, float] = {}
        for row in rows:
            try:
                if row.audio is None:
                    raise InputError("the manifest names no audio for it")
                if row.audio not in known:
                    known[row.audio] = audio.probe(row.audio).seconds
                seconds = known[row.audio] - row.start if row.duration is None else row.duration
                if seconds > self.max_seconds:
                    seconds, row = self.max_seconds, replace(row, duration=self.max_seconds)
                kept.append(row)
                lengths.append(seconds)
            except InputError as error:
                if self.damaged == "error":
                    raise InputError(f"{row.id}: {error}") from error
                self.skipped[row.id] = str(error)
        if self.skipped:
            name, reason = next(iter(self.skipped.items()))
            log.warning("skipped %d clips; the first: %s: %s", len(self.skipped), name, reason)
        if not kept:
            raise InputError(f"none of {len(rows)} clips can be read; {rows[0].id}: {reason}")
        return kept, lengths

    def class_weights(self) -> Tensor:
        """Return n / (C n_c) per topic of the training clips, (C,)."""
        assert self.labels is not None
        counts = Counter(row.label for row in self.clips["train"].utterances)
        total = sum(counts.values())
        return torch.tensor(
            [total / (len(self.labels) * max(1, counts[label])) for label in self.labels]
        )

    def _loader(self, split: str, shuffle: bool = False) -> DataLoader[Batch]:
        clips = self.clips[split]
        sampler = LengthBatchSampler(
            clips.seconds,
            max_seconds=self.batch_seconds,
            max_clips=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            groups=[row.language for row in clips.utterances] if shuffle else None,
            temperature=self.language_temperature,
            epoch=self.first_epoch,
            rank=self.trainer.global_rank if self.trainer else 0,
            world=self.trainer.world_size if self.trainer else 1,
        )
        return DataLoader(
            clips,
            batch_size=None,  # the sampler yields whole batches
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training clips."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the dev clips."""
        return self._loader("dev")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split."""
        return self._loader(self.test_split)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split, whether labelled or not."""
        return self._loader(self.test_split)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Bring what the model already knows (called by Lightning)."""
        return batch if self.bring is None else self.bring(batch)

    def state_dict(self) -> dict[str, int]:
        """Return what a resumed run needs: the epoch to shuffle for."""
        return {"next_epoch": self.trainer.current_epoch + 1 if self.trainer else 0}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where a run was interrupted."""
        self.first_epoch = state_dict["next_epoch"]

    def describe(self) -> dict[str, object]:
        """Return what a run record tells of the data."""
        train = self.clips["train"].utterances if "train" in self.clips else []
        seconds = sum(self.clips["train"].seconds) if any(row.audio for row in train) else 0.0
        return {
            "data_fingerprint": records.fingerprint(self.utterances),
            "train_languages": tuple(sorted({row.language for row in train})),
            "clips": {split: len(clips) for split, clips in self.clips.items()},
            "audio_hours": round(seconds / 3600, 4),
            "skipped": len(self.skipped) + sum(len(c.damaged) for c in self.clips.values()),
        }
