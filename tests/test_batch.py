"""Batches: padding, caps, shares of processes."""

import numpy as np
import pytest
import torch

from speechtaxi.batch import LengthBatchSampler, collate
from speechtaxi.types import Utterance


def sampler(seconds, **options):
    options = {"max_seconds": 40.0, "max_clips": 8} | options
    return LengthBatchSampler(seconds, **options)


@pytest.fixture
def seconds():
    return np.random.default_rng(1).gamma(4, 3, 300).tolist()


def test_collate_pads_right_with_zeros():
    batch = collate(
        [Utterance("a", "eng"), Utterance("b", "eng")], [np.ones(3, "f"), np.ones(5, "f")], [1, -1]
    )
    assert batch.waveforms.tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch.lengths.tolist() == [3, 5]
    assert batch.labels.tolist() == [1, -1]
    assert batch.to("cpu").utterances == batch.utterances


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_clip_once_under_the_caps_and_equally_many_batches(seconds, shuffle, world):
    shares = [sampler(seconds, shuffle=shuffle, rank=rank, world=world) for rank in range(world)]
    batches = [batch for share in shares for batch in share]
    assert sorted(index for batch in batches for index in batch) == list(range(300))
    assert len({len(share) for share in shares}) == 1
    assert {len(list(share)) for share in shares} == {len(shares[0])}
    for batch in batches:
        longest = max(seconds[index] for index in batch)
        assert len(batch) <= 8
        assert len(batch) == 1 or len(batch) * longest <= 40.0


def test_more_processes_than_clips_still_end_together():
    shares = [list(sampler([1.0, 2.0], rank=rank, world=4)) for rank in range(4)]
    assert {len(share) for share in shares} == {1}
    assert sorted(i for share in shares for batch in share for i in batch) == [0, 1]


def test_shuffle_depends_on_seed_and_epoch_alone(seconds):
    one, same, other = (sampler(seconds, shuffle=True, seed=s) for s in (0, 0, 1))
    assert list(one) == list(same) != list(other)
    one.set_epoch(1)
    assert list(one) != list(same)
    same.set_epoch(1)
    assert list(one) == list(same)


def test_padding_stays_small(seconds):
    """The target: at most 5 % at batch 32 for 900 clips of one language."""
    lengths = np.random.default_rng(2).gamma(8, 1.4, 900)
    padded = real = 0.0
    for batch in sampler(lengths, shuffle=True, max_clips=32, max_seconds=1e9):
        padded += len(batch) * lengths[batch].max()
        real += lengths[batch].sum()
    assert 1 - real / padded < 0.05


def test_temperature_evens_out_languages():
    languages = ["eng"] * 900 + ["ewe"] * 100
    drawn = sampler([1.0] * 1000, shuffle=True, groups=languages, temperature=1e9)
    counts = np.bincount([index >= 900 for batch in drawn for index in batch])
    assert counts.tolist() == [500, 500]
    assert {i for b in drawn for i in b if i >= 900} == set(range(900, 1000))  # none is lost


def test_lengths_are_int64():
    assert collate([Utterance("a", "eng")], [np.ones(3, "f")], [0]).lengths.dtype == torch.int64
