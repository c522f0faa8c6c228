"""The small text encoder: stable, independent of the batch, and good enough to learn from."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascade.ngrams import NgramEncoder, count_ngrams, hash_ngrams, words

TEXTS = [
    "heavy rain and strong wind",
    "the football final",
    "снег в горах",
    "भारी बारिश और तेज़ हवा",
    "",
    "a",
]


def trained_on(texts: Sequence[str], size: int = 8, **settings: float) -> NgramEncoder:
    """An encoder with random vectors, as if trained."""
    torch.manual_seed(0)
    encoder = NgramEncoder(size, **{"limit": 2**12, **settings})
    nn.init.normal_(encoder.vectors)
    encoder.fit(texts)
    return encoder.eval()


def test_hashing_is_that_of_saved_models():
    """Pinned: the same in every process, and a change would make every saved model worthless."""
    assert hash_ngrams("rain", 5, 5) == (2448788904, 1102856858)
    assert hash_ngrams("ночь", 5, 6) == (2553384071, 3505821506, 2586372170)


def test_a_text_does_not_depend_on_its_batch():
    encoder = trained_on(TEXTS, min_texts=1)
    together = encoder(TEXTS)
    assert together[0].norm() > 0.1
    torch.testing.assert_close(together, encoder(TEXTS[::-1]).flip(0))
    torch.testing.assert_close(together, torch.cat([encoder([text]) for text in TEXTS]))


def test_nothing_to_read_gives_zeros_and_no_gradient_trouble():
    encoder = trained_on(["rain", "rain"]).train()
    x = encoder(["", "  ", "?!", "snow", "rain"])
    assert x[:4].eq(0).all()  # the third is no word, the fourth has no known n-gram
    x.sum().backward()
    assert encoder.vectors.grad is not None
    assert encoder.vectors.grad.isfinite().all()
    assert trained_on(["rain", "rain"])(["rain"]).norm() > 0.1
    assert encoder([]).shape == (0, encoder.dim)
    assert trained_on([])(["rain"]).eq(0).all()


def test_vectors_are_weighed_by_tf_idf():
    """Against the formula, term by term."""
    texts = ["rain wind wind", "rain", "snow wind", "rain rain snow"]
    encoder = trained_on(texts, shortest=6, longest=6)  # " rain " and such: whole words
    place = {
        word: int((encoder.known == hash_ngrams(word, *encoder.lengths)[0]).nonzero())
        for word in ("rain", "wind", "snow")
    }
    assert sorted(place.values()) == [0, 1, 2]
    idf = {"rain": 1 + torch.tensor(5 / 4).log(), "wind": 1 + torch.tensor(5 / 3).log()}
    weights = torch.stack([idf["rain"], (1 + torch.tensor(2.0).log()) * idf["wind"]])
    weights = weights / weights.norm()
    expected = weights @ encoder.vectors[[place["rain"], place["wind"]]]
    torch.testing.assert_close(encoder(texts[:1])[0], expected)


def test_rare_ngrams_are_left_out():
    encoder = trained_on(["rain wind", "rain", "snow"], shortest=6, longest=6, min_texts=2)
    assert encoder(["rain"]).abs().sum() > 0
    torch.testing.assert_close(encoder(["rain wind snow"]), encoder(["rain"]))


def test_what_training_never_met_changes_nothing():
    encoder = trained_on(["rain wind", "rain wind"])
    torch.testing.assert_close(encoder(["rain снег wind"]), encoder(["rain wind"]))


def test_the_limit_keeps_what_most_texts_have():
    texts = ["rain wind", "rain wind", "rain"]
    encoder = trained_on(texts, shortest=6, longest=6, limit=1)
    assert encoder.known.tolist() == [*hash_ngrams("rain", 6, 6)]


def test_ngrams_are_dropped_in_training_only():
    encoder = trained_on(TEXTS, min_texts=1, drop=0.5)
    torch.testing.assert_close(encoder(TEXTS), encoder(TEXTS))
    encoder.train()
    assert not torch.allclose(encoder(TEXTS), encoder(TEXTS))


def test_ngrams_of_a_word_are_those_between_its_blanks():
    assert len(hash_ngrams("rain", 2, 5)) == 5 + 4 + 3 + 2  # " rain " has 6 characters
    assert len(hash_ngrams("a", 2, 5)) == 2 + 1  # " a", "a ", " a "
    assert len(hash_ngrams("a", 5, 6)) == 1  # a short word is not lost
    buckets, tf = count_ngrams("aa aa", 4, 4)  # " aa " twice
    assert len(buckets) == 1
    assert tf.item() == pytest.approx(1 + torch.tensor(2.0).log().item())


def test_case_punctuation_and_composition_do_not_matter():
    encoder = trained_on(["été don't go"], min_texts=1)
    a, b = encoder(["Été: DON'T go!", "e\u0301te\u0301 dont go"])
    torch.testing.assert_close(a, b)
    assert a.norm() > 0.1
    assert words("हिन्दी") == ["हिन्दी"]  # vowel signs and virama are kept
    assert words("(rain) rain's; 3.5") == ["rain", "rains", "3", "5"]


def test_travels_to_another_process():
    encoder = trained_on(TEXTS, min_texts=1)
    torch.testing.assert_close(pickle.loads(pickle.dumps(encoder))(TEXTS), encoder(TEXTS))


def train(texts: Sequence[str], labels: Tensor, classes: int, epochs: int) -> nn.Sequential:
    torch.manual_seed(0)
    encoder = NgramEncoder()
    encoder.fit(texts)
    model = nn.Sequential(encoder, nn.Linear(encoder.dim, classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1.0, fused=True)
    for _ in range(epochs):
        for batch in torch.randperm(len(texts)).split(32):
            loss = F.cross_entropy(model([texts[i] for i in batch.tolist()]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def test_learns_topics_and_survives_saving():
    rain = [f"{a} rain {b}" for a in ("heavy", "cold") for b in ("today", "tonight", "again")]
    game = [f"{a} match {b}" for a in ("heavy", "cold") for b in ("today", "tonight", "again")]
    labels = torch.tensor([0] * len(rain) + [1] * len(game))
    model = train(rain + game, labels, 2, epochs=30)
    unseen = ["rainy week", "matches of the week"]
    assert model(unseen).argmax(1).tolist() == [0, 1]

    file = io.BytesIO()
    torch.save({"state": model.state_dict(), "config": model[0].config}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    config = {key: value for key, value in saved["config"].items() if key != "kind"}
    again = nn.Sequential(NgramEncoder(**config), nn.Linear(model[0].dim, 2))
    again.load_state_dict(saved["state"])
    torch.testing.assert_close(again.eval()(unseen), model(unseen))


@pytest.mark.assets
def test_beats_the_majority_on_verses(assets: Path):
    from speechtaxi.records import read_manifest

    rows = read_manifest(assets / "data" / "taxi1500" / "fra.tsv", language="fra")
    names = sorted({str(row.label) for row in rows})
    split = {name: [row for row in rows if row.split == name] for name in ("train", "test")}
    labels = {
        name: torch.tensor([names.index(str(row.label)) for row in part])
        for name, part in split.items()
    }
    model = train([str(row.text) for row in split["train"]], labels["train"], len(names), epochs=5)
    right = model([str(row.text) for row in split["test"]]).argmax(1) == labels["test"]
    majority = labels["test"].bincount().max() / len(labels["test"])
    assert right.float().mean() > majority + 0.2
