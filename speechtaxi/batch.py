"""A padded batch of clips, and the sampler that keeps padding small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from speechtaxi.types import Utterance

LONGEST = 60.0
"""Seconds that attention over a whole clip can afford; its memory grows with the square."""


@dataclass(frozen=True)
class Batch:
    """Clips of similar length, padded on the right with zeros.

    Shape:
        waveforms: (B, T) float32, 16 kHz mono in [-1, 1]; T is 0 for a route that does not hear
        lengths: (B,) int64, samples
        labels: (B,) int64, -1 where unknown
        features: what a frozen encoder heard of each clip, (R, D) float32, in place of waveforms
    """

    utterances: tuple[Utterance, ...]
    waveforms: Tensor
    lengths: Tensor
    labels: Tensor
    features: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.utterances)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the same batch on another device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("waveforms", "lengths", "labels")
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """Return the same batch in page-locked memory (called by DataLoader)."""
        pinned = {name: getattr(self, name).pin_memory() for name in ("waveforms", "lengths")}
        return replace(self, **pinned, labels=self.labels.pin_memory())


def collate(
    utterances: Sequence[Utterance], waveforms: Sequence[np.ndarray], labels: Sequence[int]
) -> Batch:
    """Pad waveforms (samples,) on the right and stack them."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.int64)
    padded = torch.zeros(len(waveforms), int(lengths.max()) if len(waveforms) else 0)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return Batch(tuple(utterances), padded, lengths, torch.tensor(labels, dtype=torch.int64))


def buckets(
    seconds: Sequence[float], indices: Sequence[int], max_seconds: float, max_clips: int
) -> list[list[int]]:
    """Cut `indices`, given shortest first, into batches of at most `max_seconds` once padded.

    A clip longer than `max_seconds` is a batch of its own.

    >>> buckets([1, 2, 3, 9], [0, 1, 2, 3], max_seconds=6, max_clips=8)
    [[0, 1], [2], [3]]
    """
    batches: list[list[int]] = []
    for index in indices:  # the last is the longest so far: it sets the padded length
        if (
            batches
            and len(batches[-1]) < max_clips
            and (len(batches[-1]) + 1) * seconds[index] <= max_seconds
        ):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


class LengthBatchSampler(Sampler[list[int]]):
    """Yields batches of clip indices of similar length, capped in padded seconds.

    Every index is yielded once; with several processes each yields its own share, and all yield
    equally many batches. Shuffling changes both the make-up and the order of batches from epoch to
    epoch, by seed and epoch alone.

    Args:
        seconds: length of each clip.
        max_seconds: a batch's clips times its longest clip stay below this.
        max_clips: a batch's clips stay at or below this.
        shuffle: for training.
        groups: language of each clip; with `temperature` above 1 clips of rare groups are repeated
            and those of frequent groups left out, so that a group's share is proportional to
            share ** (1 / temperature) (Conneau et al. 2020, arXiv 1911.02116, with alpha = 1/T).
        epoch: of the first shuffle.
        rank, world: this process among the processes of a distributed run.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        *,
        max_seconds: float,
        max_clips: int,
        shuffle: bool = False,
        seed: int = 0,
        groups: Sequence[str] | None = None,
        temperature: float = 1.0,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.seconds = np.asarray(seconds, dtype=float)
        self.max_seconds, self.max_clips = max_seconds, max_clips
        self.shuffle, self.seed, self.epoch = shuffle, seed, epoch
        self.groups = np.asarray(groups) if groups is not None and temperature != 1.0 else None
        self.temperature = temperature
        self.rank, self.world = rank, world
        self._planned: tuple[int, list[list[int]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle (called by Lightning)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._plan()) // self.world

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._plan()[self.rank :: self.world])

    def _plan(self) -> list[list[int]]:
        epoch = self.epoch if self.shuffle else 0
        if self._planned is None or self._planned[0] != epoch:
            self._planned = (epoch, self._batches(epoch))
        return self._planned[1]

    def _batches(self, epoch: int) -> list[list[int]]:
        random = np.random.default_rng((self.seed, epoch))
        indices = np.arange(len(self.seconds))
        jitter = 1.0
        if self.shuffle:
            indices = self._balance(random)
            jitter = random.uniform(0.98, 1.02, len(indices))
        order = indices[np.argsort(self.seconds[indices] * jitter, kind="stable")]
        if self.shuffle:  # jitter leaves neighbours out of order; the cap counts the longest
            ceiling = np.maximum.accumulate(self.seconds[order])
            batches = buckets(ceiling, range(len(order)), self.max_seconds, self.max_clips)
            batches = [[int(order[place]) for place in batch] for batch in batches]
        else:
            batches = buckets(self.seconds, order.tolist(), self.max_seconds, self.max_clips)
        while len(batches) % self.world and max(map(len, batches)) > 1:
            longest = batches.pop(max(range(len(batches)), key=lambda i: len(batches[i])))
            batches += [longest[: len(longest) // 2], longest[len(longest) // 2 :]]
        if len(batches) % self.world:  # fewer clips than processes
            batches += [[]] * (self.world - len(batches) % self.world)
        if self.shuffle:
            random.shuffle(batches)
        return batches

    def _balance(self, random: np.random.Generator) -> np.ndarray:
        """Draw as many clips as there are, with tempered shares of the groups."""
        if self.groups is None:
            return np.arange(len(self.seconds))
        names, inverse, counts = np.unique(self.groups, return_inverse=True, return_counts=True)
        shares = counts ** (1 / self.temperature)
        wanted = np.round(len(self.groups) * shares / shares.sum()).astype(int)
        drawn: list[np.ndarray] = []
        for group in range(len(names)):
            members = np.flatnonzero(inverse == group)
            rounds = -(-wanted[group] // len(members))
            passes = [random.permutation(members) for _ in range(rounds)]
            drawn.append(np.concatenate([np.empty(0, int), *passes])[: wanted[group]])
        return np.concatenate(drawn)
