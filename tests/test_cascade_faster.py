"""faster-whisper: what transformers writes with the same weights, through CTranslate2."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import whisper
from test_cascade_whisper import clips, save_transformers
from transformers import WhisperTokenizerFast

from cascade.asr import open_recognizer
from cascade.asr.decoding import Decoding
from cascade.transcriber import Transcriber
from speechtaxi.errors import InputError
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Utterance

pytest.importorskip("faster_whisper")
converters = pytest.importorskip("ctranslate2.converters")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_transformers(
        tmp_path_factory.mktemp("models") / "whisper", positions=448, stamps=False
    )


@pytest.fixture(scope="module")
def faster(hub: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    WhisperTokenizerFast.from_pretrained(hub).save_pretrained(hub)  # writes tokenizer.json
    folder = tmp_path_factory.mktemp("models") / "faster"
    files = ["tokenizer.json", "preprocessor_config.json"]
    converters.TransformersConverter(hub, copy_files=files).convert(str(folder))
    return f"faster-whisper:{folder}"


@pytest.mark.parametrize("limit", [40, 25])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_writes_what_transformers_writes(hub: str, faster: str, limit: int, task: str) -> None:
    waves = clips(0.5, 1.5, 3.0)
    asked = Decoding.of({"max_new_tokens": limit}, task)
    reference = open_recognizer(hub, decoding=asked)
    recognizer = open_recognizer(faster, decoding=asked)
    for language in ("urd", "fra"):
        expected = reference.transcribe(waves, language)
        for order in (slice(None), slice(None, None, -1), slice(0, 1)):
            results = recognizer.transcribe(waves[order], language)
            assert [r.text for r in results] == [e.text for e in expected[order]]
            assert [r.flags for r in results] == [e.flags for e in expected[order]]
            for result, other in zip(results, expected[order], strict=True):
                assert result.avg_logprob == pytest.approx(
                    other.avg_logprob, rel=0.15
                )  # cut off, it counts an end
    assert len({e.text for e in expected}) > 1


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_writes_what_the_package_writes_of_clips_in_silence(faster: str, dtype: str) -> None:
    """Its `transcribe` takes so small a model for English: its parts are called, one by one."""
    waves = clips(0.5, 1.5, 3.0, 30.0)
    asked = Decoding(max_new_tokens=40)
    recognizer = open_recognizer(faster, dtype=dtype, decoding=asked)
    package, tokenizer = recognizer._model, recognizer._tokenizer("fr")
    prompt, expected = [*tokenizer.sot_sequence, tokenizer.no_timestamps], []
    for wave in waves:
        padded = np.pad(wave, (0, 480_000 - len(wave)))
        encoded = package.encode(package.feature_extractor(padded)[:, :3000])
        (result,) = package.model.generate(encoded, [prompt], max_length=80, beam_size=1)
        expected.append(tokenizer.decode(result.sequences_ids[0]).strip())
    for order in (slice(None), slice(None, None, -1), slice(1, 2)):
        texts = [result.text for result in recognizer.transcribe(waves[order], "fra")]
        assert texts == expected[order]
    assert len(set(expected)) > 1


@pytest.mark.parametrize("samples", [0, 100, 16_000, 16_079, 16_081, 479_900, 480_000])
def test_hears_silence_behind_a_clip(faster: str, samples: int) -> None:
    wave = clips(30.0)[0][:samples]
    recognizer = open_recognizer(faster)
    mel, padded = recognizer._mel(wave), np.pad(wave, (0, 480_000 - samples))
    package = recognizer._model.feature_extractor(padded)[:, :3000]
    np.testing.assert_allclose(mel, package, atol=1e-6)
    openai = whisper.log_mel_spectrogram(padded).numpy()
    # At the end of 30 s openai's mirrors what was said, where the package's ends in silence
    np.testing.assert_allclose(mel[:, :2998], openai[:, :2998], atol=1e-3)


def test_tells_silence_as_transformers_does(hub: str, faster: str) -> None:
    waves = clips(0.5, 3.0)
    asked = Decoding(no_speech_threshold=1.0, max_new_tokens=10)
    expected = open_recognizer(hub, decoding=asked).transcribe(waves, "urd")
    results = open_recognizer(faster, decoding=asked).transcribe(waves, "urd")
    assert [r.no_speech_prob for r in results] == pytest.approx(
        [e.no_speech_prob for e in expected], rel=1e-2
    )
    supported = {"eng", "fra", "tam", "urd", "und"}
    recognizer = open_recognizer(faster)
    assert {c for c in (*supported, "rus", "bgc", "xyz") if recognizer.supports(c)} == supported


def test_goes_on_in_the_language_that_it_is_told(faster: str) -> None:
    """CTranslate2 detects no language by so small a model: what it would say is planted."""

    class Planted:
        def __init__(self, model) -> None:
            self.model = model

        def __getattr__(self, name: str):
            return getattr(self.model, name)

        def detect_language(self, encoded):
            return [[(f"<|{code}|>", 0.75), ("<|en|>", 0.25)] for code in ("ta", "ur")]

    recognizer = open_recognizer(faster, decoding=Decoding(max_new_tokens=10))
    waves = clips(0.5, 3.0)
    expected = [
        recognizer.transcribe([wave], code)[0].text
        for wave, code in zip(waves, ("tam", "urd"), strict=True)
    ]
    recognizer._model.model = Planted(recognizer._model.model)
    results = recognizer.transcribe(waves, "und")
    assert [r.text for r in results] == expected
    assert [(r.heard, r.heard_probability) for r in results] == [("tam", 0.75), ("urd", 0.75)]


def test_guards(faster: str) -> None:
    asked = Decoding(logprob_threshold=0.0, temperatures=(1.0,), max_new_tokens=10)
    results = open_recognizer(faster, decoding=asked).transcribe(clips(0.5, 1.5), "urd")
    assert {(r.text, r.flags[-1]) for r in results} == {("", "unlikely")}


def test_long_clips_go_the_way_of_the_package_without_its_guards(faster: str) -> None:
    """So small a model writes nothing there: what the package would say is planted."""
    recognizer = open_recognizer(faster, decoding=Decoding("translate", beam_size=3))
    asked = {}

    def transcribe(wave, **options):
        asked.update(options)
        parts = [SimpleNamespace(text=f" {n}.", avg_logprob=-n, no_speech_prob=0.5) for n in (1, 2)]
        return iter(parts), SimpleNamespace(language="ta", language_probability=0.75)

    recognizer._model.transcribe = transcribe
    (result,) = recognizer.transcribe(clips(31.0), "und")
    assert (result.text, result.avg_logprob, result.no_speech_prob) == ("1. 2.", -1.5, 0.5)
    assert (result.heard, result.heard_probability) == ("tam", 0.75)
    assert (asked["task"], asked["beam_size"], asked["language"]) == ("translate", 3, None)
    assert asked["temperature"] == 0.0
    assert asked["condition_on_previous_text"] is False
    assert {v for k, v in asked.items() if k.endswith("_threshold")} == {None}
    (told,) = recognizer.transcribe(clips(31.0), "urd")
    assert (told.heard, asked["language"]) == (None, "ur")


def test_through_the_store_once(faster: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, clips(1.0)[0], 16_000)
    rows = [Utterance("a", "fra", audio=str(path))]
    store = TranscriptStore(tmp_path / "s.sqlite")
    quick = Decoding(max_new_tokens=10)
    first = Transcriber(open_recognizer(faster, decoding=quick), store).transcribe(rows)
    assert first[0].text
    monkeypatch.setattr("faster_whisper.WhisperModel", lambda *_, **__: pytest.fail("loaded"))
    again = Transcriber(open_recognizer(faster, decoding=quick), store).transcribe(rows)
    assert again == first
    assert open_recognizer(faster).fingerprint != open_recognizer(faster, dtype="int8").fingerprint


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no network in tests
    with pytest.raises(InputError, match=r"neither a folder, a hub id, nor one of tiny\.en, tiny"):
        open_recognizer("faster-whisper:enormous")
    with pytest.raises(InputError, match=r"cannot load Systran/faster-whisper-tiny: .*OFFLINE=1"):
        open_recognizer("faster-whisper:tiny")
    with pytest.raises(InputError, match=r"holds no model\.bin; convert one"):
        open_recognizer(f"faster-whisper:{tmp_path}")
    with pytest.raises(InputError, match="does not compute in int8; faster-whisper does"):
        open_recognizer("whisper:tiny", dtype="int8")
