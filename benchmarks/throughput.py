"""Classification by ear against transformers' pipeline: same weights, same clips, one process.

    python benchmarks/throughput.py --output runs/throughput

A random wav2vec 2.0 base (94M weights) with a head of six topics is saved as transformers would,
and its encoder and head are given to our classifier, so that both must tell the same. Clips are
noise of SpeechTaxi's lengths (median about 10 s), as WAV and as MP3. The ways take turns; seconds
are the process's CPU time on one thread, and ratios are to the pipeline at batch size 1. The
pipeline is given decoded arrays, as it needs an ffmpeg program to decode; ours decodes itself.
Equal is the share of clips with the pipeline's topic at batch size 1; outside, the share of the
time that is not the encoder's. Peak memory (--memory) is that of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from memory import peak_mib
from noise import clips
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    pipeline,
)

from e2e import SpeechClassifier
from speechtaxi import audio, checkpoint

TOPICS = ["economy", "health", "sport", "weather", "conflict", "culture"]


def peers(folder: Path, layers: int) -> tuple[Path, SpeechClassifier]:
    """Save a random model of transformers, and return ours with the same weights."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(num_labels=len(TOPICS), num_hidden_layers=layers)
    theirs = Wav2Vec2ForSequenceClassification(config).eval()
    theirs.save_pretrained(folder)
    # What the checkpoints of this size say: group norm in the front, no mask for padding
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    ours = SpeechClassifier(TOPICS, encoder=str(folder)).eval()
    with torch.no_grad():  # the mean of a projection is the projection of the mean
        ours.head.weight.copy_(theirs.classifier.weight @ theirs.projector.weight)
        ours.head.bias.copy_(
            theirs.classifier.weight @ theirs.projector.bias + theirs.classifier.bias
        )
    return folder, ours


class Stopwatch:
    """CPU seconds of a module's calls."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.seconds = self._started = 0.0
        module.register_forward_pre_hook(self._start)
        module.register_forward_hook(self._stop)

    def _start(self, *_: object) -> None:
        self._started = time.process_time()

    def _stop(self, *_: object) -> None:
        self.seconds += time.process_time() - self._started


def main() -> None:
    """Print a row for each way."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of clips and weights")
    p.add_argument("--clips", type=int, default=12)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--memory", action="store_true", help="measure peak memory too")
    p.add_argument("--way", help="run this way alone and print its peak memory")
    args = p.parse_args()
    torch.set_num_threads(1)
    paths = clips(args.output / "clips", args.clips)
    folder = args.output / "model"
    theirs = ours = None
    if not args.way:
        shutil.rmtree(args.output / "ours", ignore_errors=True)
        checkpoint.save(peers(folder, args.layers)[1], args.output / "ours", "random")
    if not args.way or args.way.startswith("pipeline"):
        theirs = pipeline("audio-classification", model=str(folder), device="cpu", top_k=None)
    if not args.way or args.way.startswith("speechtaxi"):
        ours = checkpoint.load(args.output / "ours")
    waves = [audio.load(path) for path in paths]
    seconds = sum(map(len, waves)) / audio.SAMPLE_RATE

    def piped(size: int) -> list[dict[str, float]]:
        inputs = [{"raw": wave, "sampling_rate": audio.SAMPLE_RATE} for wave in waves]
        return [
            {row["label"]: row["score"] for row in rows} for rows in theirs(inputs, batch_size=size)
        ]

    def classified(dtype: torch.dtype = torch.float32, **options: int) -> list[dict[str, float]]:
        ours.compute = dtype
        return [dict(row.probabilities) for row in ours.classify(list(paths), **options)]

    ways: dict[str, Callable[[], list[dict[str, float]]]] = {
        "pipeline, batch size 1": lambda: piped(1),
        "pipeline, batch size 8": lambda: piped(8),
        "speechtaxi": classified,
        "speechtaxi, batch size 8": lambda: classified(batch_size=8),
        "speechtaxi, bfloat16": lambda: classified(torch.bfloat16),
    }
    if args.way:
        ways[args.way]()
        print(peak_mib())
        return
    spent, inside = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    encoder = Stopwatch(ours.encoder)
    told: dict[str, list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for name, way in ways.items():
            started, before = time.process_time(), encoder.seconds
            told[name] = way()
            spent[name] += time.process_time() - started
            inside[name] += encoder.seconds - before
    labels = [f"LABEL_{n}" for n in range(len(TOPICS))]
    first = np.array([[row[label] for label in labels] for row in told["pipeline, batch size 1"]])
    print(f"{len(paths)} clips, {seconds:.0f} s of audio, {args.rounds} rounds\n")
    gap_and_more = "largest difference of a probability | equal | outside | peak MiB"
    print(f"| | CPU s / audio s | ratio | {gap_and_more} |\n|---|---|---|---|---|---|---|")
    for name, rows in told.items():
        names = labels if name.startswith("pipeline") else TOPICS
        chances = np.array([[row[label] for label in names] for row in rows])
        gap = np.abs(chances - first).max()
        equal = (chances.argmax(1) == first.argmax(1)).mean()
        peak = "-"
        if args.memory:
            command = [sys.executable, __file__, "--output", args.output, "--way", name]
            command += ["--clips", str(args.clips)]
            alone = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            peak = f"{float(alone.stdout):,.0f}"
        per_second = spent[name] / args.rounds / seconds
        ratio = spent[name] / spent["pipeline, batch size 1"]
        outside = f"{1 - inside[name] / spent[name]:.1%}" if inside[name] else "-"
        cells = f"{gap:.1e} | {equal:.0%} | {outside} | {peak}"
        print(f"| {name} | {per_second:.3f} | {ratio:.2f} | {cells} |")


if __name__ == "__main__":
    main()
