"""The floor that the small text model must reach: TF-IDF with logistic regression on gold text.

    python benchmarks/text_floor.py --data ../shared/data/taxi1500

prints test macro-F1 by language as a Markdown table: in one language, trained on all together, and
zero-shot (trained on all but the one tested). One thread; about ten CPU minutes for everything,
of which in-language takes 20 seconds and all-languages one minute.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits

from cascade.romanizer import romanizer
from speechtaxi.records import read_manifest, write_predictions
from speechtaxi.types import Prediction, Utterance

SPEECHTAXI = "eng,fra,rus,vie,guj,kan,mar,pan,tam,tel,ukr,urd,bgc"
SETUPS, VIEWS = "in-language,all-languages,zero-shot", "native,romanized"

Rows = list[tuple[str, Utterance]]  # text as the view shows it, row
Corpus = dict[str, dict[str, Rows]]  # language -> split -> rows


def read(folder: Path, languages: list[str], view: str, with_language: bool) -> Corpus:
    """Read <code>.tsv of each language; romanise where the view asks for it."""
    corpus: Corpus = {}
    for code in languages:
        splits: dict[str, Rows] = {"train": [], "dev": [], "test": []}
        for row in read_manifest(folder / f"{code}.tsv", language=code):
            text = str(row.text)
            if view == "romanized":
                text = romanizer().romanize(text, code if with_language else None)
            splits[row.split].append((text, row))
        corpus[code] = splits
    return corpus


def floor() -> Pipeline:
    """Return the untrained floor: character 2-5-grams within words, balanced regression, C = 30."""
    return make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
        LogisticRegression(C=30, class_weight="balanced", max_iter=1000),
    )


def predict(corpus: Corpus, setup: str) -> Iterator[list[Prediction]]:
    """Yield the test predictions of each language."""
    together = floor().fit(*_train(corpus, list(corpus))) if setup == "all-languages" else None
    for code in corpus:
        others = [other for other in corpus if other != code]
        model = together or floor().fit(
            *_train(corpus, [code] if setup == "in-language" else others)
        )
        texts = [text for text, _ in corpus[code]["test"]]
        for_all = model.predict_proba(texts).tolist()
        labels = model.classes_.tolist()
        yield [
            Prediction(
                row.id,
                row.group or row.id,
                code,
                row.label,
                max(zip(chances, labels, strict=True))[1],
                dict(zip(labels, chances, strict=True)),
                text,
            )
            for (text, row), chances in zip(corpus[code]["test"], for_all, strict=True)
        ]


def score(rows: list[Prediction]) -> float:
    """Return macro-F1."""
    return float(
        f1_score([row.label for row in rows], [row.prediction for row in rows], average="macro")
    )


def _train(corpus: Corpus, languages: list[str]) -> tuple[list[str], list[str]]:
    rows = [row for code in languages for row in corpus[code]["train"]]
    return [text for text, _ in rows], [str(row.label) for _, row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of <code>.tsv")
    parser.add_argument("--output", type=Path, help="folder for SETUP-VIEW.jsonl, to be compared")
    parser.add_argument("--languages", default=SPEECHTAXI)
    parser.add_argument("--setups", default=SETUPS)
    parser.add_argument("--views", default=VIEWS)
    parser.add_argument(
        "--with-language",
        action="store_true",
        help="romanise by the rules of each language, as the product does",
    )
    arguments = parser.parse_args()
    languages = arguments.languages.split(",")
    corpora = {
        view: read(arguments.data, languages, view, arguments.with_language)
        for view in arguments.views.split(",")
    }
    print("| | " + " | ".join(languages) + " | mean |")
    print("|---" * (len(languages) + 2) + "|")
    with threadpool_limits(1):
        for setup in arguments.setups.split(","):
            for view, corpus in corpora.items():
                started = time.process_time()
                found = list(predict(corpus, setup))
                if arguments.output:
                    rows = [prediction for rows in found for prediction in rows]
                    write_predictions(arguments.output / f"{setup}-{view}.jsonl", rows)
                row = list(map(score, found))
                cells = " | ".join(f"{score:.3f}" for score in [*row, sum(row) / len(row)])
                print(f"| {setup} {view} | {cells} |", flush=True)
                seconds = time.process_time() - started
                print(f"{setup} {view}: {seconds:.1f} CPU s", file=sys.stderr)


if __name__ == "__main__":
    main()
