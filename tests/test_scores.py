"""Scores against scikit-learn, and by hand where there is no second implementation."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from speechtaxi.scores import (
    LEAST,
    accuracy,
    brier,
    calibration_error,
    character_edits,
    confusion,
    error_rate,
    log_loss,
    macro_f1,
    majority,
    reliability,
    spelling,
    tally,
    tally_groups,
    topic_scores,
)


@pytest.mark.parametrize("seed", range(8))
def test_scores_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    clips, topics = int(rng.integers(1, 60)), 6  # few clips: some topics do not occur
    gold = rng.integers(rng.integers(1, topics + 1), size=clips)
    predicted = rng.integers(rng.integers(1, topics + 1), size=clips)
    pooled = tally(gold, predicted, topics).sum(0)
    assert macro_f1(pooled) == pytest.approx(
        metrics.f1_score(gold, predicted, average="macro", zero_division=0)
    )
    assert accuracy(pooled) == pytest.approx(metrics.accuracy_score(gold, predicted))
    ours = topic_scores(pooled)
    theirs = metrics.precision_recall_fscore_support(
        gold, predicted, labels=range(topics), zero_division=0
    )
    np.testing.assert_allclose(ours, np.stack(theirs[:3]))
    np.testing.assert_array_equal(
        confusion(gold, predicted, topics),
        metrics.confusion_matrix(gold, predicted, labels=range(topics)),
    )


def test_scores_work_on_many_samples_at_once():
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(5, size=(2, 7, 40))
    pooled = np.stack([tally(g, p, 5).sum(0) for g, p in zip(gold, predicted, strict=True)])
    expected = [
        metrics.f1_score(g, p, average="macro") for g, p in zip(gold, predicted, strict=True)
    ]
    np.testing.assert_allclose(macro_f1(pooled), expected)
    np.testing.assert_allclose(accuracy(pooled), (gold == predicted).mean(1))


def test_pooled_macro_f1_is_not_a_mean_over_batches():
    gold, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    clips = tally(gold, predicted, 2)
    batches = macro_f1(clips.reshape(2, 2, 3, 2).sum(1))
    assert macro_f1(clips.sum(0)) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert batches.mean() == pytest.approx((1 + 1 / 3) / 2)


def test_groups_sum_their_clips():
    clips = tally([0, 1, 1], [0, 0, 1], 2)
    groups = tally_groups(clips, [2, 0, 2], 3)
    np.testing.assert_array_equal(groups[1], 0)
    np.testing.assert_array_equal(groups[2], clips[0] + clips[2])


def test_no_clips_have_no_score():
    assert np.isnan(macro_f1(np.zeros((3, 4))))
    assert np.isnan(accuracy(np.zeros((3, 4))))
    assert np.isnan(error_rate(np.zeros(2)))


def test_majority_baseline_of_taxi1500():
    """Always "Recommendation" on Taxi1500's English test: accuracy 26.1 %, macro-F1 about 0.069."""
    gold = np.repeat(range(6), [29, 27, 19, 16, 14, 6])
    pooled = tally(gold, np.full(len(gold), majority(gold, 6)), 6).sum(0)
    assert accuracy(pooled) == pytest.approx(0.261, abs=5e-4)
    assert macro_f1(pooled) == pytest.approx(0.069, abs=5e-4)


@pytest.mark.parametrize(
    ("text", "reference", "edits", "letters"),
    [
        ("Hello, World!", "hello world", 0, 11),
        ("abd", "abc", 1, 3),
        ("", "abc", 3, 3),
        ("ab", "", 2, 0),
        (
            unicodedata.normalize("NFD", "Été"),
            "été",
            0,
            3,
        ),  # composed and decomposed are one spelling
        ("किताब", "कताब", 1, 4),  # a vowel sign is a letter
        ("नमस्ते।", "नमस्ते", 0, 6),  # the danda is punctuation
        ("a  b\n", " a b", 0, 3),
    ],
)
def test_character_edits(text, reference, edits, letters):
    np.testing.assert_array_equal(character_edits([text], [reference]), [[edits, letters]])


def test_error_rate_pools_characters():
    edits = character_edits(["abcd", "x"], ["abcd", "y"])
    assert error_rate(edits.sum(0)) == pytest.approx(1 / 5)  # the mean over clips would be 1/2


def test_spelling_keeps_marks():
    assert spelling("L'ÉTÉ – oui") == "lété oui"


def test_losses_of_probabilities_equal_scikit_learn():
    rng = np.random.default_rng(0)
    odds = rng.dirichlet(np.ones(6), size=80)
    gold = rng.integers(6, size=80)
    assert log_loss(odds, gold).mean() == pytest.approx(metrics.log_loss(gold, odds))
    two = odds[:, :2] / odds[:, :2].sum(1, keepdims=True)
    assert brier(two, gold % 2).mean() == pytest.approx(
        2 * metrics.brier_score_loss(gold % 2, two[:, 1])  # scikit-learn's is of one class
    )
    assert brier(odds, gold).mean() == pytest.approx(((odds - np.eye(6)[gold]) ** 2).sum(1).mean())


def test_log_loss_of_a_certain_answer_is_0_or_clipped():
    np.testing.assert_allclose(log_loss([[0, 1], [0, 1]], [1, 0]), [0, -np.log(LEAST)])
    assert log_loss([[1 - 2 * LEAST, 2 * LEAST]], [1])[0] < -np.log(LEAST)


@pytest.mark.parametrize("bins", [4, 10])
def test_reliability_equals_scikit_learn(bins):
    rng = np.random.default_rng(1)
    confidence = np.concatenate([rng.random(300), np.linspace(0, 1, bins + 1), [0.3, 0.7]])
    right = rng.random(len(confidence)) < confidence**2
    clips, told, hits = reliability(confidence, right, bins).sum(0)
    share, mean = calibration_curve(right, confidence, n_bins=bins)
    np.testing.assert_allclose(hits / clips, share)
    np.testing.assert_allclose(told / clips, mean)


def test_calibration_error_by_hand_and_by_the_paper():
    """Guo et al., equation 3, as a loop over right-closed bins."""
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.2, 1, 200)
    right = rng.random(200) < 0.5
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    halves = reliability(confidence, right).reshape(2, 100, 3, 10).sum(1)
    assert calibration_error(halves.sum(0)) == pytest.approx(expected)
    assert calibration_error(halves).shape == (2,)
    assert calibration_error(reliability([0.95, 0.95], [1, 0]).sum(0)) == pytest.approx(0.45)
    assert np.isnan(calibration_error(np.zeros((3, 10))))
