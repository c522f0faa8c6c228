"""Poolings: padding weighs nothing, and each does what its name says."""

import pytest
import torch

from e2e.pooling import POOLINGS, LayerMix, open_pooling
from speechtaxi.errors import InputError

torch.manual_seed(0)
FRAMES = torch.randn(3, 7, 8)
MASK = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_weighs_nothing(name):
    pooling = open_pooling(name, 8)
    vectors = pooling(FRAMES, MASK)
    assert vectors.shape == (3, pooling.dim)
    noisy = torch.where(MASK[..., None], FRAMES, 99.0)
    torch.testing.assert_close(pooling(noisy, MASK), vectors)
    torch.testing.assert_close(pooling(FRAMES[1:2, :4], MASK[1:2, :4]), vectors[1:2])


def test_mean_and_statistics_are_those_of_torch():
    alone = FRAMES[1, :4]
    torch.testing.assert_close(open_pooling("mean", 8)(FRAMES, MASK)[1], alone.mean(0))
    torch.testing.assert_close(open_pooling("max", 8)(FRAMES, MASK)[1], alone.amax(0))
    expected = torch.cat([alone.mean(0), (alone.var(0, correction=0) + 1e-5).sqrt()])
    torch.testing.assert_close(open_pooling("statistics", 8)(FRAMES, MASK)[1], expected)


def test_attention_with_equal_scores_is_the_mean():
    pooling = open_pooling("attention", 8)
    torch.nn.init.zeros_(pooling.scores[2].weight)
    torch.testing.assert_close(pooling(FRAMES, MASK), open_pooling("mean", 8)(FRAMES, MASK))


def test_layer_mix_begins_as_the_mean_of_layers():
    layers = (FRAMES, 2 * FRAMES, 6 * FRAMES)
    torch.testing.assert_close(LayerMix(3)(layers), 3 * FRAMES)


def test_unknown_pooling():
    with pytest.raises(InputError, match="use one of mean, max, statistics, attention"):
        open_pooling("median", 8)
