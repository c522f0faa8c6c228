"""Whisper twice: equal to openai's package and to transformers, whatever the batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import whisper
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from whisper.model import ModelDimensions, Whisper

from cascade.asr import open_recognizer
from cascade.asr.decoding import Decoding, compression_ratio
from cascade.transcriber import Transcriber
from speechtaxi.errors import InputError
from speechtaxi.languages import from_whisper
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Utterance

PLAIN = {
    "temperature": 0.0,
    "compression_ratio_threshold": None,
    "logprob_threshold": None,
    "no_speech_threshold": None,
    "condition_on_previous_text": False,
}
"""Long clips without guards, and each window by itself."""


def clips(*seconds: float) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    waves = []
    for number, length in enumerate(seconds):
        time = np.arange(round(length * 16_000)) / 16_000
        tone = np.sin(2 * np.pi * (200 + 700 * number) * time * (1 + time / 10))
        waves.append((0.3 * tone + 0.01 * random.standard_normal(len(time))).astype(np.float32))
    return waves


def save_openai(path: Path, n_vocab: int) -> str:
    """Write a small model as openai does; it must not stop at once, nor always say the same."""
    torch.manual_seed(0)
    dims = ModelDimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=16,
        n_audio_head=2,
        n_audio_layer=1,
        n_vocab=n_vocab,
        n_text_ctx=32,
        n_text_state=16,
        n_text_head=2,
        n_text_layer=1,
    )
    model = Whisper(dims)
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.dtype.is_floating_point and "encoder.positional" not in name:
            torch.nn.init.normal_(tensor, std=0.7)
    torch.save({"dims": vars(dims), "model_state_dict": state}, path)
    return str(path)


@pytest.fixture(scope="module")
def openai(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_openai(tmp_path_factory.mktemp("models") / "tiny.pt", 51865)


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_openai(tmp_path_factory.mktemp("models") / "tiny.en.pt", 51864)


def decode(model, wave: np.ndarray, language: str | None):
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(wave), 80)
    options = whisper.DecodingOptions(language=language, fp16=False, without_timestamps=True)
    return whisper.decode(model, mel, options)


def test_openai_equals_its_own_decoding(openai: str) -> None:
    model = whisper.load_model(openai)
    waves = clips(0.5, 1.5, 3.0)
    recognizer = open_recognizer(f"whisper:{openai}")
    assert recognizer.spells == "native"
    for language, code in (("urd", "ur"), ("fra", "fr")):
        expected = [decode(model, wave, code) for wave in waves]
        texts = [result.text for result in expected]
        assert len(set(texts)) > 1
        assert all(texts)
        for order in (slice(None), slice(None, None, -1), slice(0, 1)):
            results = recognizer.transcribe(waves[order], language)
            assert [result.text for result in results] == texts[order]
            for result, reference in zip(results, expected[order], strict=True):
                assert result.avg_logprob == pytest.approx(reference.avg_logprob, rel=1e-4)
                assert result.no_speech_prob == pytest.approx(reference.no_speech_prob, rel=1e-3)
                assert ("truncated" in result.flags) == (len(reference.tokens) == 16)
                assert result.heard is None


def test_openai_is_told_the_language(openai: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = whisper.decode
    monkeypatch.setattr(
        whisper, "decode", lambda model, mel, o: asked.append(o.language) or real(model, mel, o)
    )
    recognizer = open_recognizer(f"whisper:{openai}")
    recognizer.transcribe(clips(0.5), "tam")
    (unknown,) = recognizer.transcribe(clips(0.5), "und")
    assert asked == ["ta", None]
    assert unknown.heard in map(from_whisper, whisper.tokenizer.LANGUAGES)
    supported = {"eng", "urd", "yor", "und", "ekk"}
    assert {c for c in (*supported, "bgc", "ibo", "xyz") if recognizer.supports(c)} == supported


def test_openai_tells_the_language_and_its_probability(openai: str) -> None:
    model, waves = whisper.load_model(openai), clips(0.5, 1.5, 3.0)
    recognizer = open_recognizer(f"whisper:{openai}")
    results = recognizer.transcribe(waves, "und")
    for wave, result in zip(waves, results, strict=True):
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(wave), 80)
        _, chances = model.detect_language(mel)
        best = max(chances, key=chances.get)
        assert result.heard == from_whisper(best)
        assert result.heard_probability == pytest.approx(chances[best], rel=1e-4)
        assert result.heard_probability < 1
        assert result.text == decode(model, wave, None).text == decode(model, wave, best).text
    (told,) = recognizer.transcribe(waves[:1], "urd")
    assert (told.heard, told.heard_probability) == (None, None)


def test_openai_tells_the_language_of_long_clips_by_the_first_window(openai: str) -> None:
    (long,) = clips(33.0)
    model = whisper.load_model(openai)
    expected = model.transcribe(long, fp16=False, verbose=None, **PLAIN)
    (result,) = open_recognizer(f"whisper:{openai}").transcribe([long], "und")
    assert result.text == expected["text"].strip()
    assert result.heard == from_whisper(expected["language"])
    mel = whisper.log_mel_spectrogram(long, 80, padding=480_000)[:, :3000]
    _, chances = model.detect_language(mel)
    assert result.heard_probability == pytest.approx(max(chances.values()), rel=1e-4)


def test_openai_english_only(english: str) -> None:
    recognizer = open_recognizer(f"whisper:{english}")
    assert recognizer.supports("eng")
    assert not recognizer.supports("fra")
    (wave,) = clips(1.0)
    expected = decode(whisper.load_model(english), wave, "en").text
    assert recognizer.transcribe([wave], "eng")[0].text == expected
    (unknown,) = recognizer.transcribe([wave], "und")
    assert (unknown.heard, unknown.heard_probability) == (None, None)


def test_openai_long_clips_go_window_by_window(openai: str) -> None:
    short, long = clips(1.0, 31.0)
    recognizer = open_recognizer(f"whisper:{openai}")
    expected = whisper.load_model(openai).transcribe(
        long, language="ta", fp16=False, verbose=None, **PLAIN
    )
    results = recognizer.transcribe([short, long], "tam")
    assert results[1].text == expected["text"].strip()
    assert recognizer.transcribe([long], "tam") == results[1:]


def test_openai_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither a file nor one of tiny\.en, tiny"):
        open_recognizer("whisper:enormous")
    large, alias = (open_recognizer(f"whisper:{name}") for name in ("large-v3", "large"))
    assert "large-v3@e5b1a55b89c1367d" in large.fingerprint
    assert alias.fingerprint.split("@")[1] == large.fingerprint.split("@")[1]
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing of use")
    with pytest.raises(InputError, match=r"cannot load whisper:.*broken\.pt"):
        open_recognizer(f"whisper:{broken}").supports("eng")
    with pytest.raises(InputError, match="not in bfloat16"):
        open_recognizer("whisper:tiny", dtype="bfloat16")


def test_openai_beams_limits_and_translation(openai: str) -> None:
    waves = clips(0.5, 1.5, 3.0)
    model = whisper.load_model(openai)
    options = {"language": "ur", "task": "translate", "beam_size": 3, "sample_len": 5}
    settings = whisper.DecodingOptions(**options, fp16=False, without_timestamps=True)
    mels = [whisper.log_mel_spectrogram(whisper.pad_or_trim(wave), 80) for wave in waves]
    expected = [whisper.decode(model, mel, settings) for mel in mels]
    asked = Decoding.of({"beam_size": 3, "max_new_tokens": 5}, "translate")
    results = open_recognizer(f"whisper:{openai}", decoding=asked).transcribe(waves, "urd")
    assert [result.text for result in results] == [reference.text for reference in expected]
    assert [result.avg_logprob for result in results] == pytest.approx(
        [reference.avg_logprob for reference in expected], rel=1e-4
    )
    assert [result.flags for result in results] == [("truncated",)] * 3
    plain = open_recognizer(f"whisper:{openai}").transcribe(waves, "urd")
    assert [result.text for result in plain] != [result.text for result in results]


CODES = ("en", "fr", "ta", "ur")


def save_transformers(
    folder: Path,
    multilingual: bool = True,
    settings: bool = True,
    positions: int = 48,
    stamps: bool = True,
) -> str:
    """Write a small Whisper in the hub's layout, with a vocabulary of bytes and specials."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder.mkdir()
    letters = [*bytes_to_unicode().values(), "<|endoftext|>"]
    languages = [f"<|{code}|>" for code in CODES] if multilingual else []
    tasks = ["<|translate|>", "<|transcribe|>"] if multilingual else []
    others = ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    specials = ["<|startoftranscript|>", *languages, *tasks, *others]
    (folder / "vocab.json").write_text(json.dumps({t: n for n, t in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), additional_special_tokens=specials
    )
    written = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    tokenizer.add_tokens(written)
    number = tokenizer.convert_tokens_to_ids
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_target_positions=positions,
        num_mel_bins=80,
        pad_token_id=number("<|endoftext|>"),
        bos_token_id=number("<|endoftext|>"),
        eos_token_id=number("<|endoftext|>"),
        decoder_start_token_id=number("<|startoftranscript|>"),
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    model = WhisperForConditionalGeneration(config)
    for name, weight in model.named_parameters():
        if "encoder.embed_positions" not in name:
            torch.nn.init.normal_(weight, std=0.7)
    plan = {
        "pad_token_id": config.pad_token_id,
        "eos_token_id": config.eos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "no_timestamps_token_id": number("<|notimestamps|>"),
        "is_multilingual": multilingual,
        "suppress_tokens": [number(t) for t in (specials if stamps else specials + written)],
        "max_length": positions,
    }
    if multilingual:
        plan["lang_to_id"] = {token: number(token) for token in languages}
        plan["task_to_id"] = {"translate": number(tasks[0]), "transcribe": number(tasks[1])}
    model.generation_config = GenerationConfig(**plan)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    if not settings:
        (folder / "generation_config.json").unlink()
    return str(folder)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_transformers(tmp_path_factory.mktemp("models") / "whisper")


def generate(folder: str, wave: np.ndarray, **options) -> str:
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    model.generation_config.max_length = 24
    processor = WhisperProcessor.from_pretrained(folder)
    long = len(wave) > 480_000
    inputs = processor(
        wave,
        sampling_rate=16_000,
        return_tensors="pt",
        return_attention_mask=True,
        truncation=not long,
        padding="longest" if long else "max_length",
    )
    tokens = model.generate(
        inputs.input_features,
        attention_mask=inputs.attention_mask,
        return_timestamps=long,
        force_unique_generate_call=not long,  # random weights write time stamps unasked
        **options,
    )
    return processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()


def test_transformers_equals_its_own_generation(hub: str) -> None:
    waves = clips(0.5, 1.5, 3.0)
    recognizer = open_recognizer(hub)
    assert recognizer.spells == "native"
    by_language = {}
    for language, code in (("urd", "ur"), ("fra", "fr")):
        texts = [generate(hub, wave, language=code, task="transcribe") for wave in waves]
        assert len(set(texts)) > 1
        for order in (slice(None), slice(None, None, -1), slice(0, 1)):
            results = recognizer.transcribe(waves[order], language)
            assert [result.text for result in results] == texts[order]
        by_language[language] = texts
    assert by_language["urd"] != by_language["fra"]


def test_transformers_hears_what_its_extractor_does(hub: str) -> None:
    waves = clips(0.5, 1.5, 30.0)
    theirs = WhisperFeatureExtractor.from_pretrained(hub)(
        waves, sampling_rate=16_000, return_tensors="pt"
    ).input_features
    assert open_recognizer(hub)._features(waves) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("own", [{}, {"repetition_penalty": 3.0}])
def test_transformers_follows_settings_of_its_own(hub: str, tmp_path: Path, own: dict) -> None:
    """Greedy decoding is ours where nothing else is asked for, and transformers' where it is."""
    folder = tmp_path / "own"
    shutil.copytree(hub, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= own | {"begin_suppress_tokens": [*range(65, 91)]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    waves = clips(0.5, 1.5, 3.0)
    recognizer = open_recognizer(str(folder))
    assert recognizer._fast == (not own)
    expected = [generate(str(folder), wave, language="ur", task="transcribe") for wave in waves]
    texts = [result.text for result in recognizer.transcribe(waves, "urd")]
    assert texts == expected
    assert texts != [result.text for result in open_recognizer(hub).transcribe(waves, "urd")]


def test_transformers_hears_each_clip_once(hub: str) -> None:
    recognizer = open_recognizer(hub, decoding=Decoding(no_speech_threshold=1.0)).recognizer
    heard: list[int] = []
    encoder = recognizer._model.get_encoder()
    encoder.register_forward_hook(lambda module, args, out: heard.append(len(args[0])))
    recognizer.transcribe(clips(0.5, 1.5, 3.0), "und")
    assert heard == [1, 1, 1]


def test_transformers_languages(hub: str) -> None:
    recognizer = open_recognizer(hub)
    supported = {"eng", "fra", "tam", "urd", "und"}
    assert {c for c in (*supported, "rus", "bgc", "xyz") if recognizer.supports(c)} == supported


def test_transformers_tells_the_language_and_its_probability(hub: str) -> None:
    """Its own winner, and the softmax over what it leaves unmasked."""
    model = WhisperForConditionalGeneration.from_pretrained(hub).eval()
    vocabulary = WhisperTokenizer.from_pretrained(hub).get_vocab()
    names = {vocabulary[f"<|{code}|>"]: code for code in CODES}
    extractor, recognizer = WhisperFeatureExtractor.from_pretrained(hub), open_recognizer(hub)
    waves = clips(0.5, 1.5, 3.0)
    results = recognizer.transcribe(waves, "und")
    for wave, result in zip(waves, results, strict=True):
        features = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
        code = names[model.detect_language(features).item()]
        assert result.heard == from_whisper(code)
        first = torch.tensor([[model.generation_config.decoder_start_token_id]])
        with torch.no_grad():
            logits = model(features, decoder_input_ids=first).logits[0, -1]
        masked = torch.full_like(logits, -torch.inf)
        masked[list(names)] = logits[list(names)]
        assert result.heard_probability == pytest.approx(masked.softmax(-1).max().item(), rel=1e-4)
        assert result.heard_probability < 1
        assert result.text == generate(hub, wave, language=code, task="transcribe")
    (told,) = recognizer.transcribe(waves[:1], "urd")
    assert (told.heard, told.heard_probability) == (None, None)


def test_transformers_tells_the_language_of_long_clips_by_the_first_window(hub: str) -> None:
    (long,) = clips(31.0)
    (result,) = open_recognizer(hub).transcribe([long], "und")
    features = WhisperFeatureExtractor.from_pretrained(hub)(
        long, sampling_rate=16_000, return_tensors="pt", truncation=False, padding="longest"
    ).input_features
    model = WhisperForConditionalGeneration.from_pretrained(hub).eval()
    assert features.shape[-1] > 3000
    (found,) = WhisperTokenizer.from_pretrained(hub).convert_ids_to_tokens(
        model.detect_language(features[..., :3000])
    )
    assert result.heard == from_whisper(found.strip("<|>"))
    assert 1 / len(CODES) < result.heard_probability < 1


def test_transformers_log_probability(hub: str) -> None:
    (wave,) = clips(1.0)
    model = WhisperForConditionalGeneration.from_pretrained(hub).eval()
    model.generation_config.max_length = 24
    features = WhisperFeatureExtractor()(wave, sampling_rate=16_000, return_tensors="pt")
    out = model.generate(
        features.input_features,
        language="ur",
        task="transcribe",
        return_dict_in_generate=True,
        output_scores=True,
    )
    each = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    (result,) = open_recognizer(hub).transcribe([wave], "urd")
    assert result.avg_logprob == pytest.approx(each.mean().item(), rel=1e-4)
    ended = out.sequences[0, -1].item() == model.generation_config.eos_token_id
    assert ("truncated" in result.flags) != ended
    batch = open_recognizer(hub).transcribe([wave, *clips(0.5, 2.0)], "urd")
    assert batch[0].avg_logprob == pytest.approx(result.avg_logprob, rel=1e-4)


def test_transformers_long_clips(hub: str) -> None:
    short, long = clips(1.0, 31.0)
    expected = generate(hub, long, language="ta", task="transcribe")
    results = open_recognizer(hub).transcribe([short, long], "tam")
    assert results[1].text == expected


def test_transformers_english_only(tmp_path: Path) -> None:
    folder = save_transformers(tmp_path / "en", multilingual=False)
    recognizer = open_recognizer(folder)
    assert recognizer.supports("eng")
    assert not recognizer.supports("fra")
    (wave,) = clips(1.0)
    assert recognizer.transcribe([wave], "eng")[0].text == generate(folder, wave)
    (unknown,) = recognizer.transcribe([wave], "und")
    assert (unknown.heard, unknown.heard_probability) == (None, None)


def test_transformers_without_generation_settings(hub: str, tmp_path: Path) -> None:
    folder = save_transformers(tmp_path / "old", settings=False)
    recognizer = open_recognizer(folder)
    assert recognizer.supports("tam")
    assert not recognizer.supports("rus")
    first, second = (recognizer.transcribe(clips(1.0), code)[0].text for code in ("tam", "urd"))
    assert first != second


def test_transformers_beams_limits_and_translation(hub: str) -> None:
    waves = clips(0.5, 1.5, 3.0)
    options = {"num_beams": 3, "max_new_tokens": 5, "language": "ur", "task": "translate"}
    expected = [generate(hub, wave, **options) for wave in waves]
    asked = Decoding.of({"beam_size": 3, "max_new_tokens": 5}, "translate")
    results = open_recognizer(hub, decoding=asked).transcribe(waves, "urd")
    assert [result.text for result in results] == expected
    assert [result.flags for result in results] == [("truncated",)] * 3
    plain = open_recognizer(hub).transcribe(waves, "urd")
    assert [result.text for result in plain] != expected
    scored = Decoding(beam_size=3, logprob_threshold=-99.0)
    beams = open_recognizer(hub, decoding=scored).transcribe(waves, "urd")
    better = [b.avg_logprob - p.avg_logprob for b, p in zip(beams, plain, strict=True)]
    assert min(better) > -1e-4
    assert max(better) > 0.01
    long = open_recognizer(hub, decoding=asked).transcribe(clips(31.0), "urd")
    assert long[0].text == generate(hub, clips(31.0)[0], **options)


def test_whispers_tell_alike_whether_anything_was_said(openai: str, hub: str) -> None:
    """By the first step of the decoder; openai's own figure is the reference of its own."""
    waves = clips(0.5, 3.0)
    model = WhisperForConditionalGeneration.from_pretrained(hub).eval()
    tokenizer = WhisperTokenizer.from_pretrained(hub)
    features = WhisperFeatureExtractor()(waves, sampling_rate=16_000, return_tensors="pt")
    start = torch.full((2, 1), model.generation_config.decoder_start_token_id)
    with torch.no_grad():
        logits = model(features.input_features, decoder_input_ids=start).logits[:, -1]
    expected = logits.softmax(-1)[:, tokenizer.convert_tokens_to_ids("<|nospeech|>")].tolist()
    asked = Decoding(no_speech_threshold=1.0)
    results = open_recognizer(hub, decoding=asked).transcribe(waves, "urd")
    assert [result.no_speech_prob for result in results] == pytest.approx(expected, rel=1e-4)
    assert open_recognizer(hub).transcribe(waves, "urd")[0].no_speech_prob is None


@pytest.mark.parametrize("kind", ["openai", "hub"])
def test_guards_retry_or_empty(kind: str, request: pytest.FixtureRequest) -> None:
    spec = request.getfixturevalue(kind)
    spec = f"whisper:{spec}" if kind == "openai" else spec
    waves = clips(0.5, 1.5, 3.0)
    (plain, *_) = texts = open_recognizer(spec).transcribe(waves, "urd")
    sure = max(texts, key=lambda result: result.avg_logprob)
    guarded = open_recognizer(spec, decoding=Decoding(logprob_threshold=sure.avg_logprob - 1e-3))
    results = guarded.transcribe(waves, "urd")
    assert [r.text for r in results] == [t.text if t is sure else "" for t in texts]
    assert [r.flags[-1:] for r in results if not r.text] == [("unlikely",)] * 2
    deaf = open_recognizer(spec, decoding=Decoding(no_speech_threshold=0.0))
    assert {(r.text, r.flags[-1]) for r in deaf.transcribe(waves, "urd")} == {("", "no_speech")}
    ratio = compression_ratio(plain.text)
    asked = Decoding(compression_ratio_threshold=ratio - 1e-6, temperatures=(0.5, 1.0, 2.0, 3.0))
    retrying = open_recognizer(spec, decoding=asked)
    (first,), (again, *_) = (retrying.transcribe(w, "urd") for w in (waves[:1], waves))
    assert first == again  # however it is batched
    assert ("retried" in first.flags) == bool(first.text)
    assert compression_ratio(first.text) < ratio


@pytest.mark.parametrize("kind", ["openai", "hub"])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_through_the_store_once(
    kind: str, task: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch
) -> None:
    spec = request.getfixturevalue(kind)
    spec = f"whisper:{spec}" if kind == "openai" else spec
    soundfile.write(tmp_path / "a.wav", clips(0.8)[0], 16_000)
    rows = [Utterance(code, code, audio=str(tmp_path / "a.wav")) for code in ("urd", "fra")]
    store = TranscriptStore(tmp_path / "s.sqlite")
    asked = Decoding(task)
    first = Transcriber(open_recognizer(spec, decoding=asked), store).transcribe(rows)
    assert all(transcript.text for transcript in first)
    fail = lambda *_, **__: pytest.fail("loaded")  # noqa: E731
    monkeypatch.setattr(whisper, "load_model", fail)
    monkeypatch.setattr(WhisperForConditionalGeneration, "from_pretrained", fail)
    assert Transcriber(open_recognizer(spec, decoding=asked), store).transcribe(rows) == first
