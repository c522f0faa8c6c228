"""The transcriber: nothing twice, nothing lost, everything flagged, in any order."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cascade.asr import open_recognizer
from cascade.asr.decoding import Decoding, compression_ratio
from cascade.asr.guards import Guarded
from cascade.asr.pieces import pieces
from cascade.recognizer import Recognizer
from cascade.transcriber import Transcriber
from speechtaxi import checkpoint
from speechtaxi.audio import digest
from speechtaxi.errors import InputError
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Transcript, Utterance


class Counting:
    """Writes how long a clip is and in which language; remembers what it was given."""

    spells = "native"
    longest: float | None = None
    takes = ()

    def __init__(self, fingerprint: str = "counting", write=None) -> None:
        self.fingerprint = fingerprint
        self.batches: list[tuple[str, list[int]]] = []
        self.write = write or (lambda wave, language: f"{language} {len(wave)}")

    def supports(self, language: str) -> bool:
        return language != "xyz"

    def transcribe(self, waveforms: list[np.ndarray], language: str) -> list[Transcript]:
        self.batches.append((language, [len(wave) for wave in waveforms]))
        return [Transcript("", self.write(wave, language), avg_logprob=-1.0) for wave in waveforms]

    @property
    def clips(self) -> int:
        return sum(len(lengths) for _, lengths in self.batches)


@pytest.fixture
def store(tmp_path: Path) -> TranscriptStore:
    return TranscriptStore(tmp_path / "store.sqlite")


@pytest.fixture
def clips(tone) -> list[Utterance]:
    """Return 12 clips of 0.2 to 1.3 s in two languages."""
    return [
        Utterance(
            f"clip{n}",
            ("eng", "fra")[n % 2],
            audio=str(tone(f"{n}.wav", 0.2 + n * 0.1, 200 + 10 * n)),
        )
        for n in range(12)
    ]


def test_transcribes_once_and_in_order(clips: list[Utterance], store: TranscriptStore) -> None:
    recognizer = Counting()
    transcriber = Transcriber(recognizer, store, batch_size=4, batch_seconds=4.0)
    expected = [f"{c.language} {round((0.2 + n * 0.1) * 16_000)}" for n, c in enumerate(clips)]
    first = transcriber.transcribe(clips)
    assert [t.text for t in first] == expected
    assert [t.language for t in first] == [c.language for c in clips]
    assert all(t.avg_logprob == -1.0 and t.seconds > 0 and t.flags == () for t in first)
    assert recognizer.clips == 12
    for lengths in (lengths for _, lengths in recognizer.batches):
        assert len(lengths) <= 4
        assert len(lengths) * max(lengths) <= 4.0 * 16_000
        assert lengths == sorted(lengths)
    assert len(recognizer.batches) < 8  # batched across files
    again = Counting()
    order = random.Random(0).sample(clips, 12)
    second = Transcriber(again, TranscriptStore(store.path)).transcribe(order)
    assert [first[clips.index(clip)] for clip in order] == second
    assert again.batches == []


def test_same_audio_is_transcribed_once(clips: list[Utterance], store: TranscriptStore) -> None:
    copy = Path(clips[0].audio).with_name("copy.wav")
    copy.write_bytes(Path(clips[0].audio).read_bytes())
    twins = [clips[0], replace(clips[0], id="twin"), replace(clips[0], id="c", audio=str(copy))]
    recognizer = Counting()
    results = Transcriber(recognizer, store).transcribe(twins)
    assert results == [results[0]] * 3
    assert recognizer.clips == 1


def test_segments_languages_and_recognisers_are_told_apart(tone, store: TranscriptStore) -> None:
    path = str(tone(seconds=2.0))
    recognizer = Counting()
    clips = [
        Utterance("a", "eng", audio=path),
        Utterance("b", "eng", audio=path, start=0.5, duration=1.0),
        Utterance("c", "eng", audio=path, start=1.5),
        Utterance("d", "fra", audio=path),
    ]
    texts = [t.text for t in Transcriber(recognizer, store).transcribe(clips)]
    assert texts == ["eng 32000", "eng 16000", "eng 8000", "fra 32000"]
    other = Counting("another fingerprint")
    Transcriber(other, store).transcribe(clips)
    assert other.clips == 4


def test_unsupported_languages_are_flagged_not_guessed(
    clips: list[Utterance], store: TranscriptStore
) -> None:
    recognizer = Counting()
    foreign = replace(clips[0], language="xyz")
    results = Transcriber(recognizer, store).transcribe([clips[1], foreign])
    assert results[1].text == ""
    assert results[1].flags == ("unsupported_language",)
    assert recognizer.batches == [("fra", [4800])]


def test_flags(tmp_path: Path, tone, store: TranscriptStore) -> None:
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(16_000, np.float32), 16_000)
    said = {4800: "  ", 6400: "na na na " * 30, 8000: "फिर " * 40, 16_000: "words of comfort"}
    recognizer = Counting(write=lambda wave, _: said[len(wave)])
    clips = [Utterance(str(n), "eng", audio=str(tone(f"{n}.wav", n / 16_000))) for n in said]
    clips[-1] = replace(clips[-1], audio=str(silence))
    results = Transcriber(recognizer, store).transcribe(clips)
    assert [r.flags for r in results] == [("empty",), ("looping",), ("looping",), ("silent",)]
    assert results[1].compression_ratio == compression_ratio(said[6400]) > 2.4
    recognizer.transcribe = lambda waves, _: [Transcript("", "cut", flags=("truncated",))]
    (cut,) = Transcriber(recognizer, store).transcribe([replace(clips[1], language="deu")])
    assert cut.flags == ("truncated",)


def test_unreadable_clips_are_told_and_the_rest_is_done(
    clips: list[Utterance], store: TranscriptStore, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF but nothing else")
    beyond = replace(clips[3], id="beyond", start=99.0, duration=1.0)
    bad = [
        Utterance("absent", "eng", audio=str(tmp_path / "absent.wav")),
        Utterance("broken", "eng", audio=str(broken)),
        beyond,
        Utterance("text", "eng", text="only text"),
    ]
    told: dict[str, str] = {}
    counts: list[int] = []
    recognizer = Counting()
    results = Transcriber(recognizer, store).transcribe(
        [bad[0], clips[0], *bad[1:], clips[1]],
        on_error=lambda clip, error: told.update({clip.id: str(error)}),
        progress=counts.append,
    )
    assert [r.text if r else None for r in results] == [None, "eng 3200", *[None] * 3, "fra 4800"]
    assert set(told) == {clip.id for clip in bad}
    assert "absent.wav: no such file" in told["absent"]
    assert "after the end" in told["beyond"]
    assert sum(counts) == 6
    assert recognizer.clips == 2
    for clip in bad:
        with pytest.raises(InputError, match=r"no such file|not audio|after the end|no audio"):
            Transcriber(Counting(), store).transcribe([clip])


def test_an_interrupted_run_keeps_finished_batches(
    clips: list[Utterance], store: TranscriptStore
) -> None:
    class Stopping(Counting):
        def transcribe(self, waveforms, language):
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().transcribe(waveforms, language)

    stopping = Stopping()
    with pytest.raises(KeyboardInterrupt):
        Transcriber(stopping, store, batch_size=2).transcribe(clips)
    assert stopping.clips == 6
    rest = Counting()
    Transcriber(rest, store, batch_size=2).transcribe(clips)
    assert rest.clips == 6


def test_audio_is_hashed_once(
    clips: list[Utterance], store: TranscriptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr(
        "speechtaxi.audio.digest", lambda path, *_: hashed.append(path) or digest(path)
    )
    long = [replace(clips[11], id=f"{n}", start=n / 10, duration=0.1) for n in range(10)]
    Transcriber(Counting(), store).transcribe([*clips, *long])
    Transcriber(Counting("other"), store).transcribe([*clips, *long])
    assert len(hashed) == 12


def test_long_clips_are_cut_where_it_is_quiet(tmp_path: Path, store: TranscriptStore) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * 16_000).astype(np.float32)
    for second in (4.2, 8.4):  # pauses of 0.2 s
        wave[round(second * 16_000) : round((second + 0.2) * 16_000)] = 0
    parts = list(pieces(wave, 5 * 16_000))
    assert [len(part) / 16_000 for part in parts] == pytest.approx([4.2, 4.2, 3.6], abs=0.1)
    np.testing.assert_array_equal(np.concatenate(parts), wave)
    assert min(len(part) for part in pieces(wave[: 5 * 16_000 + 1], 5 * 16_000)) >= 1600
    soundfile.write(tmp_path / "long.wav", wave, 16_000, subtype="FLOAT")
    clip = Utterance("long", "eng", audio=str(tmp_path / "long.wav"))
    recognizer = Counting()
    recognizer.longest = 5.0
    (result,) = Transcriber(recognizer, store, batch_size=2).transcribe([clip])
    assert result.text == " ".join(f"eng {len(part)}" for part in parts)
    assert [len(lengths) for _, lengths in recognizer.batches] == [2, 1]


def test_ordinary_texts_are_no_loops() -> None:
    verse = "நான் உங்களுக்குச் சொல்லுகிறேன், இந்தக் காரியங்களெல்லாம் இந்தச் சந்ததியின்மேல் வரும்"
    assert compression_ratio(verse) < 2.4
    assert compression_ratio("") == 0
    assert compression_ratio("அவர் " * 30) > 2.4


@pytest.mark.assets
def test_hardly_any_real_verse_is_called_a_loop(assets: Path) -> None:
    for table in sorted((assets / "data" / "taxi1500").glob("???.tsv")):
        verses = [line.split("\t")[3] for line in table.read_text("utf-8").splitlines()[1:]]
        looping = sum(compression_ratio(verse) > 2.4 for verse in verses)
        assert looping <= 1, table.stem


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the model folder of a small recogniser with random weights."""
    torch.manual_seed(0)
    model = Recognizer(spells="uroman").eval()
    torch.nn.init.normal_(model.output.weight, std=1.0)
    folder = tmp_path_factory.mktemp("models") / "own"
    checkpoint.save(model, folder, "card")
    return str(folder)


def test_a_recogniser_trained_here(
    trained: str, clips: list[Utterance], store: TranscriptStore
) -> None:
    from speechtaxi.audio import load

    recognizer = open_recognizer(trained)
    assert recognizer.spells == "uroman"
    assert recognizer.supports("nlx")
    results = Transcriber(recognizer, store, batch_size=5).transcribe(clips)
    model = checkpoint.load(trained)
    for clip, result in zip(clips, results, strict=True):
        wave = torch.from_numpy(load(clip.audio))[None]
        assert result.text == model.recognize(wave, torch.tensor([wave.shape[1]]))[0]
    assert len({result.text for result in results}) > 3


def test_no_weights_are_loaded_when_all_is_known(
    trained: str, clips: list[Utterance], store: TranscriptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Transcriber(open_recognizer(trained), store).transcribe(clips)
    monkeypatch.setattr(checkpoint, "load", lambda *_, **__: pytest.fail("loaded"))
    assert Transcriber(open_recognizer(trained), store).transcribe(clips) == expected


def test_what_is_no_recogniser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no network in tests
    with pytest.raises(InputError, match=r"holds no config\.json; give a model folder"):
        open_recognizer(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="fit has finished an epoch"):
        open_recognizer(str(tmp_path))
    text = tmp_path / "text"
    text.mkdir()
    (text / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match=r"is a bert model, not a recogniser.*whisper, .*wavlm"):
        open_recognizer(str(text))
    with pytest.raises(
        InputError, match=r"cannot load openai/whisper-enormous: .*HF_HUB_OFFLINE=1"
    ):
        open_recognizer("openai/whisper-enormous")
    for name in (str(tmp_path / "absent"), "./absent", "runs/old/absent"):
        with pytest.raises(InputError, match=r"there is no recogniser .*absent; fit one"):
            open_recognizer(name)


def test_a_related_language_is_flagged_and_shares_its_transcripts(
    clips: list[Utterance], store: TranscriptStore
) -> None:
    recognizer = Counting()
    foreign = replace(clips[0], id="foreign", language="xyz")
    known = replace(clips[0], id="known", language="fra")
    other = replace(clips[2], id="other", language="xzz")
    recognizer.supports = lambda language: language not in ("xyz", "xzz")
    policy = Transcriber(recognizer, store, unsupported={"xyz": "fra"})
    first, second, third = policy.transcribe([foreign, known, other])
    assert (first.text, first.language, first.flags) == ("fra 3200", "fra", ("related_language",))
    assert (second.text, second.language, second.flags) == ("fra 3200", "fra", ())
    assert third.flags == ("unsupported_language",)
    assert recognizer.clips == 1
    again = Counting()
    again.supports = recognizer.supports
    assert Transcriber(again, store, unsupported={"xyz": "fra"}).transcribe([foreign]) == [first]
    assert again.clips == 0
    (as_eng,) = Transcriber(again, store, unsupported={"xyz": "eng"}).transcribe([foreign])
    assert (as_eng.text, as_eng.language) == ("eng 3200", "eng")
    assert policy.fingerprint == 'counting; unsupported languages: {"xyz": "fra"}'
    assert Transcriber(recognizer, store).fingerprint == "counting"


def test_a_fallback_spells_what_the_recogniser_does_not_know(
    clips: list[Utterance], store: TranscriptStore
) -> None:
    def fallback(name: str) -> Counting:
        one = Counting(name, lambda wave, language: f"latin {language} {len(wave)}")
        one.spells = "uroman"
        one.supports = lambda language: True
        return one

    rows = [clips[1], replace(clips[0], language="xyz"), replace(clips[2], language="xyz")]
    recognizer, latin = Counting(), fallback("latin")
    asked = Transcriber(recognizer, store, unsupported="romanized", fallback=latin)
    found = asked.transcribe(rows)
    assert [t.text for t in found] == ["fra 4800", "latin xyz 3200", "latin xyz 6400"]
    assert [t.flags for t in found] == [(), ("fallback",), ("fallback",)]
    assert (recognizer.clips, latin.clips) == (1, 2)
    assert asked.transcribe(rows) == found
    assert latin.clips == 2
    newer = fallback("newer")  # another fallback is another transcript
    Transcriber(Counting(), store, unsupported="romanized", fallback=newer).transcribe(rows)
    assert newer.clips == 2
    assert asked.fingerprint == "counting; unsupported languages: latin"


def test_policies_that_cannot_be(clips: list[Utterance], store: TranscriptStore) -> None:
    native = Counting("native")
    for policy, fallback, words in (
        ("guess", None, "'guess' is neither skip nor romanized"),
        ({"xyz": "Hindi"}, None, "Hindi is no ISO 639-3 code"),
        ("romanized", None, "name it in fallback"),
        ("skip", native, "give unsupported: romanized"),
        ("romanized", native, "the fallback writes native script"),
    ):
        with pytest.raises(InputError, match=words):
            Transcriber(Counting(), store, unsupported=policy, fallback=fallback)
    unknown = Transcriber(Counting(), store, unsupported={"xyz": "xyz"})
    with pytest.raises(InputError, match="which the recogniser does not know either"):
        unknown.transcribe([replace(clips[0], language="xyz")])


def test_guards_judge_each_piece_of_a_long_clip(tmp_path: Path, store: TranscriptStore) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 40 * 16_000).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", wave, 16_000)
    recognizer = Counting(write=lambda wave, _: "na " * 90 if len(wave) > 16_000 * 20 else "words")
    recognizer.longest = 60.0
    guarded = Guarded(recognizer, Decoding(compression_ratio_threshold=2.4))
    clip = Utterance("long", "eng", audio=str(tmp_path / "long.wav"))
    (result,) = Transcriber(guarded, store).transcribe([clip])
    assert (result.text, result.flags) == ("words", ("looping",))
    assert result.avg_logprob == -1.0
    assert sum(len(lengths) for _, lengths in recognizer.batches) == 2


def test_a_guard_retries_alike_in_any_batch() -> None:
    class Sampling(Counting):
        def transcribe(self, waveforms, language, temperature=0.0):
            self.tried.append(temperature)
            odds = torch.rand(1).item() if temperature == 0.5 else -9.0
            return [Transcript("", f"{odds}", avg_logprob=odds) for _ in waveforms]

        tried: list[float] = []  # noqa: RUF012

    wave = np.ones(1600, np.float32)
    guarded = Guarded(Sampling(), Decoding(logprob_threshold=0.0, temperatures=(0.2, 0.5, 0.8)))
    before = torch.random.get_rng_state()
    (alone,) = guarded.transcribe([wave], "eng")
    assert Sampling.tried == [0.0, 0.2, 0.5]
    assert alone.flags == ("retried",)
    assert guarded.transcribe([wave * 0.5, wave], "eng")[1] == alone
    assert torch.equal(torch.random.get_rng_state(), before)


def test_silence_needs_an_unlikely_text_where_both_are_guarded() -> None:
    both = Decoding(no_speech_threshold=0.6, logprob_threshold=-1.0)
    said = Transcript("", "text", avg_logprob=-0.5, no_speech_prob=0.9)
    assert both.fired(said) == ()
    assert replace(both, logprob_threshold=None).fired(said) == ("no_speech",)
    assert both.fired(replace(said, avg_logprob=-2.0)) == ("no_speech",)
    assert both.fired(replace(said, avg_logprob=-2.0, no_speech_prob=0.1)) == ("unlikely",)
    assert both.fired(replace(said, avg_logprob=None, no_speech_prob=None)) == ()


def test_decoding_options() -> None:
    assert Decoding.of(None).fingerprint == "transcribe greedy-2"  # no options: told by nothing
    assert Decoding.of({"beam_size": None}) == Decoding()
    options = {"beam_size": 5, "temperatures": [0.2, 1]}
    asked = Decoding.of(options | {"logprob_threshold": -1}, "translate")
    assert asked == Decoding.of(options | {"logprob_threshold": -1.0}, "translate")
    different = [
        Decoding(),
        asked,
        Decoding.of({"beam_size": 5}),
        Decoding("translate"),
        Decoding.of({"max_new_tokens": 9}),
        *(Decoding.of({f"{n}_threshold": 1}) for n in ("no_speech", "logprob")),
        Decoding.of({"compression_ratio_threshold": 1}),
    ]
    assert len({one.fingerprint for one in different}) == len(different)
    for wrong, words in (
        ({"beams": 5}, "no option beams; there are beam_size, max_new_tokens"),
        ({"task": "translate"}, "no option task"),
        ({"beam_size": 0}, "beam_size 0 is not a whole number"),
        ({"max_new_tokens": 2.5}, "max_new_tokens 2.5 is not"),
        ({"logprob_threshold": "low"}, "are numbers"),
        ({"temperatures": [0.2]}, "give compression_ratio_threshold or logprob_threshold"),
        ({"temperatures": [0.0], "logprob_threshold": -1}, "give those above 0"),
    ):
        with pytest.raises(InputError, match=words):
            Decoding.of(wrong)


def test_recognisers_refuse_what_they_cannot_do(trained: str) -> None:
    for asked, words in (
        (Decoding("translate"), "cannot translate into English; Whisper and Seamless"),
        (Decoding(beam_size=5), "does not take beam_size: of decoding it takes compression_ratio"),
        (Decoding(no_speech_threshold=0.6), "does not take no_speech_threshold"),
        (Decoding(logprob_threshold=-1.0), "does not take logprob_threshold"),
    ):
        with pytest.raises(InputError, match=words):
            open_recognizer(trained, decoding=asked)
    guarded = open_recognizer(trained, decoding=Decoding(compression_ratio_threshold=2.4))
    assert guarded.spells == "uroman"
    assert guarded.fingerprint != open_recognizer(trained).fingerprint
