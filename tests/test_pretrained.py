"""Each family of pretrained encoders, tiny and in the hub's layout, against its own class."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_encoder import CLIPS, assert_invariant, padded
from torch.nn.utils.rnn import pad_sequence

from speechtaxi.encoder import open_encoder
from speechtaxi.encoder.fbank import Fbank
from speechtaxi.encoder.whisper import WhisperMel
from speechtaxi.errors import InputError

WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
SEAMLESS = {
    "hidden_size": 32,
    "vocab_size": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "decoder_ffn_dim": 32,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 64,
    "speech_encoder_layers": 2,
    "speech_encoder_attention_heads": 2,
    "speech_encoder_intermediate_size": 37,
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WAVE = SMALL | {
    "intermediate_size": 37,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
FAMILIES = {
    "wav2vec2": ("Wav2Vec2", WAVE | LAYER_NORM),
    "wav2vec2-group": ("Wav2Vec2", WAVE),
    "hubert": ("Hubert", WAVE | LAYER_NORM),
    "hubert-group": ("Hubert", WAVE),
    "wavlm": ("WavLM", WAVE | LAYER_NORM),
    "w2v-bert": (
        "Wav2Vec2Bert",
        SMALL | {"intermediate_size": 37, "position_embeddings_type": "relative_key"},
    ),
    "seamless": ("SeamlessM4Tv2", SEAMLESS),
    "whisper": ("Whisper", WHISPER),
    "whisper-128": ("Whisper", WHISPER | {"num_mel_bins": 128}),
}


def save(family, folder):
    """Save a tiny random model of a family as the hub has it, with its feature extractor."""
    torch.manual_seed(0)
    name, settings = FAMILIES[family]
    # The smallest of Seamless' models that holds the speech encoder
    kind = "ForSpeechToText" if name == "SeamlessM4Tv2" else "Model"
    config = getattr(transformers, f"{name}Config")(**settings)
    getattr(transformers, f"{name}{kind}")(config).save_pretrained(folder)
    if name == "Whisper":
        extractor = transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    elif name in ("Wav2Vec2Bert", "SeamlessM4Tv2"):
        extractor = transformers.SeamlessM4TFeatureExtractor()
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(
            do_normalize=True, return_attention_mask="group" not in family
        )
    extractor.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return a function that saves a tiny random model of a family and returns its folder."""
    made = {}

    def make(family):
        if family not in made:
            made[family] = str(tmp_path_factory.mktemp(family))
            save(family, made[family])
        return made[family]

    return make


def reference(model, extractor, clip):
    """What transformers' own class makes of a clip's own frames: all layers after the first."""
    inputs = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt")
    if "input_features" in inputs and "attention_mask" in inputs:  # half a frame may be padding
        n = int(inputs.pop("attention_mask").sum())
        inputs["input_features"] = inputs["input_features"][:, :n]
    with torch.inference_mode():
        out = model(**inputs, output_hidden_states=True)
    return [*out.hidden_states[1:-1], out.last_hidden_state]


def reference_of(folder):
    """The reference class with a folder's weights, and its extractor."""
    name = json.loads((Path(folder) / "config.json").read_text())["model_type"]
    if name == "seamless_m4t_v2":
        model = transformers.SeamlessM4Tv2ForSpeechToText.from_pretrained(folder).speech_encoder
    else:
        model = transformers.AutoModel.from_pretrained(folder)
    model = model.get_encoder() if name == "whisper" else model
    return model.eval(), transformers.AutoFeatureExtractor.from_pretrained(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_reference_class(family, tiny):
    folder = tiny(family)
    encoder = open_encoder(folder).eval()
    assert encoder.dim == 32
    assert encoder.n_layers == 2
    model, extractor = reference_of(folder)
    # The extractor of filter banks adds up a clip's mean in float32, one frame after the other
    tolerance = 3e-5 if family in ("w2v-bert", "seamless") else 1e-5
    mixed = family != "seamless"  # whose adapter makes the last layer shorter than the others
    for clip in CLIPS[:3]:
        with torch.inference_mode():
            frames = encoder(*padded([clip]), all_layers=mixed)
        expected = reference(model, extractor, clip)
        expected = expected if mixed else expected[-1:]
        assert len(frames.layers) == len(expected)
        n = int(frames.lengths[0])
        if "whisper" not in family:  # of whose 30 s only the clip's own frames are kept
            assert n == expected[-1].shape[1]
        for ours, theirs in zip(frames.layers, expected, strict=True):
            np.testing.assert_allclose(ours[0, :n], theirs[0, :n], atol=tolerance)


@pytest.mark.parametrize("samples", [16_000, 4_321, 1])
def test_whisper_at_a_clips_length_equals_the_reference_cut_to_it(samples, tiny):
    folder = tiny("whisper")
    encoder = open_encoder(folder, whisper_window="clip").eval()
    clip = torch.randn(samples) * 0.1
    model, extractor = reference_of(folder)
    n = -(-samples // 320)
    model.config.max_source_positions = n
    positions = torch.nn.Embedding.from_pretrained(model.embed_positions.weight[:n])
    model.embed_positions = positions
    mels = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt")["input_features"]
    with torch.inference_mode():
        expected = model(mels[:, :, : 2 * n]).last_hidden_state
        ours = encoder(*padded([clip]))
    assert ours.lengths.tolist() == [n]
    torch.testing.assert_close(ours.last, expected, atol=1e-5, rtol=1e-4)


def test_whispers_windows_agree_at_30_seconds(tiny):
    clip = torch.randn(30 * 16_000) * 0.1
    with torch.inference_mode():
        one, two = (
            open_encoder(tiny("whisper"), whisper_window=window).eval()(*padded([clip])).last
            for window in ("30s", "clip")
        )
    assert torch.equal(one, two)


@pytest.mark.parametrize("window", ["30s", "clip"])
def test_whisper_in_windows_hears_a_clip_the_same_in_any_batch(window, tiny):
    encoder = open_encoder(tiny("whisper"), whisper_window=window)
    seconds = (30.0, 31.01, 2.5, 29.99)
    assert_invariant(encoder, [torch.randn(round(s * 16_000)) * 0.1 for s in seconds], 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_batch_and_order_change_nothing(family, tiny):
    assert_invariant(open_encoder(tiny(family)), tolerance=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_config_builds_it_without_the_folder(family, tiny):
    encoder = open_encoder(tiny(family)).eval()
    config = encoder.config | {"name": "nowhere/to-be-found"}
    again = open_encoder(config=config).eval()
    again.load_state_dict(encoder.state_dict())
    batch = padded(CLIPS[:2])
    with torch.inference_mode():
        torch.testing.assert_close(again(*batch).last, encoder(*batch).last)


def test_short_clips_train_despite_time_masks(tiny):
    encoder = open_encoder(tiny("wav2vec2")).train()
    encoder(*padded([torch.randn(1_600)])).last.sum().backward()


def test_whisper_hears_beyond_30_seconds(tiny):
    encoder = open_encoder(tiny("whisper")).eval()
    clip = torch.randn(35 * 16_000) * 0.1
    with torch.inference_mode():
        frames = encoder(*padded([clip]))
        tail = encoder(*padded([clip[30 * 16_000 :]]))
    assert frames.lengths.tolist() == [1750]
    torch.testing.assert_close(frames.last[0, 1500:], tail.last[0], atol=1e-5, rtol=1e-4)


def test_seamless_of_its_own_folder_runs_none_of_its_code(tiny, tmp_path):
    """The carved-out encoder's layout: another family's name, code of its own, no prefix."""
    encoder = open_encoder(tiny("seamless")).eval()
    encoder.model.save_pretrained(tmp_path)
    transformers.SeamlessM4TFeatureExtractor().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "seamlessm4t-v2-large-speech_encoder"
    config["auto_map"] = {"AutoModel": "modeling.Model", "AutoConfig": "modeling.Config"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling.py").write_text("raise SystemExit")
    again = open_encoder(str(tmp_path)).eval()
    with torch.inference_mode():
        assert torch.equal(again(*padded(CLIPS)).last, encoder(*padded(CLIPS)).last)


def test_weights_under_older_names_are_found(tiny, tmp_path):
    """Weight norm was spelt otherwise when the hub's wav2vec 2.0 models were made."""
    shutil.copytree(tiny("wav2vec2"), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    spelling = {"parametrizations.weight.original0": "weight_g"}
    spelling |= {"parametrizations.weight.original1": "weight_v"}
    for new, old in spelling.items():
        weights = {name.replace(new, old): value for name, value in weights.items()}
    assert any(name.endswith("weight_g") for name in weights)
    heads = {"project_q.weight": torch.zeros(2, 2)}  # of pretraining
    old = {f"wav2vec2.{name}": value for name, value in weights.items()} | heads
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    one, two = open_encoder(tiny("wav2vec2")), open_encoder(str(tmp_path))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])


@pytest.mark.parametrize("family", ["wav2vec2", "seamless", "whisper"])
def test_a_folder_that_lacks_weights_is_refused(family, tiny, tmp_path):
    shutil.copytree(tiny(family), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    lost = [name for name in weights if "encoder.layers.1." in name]
    save_file(
        {k: v for k, v in weights.items() if k not in lost},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(
        InputError, match=rf"lacks {len(lost)} weights of a .*, such as .*layers\.1"
    ):
        open_encoder(str(tmp_path))


def test_unknown_and_unreachable_names_say_how_to_work_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"cannot load nobody/nothing.*HF_HUB_OFFLINE"):
        open_encoder("nobody/nothing")
    with pytest.raises(InputError, match="cannot load"):
        open_encoder(str(tmp_path))


def test_text_models_are_refused(tmp_path):
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="bert model, not a speech encoder"):
        open_encoder(str(tmp_path))


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "dim", "seconds"), [("speech-embedding", 96, 0.775), ("lyra-encoder", 64, 0.1)]
)
def test_real_encoders_with_their_own_code(assets, name, dim, seconds):
    folder = str(assets / "models" / name)
    with pytest.raises(InputError, match="allow it by name"):
        open_encoder(folder)
    encoder = open_encoder(folder, allow_remote_code=[folder])
    assert encoder.dim == dim
    clips = [torch.randn(n) * 0.1 for n in (16_000, 24_000, round(seconds * 16_000) + 320)]
    assert_invariant(encoder, clips)


def test_filter_banks_equal_the_extractor_s_in_any_batch():
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (16_000, 8_000, 31_415, 720)]
    clips.append(np.pad(np.sin(np.arange(9_000, dtype=np.float32) / 20), 3_000))  # silence around
    lengths = torch.tensor([len(clip) for clip in clips])
    together = pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    bands, counts = Fbank()(together, lengths)
    extractor = transformers.SeamlessM4TFeatureExtractor()
    for clip, row, n in zip(clips, bands, counts, strict=True):
        told = extractor(clip, sampling_rate=16_000, return_tensors="pt")
        assert n == told["attention_mask"].sum()
        torch.testing.assert_close(row[:n], told["input_features"][0, :n], atol=5e-5, rtol=0)
        assert not row[n:].any()


@pytest.mark.parametrize("samples", [100, 16_000, 16_081, 31_415, 479_600, 479_999, 480_000])
def test_log_mels_equal_the_extractor_s_of_30_s(samples):
    rng = np.random.default_rng(0)
    clip = 0.1 * rng.standard_normal(samples).astype(np.float32)
    clip[samples // 2 :] *= 1e-3  # soft, so that what is cut off at the loudest matters
    expected = transformers.WhisperFeatureExtractor()(clip, sampling_rate=16_000)["input_features"]
    beside = torch.zeros(max(samples, 20_000))  # what a clip shares a batch with
    mels = WhisperMel(80)(pad_sequence([torch.from_numpy(clip), beside], batch_first=True))
    np.testing.assert_allclose(mels[:1], expected, atol=1e-5)
    assert (mels[1] == -1.5).all()
