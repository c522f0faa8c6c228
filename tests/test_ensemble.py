"""Ensembles: the mean of the members' probabilities, each clip decoded and counted once."""

import shutil

import pytest
import torch

import speechtaxi
from cascade import TextClassifier
from e2e import SpeechClassifier
from speechtaxi import audio, temperature
from speechtaxi.cli import main
from speechtaxi.ensemble import Ensemble
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest

LABELS = ["up", "down"]


@pytest.fixture(scope="module")
def clips(corpus):
    """Test clips with the manifest's text, as a gold cascade reads it."""
    return [row for row in read_manifest(corpus) if row.split == "test"]


@pytest.fixture(scope="module")
def gold_run(fit_arguments, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "gold"
    main(["fit", *fit_arguments, "-c", "cascade_tiny", "--model.view=gold", f"--run={run}"])
    return run


@pytest.fixture
def ensemble(e2e_run, gold_run):
    return speechtaxi.load([str(e2e_run), str(gold_run)])


def flagging(labels, *flags):
    """An untrained model that flags each clip."""
    torch.manual_seed(len(flags))
    model = SpeechClassifier(labels)
    model.flags = lambda utterance: flags
    return model


def test_the_answer_is_the_mean_over_the_routes(ensemble, e2e_run, gold_run, clips):
    ears, eyes = (list(speechtaxi.load(str(run)).classify(clips)) for run in (e2e_run, gold_run))
    rows = list(ensemble.classify(clips, batch_size=3, chunk=5))
    assert [row.id for row in rows] == [clip.id for clip in clips]
    for clip, row, ear, eye in zip(clips, rows, ears, eyes, strict=True):
        for label in LABELS:
            mean = (ear.probabilities[label] + eye.probabilities[label]) / 2
            assert row.probabilities[label] == pytest.approx(mean, abs=1e-5)
        assert row.prediction == max(LABELS, key=row.probabilities.__getitem__)
        assert (row.text, row.label, row.language) == (clip.text, clip.label, clip.language)
        assert row.duration == ear.duration
    assert not torch.allclose(  # the two say different things
        *(torch.tensor([r.probabilities["up"] for r in route]) for route in (ears, eyes))
    )


def test_labels_go_by_name_and_flags_are_united(tone):
    one, two = flagging(LABELS, "looping", "empty"), flagging(LABELS[::-1], "empty", "truncated")
    path = str(tone())
    (row,) = Ensemble([one, two]).classify(path)
    (a,), (b,) = one.classify(path), two.classify(path)
    assert row.flags == ("looping", "empty", "truncated")
    assert list(row.probabilities) == LABELS
    assert row.probabilities["up"] == pytest.approx(
        (a.probabilities["up"] + b.probabilities["up"]) / 2, abs=1e-6
    )
    assert sum(row.probabilities.values()) == pytest.approx(1)


def test_a_clip_is_decoded_once_and_a_failure_counted_once(e2e_run, clips, tmp_path, monkeypatch):
    (tmp_path / "empty.wav").touch()
    decoded = []
    load = audio.load
    monkeypatch.setattr(
        audio, "load", lambda path, *rest: decoded.append(path) or load(path, *rest)
    )
    failed = []
    ensemble = speechtaxi.load([str(e2e_run), str(e2e_run)])
    wanted = [clips[0].audio, str(tmp_path / "empty.wav"), "absent.wav", clips[1].audio]
    rows = list(ensemble.classify(wanted, failed=failed))
    assert [row.id for row in rows] == [clips[0].audio, clips[1].audio]
    assert [name for name, _ in failed] == ["absent.wav", str(tmp_path / "empty.wav")]
    assert decoded == [clips[0].audio, str(tmp_path / "empty.wav"), clips[1].audio]


def test_silence_is_flagged_once(tmp_path):
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    models = [flagging(LABELS, "silent"), flagging(LABELS)]
    (row,) = Ensemble(models).classify(str(tmp_path / "silent.wav"))
    assert row.flags == ("silent",)


def test_it_is_calibrated_when_all_members_are(ensemble, e2e_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(e2e_run, run)
    temperature.write(run, temperature.Calibration(2.0, 40, 0.9, 0.6, 0.2, 0.1))
    assert not ensemble.calibrated
    assert not speechtaxi.load([str(run), str(e2e_run)]).calibrated
    assert speechtaxi.load([str(run), str(run)]).calibrated


def test_members_move_and_stop_dropping_together(clips):
    ensemble = Ensemble([SpeechClassifier(LABELS, dropout=0.5) for _ in range(2)])
    assert ensemble.to("cpu") is ensemble
    assert ensemble.device == torch.device("cpu")
    one, two = (list(ensemble.classify(clips[:2])) for _ in range(2))
    assert one == two


def test_the_language_is_what_the_first_that_tells_it_tells(clips):
    ears, eyes = SpeechClassifier(LABELS), TextClassifier(LABELS, view="gold")
    ensemble = Ensemble([ears, eyes])
    assert ensemble.heard(clips[0]) is None
    eyes.heard = lambda utterance: (utterance.language, 0.75)
    assert ensemble.heard(clips[0]) == ("eng", 0.75)


def test_members_that_cannot_answer_as_one():
    def named(labels, name):
        model = SpeechClassifier(labels)
        model.source = name
        return model

    one, other = named(LABELS, "runs/a"), named(["up", "left"], "runs/b")
    with pytest.raises(InputError, match=r"runs/b and runs/a .* only one of them knows down, left"):
        Ensemble([one, other])
    with pytest.raises(InputError, match="needs models"):
        speechtaxi.load([])

    from cascade import Recognizer

    with pytest.raises(InputError, match="is a Recognizer, and tells no topic"):
        Ensemble([one, Recognizer()])
