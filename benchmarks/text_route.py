"""The small text model on Taxi1500 tables, by the public commands, beside benchmarks/text_floor.py.

    python benchmarks/text_route.py --data ../shared/data/taxi1500 --output runs/text

fits and tests `cascade_tiny` on gold text, prints test macro-F1 by language as a Markdown table,
and leaves the run folders and SETUP-VIEW.jsonl; what is done is not done again. text_floor.py
leaves files of the same names, so that

    speechtaxi compare runs/text/zero-shot-native.jsonl runs/floor/zero-shot-native.jsonl

tells what the difference is worth.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from speechtaxi.cli import main as speechtaxi
from speechtaxi.records import read_manifest as read
from speechtaxi.records import read_predictions, write_manifest, write_predictions
from speechtaxi.scores import macro_f1, tally
from speechtaxi.types import Prediction

SPEECHTAXI = "eng,fra,rus,vie,guj,kan,mar,pan,tam,tel,ukr,urd,bgc"
VIEWS = {"native": "gold", "romanized": "gold_romanized"}


def main() -> None:
    """Print a row for each setup and view."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder of <code>.tsv")
    p.add_argument("--output", type=Path, required=True, help="folder of runs")
    p.add_argument("--languages", default=SPEECHTAXI)
    p.add_argument("--setups", default="in-language,all-languages,zero-shot")
    args = p.parse_args()
    codes = args.languages.split(",")
    manifest = args.output / "manifest.jsonl"
    args.output.mkdir(parents=True, exist_ok=True)
    write_manifest(
        manifest, [u for code in codes for u in read(args.data / f"{code}.tsv", language=code)]
    )
    print("| setup | " + " | ".join(codes) + " | mean |\n" + "|---" * (len(codes) + 2) + "|")
    for setup in args.setups.split(","):
        for name, view in VIEWS.items():
            rows: list[Prediction] = []
            for code in codes if setup != "all-languages" else ["all"]:
                train = {"in-language": [code], "all-languages": codes}.get(setup)
                train = train or [other for other in codes if other != code]
                run = args.output / f"{setup}-{name}-{code}"
                tested = codes if code == "all" else [code]
                rows += fit_and_test(run, manifest, view, train, tested)
            write_predictions(args.output / f"{setup}-{name}.jsonl", rows)
            cells = [score([row for row in rows if row.language == code]) for code in codes]
            row = " | ".join(f"{cell:.3f}" for cell in [*cells, sum(cells) / len(cells)])
            print(f"| {setup} {name} | {row} |", flush=True)


def fit_and_test(
    run: Path, manifest: Path, view: str, train: list[str], tested: list[str]
) -> list[Prediction]:
    """Return the test predictions."""
    predictions = run / "predictions-test.jsonl"
    if not predictions.exists():
        data = [f"--data.manifest={manifest}", f"--data.languages=[{','.join(train)}]"]
        model = ["-c", "cascade_tiny", f"--model.view={view}", f"--run={run}", "--ckpt_path=last"]
        target = f"--data.test_languages=[{','.join(tested)}]"
        speechtaxi(["fit", "-c", "cpu", "-c", "verses", *data, target, *model])
        with contextlib.redirect_stdout(sys.stderr):  # the table alone goes to stdout
            speechtaxi(["test", str(run)])
    return read_predictions(predictions)


def score(rows: list[Prediction]) -> float:
    """Return macro-F1."""
    labels = list(rows[0].probabilities)
    gold = [labels.index(row.label or "") for row in rows]
    told = [labels.index(row.prediction) for row in rows]
    return float(macro_f1(tally(gold, told, len(labels)).sum(0)))


if __name__ == "__main__":
    main()
