"""How long a report takes, and how that grows: simulated predictions in the paper's shape.

    python benchmarks/report_scale.py --output runs/scale

simulates 28 languages x 7 systems x 3 setups x 3 seeds x 100 clips (176,400 rows in 1,197 run
folders), and smaller parts of them, runs `speechtaxi report` on each in a process of its own, and
prints rows, wall seconds, CPU seconds and peak memory as a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from speechtaxi.labels import label_set
from speechtaxi.languages import LANGUAGES
from speechtaxi.records import write_predictions, write_run
from speechtaxi.types import Prediction, RunRecord

TOPICS = label_set("taxi1500")
SHARES = np.array([0.24, 0.22, 0.17, 0.15, 0.12, 0.10])  # unbalanced, as verses are
SYSTEMS = {
    "e2e_xlsr_300m": ("e2e", None, 0.55),
    "e2e_mms_300m": ("e2e", None, 0.56),
    "e2e_mhubert_147": ("e2e", None, 0.50),
    "cascade_native": ("cascade", "native", 0.60),
    "cascade_romanized": ("cascade", "romanized", 0.58),
    "gold": ("cascade", "gold", 0.70),
    "gold_romanized": ("cascade", "gold_romanized", 0.66),
}
SETUPS = {"in-language": 0.0, "all-languages": 0.05, "zero-shot": -0.2}


def simulate(folder: Path, languages: list[str], seeds: int, clips: int) -> Iterator[Path]:
    """Write run folders; a clip's difficulty is shared by all systems and languages."""
    rng = np.random.default_rng(0)
    gold = rng.choice(len(TOPICS), size=clips, p=SHARES)
    difficulty = rng.normal(0, 0.15, size=clips)
    for system, (route, view, level) in SYSTEMS.items():
        for seed in range(seeds):
            for setup, gain in SETUPS.items():
                targets = [languages] if setup == "all-languages" else [[one] for one in languages]
                for tested in targets:
                    train = tested if setup != "zero-shot" else set(languages) - set(tested)
                    rows: list[Prediction] = []
                    for language in tested:
                        right = rng.random(clips) < level + gain + difficulty
                        other = rng.integers(len(TOPICS), size=clips)
                        odds = rng.dirichlet(np.ones(len(TOPICS)), size=clips)
                        for n in range(clips):
                            told = gold[n] if right[n] else other[n]
                            chances = np.sort(odds[n])[::-1]
                            order = [told, *(k for k in range(len(TOPICS)) if k != told)]
                            text = f"verse {n} was read so" if route == "cascade" else None
                            rows.append(
                                Prediction(
                                    f"{language}-{n}",
                                    f"verse{n}",
                                    language,
                                    TOPICS[gold[n]],
                                    TOPICS[told],
                                    {TOPICS[k]: float(chances[i]) for i, k in enumerate(order)},
                                    text,
                                    f"verse {n} was read thus" if text else None,
                                    9.5,
                                )
                            )
                    run = folder / f"{system}-{setup}-{'+'.join(tested)[:20]}-{seed}"
                    write_predictions(run / "predictions-test.jsonl", rows)
                    record = RunRecord(
                        system,
                        route,  # type: ignore[arg-type]
                        view=view,
                        train_languages=tuple(train),
                        seed=seed,
                        parameters=10**8,
                        seconds={"fit": 100.0, "test": 10.0},
                        clips={"train": 860 * len(train)},
                    )
                    write_run(run, record)
                    yield run


def main() -> None:
    """Print a row for each size."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of simulated runs")
    p.add_argument("--sizes", default="4x1,7x3,14x3,28x3", help="languages x seeds")
    p.add_argument("--clips", type=int, default=100)
    p.add_argument("--options", default="", help="of the report, in one string")
    args = p.parse_args()
    codes = [code for code, language in LANGUAGES.items() if language.in_speechtaxi]
    print("| languages x seeds | rows | runs | wall s | CPU s | peak MiB |\n" + "|---" * 6 + "|")
    for size in args.sizes.split(","):
        languages, seeds = map(int, size.split("x"))
        folder = args.output / size
        shutil.rmtree(folder, ignore_errors=True)
        runs = list(simulate(folder, codes[:languages], seeds, args.clips))
        started, before = time.perf_counter(), os.times()
        command = [sys.executable, "-m", "speechtaxi", "report", *map(str, runs), "-o"]
        command += [str(folder / "report"), *args.options.split()]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"the report of {size} failed")
        after = os.times()
        rows = languages * seeds * len(SYSTEMS) * len(SETUPS) * args.clips
        seconds = time.perf_counter() - started
        spent = after.children_user + after.children_system
        spent -= before.children_user + before.children_system
        peak = usage.ru_maxrss / 1024
        print(f"| {size} | {rows:,} | {len(runs)} | {seconds:.1f} | {spent:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
