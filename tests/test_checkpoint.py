"""Models on disk: run and exported folders give the same logits; bad ones one clear line."""

import json
import shutil

import pytest
import torch
from lightning.pytorch import LightningModule
from safetensors.torch import load_file, save_file
from test_e2e_classifier import batch_of
from test_encoder import CLIPS

import speechtaxi
from e2e import SpeechClassifier
from speechtaxi import checkpoint, temperature
from speechtaxi.cli import main
from speechtaxi.errors import InputError

CALIBRATION = temperature.Calibration(2.5, 40, 0.9, 0.6, 0.2, 0.1)


@pytest.fixture(scope="module")
def exported(e2e_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert main(["export", str(e2e_run), str(folder)]) == 0
    return folder


def test_run_and_model_folder_give_the_same_logits(e2e_run, exported):
    one, two = speechtaxi.load(str(e2e_run)), speechtaxi.load(str(exported))
    assert type(one) is type(two)
    with torch.inference_mode():
        assert torch.equal(one(batch_of(CLIPS)), two(batch_of(CLIPS)))


def test_a_trainer_is_given_a_module_of_lightning(e2e_run, tmp_path):
    plain, trainable = speechtaxi.load(str(e2e_run)), checkpoint.load(e2e_run, trainable=True)
    usual = SpeechClassifier.load_from_checkpoint(e2e_run / "checkpoints" / "best.ckpt").eval()
    assert not isinstance(plain, LightningModule)
    for model in (trainable, usual):
        assert isinstance(model, SpeechClassifier)
        with torch.inference_mode():
            assert torch.equal(model(batch_of(CLIPS)), plain(batch_of(CLIPS)))
    for number, model in enumerate((plain, trainable)):
        checkpoint.save(model, tmp_path / str(number), "")
    one, two = (json.loads((tmp_path / n / "config.json").read_text()) for n in "01")
    assert one == two
    assert one["class_path"] == "e2e.SpeechClassifier"


def test_the_model_folder_is_that_of_the_field(exported):
    names = {path.name for path in exported.iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    config = json.loads((exported / "config.json").read_text())
    assert config["id2label"] == {"0": "up", "1": "down"}
    assert config["label2id"] == {"up": 0, "down": 1}
    assert load_file(exported / "model.safetensors")["head.weight"].shape[0] == 2
    card = (exported / "README.md").read_text()
    assert "up, down" in card
    assert "eng, fra" in card


def test_a_temperature_travels_with_the_model(e2e_run, exported, tmp_path):
    assert json.loads((exported / "config.json").read_text())["temperature"] is None
    assert "not calibrated" in (exported / "README.md").read_text()
    run = tmp_path / "run"
    shutil.copytree(e2e_run, run)
    temperature.write(run, CALIBRATION)
    assert main(["export", str(run), str(tmp_path / "model")]) == 0
    assert "calibrated on dev clips" in (tmp_path / "model" / "README.md").read_text()
    bare = speechtaxi.load(str(exported))
    assert (bare.temperature, bare.calibrated) == (1.0, False)
    for folder in (run, tmp_path / "model"):
        model = speechtaxi.load(str(folder))
        assert (model.temperature, model.calibrated) == (2.5, True)
        batch = batch_of(CLIPS)
        with torch.inference_mode():
            expected = (bare(batch) / 2.5).softmax(-1)
            rows, raw = model.predict_step(batch), bare.predict_step(batch)
        found = torch.tensor([list(row.probabilities.values()) for row in rows])
        torch.testing.assert_close(found, expected)
        assert [row.prediction for row in rows] == [row.prediction for row in raw]


def test_a_model_folder_of_an_earlier_version_is_not_calibrated(exported, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["temperature"]
    (folder / "config.json").write_text(json.dumps(config))
    assert not speechtaxi.load(str(folder)).calibrated
    (folder / "config.json").write_text(json.dumps(config | {"temperature": 0}))
    with pytest.raises(InputError, match="temperature must be a number above 0, not 0"):
        speechtaxi.load(str(folder))


def test_an_existing_folder_is_not_overwritten(e2e_run, exported, capsys):
    assert main(["export", str(e2e_run), str(exported)]) == 2
    assert "exists" in capsys.readouterr().err


def test_unknown_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="no model folder"):
        speechtaxi.load(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"neither checkpoints/best.ckpt nor model.safetensors"):
        speechtaxi.load(str(tmp_path))


@pytest.mark.parametrize("keep", [0, 100, 50_000])
@pytest.mark.parametrize("name", ["model.safetensors", "checkpoints/best.ckpt"])
def test_truncated_weights(e2e_run, exported, tmp_path, name, keep):
    folder = tmp_path / "model"
    shutil.copytree(exported if name == "model.safetensors" else e2e_run, folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(folder)


def test_weights_of_another_architecture(exported, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["pooling"] = "statistics"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="does not fit this version"):
        checkpoint.load(folder)


def test_pickled_code_is_never_run(e2e_run, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    folder = tmp_path / "model"
    shutil.copytree(e2e_run, folder)
    torch.save({"class_path": Bomb()}, folder / "checkpoints/best.ckpt")
    with pytest.raises(InputError, match="damaged or not from speechtaxi"):
        checkpoint.load(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["os.system", "torch.nn.Linear", "e2e.pooling.MeanPooling"])
def test_only_the_routes_classes_are_built(exported, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    config = json.loads((folder / "config.json").read_text()) | {"class_path": name}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="neither route"):
        checkpoint.load(folder)


def test_a_model_that_is_loaded_draws_no_random_weights(exported):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    model = speechtaxi.load(str(exported))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(weights.isfinite().all() for weights in model.state_dict().values())


def test_weights_saved_in_half_precision_are_loaded_as_float32(exported, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(exported, folder)
    weights = load_file(exported / "model.safetensors")
    save_file({n: w.bfloat16() if w.is_floating_point() else w for n, w in weights.items()},
              folder / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    model = speechtaxi.load(str(folder))
    assert {w.dtype for w in model.state_dict().values()} <= {torch.float32, torch.int64}
    with torch.inference_mode():
        expected = speechtaxi.load(str(exported))(batch_of(CLIPS))
        torch.testing.assert_close(model(batch_of(CLIPS)), expected, atol=0.1, rtol=0.1)
