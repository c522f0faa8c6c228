"""How much of a grid's work is shared: what each run would do alone, with empty caches, against it.

    python benchmarks/shared_work.py --output runs/shared

A small grid over synthetic clips: three systems (E2E with a frozen encoder, a native cascade, a
romanised one; encoder and recogniser random), three setups (In-Language, All-Languages, Zero-Shot
from the first language) and two seeds; each run trains and tests. It is run twice, once with caches
that the runs share and once with empty ones for each run, and all that is costly is counted: clips
that an encoder or a recogniser hears, words that uroman spells, and files that are decoded. Epochs
over clips held in memory are not counted again, in either.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from speechtaxi import audio, checkpoint
from speechtaxi.records import write_manifest
from speechtaxi.types import Utterance

LABELS = ["up", "down"]
LETTERS = "аеилмнорст "
SPLITS = {"train": 16, "dev": 4, "test": 8}
COUNTED = ("clips encoded", "clips transcribed", "words romanised", "files decoded")
Setup = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Name, languages to train on, languages to test on."""


def corpus(folder: Path, languages: tuple[str, ...]) -> Path:
    """Write noisy sweeps, 1 to 3 s, up or down."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rows: list[Utterance] = []
    for language in languages:
        for split, count in SPLITS.items():
            for number in range(count):
                time = np.arange(round(random.uniform(1, 3) * audio.SAMPLE_RATE)) / 16_000
                wave = 0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time)
                wave = wave[:: (1, -1)[number % 2]] + 0.02 * random.standard_normal(len(time))
                path = folder / f"{language}-{split}-{number}.flac"
                soundfile.write(path, wave, audio.SAMPLE_RATE)
                label, group = LABELS[number % 2], f"{split}-{number}"
                rows.append(
                    Utterance(path.stem, language, str(path), split, label=label, group=group)
                )
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def setups(languages: tuple[str, ...]) -> list[Setup]:
    """Return the paper's three: one run for each language, one for all, one from the first."""
    alone = [("In-Language", (language,), (language,)) for language in languages]
    return [
        *alone,
        ("All-Languages", languages, languages),
        ("Zero-Shot", languages[:1], languages[1:]),
    ]


def models(folder: Path) -> dict[str, dict[str, Any]]:
    """Save a random encoder and recogniser, and return the systems that use them."""
    from cascade import Recognizer
    from e2e import SpeechClassifier

    torch.manual_seed(0)
    for name, model in (
        ("encoder", SpeechClassifier(LABELS)),
        ("recognizer", Recognizer(spells="native", symbols=list(LETTERS))),
    ):
        if not (folder / name).exists():
            checkpoint.save(model, folder / name, "random")
    recognizer = str(folder / "recognizer")
    return {
        "E2E, frozen": {"encoder": str(folder / "encoder"), "freeze": "all"},
        "native cascade": {"recognizer": recognizer, "view": "native"},
        "romanised cascade": {"recognizer": recognizer, "view": "romanized"},
    }


def run(options: dict[str, Any], setup: Setup, seed: int, manifest: Path) -> None:
    """Train and test one system."""
    from lightning.pytorch import Trainer, seed_everything

    from cascade import TextClassifier
    from e2e import SpeechClassifier
    from speechtaxi.data import SpeechDataModule

    seed_everything(seed, verbose=False)
    _, train, test = setup
    data = SpeechDataModule(
        str(manifest), LABELS, languages=list(train), test_languages=list(test), seed=seed
    )
    model = (TextClassifier if "view" in options else SpeechClassifier)(LABELS, **options)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)


def watch(counts: Counter[str]) -> None:
    """Count all that is costly from here on."""
    from cascade.asr import TrainedRecognizer
    from cascade.romanizer import Romanizer
    from e2e import SpeechClassifier

    hear, transcribe = SpeechClassifier._hear, TrainedRecognizer.transcribe
    keep, load = Romanizer._keep, audio.load

    def heard(self: Any, batch: Any) -> Any:
        counts["clips encoded"] += len(batch)
        return hear(self, batch)

    def transcribed(self: Any, waveforms: Any, *rest: Any) -> Any:
        counts["clips transcribed"] += len(waveforms)
        return transcribe(self, waveforms, *rest)

    def spelled(self: Any, words: dict[str, str], language: str) -> None:
        counts["words romanised"] += len(words)
        keep(self, words, language)

    def decoded(*clip: Any) -> np.ndarray:
        counts["files decoded"] += 1
        return load(*clip)

    SpeechClassifier._hear, TrainedRecognizer.transcribe = heard, transcribed
    Romanizer._keep, audio.load = spelled, decoded


def runs(systems: dict[str, Any], planned: list[Setup], seeds: int) -> Iterator[Any]:
    """Yield system's options, setup and seed of each run of the grid."""
    for options in systems.values():
        for setup in planned:
            for seed in range(seeds):
                yield options, setup, seed


def main() -> None:
    """Print the table."""
    from cascade.romanizer import romanizer

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of clips, models, caches")
    p.add_argument("--languages", nargs="+", default=["eng", "rus", "ukr"])
    p.add_argument("--seeds", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "speechtaxi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    languages, cache = tuple(args.languages), args.output / "cache"
    manifest = corpus(args.output / "clips", languages)
    systems, planned = models(args.output), setups(languages)
    counts: Counter[str] = Counter()
    watch(counts)
    romanizer().romanize("слово", "rus")  # loaded before either grid
    told: dict[str, Counter[str]] = {}
    seconds: dict[str, float] = {}
    os.environ["SPEECHTAXI_CACHE"] = str(cache)
    for name in ("shared", "alone"):
        shutil.rmtree(cache, ignore_errors=True)
        romanizer.cache_clear()
        romanizer().romanize("слово", "rus")
        counts.clear()
        started = time.process_time()
        for options, setup, seed in runs(systems, planned, args.seeds):
            if name == "alone":
                shutil.rmtree(cache, ignore_errors=True)
                romanizer.cache_clear()
            run(options, setup, seed, manifest)
        seconds[name], told[name] = time.process_time() - started, Counter(counts)
    clips = len(languages) * sum(SPLITS.values())
    total = len(systems) * len(planned) * args.seeds
    print(f"{total} runs over {clips} clips in {len(languages)} languages\n")
    print("| | each run alone | shared | ratio |\n|---|---|---|---|")
    for name in COUNTED:
        alone, shared = told["alone"][name], told["shared"][name]
        print(f"| {name} | {alone:,} | {shared:,} | {shared / max(1, alone):.3f} |")
    alone, shared = (sum(told[name].values()) for name in ("alone", "shared"))
    print(f"| all of these | {alone:,} | {shared:,} | {shared / alone:.3f} |")
    alone, shared = seconds["alone"], seconds["shared"]
    print(f"| CPU s of the grid | {alone:.1f} | {shared:.1f} | {shared / alone:.3f} |")


if __name__ == "__main__":
    main()
