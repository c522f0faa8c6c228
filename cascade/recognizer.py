"""A CTC recogniser that anyone can fit for a language without one."""

from __future__ import annotations

import itertools
import logging
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import SumMetric

from cascade.romanizer import romanizer
from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.batch import Batch
from speechtaxi.encoder import open_encoder
from speechtaxi.errors import InputError
from speechtaxi.optimizer import Optimizer
from speechtaxi.types import Utterance

log = logging.getLogger(__name__)

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


class Recognizer(LightningModule):
    """Transcribes with Connectionist Temporal Classification (Graves et al. 2006).

    Args:
        spells: "native" letters, or the letters of "uroman", which every language shares (the
            miniature of MMS-ZeroShot): such a recogniser can be tried on languages it never heard.
        encoder, encoder_config, allow_remote_code, freeze: see `e2e.SpeechClassifier`.
        symbols: what can be written; None takes the letters of the training texts.
        upsample: symbols per frame of the encoder, for encoders slower than fast speech is spelled.
        lr, encoder_lr, weight_decay, warmup, schedule, dropout: see `Classifier`.
    """

    needs = "waveforms"
    monitor = ("dev/cer", "min")

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
        self.save_hyperparameters(
            {
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
            },
            logger=False,
        )
        self.edits = nn.ModuleDict({s: SumMetric() for s in ("dev", "test")})
        self.spelled = nn.ModuleDict({s: SumMetric() for s in ("dev", "test")})
        self.too_long: list[str] = []
        self.source = ""
        if spells == "uroman":
            symbols = UROMAN_SYMBOLS
        if symbols is not None:
            self._build_output(symbols)

    def _build_output(self, symbols: list[str]) -> None:
        self.symbols = symbols
        self.hparams["symbols"] = symbols
        self.numbers = {symbol: number for number, symbol in enumerate(symbols, start=1)}
        self.output = nn.Linear(self.encoder.dim, self.upsample * (1 + len(symbols)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the class, so that `checkpoint.load` builds the right one."""
        checkpoint["class_path"] = "cascade.Recognizer"

    def target(self, utterance: Utterance) -> str:
        """Return what should be written for a clip.

        Raises:
            InputError: the clip has no text.
        """
        if not utterance.text:
            raise InputError(f"{utterance.id} has no text; a recogniser learns from transcripts")
        if self.spells == "native":
            return letters(utterance.text)
        spelled = letters(romanizer().romanize(utterance.text, utterance.language))
        return " ".join("".join(c for c in spelled if c in self.numbers).split())

    def setup(self, stage: str) -> None:
        """Collect the letters of the training texts, and report targets that are too long."""
        if stage != "fit":
            return
        clips = self.trainer.datamodule.clips["train"]
        if not hasattr(self, "output"):
            self._build_output(sorted({c for clip in clips.utterances for c in self.target(clip)}))
        self.too_long = self.too_long_for_ctc(clips.utterances, clips.seconds)
        if self.too_long:
            log.warning(
                "%d of %d training clips are spelled with more symbols than they have frames, and "
                "teach nothing; the first: %s. Raise model.upsample to use them",
                len(self.too_long),
                len(clips),
                self.too_long[0],
            )

    def too_long_for_ctc(self, clips: Iterable[Utterance], seconds: Iterable[float]) -> list[str]:
        """Return the ids of clips whose target CTC cannot align: its loss is silently zeroed.

        Each symbol takes a frame, and each repetition a blank more.
        """
        found: list[str] = []
        for clip, length in zip(clips, seconds, strict=True):
            target = self.target(clip)
            needed = len(target) + sum(a == b for a, b in itertools.pairwise(target))
            samples = torch.tensor([round(length * SAMPLE_RATE)])
            if needed > int(self.encoder.frame_count(samples)) * self.upsample:
                found.append(clip.id)
        return found

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (B, F, 1 + symbols), blank first, and their lengths (B,)."""
        frames = self.encoder(waveforms, lengths)
        scores = self.output(self.dropout(frames.last))
        scores = scores.unflatten(-1, (self.upsample, -1)).flatten(1, 2)
        return scores.float().log_softmax(-1), frames.lengths * self.upsample

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the CTC loss per symbol of a batch."""
        if not len(batch):
            return None
        scores, counts = self(batch.waveforms, batch.lengths)
        targets = [[self.numbers.get(c, 0) for c in self.target(u)] for u in batch.utterances]
        targets = [[n for n in target if n] for target in targets]
        loss = F.ctc_loss(
            scores.transpose(0, 1),
            torch.tensor(list(itertools.chain.from_iterable(targets)), device=self.device),
            counts,
            torch.tensor([len(target) for target in targets], device=self.device),
            zero_infinity=True,
        )
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the character errors of a batch of dev clips."""
        self._count(batch, "dev")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the character errors of a batch of test clips."""
        self._count(batch, "test")

    def _count(self, batch: Batch, split: str) -> None:
        if not len(batch):
            return
        targets = [self.target(u) for u in batch.utterances]
        written = self.recognize(batch.waveforms, batch.lengths)
        self.edits[split].update(sum(map(Levenshtein.distance, written, targets)))
        self.spelled[split].update(sum(map(len, targets)))

    def on_validation_epoch_end(self) -> None:
        """Log the character error rate, pooled over all dev clips."""
        self._log_cer("dev")

    def on_test_epoch_end(self) -> None:
        """Log the character error rate, pooled over all test clips."""
        self._log_cer("test")

    def _log_cer(self, split: str) -> None:
        edits, spelled = self.edits[split], self.spelled[split]
        self.log(f"{split}/cer", edits.compute() / spelled.compute(), prog_bar=True)
        edits.reset()
        spelled.reset()

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

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW with warm-up, stepped by batch."""
        return self.optimizer.configure(self)
