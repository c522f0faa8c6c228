"""faster-whisper: what transformers writes with the same weights, through CTranslate2."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from test_cascade_whisper import CODES, clips, save_transformers
from transformers import WhisperTokenizerFast

from cascade.decoding import Decoding
from cascade.transcriber import Transcriber, open_recognizer
from speechtaxi.errors import InputError
from speechtaxi.languages import from_whisper
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Utterance

pytest.importorskip("faster_whisper")
converters = pytest.importorskip("ctranslate2.converters")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_transformers(tmp_path_factory.mktemp("models") / "whisper", positions=448)


@pytest.fixture(scope="module")
def faster(hub: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    WhisperTokenizerFast.from_pretrained(hub).save_pretrained(hub)  # writes tokenizer.json
    folder = tmp_path_factory.mktemp("models") / "faster"
    files = ["tokenizer.json", "preprocessor_config.json"]
    converters.TransformersConverter(hub, copy_files=files).convert(str(folder))
    return f"faster-whisper:{folder}"


@pytest.mark.parametrize("options", [{}, {"max_new_tokens": 7}])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_writes_what_transformers_writes(hub: str, faster: str, options: dict, task: str) -> None:
    options = {"max_new_tokens": 40} | options
    waves = clips(0.5, 1.5, 3.0)
    asked = Decoding.of(options, task)
    reference = open_recognizer(hub, decoding=asked)
    recognizer = open_recognizer(faster, decoding=asked)
    for language in ("urd", "fra"):
        expected = reference.transcribe(waves, language)
        for order in (slice(None), slice(None, None, -1), slice(0, 1)):
            results = recognizer.transcribe(waves[order], language)
            assert [r.text for r in results] == [e.text for e in expected[order]]
            assert [r.flags for r in results] == [e.flags for e in expected[order]]
            for result, other in zip(results, expected[order], strict=True):
                assert result.avg_logprob == pytest.approx(other.avg_logprob, rel=0.03)
    assert len({e.text for e in expected}) > 1


def test_tells_languages_and_silence_as_transformers_does(hub: str, faster: str) -> None:
    waves = clips(0.5, 3.0)
    asked = Decoding(no_speech_threshold=1.0, max_new_tokens=10)
    expected = open_recognizer(hub, decoding=asked).transcribe(waves, "und")
    results = open_recognizer(faster, decoding=asked).transcribe(waves, "und")
    for result, other in zip(results, expected, strict=True):
        assert result.text == other.text
        assert result.heard == other.heard
        assert result.heard in map(from_whisper, CODES)
        assert result.heard_probability == pytest.approx(other.heard_probability, rel=1e-3)
        assert result.no_speech_prob == pytest.approx(other.no_speech_prob, rel=1e-2)
    supported = {"eng", "fra", "tam", "urd", "und"}
    recognizer = open_recognizer(faster)
    assert {c for c in (*supported, "rus", "bgc", "xyz") if recognizer.supports(c)} == supported


def test_guards_and_long_clips(faster: str) -> None:
    waves = clips(0.5, 1.5)
    asked = Decoding(logprob_threshold=0.0, temperatures=(1.0,), max_new_tokens=10)
    results = open_recognizer(faster, decoding=asked).transcribe(waves, "urd")
    assert {(r.text, r.flags[-1]) for r in results} == {("", "unlikely")}
    (long,) = open_recognizer(faster, decoding=Decoding(max_new_tokens=10)).transcribe(
        clips(31.0), "urd"
    )
    assert long.text
    assert long.avg_logprob < 0


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
