"""Temperature scaling: planted temperatures are found, no answer changes, a run keeps its own."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train import Interrupted

import speechtaxi
from speechtaxi import temperature
from speechtaxi.cli import main
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest, read_predictions, read_run, write_manifest
from speechtaxi.temperature import HIGHEST, LEAST_CLIPS, LOWEST, calibrate, fit_temperature


def planted(true, clips=20_000, topics=5, seed=0):
    """Logits, and topics drawn from what they say at a temperature."""
    random = np.random.default_rng(seed)
    logits = 3 * random.standard_normal((clips, topics))
    noise = random.gumbel(size=logits.shape)
    return logits, (logits / true + noise).argmax(-1)


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_a_planted_temperature_is_found(true):
    found = calibrate(*planted(true))
    assert found.temperature == pytest.approx(true, rel=0.05)
    assert found.log_loss_after <= found.log_loss_before
    assert found.ece_after < 0.02
    if true != 1.0:
        assert found.ece_before > 5 * found.ece_after


@given(st.integers(0, 2**32 - 1), st.integers(LEAST_CLIPS, 200), st.integers(2, 8))
def test_it_is_the_minimum_that_a_search_finds(seed, clips, topics):
    """Second implementation: torch's cross-entropy over a grid."""
    logits, gold = planted(2.0, clips, topics, seed)
    try:
        found = fit_temperature(logits, gold)
    except InputError:  # all right, or no better than chance
        return
    grid = np.append(np.geomspace(LOWEST, HIGHEST, 400), found)
    z, y = torch.from_numpy(logits), torch.from_numpy(gold)
    losses = [float(torch.nn.functional.cross_entropy(z / t, y)) for t in grid]
    assert losses[-1] <= min(losses) + 1e-9


def test_it_follows_the_scale_of_logits_and_ignores_their_level():
    logits, gold = planted(2.0, 300)
    one = fit_temperature(logits, gold)
    assert fit_temperature(3 * logits, gold) == pytest.approx(3 * one)
    level = np.random.default_rng(1).standard_normal((300, 1))
    assert fit_temperature(logits + 100 * level, gold) == pytest.approx(one)


def test_what_lies_beyond_the_bounds_is_cut():
    logits, gold = planted(1.0, 500)
    assert fit_temperature(1e-4 * logits, gold) == LOWEST
    assert fit_temperature(1e4 * logits, gold) == HIGHEST


def test_too_little_to_fit_a_temperature_is_refused():
    logits, gold = planted(1.0, 100)
    with pytest.raises(InputError, match="19 dev clips; at least 20"):
        fit_temperature(logits[:19], gold[:19])
    with pytest.raises(InputError, match="one topic"):
        fit_temperature(logits, np.zeros(100, int))
    with pytest.raises(InputError, match="all 100 dev clips are right"):
        fit_temperature(logits, logits.argmax(-1))
    with pytest.raises(InputError, match="no better than chance"):
        fit_temperature(-logits, gold)
    with pytest.raises(InputError, match="not numbers"):
        fit_temperature(np.where(logits > 2, np.nan, logits), gold)


def test_a_calibration_comes_back_as_written(tmp_path):
    assert temperature.read(tmp_path) is None
    found = calibrate(*planted(2.0, 100), ["fra", "eng", "eng"])
    temperature.write(tmp_path, found)
    assert temperature.read(tmp_path) == found
    assert (found.clips, found.languages, found.split) == (100, ("eng", "fra"), "dev")


@pytest.mark.parametrize("value", [0, -1, "1", True, None, float("nan"), float("inf")])
def test_what_is_no_temperature(tmp_path, value):
    temperature.write(tmp_path, replace(calibrate(*planted(2.0, 100)), temperature=value))
    with pytest.raises(InputError, match=r"calibration\.json: temperature must be a number above"):
        temperature.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"temperature": 1.0}'])
def test_a_damaged_calibration(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError, match=r"calibration\.json is damaged"):
        temperature.read(tmp_path)


# ------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def fit_noisy(corpus, fit_arguments, tmp_path_factory):
    """Arguments of a fit with 24 dev clips, of which every sixth has the wrong label."""
    rows = []
    for number, row in enumerate(read_manifest(corpus)):
        if row.split != "train":
            wrong = {"up": "down", "down": "up"}[row.label]
            label = wrong if number % 6 == 0 else row.label
            row = replace(row, split="dev", label=label)
        rows.append(row)
    manifest = tmp_path_factory.mktemp("noisy") / "manifest.jsonl"
    write_manifest(manifest, rows)
    return ["fit", *fit_arguments, "-c", "e2e_tiny", f"--data.manifest={manifest}"]


@pytest.fixture(scope="module")
def noisy_run(fit_noisy, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "noisy"
    assert main([*fit_noisy, f"--run={run}"]) == 0
    return run


def on_dev(run):
    """Return log probabilities (N, 2), gold topics (N,) and answers of a run's dev clips."""
    assert main(["predict", str(run), "--data.test_split=dev"]) == 0
    rows = read_predictions(run / "predictions-dev.jsonl")
    odds = [[row.probabilities[label] for label in ("up", "down")] for row in rows]
    gold = [("up", "down").index(row.label) for row in rows]
    return np.log(odds), np.array(gold), [row.prediction for row in rows]


def test_a_run_is_calibrated_by_its_best_model(noisy_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(noisy_run, run)
    kept = json.loads((run / "calibration.json").read_text())
    assert (kept["clips"], kept["languages"], kept["split"]) == (24, ["eng", "fra"], "dev")
    assert kept["log_loss_after"] < kept["log_loss_before"]
    assert read_run(run).temperature == kept["temperature"]
    logs, gold, answers = on_dev(run)
    assert fit_temperature(logs, gold) == pytest.approx(1.0, abs=1e-3)  # nothing is left to do
    assert read_run(run).temperature == kept["temperature"]

    (run / "calibration.json").unlink()  # as in a run of an earlier version
    raw, _, same = on_dev(run)
    assert same == answers
    assert fit_temperature(raw, gold) == pytest.approx(kept["temperature"], rel=1e-3)
    assert read_run(run).temperature is None


def test_validate_calibrates_an_older_run(noisy_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(noisy_run, run)
    kept = temperature.read(run)
    (run / "calibration.json").unlink()
    for partial in (["--data.languages=[eng]"], ["--trainer.limit_val_batches=2"]):
        assert main(["validate", str(run), *partial]) == 0
        assert not (run / "calibration.json").exists()  # other clips than the run's own
    assert main(["validate", str(run)]) == 0
    assert "calibrated on 24 dev clips: temperature" in capsys.readouterr().err
    found = temperature.read(run)
    assert found.temperature == pytest.approx(kept.temperature, rel=1e-4)
    assert (found.clips, found.languages) == (kept.clips, kept.languages)
    assert main(["validate", str(run)]) == 0
    assert "calibrated" not in capsys.readouterr().err


def test_a_resumed_run_finds_the_same_temperature(noisy_run, fit_noisy, tmp_path):
    run = tmp_path / "resumed"
    arguments = [*fit_noisy, f"--run={run}"]
    with pytest.raises(Interrupted):
        main([*arguments, "--trainer.callbacks+=test_train.StopAfterOneEpoch"])
    assert not (run / "calibration.json").exists()
    (run / "calibration.json").write_text("of an earlier fit")
    assert main([*arguments, "--ckpt_path=last"]) == 0
    found, kept = (temperature.read(folder).temperature for folder in (run, noisy_run))
    assert found == pytest.approx(kept, rel=1e-4)


def test_the_best_model_of_an_earlier_version_is_told(noisy_run, fit_noisy, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(noisy_run, run)
    saved = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    del saved["callbacks"]["Calibrator"]
    torch.save(saved, run / "checkpoints/best.ckpt")
    assert main([*fit_noisy, f"--run={run}", "--ckpt_path=last"]) == 0  # nothing is left to train
    assert "not calibrated: an earlier version" in capsys.readouterr().err
    assert not (run / "calibration.json").exists()


def test_a_run_with_too_few_dev_clips_says_so(e2e_run, capsys):
    assert not (e2e_run / "calibration.json").exists()
    assert read_run(e2e_run).temperature is None
    model = speechtaxi.load(str(e2e_run))
    assert (model.temperature, model.calibrated) == (1.0, False)
    assert main(["validate", str(e2e_run)]) == 0
    told = capsys.readouterr().err.splitlines()
    assert "not calibrated: 8 dev clips; at least 20 are needed" in told


@pytest.mark.slow
def test_two_processes_calibrate_on_all_clips(fit_noisy, tmp_path):
    run = tmp_path / "ddp"
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "speechtaxi"]
    done = subprocess.run(
        [*command, *fit_noisy, f"--run={run}", *two],
        check=True,
        timeout=280,
        capture_output=True,
        text=True,
    )
    assert done.stderr.count("calibrated on 24 dev clips") == 1
    assert temperature.read(run).clips == 24
    (run / "calibration.json").rename(tmp_path / "kept.json")
    subprocess.run([*command, "validate", str(run)], check=True, timeout=280)
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert temperature.read(run).temperature == pytest.approx(kept["temperature"], rel=1e-4)
