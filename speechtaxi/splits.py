"""Splits where a manifest has none: by group, the same wherever they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from speechtaxi.types import Split, Utterance


def with_splits(rows: Sequence[Utterance], shares: Mapping[Split, float]) -> list[Utterance]:
    """Make the splits that are missing, by the hash of each clip's group.

    Args:
        shares: of the groups, by split; a split that is there stays as it is.
    """
    if not any(shares.values()):
        return list(rows)
    there = {row.split for row in rows}
    source = "train" if "train" in there else "predict"
    wanted: dict[Split, float] = {s: share for s, share in shares.items() if s not in there}

    def split(row: Utterance) -> Split:
        digest = hashlib.blake2b((row.group or row.id).encode(), digest_size=4).digest()
        place, reached = int.from_bytes(digest, "big") / 2**32, 0.0
        for name, share in wanted.items():
            reached += share
            if place < reached:
                return name
        return "train"

    return [replace(row, split=split(row)) if row.split == source else row for row in rows]
