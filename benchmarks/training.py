"""Training by ear against transformers' Trainer: same clips, same weights, one process.

    python benchmarks/training.py --output runs/training

A random wav2vec 2.0 (the layout of the base model with layer norm, as in XLS-R, but small) with a
head of six topics is saved as transformers would; its weights are given to our classifier, so that
both start from the same loss. Both train with AdamW and a linearly falling rate over the same clips
(noise of SpeechTaxi's lengths, decoded beforehand), with equal numbers of clips a batch. The ways
take turns; seconds are the process's CPU time on one thread, an epoch's the least of the rounds;
peaks are measured by a process of their own for each way.

Then features: an epoch over a frozen encoder against a plain loop over transformers' model, and an
epoch over kept features against one that encodes (transformers' feature-extraction pipeline takes
text alone); and padding within a language, by arithmetic.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from speechtaxi import audio
from speechtaxi.batch import LengthBatchSampler
from speechtaxi.labels import LABEL_SETS
from speechtaxi.records import write_manifest
from speechtaxi.types import Utterance

TOPICS = LABEL_SETS["taxi1500"]
MEDIAN = 10.0
"""Seconds of a clip."""
WAYS = ("random", "grouped", "ours", "capped")
NAMES = {
    "random": "Trainer, random batches",
    "grouped": "Trainer, group_by_length",
    "ours": "speechtaxi, as many clips a batch",
    "capped": "speechtaxi, capped at the seconds of an average batch",
}


def lengths(count: int) -> np.ndarray:
    """Return seconds of clips as long as SpeechTaxi's, median about 10, (count,)."""
    return np.clip(np.random.default_rng(0).lognormal(np.log(MEDIAN), 0.5, count), 2, 25)


def corpus(folder: Path, seconds: Iterable[float]) -> Path:
    """Write noise of these lengths, and its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    rows: list[Utterance] = []
    for number, length in enumerate(seconds):
        path = folder / f"{number:03}.wav"
        wave = 0.1 * random.standard_normal(round(length * audio.SAMPLE_RATE))
        soundfile.write(path, wave, audio.SAMPLE_RATE)
        topic = TOPICS[number % len(TOPICS)]
        rows += [
            Utterance(f"{split}-{number}", "eng", audio=str(path), split=split, label=topic)
            for split in ("train", "dev")[: 1 if number else 2]
        ]
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def model_folder(folder: Path, layers: int, size: int) -> Path:
    """Save a random classifier of transformers; no dropout, so that both compute the same."""
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForSequenceClassification,
    )

    torch.manual_seed(0)
    none = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    config = Wav2Vec2Config(
        num_labels=len(TOPICS),
        num_hidden_layers=layers,
        hidden_size=size,
        intermediate_size=4 * size,
        num_attention_heads=size // 64,
        conv_dim=(size,) * 7,
        classifier_proj_size=size,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        mask_time_prob=0.0,
        layerdrop=0.0,
        final_dropout=0.0,
        **dict.fromkeys(none, 0.0),
    )
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def trainer(model: Path, manifest: Path, batch: int, grouped: bool) -> Callable[[], list[float]]:
    """Return what trains an epoch with transformers' Trainer and gives the padding shares."""
    from transformers import (
        Trainer,
        TrainingArguments,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForSequenceClassification,
    )

    from speechtaxi.records import read_manifest

    extractor = Wav2Vec2FeatureExtractor.from_pretrained(model)
    rows = [row for row in read_manifest(manifest) if row.split == "train"]
    clips = [
        {
            "input_values": extractor(audio.load(row.audio), sampling_rate=16_000)["input_values"][
                0
            ],
            "labels": TOPICS.index(row.label),
        }
        for row in rows
    ]
    padding: list[float] = []

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        padded = extractor.pad(
            [{"input_values": clip["input_values"]} for clip in batch], return_tensors="pt"
        )
        padding.append(1 - float(padded["attention_mask"].float().mean()))
        return {**padded, "labels": torch.tensor([clip["labels"] for clip in batch])}

    network = Wav2Vec2ForSequenceClassification.from_pretrained(model)
    order = {"train_sampling_strategy": "group_by_length"} if grouped else {}
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=1e-4,
        optim="adamw_torch",
        weight_decay=0.01,
        max_grad_norm=1.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        **order,
    )

    def epoch() -> list[float]:
        padding.clear()
        Trainer(
            network,
            arguments,
            train_dataset=clips,
            data_collator=collate,
            processing_class=extractor,
        ).train()
        return list(padding)

    return epoch


def ours(model: Path, manifest: Path, batch: int, seconds: float) -> Callable[[], list[float]]:
    """Return what trains an epoch with our loop and gives the padding shares."""
    from lightning.pytorch import Callback, Trainer

    from speechtaxi.data import SpeechDataModule

    padding: list[float] = []

    class Padding(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
            padding.append(1 - float(batch.lengths.sum()) / batch.waveforms.numel())

    network = classifier(model)
    data = SpeechDataModule(str(manifest), TOPICS, batch_size=batch, batch_seconds=seconds)
    data.setup("fit")
    for clips in data.clips.values():
        clips[list(range(len(clips)))]  # decoded beforehand, as the Trainer's

    def epoch() -> list[float]:
        padding.clear()
        Trainer(
            max_epochs=1, callbacks=[Padding()], gradient_clip_val=1.0, limit_val_batches=0, **QUIET
        ).fit(network, data)
        return list(padding)

    return epoch


QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


def classifier(model: Path, **options: Any) -> Any:
    """Return our classifier with the encoder of transformers' one and its head, merged."""
    from transformers import Wav2Vec2ForSequenceClassification

    from e2e import SpeechClassifier

    theirs = Wav2Vec2ForSequenceClassification.from_pretrained(model)
    options = {"lr": 1e-4, "warmup": 0.0, "dropout": 0.0} | options
    network = SpeechClassifier(TOPICS, encoder=str(model), **options)
    with torch.no_grad():  # the mean of a projection is the projection of the mean
        network.head.weight.copy_(theirs.classifier.weight @ theirs.projector.weight)
        network.head.bias.copy_(
            theirs.classifier.weight @ theirs.projector.bias + theirs.classifier.bias
        )
    return network


def opened(way: str, model: Path, manifest: Path, batch: int) -> Callable[[], list[float]]:
    """Return a way of training an epoch, by name."""
    if way in ("ours", "capped"):
        return ours(model, manifest, batch, 1e9 if way == "ours" else batch * MEDIAN)
    return trainer(model, manifest, batch, way == "grouped")


def peak(way: str, arguments: list[str]) -> float:
    """Return the MiB that an epoch needs beyond what was there before it."""
    command = [sys.executable, __file__, *arguments, "--peak", way]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def memory(field: str) -> float:
    """Return the MiB that this process holds (VmRSS), or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def spent(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of a piece of work."""
    started = time.process_time()
    work()
    return time.process_time() - started


def features(model: Path, manifest: Path, folder: Path) -> dict[str, float]:
    """Return CPU seconds of extracting each clip's mean vector, by way."""
    from lightning.pytorch import Trainer
    from transformers import AutoFeatureExtractor, AutoModel

    from speechtaxi.data import SpeechDataModule

    data = SpeechDataModule(str(manifest), TOPICS, batch_size=8, test_split="train")
    paths = [row.audio for row in data.utterances if row.split == "train"]
    network = AutoModel.from_pretrained(model).eval()
    extractor = AutoFeatureExtractor.from_pretrained(model)

    @torch.inference_mode()
    def looped(size: int) -> None:
        for start in range(0, len(paths), size):
            waves = [audio.load(path) for path in paths[start : start + size]]
            inputs = extractor(waves, sampling_rate=16_000, return_tensors="pt", padding=True)
            network(**inputs).last_hidden_state.mean(1)

    def run(store: Path | None) -> float:
        frozen = classifier(model, freeze="all", features=store and str(store))
        loop = Trainer(max_epochs=1, limit_val_batches=0, **QUIET)
        return spent(lambda: loop.fit(frozen, data))

    seconds = {
        "loop, clip by clip": spent(lambda: looped(1)),
        "loop, batches of 8": spent(lambda: looped(8)),
    }
    first = run(folder / "features.sqlite")
    again = run(folder / "features.sqlite")
    return seconds | {
        "speechtaxi, one epoch, nothing kept yet": first,
        "speechtaxi, one epoch over what is kept": again,
        "speechtaxi, one epoch without features": run(None),
    }


def padding(seconds: np.ndarray, batch: int, epochs: int = 10) -> dict[str, float]:
    """Return the share of padding within one language, by way of making batches."""

    def share(batches: Iterable[list[int]]) -> float:
        cells = audio_seconds = 0.0
        for chosen in batches:
            cells += len(chosen) * seconds[chosen].max()
            audio_seconds += seconds[chosen].sum()
        return 1 - audio_seconds / cells

    from transformers.trainer_pt_utils import get_length_grouped_indices

    def cut(order: Iterable[int]) -> list[list[int]]:
        order = list(order)
        return [order[n : n + batch] for n in range(0, len(order), batch)]

    random = np.random.default_rng(0)
    grouped = lambda n: get_length_grouped_indices(  # noqa: E731
        seconds.tolist(), batch, generator=torch.Generator().manual_seed(n)
    )
    sampler = LengthBatchSampler(seconds, max_seconds=1e9, max_clips=batch, shuffle=True)

    def drawn(epoch: int) -> list[list[int]]:
        sampler.set_epoch(epoch)
        return list(sampler)

    makers: dict[str, Callable[[int], list[list[int]]]] = {
        "random": lambda n: cut(random.permutation(len(seconds))),
        "grouped": lambda n: cut(grouped(n)),
        "ours": drawn,
    }
    return {
        way: float(np.mean([share(make(n)) for n in range(epochs)])) for way, make in makers.items()
    }


def main() -> None:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of clips and weights")
    p.add_argument("--clips", type=int, default=128)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--size", type=int, default=64)
    p.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "speechtaxi", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    manifest, model = args.output / "clips" / "manifest.jsonl", args.output / "model"
    if args.peak:
        epoch = opened(args.peak, model, manifest, args.batch)
        Path("/proc/self/clear_refs").write_text("5")  # forget what loading held at most
        before = memory("VmRSS")
        with redirect_stdout(sys.stderr):  # the Trainer prints
            epoch()
        print(memory("VmHWM") - before)
        return
    corpus(args.output / "clips", lengths(args.clips))
    model_folder(model, args.layers, args.size)
    ways = {way: opened(way, model, manifest, args.batch) for way in WAYS}
    best, shares = dict.fromkeys(WAYS, np.inf), dict.fromkeys(WAYS, 0.0)
    for _ in range(args.rounds):
        for way, epoch in ways.items():
            started = time.process_time()
            with redirect_stdout(sys.stderr):
                shares[way] += float(np.mean(epoch())) / args.rounds
            best[way] = min(best[way], time.process_time() - started)
    hours = (
        f"{args.clips} clips, {lengths(args.clips).sum():.0f} s of audio, batches of {args.batch}"
    )
    print(f"{hours}, {args.rounds} rounds\n")
    print("| | CPU s per epoch | ratio | padding | peak MiB of an epoch | ratio |")
    print("|---|---|---|---|---|---|")
    options = [f"--{k}={v}" for k, v in vars(args).items() if k != "peak"]
    peaks = {way: peak(way, options) for way in WAYS}
    for way in WAYS:
        print(
            f"| {NAMES[way]} | {best[way]:.1f} | {best[way] / best['random']:.2f} | "
            f"{shares[way]:.1%} | {peaks[way]:.0f} | {peaks[way] / peaks['random']:.2f} |"
        )
    print("\n| mean vectors of all clips | CPU s | ratio |\n|---|---|---|")
    found = features(model, manifest, Path(tempfile.mkdtemp()))
    for name, seconds in found.items():
        print(f"| {name} | {seconds:.2f} | {seconds / found['loop, clip by clip']:.3f} |")
    print("\n| padding, 900 clips of a language, batches of | 8 | 16 | 32 |\n|---|---|---|---|")
    by_size = [padding(lengths(900), size) for size in (8, 16, 32)]
    for way in WAYS[:3]:
        print(f"| {NAMES[way]} | {' | '.join(f'{shares[way]:.1%}' for shares in by_size)} |")


if __name__ == "__main__":
    main()
