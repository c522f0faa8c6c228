"""What of an encoder is trained: parts, LoRA; and with how much memory."""

import sys

import numpy as np
import pytest
import test_pretrained
import torch
from test_encoder import CLIPS, padded

from e2e import SpeechClassifier
from speechtaxi import checkpoint
from speechtaxi.encoder import open_encoder
from speechtaxi.errors import InputError

tiny = test_pretrained.tiny  # the fixture

TUNED = ["wav2vec2", "hubert-group", "w2v-bert", "seamless", "whisper"]


@pytest.mark.parametrize("family", TUNED)
def test_freeze_front_and_layers(family, tiny):
    def trained(part):
        encoder = open_encoder(tiny(family))
        encoder.freeze(part)
        front, layers = encoder.parts()
        return [any(p.requires_grad for p in module.parameters()) for module in (front, *layers)]

    assert trained("none") == [True, True, True]
    assert trained("front") == trained("0") == trained("all-2") == [False, True, True]
    assert trained("1") == trained("all-1") == [False, False, True]
    assert trained("all") == [False, False, False]


@pytest.mark.parametrize("part", ["lowest", "3", "all-3", "-1", "all-"])
def test_there_is_no_such_part(part, tiny):
    with pytest.raises(InputError, match=r"cannot freeze.*all but how many.*has 2"):
        open_encoder(tiny("wav2vec2")).freeze(part)


@pytest.mark.parametrize(
    ("family", "targets"), [*((family, "attention") for family in TUNED), ("w2v-bert", "all")]
)
def test_lora_learns_is_rebuilt_and_merges(family, targets, tiny):
    pytest.importorskip("peft")
    plain = open_encoder(tiny(family)).eval()
    encoder = open_encoder(tiny(family), lora={"r": 4, "targets": targets}).eval()
    batch = padded(CLIPS[:2])
    with torch.inference_mode():
        before = plain(*batch).last
        torch.testing.assert_close(encoder(*batch).last, before)  # an update begins as nothing
    for name, weights in encoder.named_parameters():
        assert weights.requires_grad == ("lora_" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    encoder(*batch).last.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters() if p.requires_grad)
    again = open_encoder(config=encoder.config | {"name": "nowhere/to-be-found"}).eval()
    again.load_state_dict(encoder.state_dict())
    with torch.inference_mode():
        after = encoder(*batch).last
        assert (after - before).abs().max() > 1e-3
        assert torch.equal(again(*batch).last, after)
        encoder.merge_lora()
        torch.testing.assert_close(encoder(*batch).last, after, atol=1e-5, rtol=1e-5)
    assert encoder.config == plain.config
    assert encoder.state_dict().keys() == plain.state_dict().keys()
    assert [p.requires_grad for p in encoder.parameters()] == [
        p.requires_grad for p in plain.parameters()
    ]


def test_lora_of_layers_that_are_frozen_is_not_trained(tiny):
    pytest.importorskip("peft")
    encoder = open_encoder(tiny("wav2vec2"), lora={})
    encoder.freeze("1")
    trained = {
        name.split("layers.")[1][0] for name, p in encoder.named_parameters() if p.requires_grad
    }
    assert trained == {"1"}


def test_a_lora_model_warm_starts_another_with_what_it_learned(tiny, tmp_path):
    pytest.importorskip("peft")
    model = SpeechClassifier(["a", "b"], encoder=tiny("whisper"), whisper_window="clip", lora={})
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    checkpoint.save(model.eval(), tmp_path / "model", "")
    again = open_encoder(str(tmp_path / "model")).eval()
    assert again.window == "clip"
    batch = padded(CLIPS[:2])
    with torch.inference_mode():
        torch.testing.assert_close(
            again(*batch).last, model.encoder(*batch).last, atol=1e-5, rtol=1e-5
        )
    assert checkpoint.load(tmp_path / "model").settings["lora"] is None


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("wavlm", {}, "no effect on WavLM"),
        ("wav2vec2", {"rank": 4}, "takes r, alpha, targets and dropout, not rank"),
        ("wav2vec2", {"targets": "heads"}, "targets attention or all"),
        ("wav2vec2", {"r": "8"}, "r is 1 or more"),
    ],
)
def test_lora_that_cannot_be(name, options, reason, tiny):
    pytest.importorskip("peft")
    with pytest.raises(InputError, match=reason):
        open_encoder(tiny(name), lora=options)


def test_options_of_other_encoders_are_refused(tiny, monkeypatch):
    with pytest.raises(InputError, match="LoRA is for pretrained encoders"):
        open_encoder("small", lora={})
    with pytest.raises(InputError, match="only Whisper's encoder has a window"):
        open_encoder(tiny("wav2vec2"), whisper_window="clip")
    with pytest.raises(InputError, match="use 30s or clip"):
        open_encoder(tiny("whisper"), whisper_window="10s")
    with pytest.raises(InputError, match="keeps its activations"):
        SpeechClassifier(["a", "b"], checkpoint_activations=True)
    with pytest.raises(InputError, match="leave out one of them"):
        SpeechClassifier(["a", "b"], encoder=tiny("wav2vec2"), lora={}, freeze="all")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'speechtaxi\[lora\]'"):
        open_encoder(tiny("wav2vec2"), lora={})


@pytest.mark.parametrize("freeze", ["none", "1"])
@pytest.mark.parametrize("family", TUNED)
def test_activations_computed_twice_give_the_same_gradients_from_less(family, freeze, tiny):
    def run(twice):
        encoder = open_encoder(tiny(family)).train()
        encoder.freeze(freeze)
        if twice:
            encoder.checkpoint_activations()
        kept = 0

        def count(value):
            nonlocal kept
            kept += value.numel()
            return value

        torch.manual_seed(0)
        np.random.seed(0)  # SpecAugment's
        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            frames = encoder(*padded(CLIPS[:2]), all_layers=family != "seamless")
        sum(layer.sin().sum() for layer in frames.layers).backward()
        grads = {n: p.grad for n, p in encoder.named_parameters() if p.requires_grad}
        assert len(frames.layers) == (1 if family == "seamless" else 2)
        return kept, grads

    (plenty, grads), (few, again) = run(False), run(True)
    assert few < plenty
    for name, grad in grads.items():
        torch.testing.assert_close(again[name], grad)


@pytest.mark.parametrize("lora", [None, {}])
@pytest.mark.parametrize("family", TUNED)
def test_ddp_finds_a_gradient_of_all_that_is_trained(family, lora, tiny, tmp_path):
    """It refuses a second batch where one has none."""
    if lora is not None:
        pytest.importorskip("peft")
    encoder = open_encoder(tiny(family), lora=lora).train()
    encoder.freeze("front")
    encoder.checkpoint_activations()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(encoder)
        for _ in range(2):
            parallel(*padded(CLIPS[:2])).last.sin().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
