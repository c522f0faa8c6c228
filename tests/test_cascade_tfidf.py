"""The floor: equal to scikit-learn's pipeline, and a system like any other."""

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

import speechtaxi
from cascade import TextClassifier, TfidfClassifier
from cascade.tfidf import TfidfEncoder, _hash
from speechtaxi import records
from speechtaxi.cli import main
from speechtaxi.errors import InputError
from speechtaxi.types import Utterance

WORDS = {
    "rain": ["heavy", "rain", "and", "wind,", "снег", "в", "горах;", "it's", "cold"],
    "game": ["the", "football", "final:", "матч", "года;", "a", "late", "goal"],
    "vote": ["a", "new", "law", "passed,", "भारी", "बहुमत", "से;", "parliament's", "vote"],
}


def texts(count, *labels):
    """Return texts of words that a topic often has, and their topics."""
    random = np.random.default_rng(count)
    rows = []
    for number in range(count):
        label = labels[number % len(labels)]
        others = [word for words in WORDS.values() for word in words]
        chosen = [*random.choice(WORDS[label], 3), *random.choice(others, 4)]
        rows.append(("  ".join(chosen) + "\n", label))
    return rows


def pipeline():
    return make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
        LogisticRegression(C=30, class_weight="balanced", max_iter=1000),
    )


def clips(rows, split):
    return [
        Utterance(f"{split}{n}", "eng", split=split, text=text, label=label)
        for n, (text, label) in enumerate(rows)
    ]


@pytest.mark.parametrize("labels", [["rain", "game"], ["vote", "rain", "game"]])
def test_equals_the_pipeline_of_scikit_learn(labels):
    train, test = texts(40, *labels), [*texts(15, *labels), ("", "rain"), ("zzz qqq", "rain")]
    model = TfidfClassifier(labels, view="gold").eval()
    model.fit_texts(clips(train, "train"))
    expected = pipeline().fit(*zip(*train, strict=True))
    order = [list(expected.classes_).index(label) for label in labels]
    chances = expected.predict_proba([text for text, _ in test])[:, order]
    ours = model.logits_of([text for text, _ in test]).softmax(1)
    np.testing.assert_allclose(ours, chances, atol=1e-5)
    one = torch.cat([model.logits_of([text]) for text, _ in test]).softmax(1)
    torch.testing.assert_close(one, ours)


def test_a_topic_without_a_text_has_no_chance():
    model = TfidfClassifier(["rain", "vote", "game"], view="gold").eval()
    train = texts(20, "rain", "game")
    model.fit_texts(clips(train, "train"))
    chances = model.logits_of(["rain", "goal"]).softmax(1)
    assert chances[:, 1].eq(0).all()
    expected = pipeline().fit(*zip(*train, strict=True)).predict_proba(["rain", "goal"])
    np.testing.assert_allclose(chances[:, [2, 0]], expected, atol=1e-5)


@pytest.mark.parametrize("rows", [texts(6, "rain"), [(" ", "rain"), ("  ", "game")]])
def test_what_cannot_be_learnt_is_told(rows):
    with pytest.raises(InputError, match="nothing can be learnt from the training texts: "):
        TfidfClassifier(["rain", "game"], view="gold").fit_texts(clips(rows, "train"))


def test_hashing_is_that_of_saved_models():
    """Pinned: the same in every process, and a change would make every saved model worthless."""
    assert [_hash(gram) for gram in (" r", "ночь")] == [-1511033411176311509, 337479575842378459]


def test_the_encoder_is_the_classifiers_own():
    with pytest.raises(InputError, match="use -c cascade_tfidf"):
        TextClassifier(["a", "b"], view="gold", encoder="tfidf")
    assert TfidfEncoder(3).dim == 3


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "manifest.jsonl"
    labels = list(WORDS)
    splits = {"train": 42, "dev": 12, "test": 15}
    rows = [row for split, n in splits.items() for row in clips(texts(n, *labels), split)]
    records.write_manifest(path, rows)
    return path


def test_is_a_system_like_any_other(manifest, tmp_path):
    run, folder = tmp_path / "floor", tmp_path / "model"
    data = [f"--data.manifest={manifest}", f"--data.labels=[{','.join(WORDS)}]"]
    fit = ["fit", "-c", "cpu", *data, "-c", "cascade_tfidf", "--model.view=gold", f"--run={run}"]
    assert main(fit) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0
    assert main(["test", str(run)]) == 0
    assert main(["export", str(run), str(folder)]) == 0
    rows = records.read_predictions(run / "predictions-test.jsonl")
    train, test = (texts(n, *WORDS) for n in (42, 15))
    expected = pipeline().fit(*zip(*train, strict=True))
    assert [row.prediction for row in rows] == list(expected.predict([text for text, _ in test]))
    record = records.read_run(run)
    assert (record.route, record.view, record.clips["test"]) == ("cascade", "gold", 15)
    assert record.parameters > 1000
    model, exported = speechtaxi.load(str(run)), speechtaxi.load(str(folder))
    questions = [text for text, _ in test]
    torch.testing.assert_close(model.logits_of(questions), exported.logits_of(questions))
    logits = model.logits_of(questions).detach()
    chances = (logits / model.temperature_for("eng")).softmax(1)
    told = [list(row.probabilities.values()) for row in rows]
    np.testing.assert_allclose(told, chances, atol=1e-5)


@pytest.mark.assets
@pytest.mark.parametrize(("language", "score"), [("eng", 0.57), ("fra", 0.68), ("guj", 0.68)])
def test_scores_on_verses_what_was_measured_before(assets, language, score):
    """In-language, native, on gold text: macro-F1 of the floor that the field's facts tell."""
    table = assets / "data" / "taxi1500" / f"{language}.tsv"
    rows = records.read_manifest(table, language=language)
    train, test = ([row for row in rows if row.split == split] for split in ("train", "test"))
    model = TfidfClassifier("taxi1500", view="gold").eval()
    model.fit_texts(train)
    answers = model.logits_of([row.text for row in test]).argmax(1).tolist()
    told = [model.labels[answer] for answer in answers]
    assert round(f1_score([row.label for row in test], told, average="macro"), 2) == score
