"""Every config of the E2E route, with a tiny random model of its real class in the hub's layout.

None is shipped untried: a config without a model here fails. Each is fitted as its file says (only
the encoder is the tiny one), broken off and resumed, exported, and classifies.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import transformers
from test_e2e_classifier import batch_of
from test_pretrained import reference, save
from test_train import Interrupted
from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2SpeechEncoder

import speechtaxi
from speechtaxi import checkpoint
from speechtaxi.cli import main
from speechtaxi.encoder import open_encoder
from speechtaxi.records import write_manifest
from speechtaxi.train import configs
from speechtaxi.types import Utterance

FAMILY = {
    "e2e_mhubert_147": "hubert-group",
    "e2e_mms_1b": "wav2vec2",
    "e2e_mms_1b_frozen": "wav2vec2",
    "e2e_mms_1b_lora": "wav2vec2",
    "e2e_mms_300m": "wav2vec2",
    "e2e_seamless_v2": "seamless",
    "e2e_tiny": None,  # it comes with its own, which has no peer
    "e2e_w2v_bert_2": "w2v-bert",
    "e2e_whisper_base": "whisper",
    "e2e_whisper_large_v3": "whisper-128",
    "e2e_whisper_medium": "whisper",
    "e2e_whisper_small": "whisper",
    "e2e_whisper_tiny": "whisper",
    "e2e_xlsr_300m": "wav2vec2",
}
CONFIGS = [name for name in configs() if name.startswith("e2e_")]
SECONDS = (0.5, 0.62, 0.71, 0.84, 0.55, 0.93, 0.66, 0.77)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight clips of low and high noise: four to train on, two for dev, two for test."""
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    rows = []
    for number, (split, seconds) in enumerate(
        zip([*["train"] * 4, *["dev"] * 2, *["test"] * 2], SECONDS, strict=True)
    ):
        label = ("low", "high")[number % 2]
        wave = random.standard_normal(round(seconds * 16_000))
        wave = np.convolve(wave, np.ones(40) / 6, "same") if label == "low" else wave
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * wave, 16_000)
        rows.append(Utterance(str(number), "eng", str(path), split, label=label))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request, clips, tmp_path_factory):
    """A config's name, its tiny encoder's folder, and the run folder after two epochs."""
    name, family = request.param, FAMILY[request.param]
    if name.endswith("_lora"):
        pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp(name)
    encoder = ["--model.encoder=small"]
    if family:
        save(family, folder / "encoder")
        encoder = [f"--model.encoder={folder / 'encoder'}"]
    arguments = ["fit", "-c", "cpu", "-c", name, *encoder, f"--data.manifest={clips}"]
    arguments += ["--data.labels=[low,high]", "--data.batch_size=2", "--trainer.max_epochs=2"]
    arguments += [f"--run={folder / 'run'}"]
    if name.endswith("_frozen"):
        arguments += [f"--model.features={folder / 'features.sqlite'}"]
    with pytest.raises(Interrupted):
        main([*arguments, "--trainer.callbacks+=test_train.StopAfterOneEpoch"])
    broken = torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)
    assert (broken["epoch"], broken["global_step"]) == (0, 2)
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    return name, folder / "encoder", folder / "run"


def test_every_config_has_a_model_here():
    assert set(CONFIGS) == set(FAMILY)


def test_it_was_tuned_as_its_config_says_and_resumed(trained):
    name, encoder, run = trained
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert (saved["epoch"], saved["global_step"]) == (1, 4)
    assert saved["state_dict"]["head.weight"].isfinite().all()
    if not FAMILY[name]:
        return
    before = open_encoder(str(encoder)).state_dict()
    after = {k.removeprefix("encoder."): v for k, v in saved["state_dict"].items()}
    moved = {k for k, v in before.items() if k in after and not torch.equal(v, after[k])}
    front = ("model.feature", "model.conv")
    assert not any(k.startswith(front) for k in moved)
    if name.endswith("_frozen"):
        assert not moved
    elif name.endswith("_lora"):
        assert not moved
        assert all(v.abs().sum() > 0 for k, v in after.items() if "lora_B" in k)
    else:
        layers = {k for k in before if ".layers." in k and k.endswith("weight")}
        assert layers
        assert layers <= moved


def test_logits_are_those_of_the_reference_class_and_of_the_clip_alone(trained, clips):
    name, encoder, run = trained
    model = checkpoint.load(run)
    torch.manual_seed(1)
    waves = [torch.randn(round(s * 16_000)) * 0.1 for s in SECONDS[:4]]
    with torch.inference_mode():
        alone = torch.cat([model(batch_of([wave])) for wave in waves])
        torch.testing.assert_close(model(batch_of(waves, 3_000)), alone, atol=1e-5, rtol=1e-5)
        turned = model(batch_of(waves[::-1]))
        torch.testing.assert_close(turned.flip(0), alone, atol=1e-5, rtol=1e-5)
        if FAMILY[name]:
            peer = reference_class(model.encoder)
            extractor = transformers.AutoFeatureExtractor.from_pretrained(encoder)
            expected = torch.cat([peer_logits(model, peer, extractor, wave) for wave in waves])
            torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def reference_class(encoder):
    """transformers' own class with a trained encoder's weights, adapters merged."""
    settings = transformers.AutoConfig.for_model(**encoder.config["model"])
    if settings.model_type == "seamless_m4t_v2":
        peer = SeamlessM4Tv2SpeechEncoder(settings)
    else:
        peer = transformers.AutoModel.from_config(settings)
    peer = peer.get_encoder() if settings.model_type == "whisper" else peer
    peer.load_state_dict(encoder.model.state_dict())
    return peer.eval()


def peer_logits(model, peer, extractor, wave):
    """Mean of a clip's own frames, then the head."""
    if peer.config.model_type == "whisper":  # all configs tune it at a clip's length
        n = -(-len(wave) // 320)
        own = torch.nn.Embedding.from_pretrained(model.encoder.model.embed_positions.weight[:n])
        peer.embed_positions, peer.config.max_source_positions = own, n
        mels = extractor(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
        layers = [peer(mels[:, :, : 2 * n]).last_hidden_state]
    else:
        layers = reference(peer, extractor, wave)
    frames = model.mix(tuple(layers)) if model.mix is not None else layers[-1]
    return model.head(model.standardize(frames.mean(1)))


def test_it_trains_in_bf16_and_every_tuned_weight_has_a_gradient(trained):
    """As DDP needs, and as the trainer's bf16-mixed does: autocast around the forward pass."""
    _, _, run = trained
    saved = checkpoint.read(run)
    model = getattr(__import__("e2e"), saved.class_path.split(".")[1])(**saved.settings)
    model.load_state_dict(saved.state)
    model.train()
    batch = batch_of([torch.randn(9_000) * 0.1, torch.randn(8_000) * 0.1])
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(model(batch), batch.labels)
    loss.backward()
    assert loss.isfinite()
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            assert weights.grad is not None, name
            assert weights.grad.isfinite().all(), name


def test_the_export_classifies_as_the_run_does(trained, clips, tmp_path, capsys):
    _, encoder, run = trained
    assert main(["export", str(run), str(tmp_path / "model")]) == 0
    (encoder / "config.json").unlink(missing_ok=True)  # the hub's folder is needed no more
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert "lora" not in config["settings"]["encoder_config"]
    paths = sorted(clips.parent.glob("*.wav"))
    rows = [
        list(speechtaxi.load(folder).classify(paths, language="eng"))
        for folder in (run, tmp_path / "model")
    ]
    for one, two in zip(*rows, strict=True):
        assert one.probabilities == pytest.approx(two.probabilities, abs=1e-5)
        assert replace(one, probabilities={}) == replace(two, probabilities={})
    capsys.readouterr()
    arguments = ["classify", str(tmp_path / "model"), str(paths[0]), "--language", "eng"]
    assert main([*arguments, "--no_gate"]) == 0  # which hears that noise is no speech
    assert json.loads(capsys.readouterr().out)["topic"] == rows[0][0].prediction
