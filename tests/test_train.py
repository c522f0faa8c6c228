"""The true entry point: fit, resume, validate, test, predict, on one process and on two."""

import csv
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from speechtaxi.cli import main
from speechtaxi.records import read_manifest, read_predictions, read_run
from speechtaxi.train import config_path, configs

MODELS = [name for name, path in configs().items() if path.parent.name == "model"]


def test_the_run_folder_is_the_whole_record(e2e_run, corpus):
    assert {p.name for p in (e2e_run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    record = read_run(e2e_run)
    assert (record.system, record.route, record.labels) == ("e2e", "e2e", ("up", "down"))
    assert record.train_languages == ("eng", "fra")
    assert (record.clips["train"], record.clips["dev"]) == (32, 8)
    assert record.seed == 0
    assert record.seconds["fit"] > 0
    assert record.versions["torch"] == torch.__version__.split("+")[0]
    with open(e2e_run / "metrics.csv") as file:
        scores = [float(r["dev/macro_f1"]) for r in csv.DictReader(file) if r["dev/macro_f1"]]
    assert len(scores) == 4
    assert max(scores) == 1.0


def test_checkpoints_open_with_weights_only(e2e_run):
    saved = torch.load(e2e_run / "checkpoints/best.ckpt", weights_only=True)
    assert saved["class_path"] == "e2e.SpeechClassifier"
    assert saved["hyper_parameters"]["labels"] == ["up", "down"]


def test_validate_test_and_predict_need_the_run_folder_alone(e2e_run, corpus, capsys, tmp_path):
    assert main(["validate", str(e2e_run)]) == 0
    assert json.loads(capsys.readouterr().out)["dev/macro_f1"] == 1.0
    assert main(["test", str(e2e_run)]) == 0
    assert json.loads(capsys.readouterr().out)["test/macro_f1"] == 1.0
    tested = read_predictions(e2e_run / "predictions-test.jsonl")
    expected = [row for row in read_manifest(corpus) if row.split == "test"]
    assert [row.id for row in tested] == [row.id for row in expected]  # once each, in order
    assert [row.label for row in tested] == [row.label for row in expected]
    assert main(["predict", str(e2e_run), "--data.test_split", "dev"]) == 0
    assert len(read_predictions(e2e_run / "predictions-dev.jsonl")) == 8
    assert read_run(e2e_run).clips == {"train": 32, "dev": 8, "test": 16}


def test_a_run_folder_reruns_from_its_own_config(e2e_run, tmp_path):
    again = tmp_path / "again"
    assert main(["fit", "-c", str(e2e_run / "config.yaml"), f"--run={again}"]) == 0
    one, two = (
        torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for run in (e2e_run, again)
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_interrupted_run_resumes_to_the_same_numbers(e2e_run, fit_arguments, tmp_path):
    run = tmp_path / "resumed"
    arguments = ["fit", *fit_arguments, "-c", "e2e_tiny", f"--run={run}"]
    stop = ["--trainer.callbacks+=test_train.StopAfterOneEpoch"]
    with pytest.raises(Interrupted):
        main([*arguments, *stop])
    assert not (run / "run.json").exists()
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    one, two = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (e2e_run, run)
    )
    for name in one:
        torch.testing.assert_close(one[name], two[name])
    logs = [
        [row | {"train/loss": ""} for row in csv.DictReader((folder / "metrics.csv").open())]
        for folder in (e2e_run, run)
    ]
    assert [(row["epoch"], row["step"]) for row in logs[0]] == [
        (row["epoch"], row["step"]) for row in logs[1]
    ]  # what was logged before the kill is still there, once
    assert read_run(run).seconds["fit"] > 0


class Interrupted(Exception):
    """Stands for a kill."""


class StopAfterOneEpoch(Callback):
    """Breaks off at the beginning of the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise Interrupted


def test_a_finished_run_is_not_overwritten(e2e_run, fit_arguments, capsys):
    assert main(["fit", *fit_arguments, "-c", "e2e_tiny", f"--run={e2e_run}"]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_a_fit_without_a_run_folder(fit_arguments, capsys):
    assert main(["fit", *fit_arguments, "-c", "e2e_tiny"]) == 2
    assert "--run runs/NAME" in capsys.readouterr().err


def test_an_unknown_config_lists_the_short_names(capsys):
    assert main(["fit", "-c", "e2e_huge"]) == 2
    error = capsys.readouterr().err
    assert "e2e_tiny" in error
    assert error.count("\n") == 1


def test_labels_of_another_set_are_refused(e2e_run, capsys):
    assert main(["test", str(e2e_run), "--data.labels=[down,up]"]) == 2
    assert "knows the labels ['up', 'down']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data.bogus=1"], "unrecognized arguments: --data.bogus"),
        (["--data.batch_size=many"], "data.batch_size"),
        (["--data.labels=nolabels"], "unknown label set 'nolabels'; use one of taxi1500"),
        (["--data.manifest=nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["--model.pooling=median"], "median"),
        (["--data.languages=[deu]"], "there are: eng, fra"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(arguments, told, fit_arguments, tmp_path, capsys):
    run = f"--run={tmp_path / 'run'}"
    assert main(["fit", *fit_arguments, "-c", "e2e_tiny", run, *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_what_is_no_run_folder(verb, tmp_path, capsys):
    assert main([verb, str(tmp_path)]) == 2
    assert "no config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("path", configs().values(), ids=configs())
def test_every_config_begins_with_the_command_that_runs_it_and_parses(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# speechtaxi fit ")
    words = first.split()
    assert path.stem in [b for a, b in itertools.pairwise(words) if a == "-c"]
    for name in [b for a, b in itertools.pairwise(words) if a == "-c"]:
        assert Path(config_path("-c", name)).is_file()
    rooms = {"data", "model", "notes", "patience", "threads", "trainer"}
    assert set(yaml.safe_load(path.read_text())) <= rooms


@pytest.mark.parametrize("model", MODELS)
def test_every_model_config_composes(model, tmp_path):
    """--print_config parses against the real signatures and links the labels."""
    command = ["fit", "-c", "cpu", "-c", "news", "-c", model, f"--run={tmp_path}", "--print_config"]
    if model == "cascade_tiny":
        command.append("--model.recognizer=runs/recognizer")
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 0


@pytest.mark.slow
def test_ctrl_c_tells_how_to_go_on(fit_arguments, tmp_path):
    run = tmp_path / "run"
    command = ["fit", *fit_arguments, "-c", "e2e_tiny", f"--run={run}", "--trainer.max_epochs=999"]
    process = subprocess.Popen(
        [sys.executable, "-m", "speechtaxi", *command],
        stderr=subprocess.PIPE,
        text=True,
        # a background job, as under CI, would ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert rest.splitlines()[-1].endswith("what is done is kept; go on with --ckpt_path last")
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] >= 1


@pytest.mark.slow
def test_two_processes_train_and_score_every_clip_once(fit_arguments, corpus, tmp_path):
    run = tmp_path / "ddp"
    speechtaxi = [sys.executable, "-m", "speechtaxi"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    subprocess.run(
        [*speechtaxi, "fit", *fit_arguments, "-c", "e2e_tiny", f"--run={run}", *two],
        check=True,
        timeout=280,
    )
    subprocess.run([*speechtaxi, "test", str(run)], check=True, timeout=280)
    rows = read_predictions(run / "predictions-test.jsonl")
    assert [r.id for r in rows] == [r.id for r in read_manifest(corpus) if r.split == "test"]
    assert read_run(run).hardware["processes"] == "2"


def test_a_full_disk_ends_in_one_line(fit_arguments, tmp_path):
    """A limit on the size of files stands for it: the first checkpoint does not fit."""
    run = tmp_path / "run"
    code = (
        "import resource, sys; from speechtaxi.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "fit", *fit_arguments, "-c", "e2e_tiny", f"--run={run}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("speechtaxi fit: cannot write: ")
    assert "Traceback" not in done.stderr
    assert not list(run.glob("checkpoints/*"))  # no half checkpoint
