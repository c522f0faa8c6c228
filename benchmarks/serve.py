"""The server against the command line: same model, same clips, one process each.

    python benchmarks/serve.py --speech ../shared/data/speech --output runs/serve

Two models with random weights: a fast one (the demo's small encoder), where overheads show, and a
slow one (wav2vec 2.0 base, 94M weights; `--slow_clips 0` leaves it out). Clips are real speech cut
to SpeechTaxi's lengths (median about 10 s), half WAV and half MP3. `speechtaxi classify` runs in a
process of its own, in which a call with one clip tells what the start costs; the server in another,
asked by a bounded number of clients at once. Their requests are prepared before the clock starts,
as they would take the server's cores. The ways take turns, and the cheapest round of each counts.
Seconds are CPU time of that process, as the machine may be shared: wall time is only told.
Answers must be equal.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import soundfile

TOPICS = ["economy", "health", "sport", "weather", "conflict", "culture"]
Probabilities = dict[str, dict[str, float]]
Cost = tuple[float, float]
"""CPU seconds and wall seconds."""


def clips(speech: Path, folder: Path, count: int) -> list[Path]:
    """Cut recordings, one after the other, to clips of 2 to 25 s, half as WAV and half as MP3."""
    from speechtaxi import audio

    folder.mkdir(parents=True, exist_ok=True)
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(10), 0.5, count), 2, 25)
    found, wave, paths = iter(sorted(speech.rglob("*.flac"))), np.zeros(0, np.float32), list[Path]()
    for number, seconds in enumerate(lengths):
        while len(wave) < (size := round(seconds * audio.SAMPLE_RATE)):
            wave = np.concatenate([wave, audio.load(next(found))])
        paths.append(folder / f"{number:03}.{('wav', 'mp3')[number % 2]}")
        soundfile.write(paths[-1], wave[:size], audio.SAMPLE_RATE)
        wave = wave[size:]
    return paths


def save(folder: Path, layers: int) -> str:
    """Save a model with random weights; 0 layers: the small one."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    from e2e import SpeechClassifier
    from speechtaxi import checkpoint

    model = folder / "model"
    if model.is_dir():  # of an earlier run; the seed is the same
        return str(model)
    torch.manual_seed(0)
    encoder = "small"
    if layers:
        encoder = str(folder / "encoder")
        Wav2Vec2Model(Wav2Vec2Config(num_hidden_layers=layers)).save_pretrained(encoder)
        Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(encoder)
    checkpoint.save(SpeechClassifier(TOPICS, encoder=encoder), str(model), "random\n")
    return str(model)


def command(model: str, paths: list[str], output: str, more: list[str]) -> Cost:
    """Run `speechtaxi classify` in this process; return what it cost."""
    from speechtaxi.cli import main

    cpu, wall = time.process_time(), time.perf_counter()
    options = ["--output", output, "--overwrite", "--top_k", str(len(TOPICS)), *more]
    assert main(["classify", model, *paths, *options]) == 0
    return time.process_time() - cpu, time.perf_counter() - wall


class Command:
    """`speechtaxi classify` in a process of its own."""

    def __init__(self, model: str, output: Path) -> None:
        self.model, self.output = model, output
        self.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def ask(self, paths: list[Path], *more: str) -> tuple[Cost, Probabilities]:
        """Return what the clips cost, less the start, and the answers."""
        names = list(map(str, paths))

        def run(some: list[str]) -> Cost:
            words = (self.model, some, str(self.output), list(more))
            return self.process.submit(command, *words).result()

        start, whole = run(names[:1]), run(names)
        share = len(names) / (len(names) - 1)
        rows = map(json.loads, self.output.read_text().splitlines())
        cost = (whole[0] - start[0]) * share, (whole[1] - start[1]) * share
        return cost, {row["id"]: row["probabilities"] for row in rows}

    def stop(self) -> None:
        self.process.shutdown()


class Server:
    """`speechtaxi serve` in a process of its own."""

    def __init__(self, model: str, places: int) -> None:
        words = [sys.executable, "-m", "speechtaxi", "serve", model, "--port", "0"]
        self.process = subprocess.Popen(
            [*words, "--queue", str(places)], stderr=subprocess.PIPE, text=True
        )
        line = self.process.stderr.readline()  # type: ignore[union-attr]
        self.client = httpx2.Client(base_url=re.search(r"http://\S+", line)[0], timeout=600)  # type: ignore[index]
        while self.client.get("/health").status_code != 200:
            time.sleep(0.1)

    def cpu(self) -> float:
        """Return the CPU seconds spent so far, as Linux counts them."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def form(self, path: Path) -> httpx2.Request:
        """Return what sends a file as a form."""
        files, asked = {"file": (path.name, path.read_bytes())}, {"top_k": len(TOPICS)}
        return self.client.build_request("POST", "/v1/classify", params=asked, files=files)

    def json(self, path: Path) -> httpx2.Request:
        """Return what sends a file within JSON."""
        sound = base64.b64encode(path.read_bytes()).decode()
        body = {"audio": sound, "name": path.name, "top_k": len(TOPICS)}
        return self.client.build_request("POST", "/v1/classify", json=body)

    def ask(
        self, form: Callable[[Path], httpx2.Request], paths: list[Path], clients: int
    ) -> tuple[Cost, Probabilities]:
        """Send the clips, so many at once; return what they cost here, and the answers."""
        requests = [form(path) for path in paths]
        for request in requests:
            request.read()
        with ThreadPoolExecutor(clients) as threads:
            cpu, wall = self.cpu(), time.perf_counter()
            answers = list(threads.map(self.client.send, requests))
            cost = self.cpu() - cpu, time.perf_counter() - wall
        replies = [answer.raise_for_status().json() for answer in answers]
        return cost, {
            reply["name"]: reply["results"][0]["answers"][-1]["probabilities"] for reply in replies
        }

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def compare(
    name: str, model: str, paths: list[Path], folder: Path, clients: list[int], rounds: int
) -> None:
    """Print a row for each way; they take turns, and the cheapest round of each counts."""
    terminal, server = Command(model, folder / "rows.jsonl"), Server(model, max(clients))
    ways: dict[str, Callable[[], tuple[Cost, Probabilities]]] = {
        "classify": lambda: terminal.ask(paths),
        "classify --no_gate": lambda: terminal.ask(paths, "--no_gate"),
    }
    for count in clients:
        for send in (server.form, server.json):
            way = f"serve, {send.__name__}, {count} clients"
            ways[way] = partial(server.ask, send, paths, count)
    try:
        terminal.ask(paths[:2])  # both warm
        server.ask(server.form, paths[:8], max(clients))
        told = {number: [ask() for ask in ways.values()] for number in range(rounds)}
    finally:
        terminal.stop()
        server.stop()
    costs = {
        way: tuple(min(told[n][at][0][kind] for n in told) for kind in (0, 1))
        for at, way in enumerate(ways)
    }
    known, whole = told[0][0][1], told[0][1][1]
    for one in told.values():
        for (_, answers), way in zip(one, ways, strict=True):
            expected = whole if "no_gate" in way else known
            assert answers.keys() == expected.keys()
            for clip, chances in expected.items():
                assert answers[clip] == chances or near(answers[clip], chances), (way, clip)
    print(f"<!-- {sum(not chances for chances in known.values())} without speech -->")
    for way, (cpu, wall) in costs.items():
        rates = f"{len(paths) / cpu:.1f} | {len(paths) / wall:.1f}"
        ratios = f"{cpu / costs['classify'][0]:.2f} | {wall / costs['classify'][1]:.2f}"
        print(f"| {name} | {way} | {rates} | {ratios} |", flush=True)


def near(one: dict[str, float], other: dict[str, float]) -> bool:
    """Tell whether probabilities are equal but for what padding and rounding leave."""
    return one.keys() == other.keys() and all(abs(one[key] - other[key]) < 2e-4 for key in one)


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--speech", type=Path, required=True, help="folder of recordings, FLAC")
    p.add_argument("--output", type=Path, required=True, help="folder of clips and weights")
    p.add_argument("--clips", type=int, default=96, help="for the fast model (96)")
    p.add_argument("--slow_clips", type=int, default=16, help="for the slow one (16)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--clients", type=int, nargs="+", default=[8], help="at once (8)")
    args = p.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    paths = clips(args.speech, args.output / "clips", max(args.clips, args.slow_clips))
    print("| model | way | clips / CPU s | clips / s | CPU ratio | wall ratio |")
    print("|---|---|---|---|---|---|")
    for name, layers, count in (("fast", 0, args.clips), ("slow", 12, args.slow_clips)):
        if count:
            folder = args.output / name
            compare(name, save(folder, layers), paths[:count], folder, args.clients, args.rounds)


if __name__ == "__main__":
    main()
