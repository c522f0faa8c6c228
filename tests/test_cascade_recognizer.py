"""The recogniser: spelling, what CTC cannot align, learning, the same text in any batch."""

import json

import pytest
import torch
from test_encoder import CLIPS, padded
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

import speechtaxi
from cascade.asr import open_recognizer
from cascade.recognizer import Recognizer
from cascade.speller import UROMAN_SYMBOLS, letters
from cascade.transcriber import Transcriber
from speechtaxi import audio
from speechtaxi.cli import main
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest, read_run
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Utterance


def test_spelling_merges_repetitions_and_drops_blanks():
    model = Recognizer(spells="native", symbols=[" ", "a", "b"])
    assert model.spell([0, 2, 2, 0, 2, 1, 1, 0, 1, 3, 0]) == "aa b"


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("Hello,  World!", "hello world"),
        ("ἀ’b", "ἀ'b"),
        ("हिन्दी।", "हिन्दी"),  # vowel signs and the virama stay
        ("e\u0301te\u0301", "été"),
        ("...", ""),
    ],
)
def test_letters(text, spelled):
    assert letters(text) == spelled


def test_uroman_targets_hold_only_its_symbols():
    model = Recognizer(spells="uroman")
    assert model.symbols == UROMAN_SYMBOLS
    clip = Utterance("a", "rus", text="Дождь, 5 мая…")
    assert model.target(clip) == "dozhd maya"


def test_a_clip_without_text_is_refused():
    with pytest.raises(InputError, match="a has no text"):
        Recognizer().target(Utterance("a", "eng"))


def test_targets_that_ctc_cannot_align_are_found():
    model = Recognizer(spells="native", symbols=list(" abc"), upsample=1)
    frames = int(model.encoder.frame_count(torch.tensor([16_000])))
    fits = Utterance("fits", "eng", text="ab" * (frames // 2))
    repeats = Utterance("repeats", "eng", text="a" * frames)  # blanks between
    long = Utterance("long", "eng", text="ab" * frames)
    assert model.too_long_for_ctc([fits, repeats, long], [1.0] * 3) == ["repeats", "long"]
    loss = torch.nn.functional.ctc_loss(
        torch.randn(frames, 2, 5).log_softmax(-1),
        torch.tensor([model.numbers[c] for clip in (fits, repeats) for c in clip.text]),
        torch.tensor([frames, frames]),
        torch.tensor([len(fits.text), len(repeats.text)]),
        reduction="none",
    )
    assert loss.isfinite().tolist() == [True, False]  # as PyTorch sees it


def test_transcripts_do_not_change_with_batch_order_or_padding():
    torch.manual_seed(0)
    model = Recognizer(spells="uroman").eval()
    torch.nn.init.normal_(model.output.weight, std=1.0)
    alone = [model.recognize(*padded([clip]))[0] for clip in CLIPS]
    assert len(set(alone)) > 1
    assert model.recognize(*padded(CLIPS, 4_000)) == alone
    assert model.recognize(*padded(CLIPS[::-1])) == alone[::-1]


@pytest.fixture(scope="module")
def recognizer_run(fit_arguments, tmp_path_factory):
    """A recogniser that has learnt to spell the sweeps."""
    run = tmp_path_factory.mktemp("runs") / "recognizer"
    arguments = [*fit_arguments, "-c", "recognizer_native", "--trainer.max_epochs=25"]
    assert main(["fit", *arguments, f"--run={run}", "--model.upsample=4"]) == 0
    return run


def test_it_learns_to_spell_and_is_scored(recognizer_run, capsys):
    assert main(["test", str(recognizer_run)]) == 0
    assert json.loads(capsys.readouterr().out)["test/cer"] < 0.5
    model = speechtaxi.load(str(recognizer_run))
    assert model.symbols == sorted(set("rise and climb" + "sink and fall"))
    assert read_run(recognizer_run).notes[-1].startswith("0 training clips")


def test_its_encoder_warm_starts_the_e2e_route(recognizer_run, fit_arguments, tmp_path):
    run = tmp_path / "warm"
    warm = [f"--model.encoder={recognizer_run}", "--trainer.max_epochs=1"]
    assert main(["fit", *fit_arguments, "-c", "e2e_tiny", f"--run={run}", *warm]) == 0
    again = speechtaxi.load(str(run))
    assert again.settings["encoder"] == str(recognizer_run)


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-bert"])
def test_any_encoder_becomes_a_recogniser(kind, fit_arguments, corpus, tmp_path):
    """One step of training from a pretrained folder; then its transcripts, through the store."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32}
    if kind == "wav2vec2":
        sizes |= {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 8}
        sizes |= {"num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer"}
        pretrained = Wav2Vec2Model(Wav2Vec2Config(**sizes))
        extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    else:
        pretrained = Wav2Vec2BertModel(Wav2Vec2BertConfig(**sizes))
        extractor = SeamlessM4TFeatureExtractor()
    pretrained.save_pretrained(tmp_path / "encoder")
    extractor.save_pretrained(tmp_path / "encoder")
    run = tmp_path / "run"
    options = [f"--model.encoder={tmp_path / 'encoder'}", "--model.freeze=all", f"--run={run}"]
    options += ["--trainer.max_epochs=1", "--model.upsample=4", "--data.languages=[eng]"]
    assert main(["fit", *fit_arguments, "-c", "recognizer_romanized", *options]) == 0
    model = speechtaxi.load(str(run))
    for name, weight in pretrained.state_dict().items():  # warm: the weights of the folder
        assert torch.equal(model.encoder.model.state_dict()[name], weight), name
    clips = read_manifest(corpus)[:3]
    store = TranscriptStore(tmp_path / "s.sqlite")
    recognizer = open_recognizer(str(run))
    found = Transcriber(recognizer, store).transcribe(clips)
    wave = torch.from_numpy(audio.load(clips[0].audio))
    assert found[0].text == model.recognize(wave[None], torch.tensor([len(wave)]))[0]
    recognizer.transcribe = lambda *_: pytest.fail("transcribed again")
    assert Transcriber(recognizer, store).transcribe(clips) == found
