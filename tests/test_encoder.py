"""Speech encoders: a clip's frames depend on the clip alone."""

import numpy as np
import pytest
import torch

from speechtaxi.encoder import SmallEncoder, open_encoder
from speechtaxi.encoder.small import LogMel

torch.manual_seed(0)
CLIPS = [torch.randn(n) * 0.1 for n in (16_000, 9_000, 4_321, 1_600)]


def padded(clips, extra=0):
    lengths = torch.tensor([len(clip) for clip in clips])
    waveforms = torch.zeros(len(clips), int(lengths.max()) + extra)
    for row, clip in zip(waveforms, clips, strict=True):
        row[: len(clip)] = clip
    return waveforms, lengths


def assert_invariant(encoder, clips=CLIPS, tolerance=1e-5, all_layers=False):
    """Frames of each clip alone, in a batch, in another order, and with more padding, agree."""
    encoder.eval()
    with torch.inference_mode():
        alone = [encoder(*padded([clip]), all_layers) for clip in clips]
        for order, extra in ((range(len(clips)), 0), (reversed(range(len(clips))), 3_000)):
            order = list(order)
            together = encoder(*padded([clips[i] for i in order], extra), all_layers)
            for row, i in enumerate(order):
                n = int(alone[i].lengths[0])
                assert int(together.lengths[row]) == n
                assert int(encoder.frame_count(torch.tensor([len(clips[i])]))) == n
                for one, many in zip(alone[i].layers, together.layers, strict=True):
                    torch.testing.assert_close(
                        many[row, :n], one[0, :n], atol=tolerance, rtol=tolerance
                    )


def test_small_encoder_is_invariant():
    assert_invariant(SmallEncoder(), all_layers=True)


def test_small_encoder_frames():
    frames = SmallEncoder(dim=32, layers=2).eval()(*padded(CLIPS), all_layers=True)
    assert [layer.shape for layer in frames.layers] == [(4, 25, 32)] * 2
    assert frames.mask.sum(1).tolist() == frames.lengths.tolist() == [25, 14, 7, 2]


def test_log_mel_agrees_with_librosa():
    import librosa

    wave = CLIPS[0].numpy()
    spectrum = librosa.feature.melspectrogram(
        y=wave,
        sr=16_000,
        n_fft=400,
        hop_length=160,
        center=False,
        n_mels=40,
        fmin=20,
        fmax=8000,
        htk=True,
        norm=None,
    )
    log = np.log(spectrum.T + 1e-6)
    expected = (log - log.mean(0)) / np.sqrt(log.var(0) + 0.1)
    heard, counts = LogMel()(torch.tensor(wave)[None], torch.tensor([len(wave)]))
    assert int(counts) == len(expected)
    np.testing.assert_allclose(heard[0].numpy(), expected, atol=2e-3)


def test_augmentation_only_in_training():
    encoder = SmallEncoder(dropout=0.0)
    batch = padded(CLIPS)
    assert not torch.equal(encoder.train()(*batch).last, encoder(*batch).last)
    assert torch.equal(encoder.eval()(*batch).last, encoder(*batch).last)


def test_freeze_by_part():
    def trained(part):
        encoder = SmallEncoder(layers=3)
        encoder.freeze(part)
        return [
            any(p.requires_grad for p in module.parameters())
            for module in (encoder.front, *encoder.blocks, encoder.norm)
        ]

    assert trained("none") == [True] * 5
    assert trained("front") == [False, True, True, True, True]
    assert trained("2") == [False, False, False, True, True]
    assert trained("all") == [False] * 5


def test_a_saved_config_builds_the_same_encoder():
    encoder = SmallEncoder(dim=32, layers=2, kernel=3)
    again = open_encoder(config=encoder.config)
    again.load_state_dict(encoder.state_dict())
    batch = padded(CLIPS)
    assert torch.equal(encoder.eval()(*batch).last, again.eval()(*batch).last)


@pytest.mark.parametrize("samples", [1, 399, 400, 401])
def test_very_short_clips_give_one_frame(samples):
    frames = SmallEncoder().eval()(*padded([torch.randn(samples)]))
    assert frames.lengths.tolist() == [1]
    assert frames.last.isfinite().all()
