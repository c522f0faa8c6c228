"""Silero VAD: the chance that each 32 ms of a recording are speech.

The network is that of the package silero-vad (MIT), run here in NumPy over many frames at a time,
which takes a fifth of the time of its TorchScript file, frame by frame; the tests compare the two.
Of that file only the weights are taken (the safetensors file beside it holds others), and the
package is not imported, as its import sets torch's number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from speechtaxi.errors import InputError
from speechtaxi.segment.stretches import Heard, chunks, mean_square

HOP = 512
"""Samples in a frame."""

STARTS, STAYS = 0.5, 0.35
"""The chances from which speech begins, and as long as which it lasts: the package's own."""

LEVEL = 0.5
"""The peak at which a short recording is heard."""

SHORT = 8_000
"""Samples, half a second: less is too short to judge, a single word."""

_CONTEXT = 64  # samples before a frame that the network hears too
_CHUNK = 32 * HOP  # samples heard at once
_FFT, _STRIDE, _BINS = 256, 128, 129

Weights = dict[str, np.ndarray]


def installed() -> bool:
    """Tell whether the extra `vad` is there."""
    return find_spec("silero_vad") is not None


@cache
def weights() -> Weights:
    """Return the network's weights by name.

    Raises:
        InputError: the extra is not installed, or is another version of it.
    """
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise InputError(
            "voice activity needs the extra vad: pip install 'speechtaxi[vad]', or take energy"
        )
    path = Path(spec.origin).parent / "data" / "silero_vad.jit"
    if not path.is_file():
        raise InputError(f"{path}: no such file; install silero-vad 6.2.3 or a later 6")
    import torch

    both: Any = cast(Any, torch.jit).load(path, map_location="cpu")
    state: dict[str, torch.Tensor] = both._model.state_dict()  # the other hears 8 kHz
    return {name: tensor.numpy() for name, tensor in state.items()}


class Silero:
    """The network with the memory of one recording."""

    def __init__(self) -> None:
        self._weights = weights()
        self._context = np.zeros(_CONTEXT, np.float32)
        self._hidden = self._cell = np.zeros(128, np.float32)

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        """Return the chances of speech (frames,) in the next samples, (frames * HOP,)."""
        w = self._weights
        heard = np.concatenate([self._context, wave])
        self._context = heard[-_CONTEXT:]
        frames = sliding_window_view(heard, _CONTEXT + HOP)[::HOP]
        frames = np.pad(frames, ((0, 0), (0, _CONTEXT)), "reflect")
        short = sliding_window_view(frames, _FFT, axis=1)[:, ::_STRIDE]  # (frames, 4, 256)
        parts = short @ w["stft.forward_basis_buffer"][:, 0].T
        x = np.hypot(parts[..., :_BINS], parts[..., _BINS:])  # (frames, 4, bins)
        for layer, stride in enumerate((1, 2, 2, 1)):
            name = f"encoder.{layer}.reparam_conv"
            x = _convolve(x, w[f"{name}.weight"], w[f"{name}.bias"], stride)
        hidden = self._remember(x[:, 0])
        z = (
            np.maximum(hidden, 0) @ w["decoder.decoder.2.weight"][0, :, 0]
            + w["decoder.decoder.2.bias"]
        )
        return _sigmoid(z)

    def _remember(self, inputs: np.ndarray) -> np.ndarray:
        """Run the LSTM cell over (frames, 128)."""
        w = self._weights
        recur = np.ascontiguousarray(w["decoder.rnn.weight_hh"].T)
        gates = inputs @ w["decoder.rnn.weight_ih"].T + w["decoder.rnn.bias_ih"]
        gates += w["decoder.rnn.bias_hh"]
        hidden = np.empty((len(inputs), 128), np.float32)
        for n, gate in enumerate(gates):
            gate += self._hidden @ recur
            keep = _sigmoid(gate)
            self._cell = keep[128:256] * self._cell + keep[:128] * np.tanh(gate[256:384])
            self._hidden = hidden[n] = keep[384:] * np.tanh(self._cell)
        return hidden


def _convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Convolve (frames, time, in) with (out, in, 3), padded by one, and rectify."""
    windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (0, 0))), 3, axis=1)[:, ::stride]
    frames, time = windows.shape[:2]
    flat = windows.reshape(frames * time, -1) @ weight.reshape(len(weight), -1).T
    return np.maximum(flat + bias, 0).reshape(frames, time, -1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(x / 2)  # never overflows


def speaks(wave: np.ndarray) -> bool:
    """Tell whether there is any speech in a short recording (samples,).

    It is heard at one level, as a single quiet word is missed otherwise, and only until a quarter
    of a second of speech was found; of less than two seconds an eighth is enough. What is too short
    to judge counts as speech: of 3,000 spoken digits 10 were missed, all shorter than that, and of
    978 sentences none; of 137 cuts of 3 to 25 s from three pieces of music 2 passed.
    """
    if len(wave) < SHORT:
        return True
    wave = wave * (LEVEL / max(float(np.abs(wave).max(initial=0.0)), 1e-9))
    missing = max(1, min(8, len(wave) // HOP // 8))
    for part in heard([wave]):
        missing -= int(part.speech.sum())
        if missing <= 0:
            return True
    return False


def heard(blocks: Iterable[np.ndarray]) -> Iterator[Heard]:
    """Yield which frames of a recording are speech."""
    network, speaking = Silero(), False
    for chunk in chunks(blocks, _CHUNK):
        padded = np.pad(chunk, (0, _CHUNK - len(chunk)))  # the same shapes: the same sums
        speech: list[bool] = []
        for chance in network(padded).tolist():
            speaking = chance >= (STAYS if speaking else STARTS)
            speech.append(speaking)
        there = -(-len(chunk) // HOP)
        yield Heard(np.array(speech[:there]), mean_square(padded, HOP)[:there], len(chunk))
