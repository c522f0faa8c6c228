"""Seamless M4T v2: equal to transformers, whatever the batch; transcription and translation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    GenerationConfig,
    SeamlessM4TFeatureExtractor,
    SeamlessM4TTokenizer,
    SeamlessM4Tv2Config,
    SeamlessM4Tv2ForSpeechToText,
)

from cascade.asr import open_recognizer
from cascade.asr.decoding import Decoding
from cascade.transcriber import Transcriber
from speechtaxi.errors import InputError
from speechtaxi.languages import LANGUAGES, seamless_code
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Utterance

CODES = ("eng", "fra", "tam", "arb")


def clips(*seconds: float) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [
        (0.1 * np.cumsum(random.standard_normal(round(s * 16_000))) % 1 - 0.5).astype(np.float32)
        for s in seconds
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a small model in the hub's layout, with a tokenizer of letters and languages."""
    path = tmp_path_factory.mktemp("models") / "seamless"
    pieces = ["<pad>", "<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = SeamlessM4TTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[],
        additional_special_tokens=[f"__{code}__" for code in CODES],
    )
    torch.manual_seed(0)
    small = {"layers": 1, "attention_heads": 2}
    parts = ("", "encoder_", "decoder_", "speech_encoder_", "t2u_encoder_", "t2u_decoder_")
    sizes = {part + name: value for part in parts[1:] for name, value in small.items()}
    sizes |= {f"{part}ffn_dim": 32 for part in parts if part.endswith("coder_") and part[0] != "s"}
    config = SeamlessM4Tv2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        max_position_embeddings=64,
        speech_encoder_intermediate_size=32,
        **sizes,
    )
    model = SeamlessM4Tv2ForSpeechToText(config)
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "distance_embedding" not in name:
            torch.nn.init.normal_(weight, std=0.7)
    model.generation_config = GenerationConfig(
        bos_token_id=2,
        decoder_start_token_id=3,
        eos_token_id=3,
        pad_token_id=0,
        max_new_tokens=12,
        text_decoder_lang_to_code_id={
            code: tokenizer.convert_tokens_to_ids(f"__{code}__") for code in CODES
        },
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    SeamlessM4TFeatureExtractor().save_pretrained(path)
    return str(path)


def generate(folder: str, wave: np.ndarray, language: str, **options) -> str:
    model = SeamlessM4Tv2ForSpeechToText.from_pretrained(folder).eval()
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(folder)
    inputs = extractor(wave, sampling_rate=16_000, return_tensors="pt")
    tokens = model.generate(**inputs, tgt_lang=language, do_sample=False, **options)
    tokenizer = SeamlessM4TTokenizer.from_pretrained(folder)
    return tokenizer.batch_decode(tokens, skip_special_tokens=True)[0].strip()


def test_equals_its_own_generation_alone_and_in_batches(folder: str) -> None:
    waves = clips(0.93, 1.6, 0.5, 2.2)
    recognizer = open_recognizer(folder)
    written = {}
    for language in ("fra", "tam"):
        expected = [generate(folder, wave, language, num_beams=1) for wave in waves]
        for order in (slice(None), slice(None, None, -1), slice(0, 1)):
            results = recognizer.transcribe(waves[order], language)
            assert [result.text for result in results] == expected[order]
        written[language] = expected
    assert len({*written["fra"]}) > 1
    assert written["fra"] != written["tam"]
    assert recognizer.spells == "native"
    alone, batched = recognizer.transcribe(waves[:1], "fra")[0], recognizer.transcribe(waves, "fra")
    assert alone.avg_logprob == pytest.approx(batched[0].avg_logprob, rel=1e-4)


def test_translates_into_english_from_any_language_that_it_hears(folder: str) -> None:
    waves = clips(0.93, 1.6)
    recognizer = open_recognizer(folder, decoding=Decoding("translate"))
    expected = [generate(folder, wave, "eng", num_beams=1) for wave in waves]
    for language in ("tam", "fra", "yor"):
        assert [t.text for t in recognizer.transcribe(waves, language)] == expected
    assert recognizer.supports("xho")  # heard, and not written
    assert recognizer.supports("und")
    assert not recognizer.supports("ewe")
    assert recognizer.fingerprint != open_recognizer(folder).fingerprint


def test_beams_and_limits(folder: str) -> None:
    waves = clips(0.93, 1.6)
    options = {"num_beams": 3, "max_new_tokens": 5}
    asked = Decoding.of({"beam_size": 3, "max_new_tokens": 5})
    results = open_recognizer(folder, decoding=asked).transcribe(waves, "fra")
    assert [t.text for t in results] == [generate(folder, w, "fra", **options) for w in waves]
    asked = Decoding.of({"beam_size": 3, "max_new_tokens": 5, "logprob_threshold": -99})
    scored = open_recognizer(folder, decoding=asked).transcribe(waves, "fra")
    assert [t.text for t in scored] == [t.text for t in results]
    assert all(-99 < result.avg_logprob < 0 for result in scored)
    guarded = Decoding(logprob_threshold=0.0, temperatures=(1.0,))
    (result,) = open_recognizer(folder, decoding=guarded).transcribe(waves[:1], "fra")
    assert (result.text, result.flags[-1]) == ("", "unlikely")  # sampled, and unlikely again


def test_languages(folder: str) -> None:
    recognizer = open_recognizer(folder)
    supported = {"eng", "fra", "tam", "ara"}
    assert {c for c in (*supported, "yor", "xho", "nlx", "und") if recognizer.supports(c)} == (
        supported
    )
    ours = {code for code, row in LANGUAGES.items() if row.in_speechtaxi and seamless_code(code)}
    assert ours == {
        *("asm", "ckb", "eng", "fra", "guj", "ibo", "kan", "luo", "mal", "mar", "pan", "rus"),
        *("tam", "tel", "ukr", "urd", "vie", "yor"),
    }


def test_through_the_store_once(folder: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, clips(1.0)[0], 16_000)
    rows = [
        Utterance("a", "fra", audio=str(path)),
        Utterance("short", "fra", audio=str(path), duration=0.1),
        Utterance("b", "ewe", audio=str(path)),
    ]
    store = TranscriptStore(tmp_path / "s.sqlite")
    first = Transcriber(open_recognizer(folder), store).transcribe(rows)
    assert first[0].text
    assert first[2].flags == ("unsupported_language",)
    monkeypatch.setattr(
        SeamlessM4Tv2ForSpeechToText, "from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    assert Transcriber(open_recognizer(folder), store).transcribe(rows) == first
    with pytest.raises(InputError, match="does not take no_speech_threshold"):
        open_recognizer(folder, decoding=Decoding(no_speech_threshold=0.6))
