"""The cascade against transformers' two pipelines: same weights, same clips, same answers.

    python benchmarks/reading.py --output runs/reading

A random Whisper tiny (39M weights) transcribes, and a random text encoder in the sizes of XLM-R
base (278M) reads, with a tokenizer of letters; then a mean over the tokens, and a head of six
topics. The peer is transformers' pipelines for recognition and for features, with that mean and
that head after them. The ways take turns, each with nothing known of the clips; seconds are the
process's CPU time on one thread. Ours decodes the files itself, and keeps its transcripts; the
last row is a second run, which finds them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from memory import peak_mib
from noise import clips
from recognition import piped, save
from throughput import TOPICS

from cascade import TextClassifier
from speechtaxi import audio

Way = Callable[[], np.ndarray]
REFERENCE = "transformers' pipelines, batch size 1"


def save_encoder(folder: Path) -> None:
    """Write a random XLM-R base whose tokens are the letters of UTF-8, where it is not yet."""
    if folder.exists():
        return
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*specials, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)
    torch.manual_seed(0)
    sizes = {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1}
    XLMRobertaModel(XLMRobertaConfig(**sizes)).save_pretrained(folder)
    fast.save_pretrained(folder)


def classifier(output: Path) -> TextClassifier:
    """Return our cascade with random weights, its store not yet set."""
    torch.manual_seed(1)
    return TextClassifier(
        TOPICS,
        view="native",
        recognizer=str(output / "whisper" / "transformers"),
        encoder=str(output / "xlmr"),
    ).eval()


def pipelines(output: Path, waves: list[np.ndarray], head: torch.nn.Linear, size: int) -> Way:
    """transformers' two pipelines, with our mean and our head."""
    from transformers import pipeline

    hear = piped(output / "whisper", size)
    read = pipeline("feature-extraction", str(output / "xlmr"), device="cpu")

    def way() -> np.ndarray:
        texts = [text.strip() for text in hear(waves)]
        options = {"truncation": True, "max_length": 256}
        frames = read(texts, batch_size=1, return_tensors=True, tokenize_kwargs=options)
        with torch.inference_mode():
            return head(torch.stack([one[0].mean(0) for one in frames])).softmax(-1).numpy()

    return way


def ours(output: Path, paths: list[Path], model: TextClassifier, known: bool) -> Way:
    """Our classifier, over files."""

    def way() -> np.ndarray:
        model.store = str(output / "transcripts.sqlite")
        if not known:
            for part in output.glob("transcripts.sqlite*"):
                part.unlink()
        model._transcriber, opened = None, model._transcriber
        if opened is not None:  # the weights stay, what was read is forgotten
            model.transcriber.recognizer = opened.recognizer
        model._readings.clear()
        rows = model.classify(list(paths), language="eng")
        return np.array([[row.probabilities[topic] for topic in TOPICS] for row in rows])

    return way


def main() -> None:
    """Print a row for each way."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of clips and weights")
    p.add_argument("--clips", type=int, default=8)
    p.add_argument("--way", help="run this way alone and print its peak memory as JSON")
    args = p.parse_args()
    torch.set_num_threads(1)
    paths = clips(args.output / "clips", args.clips)
    waves = [audio.load(path) for path in paths]
    save(args.output / "whisper")
    save_encoder(args.output / "xlmr")
    head = classifier(args.output).head
    opened: dict[str, Callable[[], Way]] = {
        REFERENCE: lambda: pipelines(args.output, waves, head, 1),
        "transformers' pipelines, batch size 4": lambda: pipelines(args.output, waves, head, 4),
        "speechtaxi": lambda: ours(args.output, paths, classifier(args.output), False),
        "speechtaxi, again": lambda: ours(args.output, paths, classifier(args.output), True),
    }
    if args.way:
        opened[args.way]()()
        print(json.dumps(peak_mib()))
        return
    ways = {name: way() for name, way in opened.items()}
    spent: dict[str, float] = {}
    told: dict[str, np.ndarray] = {}
    for name, way in ways.items():
        started = time.process_time()
        told[name] = way()
        spent[name] = time.process_time() - started
    seconds = sum(map(len, waves)) / audio.SAMPLE_RATE
    print(f"{len(paths)} clips, {seconds:.0f} s of audio\n")
    print("| | CPU s / audio s | ratio | largest difference of a probability | peak MiB |")
    print("|---|---|---|---|---|")
    for name, row in told.items():
        command = [sys.executable, __file__, "--output", args.output, "--clips", str(args.clips)]
        alone = subprocess.run([*command, "--way", name], stdout=subprocess.PIPE, check=True)
        peak = json.loads(alone.stdout.splitlines()[-1])
        gap, ratio = np.abs(row - told[REFERENCE]).max(), spent[name] / spent[REFERENCE]
        per_second = spent[name] / seconds
        print(f"| {name} | {per_second:.3f} | {ratio:.2f} | {gap:.1e} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
