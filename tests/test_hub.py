"""Model folders that are wrong, or were downloaded by half: one clear line each."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from speechtaxi import reach
from speechtaxi.encoder import open_encoder
from speechtaxi.errors import InputError


@pytest.fixture(scope="module")
def model():
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2,
        do_stable_layer_norm=True, feat_extract_norm="layer", num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    return Wav2Vec2Model(config)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    open_encoder(str(folder))
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        open_encoder(str(folder))
    told = str(error.value)
    assert "\n" not in told
    assert str(folder) in told
    return told


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_weights_cut_off(folder, keep):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(keep * len(whole))])
    assert "its weights are damaged (" in refused(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_file_is_missing(folder, name):
    (folder / name).unlink()
    refused(folder)


def test_a_shard_is_missing(folder, model):
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    shard.unlink()
    assert shard.name in refused(folder)


def change(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_of_a_layer_are_missing(folder):
    change(folder, lambda w: {name: value for name, value in w.items() if "layers.1" not in name})
    assert "weights of a Wav2Vec2Model, such as encoder.layers.1." in refused(folder)


def test_weights_and_config_are_of_two_models(folder):
    def cut(weights):
        name = "encoder.layers.0.attention.k_proj.weight"
        return weights | {name: weights[name][:16].clone()}

    change(folder, cut)
    assert "are not of one model" in refused(folder)


def test_config_cut_off(folder):
    config = folder / "config.json"
    config.write_text(config.read_text()[:100])
    assert "not a valid JSON file" in refused(folder)


def test_no_such_folder(tmp_path):
    refused(tmp_path / "nowhere")


@pytest.fixture
def asked(monkeypatch):
    """Return the requests to a hub that does not answer."""
    asked = []

    class Session:
        def head(self, url, **_):
            asked.append(url)
            raise OSError("Name or service not known\nand more")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    reach.hub.cache_clear()
    yield asked
    reach.hub.cache_clear()


def test_a_hub_that_does_not_answer_is_asked_once(asked, capsys):
    for _ in range(2):
        with pytest.raises(InputError, match=r"cannot load nobody/nothing: .*HF_HUB_OFFLINE=1"):
            open_encoder("nobody/nothing")
    assert asked == [constants.ENDPOINT]
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "cannot be reached (Name or service not known)" in line] == [
        f"{constants.ENDPOINT} cannot be reached (Name or service not known); looking in the cache"
    ]


def test_the_hub_is_not_asked_for_a_folder(asked, whole):
    open_encoder(str(whole))
    assert not asked
