"""Whisper's encoder with a head, against transformers' pipeline: same weights, one process.

    python benchmarks/hearing_whisper.py --output runs/hearing_whisper

A random Whisper tiny (or base) with a head of six topics is saved as transformers would, and its
encoder and head are given to our classifier. Clips are noise of 2 to 25 s (median about 10 s), as
WAV. The ways take turns; seconds are the process's CPU time on one thread, ratios are to the
pipeline at batch size 1. The pipeline is given decoded arrays; ours decodes itself. With 30 s ours
must tell the same as the pipeline up to pooling: the pipeline's mean is over 30 s, padding too, and
ours over a clip's own frames, so that ours is compared with transformers' own frames, pooled so.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from noise import clips
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    pipeline,
)

from e2e import SpeechClassifier
from speechtaxi import audio

TOPICS = ["economy", "health", "sport", "weather", "conflict", "culture"]
SIZES = {"tiny": (384, 4, 6), "base": (512, 6, 8)}
"""Width, layers and heads (arXiv 2212.04356, table 1)."""


def peers(
    folder: Path, size: str
) -> tuple[WhisperForAudioClassification, dict[str, SpeechClassifier]]:
    """Save a random model of transformers; return it and ours, for each window, of its weights."""
    torch.manual_seed(0)
    width, layers, heads = SIZES[size]
    config = WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_layers=1,
        num_labels=len(TOPICS),
    )
    theirs = WhisperForAudioClassification(config).eval()
    theirs.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    ours: dict[str, SpeechClassifier] = {}
    for window in ("30s", "clip"):
        model = SpeechClassifier(TOPICS, encoder=str(folder), whisper_window=window).eval()
        with torch.no_grad():  # the mean of a projection is the projection of the mean
            model.head.weight.copy_(theirs.classifier.weight @ theirs.projector.weight)
            model.head.bias.copy_(
                theirs.classifier.weight @ theirs.projector.bias + theirs.classifier.bias
            )
        ours[window] = model
    return theirs, ours


@torch.inference_mode()
def pooled(model: WhisperForAudioClassification, wave: np.ndarray, window: str) -> np.ndarray:
    """Return probabilities of transformers' own frames, the clip's alone, (C,)."""
    mels = WhisperFeatureExtractor()(wave, sampling_rate=audio.SAMPLE_RATE, return_tensors="pt")
    frames = -(-len(wave) // 320)
    encoder, features = model.encoder, mels.input_features
    whole = encoder.embed_positions
    if window == "clip":
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(whole.weight[:frames])
        encoder.config.max_source_positions, features = frames, features[:, :, : 2 * frames]
    heard = encoder(features).last_hidden_state[0, :frames].mean(0)
    encoder.embed_positions, encoder.config.max_source_positions = whole, whole.num_embeddings
    return model.classifier(model.projector(heard)).softmax(-1).numpy()


def main() -> None:
    """Print a row for each way."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of clips and weights")
    p.add_argument("--size", choices=SIZES, default="tiny")
    p.add_argument("--clips", type=int, default=16)
    p.add_argument("--rounds", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(1)
    paths = clips(args.output / "clips", args.clips, ["wav"])
    folder = args.output / f"whisper-{args.size}"
    theirs, ours = peers(folder, args.size)
    piped = pipeline("audio-classification", model=str(folder), device="cpu", top_k=None)
    ours["bf16"] = copy.deepcopy(ours["clip"]).bfloat16()
    waves = [audio.load(path) for path in paths]
    seconds = sum(map(len, waves)) / audio.SAMPLE_RATE

    def classified(window: str, dtype: torch.dtype = torch.float32, **options: int) -> np.ndarray:
        ours[window].compute = dtype
        rows = list(ours[window].classify(list(paths), **options))
        return np.array([[row.probabilities[topic] for topic in TOPICS] for row in rows])

    def pipe(size: int) -> None:
        inputs = [{"raw": wave, "sampling_rate": audio.SAMPLE_RATE} for wave in waves]
        piped(inputs, batch_size=size)

    ways: dict[str, tuple[Callable[[], np.ndarray | None], str]] = {
        "pipeline, batch size 1": (lambda: pipe(1), ""),
        "pipeline, batch size 8": (lambda: pipe(8), ""),
        "speechtaxi, 30 s": (lambda: classified("30s"), "30s"),
        "speechtaxi, clip": (lambda: classified("clip"), "clip"),
        "speechtaxi, clip, one at a time": (lambda: classified("clip", batch_size=1), "clip"),
        "speechtaxi, clip, bfloat16": (lambda: classified("clip", torch.bfloat16), "clip"),
        "speechtaxi, clip, bf16 weights": (lambda: classified("bf16"), "clip"),
    }
    expected = {w: np.array([pooled(theirs, wave, w) for wave in waves]) for w in ("30s", "clip")}
    spent = dict.fromkeys(ways, 0.0)
    gaps: dict[str, str] = {}
    for _ in range(args.rounds):
        for name, (way, window) in ways.items():
            started = time.process_time()
            told = way()
            spent[name] += time.process_time() - started
            gaps[name] = "" if told is None else f"{np.abs(told - expected[window]).max():.1e}"
    print(f"whisper-{args.size}: {len(paths)} clips, {seconds:.0f} s, {args.rounds} rounds\n")
    print("| | CPU s / audio s | ratio | largest difference of a probability |\n|---|---|---|---|")
    for name in ways:
        ratio = spent[name] / spent["pipeline, batch size 1"]
        each = spent[name] / args.rounds / seconds
        print(f"| {name} | {each:.4f} | {ratio:.2f} | {gaps[name]} |")


if __name__ == "__main__":
    main()
