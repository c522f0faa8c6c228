"""Each family of pretrained encoders, tiny and in the hub's layout, against its own class."""

import numpy as np
import pytest
import torch
import transformers
from test_encoder import CLIPS, assert_invariant, padded

from speechtaxi.encoder import open_encoder
from speechtaxi.errors import InputError

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
    "whisper": (
        "Whisper",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 37,
            "decoder_ffn_dim": 37,
            "vocab_size": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
    ),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return a function that saves a tiny random model of a family and returns its folder."""
    made = {}

    def make(family):
        if family not in made:
            torch.manual_seed(0)
            name, settings = FAMILIES[family]
            model = getattr(transformers, f"{name}Model")(
                getattr(transformers, f"{name}Config")(**settings)
            )
            folder = tmp_path_factory.mktemp(family)
            model.save_pretrained(folder)
            if name == "Whisper":
                extractor = transformers.WhisperFeatureExtractor()
            elif name == "Wav2Vec2Bert":
                extractor = transformers.SeamlessM4TFeatureExtractor()
            else:
                extractor = transformers.Wav2Vec2FeatureExtractor(
                    do_normalize=True, return_attention_mask="group" not in family
                )
            extractor.save_pretrained(folder)
            made[family] = str(folder)
        return made[family]

    return make


def reference(folder, clip):
    """What transformers' own extractor and class make of one clip: all layers after the first."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt")
    if model.config.model_type == "whisper":
        model = model.get_encoder()
    with torch.inference_mode():
        out = model(**inputs, output_hidden_states=True)
    return [*out.hidden_states[1:-1], out.last_hidden_state]


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_reference_class(family, tiny):
    folder = tiny(family)
    encoder = open_encoder(folder).eval()
    assert encoder.dim == 32
    assert encoder.n_layers == 2
    for clip in CLIPS[:3]:
        with torch.inference_mode():
            frames = encoder(*padded([clip]), all_layers=True)
        expected = reference(folder, clip)
        assert len(frames.layers) == len(expected) == 2
        n = int(frames.lengths[0])
        if family == "w2v-bert":  # an odd last window makes half a frame, which is masked
            assert n in (expected[-1].shape[1], expected[-1].shape[1] - 1)
        elif family != "whisper":  # of whose 30 s only the clip's own frames are kept
            assert n == expected[-1].shape[1]
        for ours, theirs in zip(frames.layers, expected, strict=True):
            np.testing.assert_allclose(ours[0, :n], theirs[0, :n], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_batch_and_order_change_nothing(family, tiny):
    assert_invariant(open_encoder(tiny(family)), tolerance=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_config_builds_it_without_the_folder(family, tiny):
    encoder = open_encoder(tiny(family)).eval()
    config = encoder.config | {"name": "nowhere/to-be-found"}
    again = open_encoder(config=config).eval()
    again.load_state_dict(encoder.state_dict())
    batch = padded(CLIPS[:2])
    with torch.inference_mode():
        torch.testing.assert_close(again(*batch).last, encoder(*batch).last)


@pytest.mark.parametrize("family", ["wav2vec2", "w2v-bert", "whisper"])
def test_freeze_front_and_layers(family, tiny):
    encoder = open_encoder(tiny(family))
    encoder.freeze("1")
    front, layers = encoder.parts()
    assert not any(p.requires_grad for p in front.parameters())
    assert [all(p.requires_grad for p in layer.parameters()) for layer in layers] == [False, True]


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
