"""Features on disk: what a frozen encoder heard of a clip once is never computed again."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speechtaxi import audio
from speechtaxi.batch import Batch, buckets
from speechtaxi.data import Clips
from speechtaxi.database import Database
from speechtaxi.encoder import SpeechEncoder
from speechtaxi.store import TranscriptStore, default_path, key
from speechtaxi.types import Utterance

log = logging.getLogger(__name__)

VERSION = 1
"""Part of every fingerprint; to be raised when a change here changes what is computed."""


def fingerprint(encoder: SpeechEncoder, *settings: object) -> str:
    """Return a hash of all that decides what an encoder hears: weights, configuration, code.

    Args:
        settings: what is kept of its frames, and how they were computed; plain values.
    """
    hasher = hashlib.blake2b(digest_size=16)
    config = {name: value for name, value in encoder.config.items() if name != "name"}
    hasher.update(json.dumps([VERSION, config, settings], sort_keys=True, default=str).encode())
    if getattr(encoder, "remote", False):  # modelling code that came with the weights
        hasher.update(Path(inspect.getfile(type(encoder.model))).read_bytes())
    for name, weights in sorted(encoder.state_dict().items()):
        hasher.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        hasher.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()


class FeatureStore(Database):
    """Arrays (R, D) by key, in an SQLite file that several processes may use at once.

    They are kept as float16; an array that float16 cannot hold is kept as float32.

    Raises:
        InputError: the file is not a feature store, or cannot be written (from any method).
    """

    KIND = "feature store"
    APPLICATION_ID = 0x53545846  # "STXF"
    SCHEMA = """
    CREATE TABLE features (
        key TEXT PRIMARY KEY, samples INTEGER NOT NULL, seconds REAL NOT NULL,
        rows INTEGER NOT NULL, dtype TEXT NOT NULL, data BLOB NOT NULL
    );
    """
    ELSEWHERE = "--model.features, null for none, or SPEECHTAXI_CACHE"

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return which of `keys` are not there."""
        query = "SELECT 1 FROM features WHERE key = ?"
        with self._explained():
            return {name for name in keys if not self._database.execute(query, (name,)).fetchone()}

    def get(self, name: str) -> tuple[int, np.ndarray]:
        """Return the samples of a clip and its features, float32 (R, D).

        Raises:
            KeyError: they are not there.
        """
        query = "SELECT samples, rows, dtype, data FROM features WHERE key = ?"
        with self._explained():
            found = self._database.execute(query, (name,)).fetchone()
        if found is None:
            raise KeyError(name)
        samples, rows, dtype, data = found
        return samples, np.frombuffer(data, dtype).reshape(rows, -1).astype(np.float32)

    def seconds(self, keys: Iterable[str]) -> float:
        """Return how long it took to compute what is there of `keys`, whenever that was."""
        query = "SELECT seconds FROM features WHERE key = ?"
        with self._explained():
            rows = (self._database.execute(query, (name,)).fetchone() for name in keys)
            return sum(row[0] for row in rows if row is not None)

    def put(self, clips: Iterable[tuple[str, int, float, np.ndarray]]) -> None:
        """Write key, samples, seconds spent and features (R, D) of clips, all or none."""
        with self._explained(), self._transaction():
            self._database.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (name, samples, seconds, len(small), small.dtype.str, small.tobytes())
                    for name, samples, seconds, array in clips
                    for small in [_small(array)]
                ),
            )


def _small(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    return small if np.isfinite(small).all() else array.astype(np.float32)


class Features:
    """The features of a run's clips: found in the store, or computed and put there.

    Args:
        place: the SQLite file, or "cache" for the user's.
        fingerprint: see `fingerprint`.
    """

    def __init__(self, place: str, fingerprint: str) -> None:
        path = default_path().with_name("features.sqlite") if place == "cache" else Path(place)
        self.store = FeatureStore(path)
        self.fingerprint = fingerprint
        self._digests = TranscriptStore(path.with_name("transcripts.sqlite"))
        self._keys: dict[Utterance, str] = {}

    def fill(
        self,
        clips: Clips,
        encode: Callable[[Batch], Sequence[Tensor]],
        *,
        batch_seconds: float,
        batch_size: int,
    ) -> None:
        """Encode the clips that nobody encoded yet; after each batch what is done is kept.

        Batches come in an order of this process's own and are looked up again before each, so that
        several processes over the same clips share the work without waiting for each other. Clips
        are not decoded from here on.

        Args:
            encode: returns one tensor (R, D) for each clip of a batch.
        """
        for row in clips.utterances:
            assert row.audio is not None
            digest = self._digests.digest(row.audio, audio.digest)
            self._keys[row] = key(digest, row.start, row.duration, self.fingerprint, None)
        keys = [self._keys[row] for row in clips.utterances]
        missing = self.store.missing(keys)
        chosen = {name: index for index, name in enumerate(keys) if name in missing}
        if chosen:
            log.warning("encoding %d clips once, for %s", len(chosen), self.store.path)
        order = sorted(chosen.values(), key=clips.seconds.__getitem__)
        batches = buckets(clips.seconds, order, batch_seconds, batch_size)
        for number in np.random.default_rng(os.getpid()).permutation(len(batches)):
            missing = self.store.missing(keys[index] for index in batches[number])
            batch = clips[[index for index in batches[number] if keys[index] in missing]]
            if len(batch):
                names = [self._keys[row] for row in batch.utterances]
                started = time.perf_counter()
                arrays = [array.float().cpu().numpy() for array in encode(batch)]
                spent = [(time.perf_counter() - started) / len(batch)] * len(batch)
                self.store.put(zip(names, batch.lengths.tolist(), spent, arrays, strict=True))
        clips.cache.clear()
        clips.hear = False

    def seconds(self, clips: Clips) -> float:
        """Return how long it took to encode clips, whenever that was."""
        return self.store.seconds(self._keys[row] for row in clips.utterances)

    def bring(self, batch: Batch) -> Batch:
        """Return a batch that was not decoded with its features and lengths."""
        if batch.waveforms.numel():
            return batch
        found = [self.store.get(self._keys[row]) for row in batch.utterances]
        device = batch.lengths.device
        return replace(
            batch,
            lengths=torch.tensor([n for n, _ in found], dtype=torch.int64, device=device),
            features=tuple(torch.from_numpy(array).to(device) for _, array in found),
        )
