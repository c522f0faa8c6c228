"""Pooling: many frames become one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechtaxi.errors import InputError


class MeanPooling(nn.Module):
    """Mean over the frames of a clip.

    Shape: frames (B, F, D), mask (B, F) bool -> (B, D)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        return weighted_mean(frames, mask.to(frames.dtype))


class MaxPooling(nn.Module):
    """Largest value over the frames of a clip: finds a few telling words in many others.

    It is what an encoder that is trained from scratch learns topics with; a mean hardly moves.

    Shape: frames (B, F, D), mask (B, F) bool -> (B, D)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        return frames.masked_fill(~mask[..., None], float("-inf")).amax(1)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over the frames of a clip (Snyder et al. 2018, x-vectors).

    Shape: frames (B, F, D), mask (B, F) bool -> (B, 2 D)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = 2 * dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        weights = mask.to(frames.dtype)
        mean = weighted_mean(frames, weights)
        variance = weighted_mean((frames - mean[:, None]).square(), weights)
        return torch.cat([mean, (variance + 1e-5).sqrt()], -1)


class AttentionPooling(nn.Module):
    """Mean weighted by learned attention, one set of weights a head (Safari et al. 2020).

    Each head attends with its own query and returns its own share of the vector's dimensions.

    Shape: frames (B, F, D), mask (B, F) bool -> (B, D)
    """

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.scores = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, heads))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        scores = self.scores(frames).masked_fill(~mask[..., None], float("-inf"))
        weights = scores.softmax(1)  # (batch, frames, heads)
        shares = frames.unflatten(-1, (self.heads, -1))  # (batch, frames, heads, size)
        return (weights[..., None] * shares).sum(1).flatten(1)


POOLINGS = {
    "mean": MeanPooling,
    "max": MaxPooling,
    "statistics": StatisticsPooling,
    "attention": AttentionPooling,
}


class LayerMix(nn.Module):
    """Softmax-weighted sum of an encoder's layers (SUPERB, Yang et al. 2021, arXiv 2105.01051).

    Shape: n tensors (B, F, D) -> (B, F, D)
    """

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_layers))

    def forward(self, layers: tuple[Tensor, ...]) -> Tensor:
        return torch.einsum("l,lbfd->bfd", self.weights.softmax(0), torch.stack(layers))


def weighted_mean(frames: Tensor, weights: Tensor) -> Tensor:
    """Mean of frames (B, F, D) with weights (B, F)."""
    return torch.einsum("bf,bfd->bd", weights, frames) / weights.sum(1, keepdim=True)


def open_pooling(
    name: str, dim: int
) -> MeanPooling | MaxPooling | StatisticsPooling | AttentionPooling:
    """Return a pooling by name.

    Raises:
        InputError: no pooling has this name.
    """
    if name not in POOLINGS:
        raise InputError(f"unknown pooling '{name}'; use one of {', '.join(POOLINGS)}")
    return POOLINGS[name](dim)
