"""How long a report's statistics take: every score and every paired difference, by seed.

    python benchmarks/board.py --resamples 10000

28 languages x 100 clips x 6 systems x 3 training seeds by default: 50,400 predictions. Prints
seconds of each step on one thread, and the most memory that was held.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from speechtaxi.report.board import Board
from speechtaxi.report.runs import Run
from speechtaxi.types import Prediction, RunRecord

TOPICS = ("Recommendation", "Faith", "Description", "Sin", "Grace", "Violence")


def simulated(languages: int, clips: int, systems: int, seeds: int) -> list[Run]:
    """Return runs of systems that are right in 4 to 8 of 10 clips; verses are shared."""
    rng = np.random.default_rng(0)
    names = [f"l{number:02}" for number in range(languages)]
    gold = rng.choice(6, size=clips, p=np.array([224, 208, 147, 122, 112, 47]) / 860)
    runs: list[Run] = []
    for system in range(systems):
        for seed in range(seeds):
            record = RunRecord(f"s{system}", "cascade" if system % 2 else "e2e", seed=seed)
            found: dict[str, list[Prediction]] = {}
            for name in names:
                right = rng.random(clips) < 0.4 + 0.4 * system / systems
                answers = np.where(right, gold, rng.integers(6, size=clips))
                found[name] = [
                    Prediction(f"{n:03}", f"v{n}", name, TOPICS[gold[n]], TOPICS[answer], {})
                    for n, answer in enumerate(answers)
                ]
            runs.append(Run(record, Path(f"s{system}-{seed}"), found))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, number in (("languages", 28), ("clips", 100), ("systems", 6), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--resamples", type=int, default=10_000)
    options = parser.parse_args()
    runs = simulated(options.languages, options.clips, options.systems, options.seeds)
    board = Board(runs, TOPICS, resamples=options.resamples)
    print(f"{'runs':22} {_peak():6.0f} MiB")

    def scores() -> None:
        for arm in board.arms:
            for languages in (*((name,) for name in arm.languages), arm.languages):
                board.macro_f1(arm, languages).interval()
                board.accuracy(arm, languages).interval()

    def gaps() -> None:
        for first, second in combinations(board.arms, 2):
            for languages in (*((name,) for name in first.languages), first.languages):
                gap = board.gap(first, second, languages)
                gap.sample.interval()
                assert 0 < gap.p <= 1

    for step in (scores, gaps):
        start, used = time.perf_counter(), time.process_time()
        step()
        print(
            f"{step.__name__:22} {_peak():6.0f} MiB {time.perf_counter() - start:6.1f} s "
            f"({time.process_time() - used:.1f} CPU s)"
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
