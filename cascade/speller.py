"""A recogniser that can be trained here, without its training (`cascade.recognizer`)."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from speechtaxi.encoder import open_encoder
from speechtaxi.optimizer import Optimizer

UROMAN_SYMBOLS = [" ", "'", *"abcdefghijklmnopqrstuvwxyz"]
"""What a recogniser that spells uroman may write (MMS-ZeroShot, arXiv 2407.17852)."""


def letters(text: str) -> str:
    """Return the text as a recogniser spells it: NFC, lower case, no punctuation, single spaces.

    >>> letters("Today, on the radio:  RAIN!")
    'today on the radio rain'
    """
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    kept = (c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join("".join(kept).split())


class Speller(nn.Module):
    """Transcribes with Connectionist Temporal Classification (Graves et al. 2006).

    Args:
        spells: "native" letters, or the letters of "uroman", which every language shares (the
            miniature of MMS-ZeroShot): such a recogniser can be tried on languages it never heard.
        encoder, encoder_config, allow_remote_code, freeze: see `e2e.SpeechModel`.
        symbols: what can be written; None takes the letters of the training texts.
        upsample: symbols per frame of the encoder, for encoders slower than fast speech is spelled.
        lr, encoder_lr, weight_decay, warmup, schedule, dropout: see `Classifier`.
    """

    def __init__(
        self,
        *,
        spells: Literal["native", "uroman"] = "uroman",
        encoder: str = "small",
        encoder_config: dict[str, Any] | None = None,
        allow_remote_code: list[str] | None = None,
        freeze: str = "none",
        symbols: list[str] | None = None,
        upsample: int = 2,
        lr: float = 2e-3,
        encoder_lr: float | None = None,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        schedule: Literal["linear", "cosine"] = "linear",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        allowed = allow_remote_code or []
        self.encoder = open_encoder(encoder, config=encoder_config, allow_remote_code=allowed)
        self.encoder.freeze(freeze)
        self.spells = spells
        self.optimizer = Optimizer(lr, encoder_lr, weight_decay, warmup, schedule)
        self.dropout = nn.Dropout(dropout)
        self.upsample = upsample
        self.settings = {
            "spells": spells,
            "encoder": encoder,
            "encoder_config": self.encoder.config,
            "allow_remote_code": allowed,
            "freeze": freeze,
            "upsample": upsample,
            "lr": lr,
            "encoder_lr": encoder_lr,
            "weight_decay": weight_decay,
            "warmup": warmup,
            "schedule": schedule,
            "dropout": dropout,
        }
        self.source = ""
        if spells == "uroman":
            symbols = UROMAN_SYMBOLS
        if symbols is not None:
            self.build_output(symbols)

    def build_output(self, symbols: list[str]) -> None:
        """Add the last layer once the symbols are known."""
        self.symbols = symbols
        self.settings["symbols"] = symbols
        self.numbers = {symbol: number for number, symbol in enumerate(symbols, start=1)}
        self.output = nn.Linear(self.encoder.dim, self.upsample * (1 + len(symbols)))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (B, F, 1 + symbols), blank first, and their lengths (B,)."""
        frames = self.encoder(waveforms, lengths)
        scores = self.output(self.dropout(frames.last))
        scores = scores.unflatten(-1, (self.upsample, -1)).flatten(1, 2)
        return scores.float().log_softmax(-1), frames.lengths * self.upsample

    @torch.no_grad()
    def recognize(self, waveforms: Tensor, lengths: Tensor) -> list[str]:
        """Transcribe waveforms (B, T) of `lengths` (B,) samples by greedy decoding."""
        scores, counts = self(waveforms, lengths)
        best = scores.argmax(-1).cpu()
        return [self.spell(row[:n].tolist()) for row, n in zip(best, counts.tolist(), strict=True)]

    def spell(self, numbers: Sequence[int]) -> str:
        """Turn a path of symbol numbers into text: repetitions merged, blanks dropped."""
        merged = (number for number, _ in itertools.groupby(numbers))
        text = "".join(self.symbols[number - 1] for number in merged if number)
        return " ".join(text.split())
