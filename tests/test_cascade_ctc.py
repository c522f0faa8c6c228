"""CTC models of transformers: equal to the reference classes, whatever the batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    HubertConfig,
    HubertForCTC,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WavLMConfig,
    WavLMForCTC,
)

from cascade.asr import open_recognizer
from cascade.asr.decoding import Decoding
from cascade.transcriber import Transcriber
from speechtaxi.errors import InputError
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Utterance

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "|"]
ZERO_SHOT = [*SPECIALS, "'", *"abcdefghijklmnopqrstuvwxyz"]
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 8),
    "conv_stride": (10, 32),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def clips(*seconds: float) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [
        (0.1 * np.cumsum(random.standard_normal(round(s * 16_000))) % 1 - 0.5).astype(np.float32)
        for s in seconds
    ]


def save(folder: Path, model, vocabulary: list[str] | dict, normalize: bool = True) -> str:
    """Write a model as the hub lays it out, with an output layer that says many things."""
    folder.mkdir()
    torch.nn.init.normal_(model.lm_head.weight, std=2.0)
    model.save_pretrained(folder)
    nested = isinstance(vocabulary, dict)
    entries = vocabulary if nested else {symbol: n for n, symbol in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(entries), encoding="utf-8")
    options = {"target_lang": next(iter(vocabulary))} if nested else {}
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **options)
    if isinstance(model, Wav2Vec2BertForCTC):
        extractor = SeamlessM4TFeatureExtractor()
    else:
        masked = getattr(model.config, "feat_extract_norm", "") == "layer"
        extractor = Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=masked)
    tokenizer.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


def build(kind: str, size: int):
    torch.manual_seed(0)
    if kind == "wav2vec2":
        return Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=size, **SMALL, **LAYER_NORM))
    if kind == "hubert":
        return HubertForCTC(HubertConfig(vocab_size=size, **SMALL))  # group norm
    if kind == "wavlm":
        return WavLMForCTC(WavLMConfig(vocab_size=size, **SMALL, **LAYER_NORM))
    small = {name: value for name, value in SMALL.items() if not name.startswith("conv")}
    return Wav2Vec2BertForCTC(Wav2Vec2BertConfig(vocab_size=size, **small))


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "wav2vec2-bert"])
def test_equals_the_reference_alone_and_in_batches(kind: str, tmp_path: Path) -> None:
    folder = save(tmp_path / kind, build(kind, len(ZERO_SHOT)), ZERO_SHOT)
    classes = {
        "wav2vec2": Wav2Vec2ForCTC,
        "hubert": HubertForCTC,
        "wavlm": WavLMForCTC,
        "wav2vec2-bert": Wav2Vec2BertForCTC,
    }
    model = classes[kind].from_pretrained(folder).eval()
    extractor_class = (
        SeamlessM4TFeatureExtractor if kind == "wav2vec2-bert" else Wav2Vec2FeatureExtractor
    )
    extractor = extractor_class.from_pretrained(folder)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    waves = clips(0.63, 1.2, 0.305, 0.9)
    expected = []
    for wave in waves:
        inputs = extractor(wave, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            best = model(**inputs).logits.argmax(-1)
        if kind == "wav2vec2-bert":  # it pads to even frames and masks what it padded
            best = best[:, : int(inputs["attention_mask"].sum())]
        expected.append(" ".join(tokenizer.batch_decode(best)[0].split()))
    assert len({*expected}) == 4
    assert min(map(len, expected)) > 5
    recognizer = open_recognizer(folder)
    alone = [recognizer.transcribe([wave], "eng")[0].text for wave in waves]
    assert alone == expected
    assert [t.text for t in recognizer.transcribe(waves, "eng")] == expected
    assert [t.text for t in recognizer.transcribe(waves[::-1], "eng")] == expected[::-1]


def test_filter_banks_are_the_extractor_s(tmp_path: Path) -> None:
    recognizer = open_recognizer(save(tmp_path / "m", build("wav2vec2-bert", 32), ZERO_SHOT))
    waves = clips(1.0, 0.313, 0.5)
    inputs = recognizer._inputs(waves)
    expected = recognizer._extractor(waves, sampling_rate=16_000, return_tensors="pt")
    mask = expected["attention_mask"][..., None]
    assert torch.equal(inputs["attention_mask"], expected["attention_mask"].long())
    torch.testing.assert_close(
        inputs["input_features"] * mask, expected["input_features"] * mask, atol=5e-5, rtol=0
    )
    together = recognizer.transcribe([*clips(0.0, 0.02, 0.03), waves[0]], "eng")  # of few frames
    assert together[3] == recognizer.transcribe(waves[:1], "eng")[0]
    assert max(len(short.text) for short in together[:3]) <= 1


@pytest.mark.parametrize(
    ("vocabulary", "spells"),
    [
        (ZERO_SHOT, "uroman"),
        ([*SPECIALS, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"], "native"),
        ([*ZERO_SHOT, "é"], "native"),
        ([*SPECIALS, *"абв"], "native"),
    ],
)
def test_spelling_is_told_by_the_vocabulary(
    vocabulary: list[str], spells: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "m", build("wav2vec2", len(vocabulary)), vocabulary)
    recognizer = open_recognizer(folder)
    assert recognizer.spells == spells
    assert recognizer.supports("nlx")  # zero-shot: nobody can tell
    assert recognizer.supports("und")


def test_without_normalisation_and_half_precision(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", build("wav2vec2", 32), ZERO_SHOT, normalize=False)
    (wave,) = clips(1.0)
    processor = Wav2Vec2Processor.from_pretrained(folder)
    model = Wav2Vec2ForCTC.from_pretrained(folder, dtype=torch.bfloat16).eval()
    values = processor(wave, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        best = model(values.to(torch.bfloat16)).logits.argmax(-1)
    expected = " ".join(processor.batch_decode(best)[0].split())
    half = open_recognizer(folder, dtype="bfloat16")
    assert half.transcribe([wave], "eng")[0].text == expected
    assert half.fingerprint != open_recognizer(folder).fingerprint


@pytest.fixture(scope="module")
def mms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a small MMS: a vocabulary and an adapter for each of three languages."""
    alphabets = {
        "eng": "abcdefghij",
        "rus": "абвгдежзийклмн",
        "urd-script_arabic": "ابتثجحخدذ",
        "fra": "aéèbc",  # in the vocabulary, but its adapter was not copied
    }
    vocabulary = {
        code: {symbol: n for n, symbol in enumerate([*SPECIALS, *letters])}
        for code, letters in alphabets.items()
    }
    torch.manual_seed(0)
    size = len(vocabulary["eng"])
    config = Wav2Vec2Config(vocab_size=size, adapter_attn_dim=4, **SMALL, **LAYER_NORM)
    model = Wav2Vec2ForCTC(config)
    folder = Path(save(tmp_path_factory.mktemp("models") / "mms", model, vocabulary))
    for number, code in enumerate(list(alphabets)[:3]):
        torch.manual_seed(number)
        model.config.vocab_size = len(vocabulary[code])
        model.lm_head = torch.nn.Linear(16, len(vocabulary[code]))
        weights = {name: torch.randn_like(w) for name, w in model._get_adapters().items()}
        save_file(weights, folder / f"adapter.{code}.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_adapters_switch_by_language(mms: str) -> None:
    waves = clips(0.5, 0.8)
    expected = {}
    for language, code in (("eng", "eng"), ("rus", "rus"), ("urd", "urd-script_arabic")):
        model = Wav2Vec2ForCTC.from_pretrained(
            mms, target_lang=code, ignore_mismatched_sizes=True
        ).eval()
        processor = Wav2Vec2Processor.from_pretrained(mms)
        processor.tokenizer.set_target_lang(code)
        expected[language] = []
        for wave in waves:
            inputs = processor(wave, sampling_rate=16_000, return_tensors="pt")
            with torch.no_grad():
                best = model(**inputs).logits.argmax(-1)
            expected[language].append(" ".join(processor.batch_decode(best)[0].split()))
    assert any(ord(letter) > 0x600 for letter in expected["urd"][0])
    recognizer = open_recognizer(mms)
    assert recognizer.spells == "native"
    for language in ("rus", "eng", "urd", "urd", "eng", "rus"):
        found = [result.text for result in recognizer.transcribe(waves, language)]
        assert found == expected[language]


def test_languages_without_an_adapter_are_not_supported(mms: str) -> None:
    recognizer = open_recognizer(mms)
    assert recognizer.supports("urd")
    assert not recognizer.supports("fra")
    assert not recognizer.supports("nde")
    assert not recognizer.supports("xyz")
    assert not recognizer.supports("und")


def test_fingerprint_is_of_content_not_of_place(mms: str, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(mms, copy)
    before = open_recognizer(mms).fingerprint
    assert open_recognizer(str(copy)).fingerprint == before
    adapter = copy / "adapter.rus.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"\x00")
    changed = open_recognizer(str(copy)).fingerprint
    assert changed != before
    (copy / "README.md").write_text("notes")
    assert open_recognizer(str(copy)).fingerprint == changed


def test_a_model_without_weights(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", build("wav2vec2", 32), ZERO_SHOT)
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot load .*HF_HUB_OFFLINE"):
        open_recognizer(folder).transcribe(clips(0.5), "eng")


def test_a_model_that_lacks_a_layer(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", build("wav2vec2", 32), ZERO_SHOT)
    weights = load_file(tmp_path / "m" / "model.safetensors")
    half = {name: value for name, value in weights.items() if "layers.1" not in name}
    save_file(half, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks \d+ weights of a Wav2Vec2ForCTC, such as"):
        open_recognizer(folder).transcribe(clips(0.5), "eng")


@pytest.mark.parametrize("kind", ["adapters", "zero-shot"])
def test_through_the_store_once(kind: str, mms: str, tmp_path: Path, monkeypatch) -> None:
    """As MMS-1b-all and as MMS-ZeroShot: transcribed once, in whichever language they know."""
    folder = mms
    if kind == "zero-shot":
        folder = save(tmp_path / "m", build("wav2vec2", len(ZERO_SHOT)), ZERO_SHOT)
    soundfile.write(tmp_path / "a.wav", clips(0.8)[0], 16_000)
    languages = ("rus", "urd", "nde", "tw-asante")
    rows = [Utterance(code, code, audio=str(tmp_path / "a.wav")) for code in languages]
    store = TranscriptStore(tmp_path / "s.sqlite")
    first = Transcriber(open_recognizer(folder), store).transcribe(rows)
    known = languages if kind == "zero-shot" else ("rus", "urd")
    assert [bool(t.text) for t in first] == [code in known for code in languages]
    assert ["unsupported_language" in t.flags for t in first] == [
        code not in known for code in languages
    ]
    monkeypatch.setattr(Wav2Vec2ForCTC, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    assert Transcriber(open_recognizer(folder), store).transcribe(rows) == first
    for asked in (Decoding(beam_size=5), Decoding("translate"), Decoding(max_new_tokens=5)):
        with pytest.raises(InputError, match=r"does not take|cannot translate"):
            open_recognizer(folder, decoding=asked)
