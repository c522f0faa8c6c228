"""The grid: what is planned, what is shared, what is told, and what is left after faults."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from speechtaxi.cli import main
from speechtaxi.errors import InputError
from speechtaxi.grid import experiment_path, locked, wanted
from speechtaxi.grid.clips import limited
from speechtaxi.grid.estimate import count, estimate, load, published, read_mark
from speechtaxi.grid.experiment import Device, System, folds, read_experiment
from speechtaxi.grid.plan import plan
from speechtaxi.grid.show import unsupported
from speechtaxi.grid.steps import note, steps, with_smaller_batches
from speechtaxi.languages import LANGUAGES as TABLE
from speechtaxi.records import read_predictions, read_run
from speechtaxi.train import configs
from speechtaxi.transcribe import parser as transcribe_parser
from speechtaxi.types import Utterance

LANGUAGES = ["eng", "fra", "rus", "ukr"]


@pytest.mark.parametrize(
    ("setups", "expected"),
    [
        (["in-language"], {"eng": "eng", "fra": "fra", "rus": "rus", "ukr": "ukr"}),
        (["all-languages"], {"all": "eng fra rus ukr swh"}),
        (["zero-shot from eng"], {"eng": "fra rus ukr swh"}),
        (["in-language", "zero-shot from eng"],
         {"eng": "eng fra rus ukr swh", "fra": "fra", "rus": "rus", "ukr": "ukr"}),
        (["leave-one-language-out"],
         {"without-eng": "eng", "without-fra": "fra", "without-rus": "rus", "without-ukr": "ukr"}),
        (["leave-one-language-out", "leave-one-family-out"],
         {"without-eng": "eng", "without-fra": "fra", "without-rus": "rus", "without-ukr": "ukr",
          "without-Slavic": "rus ukr"}),
    ],
)  # fmt: skip
def test_a_set_of_languages_is_trained_on_once(setups, expected):
    found = folds(setups, LANGUAGES, ["swh"])
    assert {fold.name: " ".join(fold.targets) for fold in found} == expected
    for fold in found:
        assert not fold.name.startswith("without") or not set(fold.languages) & set(fold.targets)


def test_the_whole_matrix_is_a_run_for_each_source():
    found = folds(["zero-shot from each"], LANGUAGES, [])
    cells = {(f.languages[0], target) for f in found for target in f.targets}
    assert len(found) == 4
    assert len(cells) == 12


def test_transfer_without_relatives_is_told_apart():
    (slavic,) = [f for f in folds(["leave-one-family-out"], LANGUAGES, []) if len(f.targets) > 1]
    assert slavic.setup == "zero-shot without its family"
    assert set(slavic.languages) == {"eng", "fra"}


SYSTEMS = {
    "letters": {"config": "recognizer_romanized", "setups": "all-languages", "tested": False},
    "hears": {"config": "e2e_tiny", "options": "--model.encoder={letters}"},
    "reads": {
        "config": "cascade_tiny",
        "options": ["--model.recognizer={letters}", "--model.store={output}/t.sqlite"],
    },
    "gold": {"config": "cascade_tiny", "options": "--model.view=gold"},
}


@pytest.fixture
def experiment(tmp_path, corpus):
    """Return a function that writes an experiment over the sweeps, and its path."""

    def write(**changes):
        settings = {
            "base": ["cpu"],
            "options": [
                f"--data.manifest={corpus}",
                "--data.labels=[up,down]",
                "--trainer.max_epochs=2",
            ],
            "setups": ["in-language", "all-languages"],
            "systems": SYSTEMS,
        }
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(settings | changes, sort_keys=False))
        return path

    return write


def planned(path, output, clips="clips-0"):
    experiment, systems = read_experiment(path)
    return plan(experiment, systems, ["eng", "fra"], output, clips)


def test_runs_come_after_what_they_are_built_on(experiment, tmp_path):
    runs = planned(experiment(), tmp_path)
    names = [run.name for run in runs]
    assert names[0] == "letters/all/0"
    assert set(names) == {"letters/all/0"} | {
        f"{system}/{fold}/0"
        for system in ("hears", "reads", "gold")
        for fold in ("eng", "fra", "all")
    }  # fmt: skip
    letters = runs[0].folder
    for run in runs[1:]:
        assert run.needs == (() if run.system == "gold" else (letters,))
    (hears,) = [run for run in runs if run.name == "hears/eng/0"]
    assert f"--model.encoder={tmp_path}/{letters}" in hears.fit


def test_a_changed_setting_is_another_run_and_so_is_what_builds_on_it(experiment, tmp_path):
    before = {run.name: run.folder for run in planned(experiment(), tmp_path)}
    systems = json.loads(json.dumps(SYSTEMS))
    systems["letters"]["options"] = "--model.lr=1e-3"
    after = {run.name: run.folder for run in planned(experiment(systems=systems), tmp_path)}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if not name.startswith("gold")}
    elsewhere = {run.name: run.folder for run in planned(experiment(), tmp_path / "moved")}
    assert elsewhere == before  # where it lies decides nothing
    others = planned(experiment(), tmp_path, "clips-1")
    assert not {run.folder for run in others} & set(before.values())


def test_only_some_systems_with_what_they_need(experiment, tmp_path):
    runs = planned(experiment(), tmp_path)
    assert {run.system for run in wanted(runs, ["hears"])} == {"letters", "hears"}
    with pytest.raises(InputError, match="no system 'sees'; there are letters, hears"):
        wanted(runs, ["sees"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"setup": "in-language"}, "no setting 'setup'; there are systems, setups"),
        ({"setups": ["one-shot"]}, "no setup 'one-shot'; there are in-language"),
        ({"systems": {"a": {"configs": "e2e_tiny"}}}, "system 'a': no setting 'configs'"),
        ({"systems": {"a": {"config": "e2e_tiny", "setups": ["zero-shot from eng"]}}},
         "takes part in 'zero-shot from eng', which is none"),
        ({"systems": {"a": {"config": "nothing"}}}, "no config file nothing"),
        ({"systems": {"a": {"config": "e2e_tiny", "options": "--model.encoder={b}"}}},
         "system 'a' names {b}, which is no system: a"),
        ({"systems": {"a": {"config": "e2e_tiny", "options": "--model.encoder={a}"}}},
         "circle: a -> a"),
        ({"systems": {"a": {"config": "e2e_tiny", "options": "model.lr 1"}}},
         "'model.lr 1' is not of the form --name=value"),
        ({"setups": ["in-language"], "systems": {
            "b": {"config": "e2e_tiny", "seeds": "one"}}}, "seeds must be"),
    ],
)  # fmt: skip
def test_a_wrong_experiment_is_told_in_one_line(experiment, tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        planned(experiment(**changes), tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_builder_that_has_not_enough_languages_is_refused(experiment, tmp_path):
    systems = SYSTEMS | {"letters": SYSTEMS["letters"] | {"setups": "in-language"}}
    with pytest.raises(InputError, match="'hears' trained on eng, fra needs 'letters'"):
        planned(experiment(systems=systems), tmp_path)


def test_a_limit_takes_the_same_groups_in_all_languages_and_grows():
    rows = [
        Utterance(f"{code}-{split}-{n}", code, split=split, group=f"{split}{n}")
        for code in ("eng", "fra") for split in ("train", "test") for n in range(20)
    ]  # fmt: skip
    few, more = (limited(rows, {"train": n}) for n in (5, 9))
    groups = {code: {r.group for r in few if r.language == code and r.split == "train"}
              for code in ("eng", "fra")}  # fmt: skip
    assert groups["eng"] == groups["fra"]
    assert len(groups["eng"]) == 5
    assert {row.id for row in few} < {row.id for row in more}
    assert sum(row.split == "test" for row in few) == 40


def test_recognition_and_frozen_features_come_before_what_shares_them(experiment, tmp_path):
    systems = SYSTEMS | {"frozen": {"config": "e2e_tiny", "options": "--model.freeze=all"}}
    path = experiment(systems=systems)
    runs = planned(path, tmp_path)
    corpus = count([Utterance("a", "eng", split="train", duration=1.0)])
    todo = steps(read_experiment(path)[0], runs, corpus, tmp_path, tmp_path / "clips.jsonl")
    (transcribed,) = [step for step in todo if step.name.startswith("transcripts")]
    assert transcribed.after == ("fit letters/all/0",)
    assert {s.name for s in todo if transcribed.name in s.after} == {
        f"fit reads/{fold}/0" for fold in ("eng", "fra", "all")
    }
    assert {s.name for s in todo if "fit frozen/all/0" in s.after} == {
        "fit frozen/eng/0", "fit frozen/fra/0", "test frozen/all/0"
    }  # fmt: skip


def test_transcripts_are_made_as_the_model_will_ask_for_them(experiment, tmp_path):
    options = [
        "--model.recognizer=whisper:tiny",
        "--model.view=english",
        "--model.unsupported={bgc: hin, bht: hin}",
        "--model.decoding={beam_size: 5, temperatures: [0.2, 0.4]}",
    ]
    path = experiment(systems={"reads": {"config": "cascade_tiny", "options": options}})
    runs = planned(path, tmp_path)
    todo = steps(read_experiment(path)[0], runs, {}, tmp_path, tmp_path / "clips.jsonl")
    (transcribed,) = [step for step in todo if step.name.startswith("transcripts")]
    words = " ".join(transcribed.command)
    for option in ("--recognizer whisper:tiny", "--task translate", "--unsupported bgc=hin,bht=hin",
                   "--beam_size 5", "--temperatures 0.2 0.4 "):  # fmt: skip
        assert option in words
    args = transcribe_parser().parse_args(list(transcribed.command[1:]))
    assert args.temperatures == [0.2, 0.4]


def test_smaller_batches_keep_the_effective_size(experiment, tmp_path):
    run = planned(experiment(), tmp_path)[1]
    settings = {
        "data": {"batch_size": 12, "batch_seconds": 160},
        "trainer": {"accumulate_grad_batches": 2},
    }
    command = ("fit", "-c", "x", '--notes=["so"]', "--data.batch_size=12")
    smaller = with_smaller_batches(command, replace(run, settings=settings), 2)
    assert smaller[:3] == command[:3]
    assert smaller.count("--data.batch_size=3") == 1
    assert "--data.batch_seconds=40.0" in smaller
    assert "--trainer.accumulate_grad_batches=8" in smaller
    assert json.loads(smaller[-1][8:]) == [
        "so", f"{run.name}: batches of 1/4, as memory ran out"
    ]  # fmt: skip
    assert len([word for word in smaller if word.startswith("--notes")]) == 1


# ------------------------------------------------------------------------------------ estimates


def test_published_counts_add_up_to_the_papers():
    corpus = published(the_28())
    assert len({code for code, _ in corpus}) == 28
    assert sum(part.clips for part in corpus.values()) == pytest.approx(25_300, abs=15)
    assert sum(part.hours for part in corpus.values()) == pytest.approx(80, abs=0.1)
    with pytest.raises(InputError, match="SpeechTaxi has no deu"):
        published(["deu"])


def the_28():
    return [code for code, row in TABLE.items() if row.in_speechtaxi]


def test_device_hours_from_work_or_from_finished_runs(experiment, tmp_path):
    run = next(run for run in planned(experiment(), tmp_path) if run.name == "gold/all/0")
    hour = {"duration": 3600.0}
    rows = [Utterance(f"{s}{n}", "eng", split=s, **hour) for s in ("train", "dev", "test")
            for n in range({"train": 8, "dev": 1, "test": 1}[s])]  # fmt: skip
    corpus = count(rows)
    assert load(run, corpus).passes == (8 * 3 + 1) * 2 + 1  # two epochs
    device = Device("test", tflops=0.1, share=0.5)  # 50 GFLOP a second
    found = estimate([run], System(gflop_per_second=100, parameters=2**30), corpus, tmp_path,
                     device, 0)  # fmt: skip
    assert found.device_hours == pytest.approx(51 * 2)
    assert not found.measured
    assert found.disk == pytest.approx(12)
    assert found.clips == 10
    unknown = estimate([run], System(), corpus, tmp_path, device, 0)
    assert unknown.device_hours is None
    assert unknown.disk is None
    other = tmp_path / "gold" / "eng" / "0-earlier"
    other.mkdir(parents=True)
    (other / "grid.json").write_text('{"targets": ["eng"], "passes": 2.0}')
    (other / "run.json").write_text('{"seconds": {"fit": 90.0, "test": 10.0}}')
    measured = estimate([run], System(gflop_per_second=100), corpus, tmp_path, device, 0)
    assert measured.measured
    assert measured.device_hours == pytest.approx(51 * 50 / 3600)


def test_hours_that_a_manifest_does_not_tell_are_not_made_up(experiment, tmp_path):
    run = planned(experiment(), tmp_path)[-1]
    corpus = count([Utterance("a", "eng", split="train"), Utterance("b", "eng", split="train")])
    assert corpus["eng", "train"].clips == 2
    assert load(run, corpus).passes is None


@pytest.mark.parametrize("name", configs("experiment"))
def test_shipped_experiments_can_be_planned(name, tmp_path, capsys):
    path = experiment_path(name)
    experiment, systems = read_experiment(path)
    languages = experiment.languages or the_28()
    runs = plan(experiment, systems, languages, tmp_path, "clips-0")
    assert {run.system for run in runs} == set(systems)
    assert len({run.folder for run in runs}) == len(runs)


# --------------------------------------------------------------------------------- carried out


def test_a_dry_run_tells_the_plan_and_does_nothing(experiment, tmp_path, capsys):
    output = tmp_path / "runs"
    arguments = ["grid", str(experiment()), "-o", str(output), "--dry_run", "--commands"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "9 trained systems answer 12 cells" in told
    assert "1 recognisers transcribe each clip once" in told
    assert len([line for line in told.splitlines() if line.startswith("speechtaxi fit ")]) == 10
    assert not output.exists()


def test_languages_that_a_recognizer_does_not_know_are_told_of():
    _, systems = read_experiment(experiment_path("speechtaxi"))
    experiment = replace(read_experiment(experiment_path("speechtaxi"))[0], seeds=(0,))
    runs = plan(experiment, systems, ["eng", "nde", "bgc"], Path("runs"), "clips-0")
    told = {line.split(":")[0]: line for line in unsupported(runs, ["eng", "nde", "bgc"])}
    assert set(told) == {"cascade_whisper_xlmr", "cascade_mms_1b_all", "cascade_whisper_furina"}
    assert (
        "does not know 1 of 3 languages (nde); their clips count as" in told["cascade_mms_1b_all"]
    )
    assert "(nde, bgc); their clips are read by mms-meta" in told["cascade_whisper_furina"]


@pytest.mark.parametrize(
    ("keep", "left"),
    [("all", ["best.ckpt", "last.ckpt"]), ("best", ["best.ckpt"]), ("predictions", [])],
)
def test_checkpoints_are_kept_as_asked(experiment, tmp_path, keep, left):
    run = planned(experiment(), tmp_path)[1]
    folder = tmp_path / run.folder / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt"):
        (folder / name).touch()
    note(run, {}, tmp_path, keep)
    assert sorted(file.name for file in folder.glob("*")) == left
    assert read_mark(tmp_path / run.folder)["targets"] == list(run.fold.targets)


def test_two_grids_do_not_share_a_folder(experiment, tmp_path, capsys):
    output = tmp_path / "runs"
    with locked(output):
        assert main(["grid", str(experiment()), "-o", str(output)]) == 2
    assert f"another grid is at work in {output}" in capsys.readouterr().err


def test_a_missing_corpus_is_told_before_anything_is_done(experiment, tmp_path, capsys):
    path = experiment(options=["--data.manifest=nowhere.jsonl"])
    assert main(["grid", str(path), "-o", str(tmp_path / "runs")]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err


@pytest.mark.slow
def test_a_system_that_fails_stops_only_what_needs_it(experiment, tmp_path, capsys):
    broken = tmp_path / "encoder"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    systems = {
        "gold": SYSTEMS["gold"],
        "broken": {"config": "e2e_tiny", "options": f"--model.encoder={broken}"},
        "needs": {"config": "e2e_tiny", "options": "--model.encoder={broken}"},
        "explodes": {"config": "e2e_tiny", "options": "--model.lr=1e30"},
    }
    path, output = experiment(systems=systems, setups=["all-languages"]), tmp_path / "runs"
    assert main(["grid", str(path), "-o", str(output), "--workers", "1"]) == 1
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith(("failed", "blocked"))]
    assert any(line.startswith("failed: fit broken/all/0: ") for line in lines)
    assert "blocked: fit needs/all/0: needs fit broken/all/0" in lines
    assert any("explodes/all/0: speechtaxi fit: the loss is " in line for line in lines)
    assert "1 of 4 runs are tested" in told.out
    assert (output / "report" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_grid_goes_on_to_the_same_results(experiment, tmp_path, capsys):
    path = experiment(setups=["leave-one-language-out", "all-languages"])
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert main(["grid", str(path), "-o", str(straight), "--workers", "2"]) == 0
    command = [sys.executable, "-m", "speechtaxi", "grid", str(path), "-o", str(killed)]
    for kill in (True, True, False):
        with open(tmp_path / "log", "w") as log:
            process = subprocess.Popen([*command, "--workers", "2"], stderr=log, stdout=log)
            if kill:
                while "fit hears" not in (tmp_path / "log").read_text():
                    time.sleep(0.05)
                    assert process.poll() is None or process.returncode == 0
                    if process.poll() == 0:
                        break
                time.sleep(random.uniform(0, 4))
                process.kill()
            process.wait()
    assert process.returncode == 0, (tmp_path / "log").read_text()
    runs = sorted(p.parent.relative_to(straight) for p in straight.rglob("predictions-test.jsonl"))
    assert len(runs) == 9
    assert runs == sorted(p.parent.relative_to(killed)
                          for p in killed.rglob("predictions-test.jsonl"))  # fmt: skip
    for run in runs:
        assert read_predictions(killed / run / "predictions-test.jsonl") == read_predictions(
            straight / run / "predictions-test.jsonl"
        )
        assert read_run(killed / run).system == run.parts[0]
        assert not (killed / run / "checkpoints" / "last.ckpt").exists()
    before = {p: p.stat().st_mtime_ns for p in killed.rglob("predictions-test.jsonl")}
    capsys.readouterr()
    assert main(["grid", str(path), "-o", str(killed)]) == 0
    assert "9 of 9 runs are tested" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in killed.rglob("predictions-test.jsonl")}
