"""Writes a run folder's record: run.json, predictions, calibration."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from speechtaxi import records, temperature
from speechtaxi.batch import Batch
from speechtaxi.callbacks import MetricsLog
from speechtaxi.data import Clips
from speechtaxi.errors import InputError
from speechtaxi.types import Prediction, RunRecord

RECORDED = ("speechtaxi", "torch", "torchaudio", "lightning", "transformers", "uroman", "numpy")


class RunWriter(Callback):
    """Keeps run.json, and writes predictions-<split>.jsonl after a test or a prediction.

    With several processes the first one gathers and writes; every clip has one row, in the
    manifest's order.
    """

    def __init__(
        self,
        folder: str | Path,
        system: str | None = None,
        notes: list[str] | None = None,
        setup: str | None = None,
    ):
        self.folder = Path(folder)
        self.system = system or self.folder.resolve().name
        self.notes, self.setup_name = tuple(notes or ()), setup
        self.rows: list[Prediction] = []
        self.started = 0.0
        self.before = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.rows, self.started = [], time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Keep how long the training has taken, for a run that is resumed."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.logger, MetricsLog) and trainer.is_global_zero:
            trainer.logger.go_on(trainer.current_epoch)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.monotonic()  # transcribing is told apart

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the training: the run is finished from here on."""
        data = trainer.datamodule.describe()
        heard = [trainer.datamodule.clips[split] for split in ("train", "dev")]
        calibration = temperature.read(self.folder)
        record = RunRecord(
            system=self.system,
            route=getattr(pl_module, "route", "cascade"),
            view=getattr(pl_module, "view", None),
            romanize=_romanize(pl_module),
            recognizer=_fingerprint(pl_module),
            labels=tuple(getattr(pl_module, "labels", ())),
            setup=self.setup_name,
            seed=_seed(),
            parameters=_parameters(pl_module),
            seconds={"fit": round(self._seconds() + _encoding(pl_module, *heard), 1)},
            versions={name: version(name) for name in RECORDED}
            | {"python": sys.version.split()[0]},
            git_commit=_git_commit(),
            hardware=_hardware(trainer),
            temperature=calibration and calibration.temperature,
            notes=self.notes + _too_long(pl_module),
            **data,
        )
        if trainer.is_global_zero:
            records.write_run(self.folder, record)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any
    ) -> None:
        self.rows += outputs or []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any
    ) -> None:
        self.rows += outputs or []

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "predict")

    def _write(self, trainer: Trainer, model: LightningModule, stage: str) -> None:
        rows = _gathered(trainer, self.rows)
        if not rows or not trainer.is_global_zero:
            return
        data = trainer.datamodule
        clips = data.clips[data.test_split]
        place = {u.id: n for n, u in enumerate(clips.utterances)}
        records.write_predictions(
            self.folder / f"predictions-{data.test_split}.jsonl",
            sorted(rows, key=lambda row: place[row.id]),
        )
        record = records.read_run(self.folder)
        described = data.describe()
        spent = round(self._seconds() + _encoding(model, clips), 1)
        seconds = {**record.seconds, stage: spent}
        if reading := model.reading_seconds(clips.utterances):
            seconds["transcribe"] = round(reading, 3)
        records.write_run(
            self.folder,
            replace(
                record,
                clips={**record.clips, data.test_split: len(rows)},
                skipped=described["skipped"],
                flagged=dict(Counter(flag for row in rows for flag in row.flags)),
                seconds=seconds,
                temperature=model.temperature if getattr(model, "calibrated", False) else None,
            ),
        )

    def _seconds(self) -> float:
        return round(self.before + time.monotonic() - self.started, 1)


class Calibrator(Callback):
    """Fits a temperature to the dev clips, and writes that of the best model: calibration.json.

    Each dev pass is used as it comes, and each checkpoint keeps its own temperature: no further
    pass is needed, and a run that is resumed knows what was found before.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.answers: list[tuple[list[float], int, str]] = []
        self.found: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.found = state_dict

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            (self.folder / temperature.FILE).unlink(missing_ok=True)  # the best model may change

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.answers = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *args: Any
    ) -> None:
        if isinstance(outputs, torch.Tensor):  # a recogniser returns none
            languages = [utterance.language for utterance in batch.utterances]
            rows = zip(outputs.tolist(), batch.labels.tolist(), languages, strict=True)
            self.answers += rows

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        answers = _gathered(trainer, self.answers)
        if trainer.sanity_checking or not answers:
            return
        try:
            self.found = asdict(temperature.calibrate(*zip(*answers, strict=True)))
        except InputError as error:
            self.found = {"reason": str(error)}
        if trainer.state.fn == TrainerFn.VALIDATING and trainer.is_global_zero:
            self._tell(self.found)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and hasattr(pl_module, "temperature"):
            self._tell(self._of_the_best())

    def _of_the_best(self) -> dict[str, Any]:
        path = self.folder / "checkpoints" / "best.ckpt"
        if not path.is_file():
            return {"reason": "no dev clips were scored"}
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return saved["callbacks"].get(self.state_key) or {
            "reason": "an earlier version saved the best model; `speechtaxi validate RUN` does it"
        }

    def _tell(self, found: dict[str, Any]) -> None:
        if "reason" in found:
            line = f"not calibrated: {found['reason']}"
        else:
            calibration = temperature.Calibration(**found)
            temperature.write(self.folder, calibration)
            line = str(calibration)
        print(line, file=sys.stderr, flush=True)


def _gathered(trainer: Trainer, share: list[Any]) -> list[Any]:
    """Return what all processes bring, to each of them."""
    if trainer.world_size == 1:
        return share
    shares: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, share)
    return [item for share in shares for item in share]


def _encoding(model: LightningModule, *clips: Clips) -> float:
    """Return what encoding the clips took whose features are kept, whenever that was."""
    encoding = getattr(model, "encoding_seconds", None)
    return sum(map(encoding, clips)) if encoding is not None else 0.0


def _romanize(model: LightningModule) -> str | None:
    return model.romanize if "romanized" in getattr(model, "view", "") else None


def _fingerprint(model: LightningModule) -> str | None:
    holder = getattr(model, "_transcriber", None)
    return holder.fingerprint if holder is not None else None


def _parameters(model: LightningModule) -> int | None:
    """Return the weights that the route needs; None where its recogniser is not there any more."""
    trained = sum(weights.numel() for weights in model.parameters())
    try:
        return trained + (model.reading_parameters() if hasattr(model, "view") else 0)
    except InputError:  # all transcripts were at hand
        return None


def _too_long(model: LightningModule) -> tuple[str, ...]:
    ids = getattr(model, "too_long", None)
    if ids is None:
        return ()
    return (f"{len(ids)} training clips have targets too long for CTC",)


def _seed() -> int | None:
    seed = os.environ.get("PL_GLOBAL_SEED")
    return int(seed) if seed is not None else None


def _hardware(trainer: Trainer) -> dict[str, str]:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "processes": str(trainer.world_size),
        "precision": str(trainer.precision),
        "threads": str(torch.get_num_threads()),
    }


def _git_commit() -> str | None:
    """Return the commit of the working folder's repository, where it is one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return found.stdout.strip() or None
