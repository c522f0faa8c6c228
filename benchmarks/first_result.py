"""How soon the first result of one file is there, against the bare imports that it needs.

    python benchmarks/first_result.py --output runs/first_result

`speechtaxi classify MODEL FILE` of a small model of ours and of a random wav2vec 2.0 base, in turns
with a Python that imports torch and the one model class and does nothing. Medians of wall and CPU
seconds, of processes that begin anew each time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from noise import clips
from throughput import TOPICS, peers

from e2e import SpeechClassifier
from speechtaxi import checkpoint

BARE = {
    "small": "import torch; from speechtaxi.encoder.small import SmallEncoder",
    "wav2vec2": "import torch; from transformers import Wav2Vec2Model",
}


def save(folder: Path) -> None:
    """Write both models, where they are not yet."""
    if not (folder / "small").exists():
        torch.manual_seed(0)
        checkpoint.save(SpeechClassifier(TOPICS), folder / "small", "random")
    if not (folder / "wav2vec2").exists():
        checkpoint.save(peers(folder / "hub", 12)[1], folder / "wav2vec2", "random")


def seconds(command: list[str]) -> tuple[float, float]:
    """Return wall and CPU seconds of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} fails")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime


def main() -> None:
    """Print a row for each model."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of clips and models")
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    clip = clips(args.output / "clips", 1)[0]
    save(args.output)
    commands = {
        (model, way): [sys.executable, *line]
        for model, imports in BARE.items()
        for way, line in {
            "bare": ["-c", imports],
            "classify": [
                *("-m", "speechtaxi", "classify", str(args.output / model), str(clip)),
                *("--format", "jsonl", "--no_gate"),  # noise is to be heard too
            ],
        }.items()
    }
    spent: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in commands}
    for _ in range(args.rounds):
        for key, command in commands.items():
            spent[key].append(seconds(command))
    print("| | bare: wall s, CPU s | first result: wall s, CPU s | ratio of CPU s |")
    print("|---|---|---|---|")
    for model in BARE:
        bare, ours = (
            [median(column) for column in zip(*spent[model, way], strict=True)]
            for way in ("bare", "classify")
        )
        cells = " | ".join(f"{wall:.1f}, {cpu:.1f}" for wall, cpu in (bare, ours))
        print(f"| {model} | {cells} | {ours[1] / bare[1]:.2f} |")


if __name__ == "__main__":
    main()
