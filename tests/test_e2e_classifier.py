"""The E2E route: one vector a clip, whatever its batch; freezing, mixing, warm starts."""

import pytest
import torch
from test_encoder import CLIPS, padded

from e2e import SpeechClassifier
from speechtaxi.batch import Batch
from speechtaxi.errors import InputError
from speechtaxi.types import Utterance

LABELS = ["low", "high"]


def batch_of(clips, extra=0):
    waveforms, lengths = padded(clips, extra)
    rows = tuple(Utterance(str(i), "eng") for i in range(len(clips)))
    return Batch(rows, waveforms, lengths, torch.zeros(len(clips), dtype=torch.int64))


@pytest.mark.parametrize("pooling", ["mean", "max", "attention", "statistics"])
@pytest.mark.parametrize("layers", ["last", "weighted"])
def test_logits_do_not_change_with_batch_order_or_padding(pooling, layers):
    model = SpeechClassifier(LABELS, pooling=pooling, layers=layers).eval()
    with torch.inference_mode():
        alone = torch.cat([model(batch_of([clip])) for clip in CLIPS])
        torch.testing.assert_close(model(batch_of(CLIPS, 5_000)), alone, atol=1e-5, rtol=1e-4)
        turned = model(batch_of(CLIPS[::-1]))
        torch.testing.assert_close(turned.flip(0), alone, atol=1e-5, rtol=1e-4)


def test_a_frozen_encoder_learns_nothing_and_drops_nothing():
    model = SpeechClassifier(LABELS, freeze="all").train()
    batch = batch_of(CLIPS)
    torch.testing.assert_close(model.embed(batch), model.embed(batch))
    model(batch).sum().backward()
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None} == {"head"}


def test_the_mix_of_layers_learns():
    model = SpeechClassifier(LABELS, layers="weighted").train()
    model(batch_of(CLIPS)).square().sum().backward()
    assert model.mix.weights.grad.abs().sum() > 0


def test_short_clips_are_set_amid_silence_where_the_encoder_needs_it():
    model = SpeechClassifier(LABELS, min_seconds=0.5).eval()
    short = CLIPS[3]  # 0.1 s
    silence = torch.zeros((8_000 - len(short)) // 2)
    amid = model(batch_of([torch.cat([silence, short, silence])]))
    torch.testing.assert_close(model(batch_of([short])), amid)
    torch.testing.assert_close(model(batch_of([CLIPS[0], short]))[1:], amid)


def test_fixed_vectors_are_standardised_the_same_in_any_batch():
    model = SpeechClassifier(LABELS, freeze="all", dropout=0.0).train()
    for _ in range(3):
        model(batch_of(CLIPS))
    vectors = model.embed(batch_of(CLIPS))
    assert vectors.mean(0).abs().max() < 1e-3
    torch.testing.assert_close(model.eval().embed(batch_of(CLIPS[:1])), vectors[:1])


def test_a_run_folder_warm_starts_the_encoder(e2e_run):
    trained = torch.load(e2e_run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    model = SpeechClassifier(LABELS, encoder=str(e2e_run))
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, trained[f"encoder.{name}"])
    assert not torch.equal(model.head.weight, trained["head.weight"])


def test_unknown_encoder(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="cannot load smol"):
        SpeechClassifier(LABELS, encoder="smol")
