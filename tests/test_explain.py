"""Explanations: planted deciders are found, weights are differences, the cost is bounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from torch import nn

import speechtaxi
from cascade import TextClassifier
from cascade.transcriber import Transcriber
from e2e import SpeechClassifier
from speechtaxi.audio import load
from speechtaxi.batch import collate
from speechtaxi.errors import InputError
from speechtaxi.explain import PASSES, Explanation, explain, marked, stretches
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Transcript, Utterance

LABELS = ["sport", "weather", "culture"]


class Counts(nn.Module):
    """Counts two words, and how often it was asked."""

    asked = 0

    def forward(self, texts):
        self.asked += len(texts)
        counts = [[text.split().count(word) for word in ("goal", "rain")] for text in texts]
        return torch.tensor(counts, dtype=torch.float32)


@pytest.fixture
def reader() -> TextClassifier:
    """Return a model to which "goal" is worth 3 for sport, "rain" 2 for weather, all else 0."""
    model = TextClassifier(LABELS, view="gold")
    model.encoder = Counts()
    model.head = nn.Linear(2, 3)
    model.head.weight.data = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    model.head.bias.data.zero_()
    return model


def said(text: str) -> Utterance:
    return Utterance("u", "eng", text=text)


def log_odds(chance: float) -> float:
    return math.log(chance / (1 - chance))


def test_the_word_that_decides(reader: TextClassifier) -> None:
    found = explain(reader, said("what a late goal in the rain today"))
    assert found.topic == "sport"
    assert found.seconds is None
    assert " ".join(word for word, _ in found.words) == "what a late goal in the rain today"
    weights = dict(found.words)
    whole = torch.tensor([3.0, 2.0, 0.0]).softmax(0)[0].item()
    without = torch.tensor([0.0, 2.0, 0.0]).softmax(0)[0].item()
    assert found.probability == pytest.approx(whole)
    assert weights["goal"] == pytest.approx(log_odds(whole) - log_odds(without))
    assert weights["goal"] > 0 > weights["rain"]
    assert all(weights[word] == 0 for word in ("what", "a", "late", "in", "the", "today"))


def test_any_topic_can_be_explained(reader: TextClassifier) -> None:
    found = explain(reader, said("goal in the rain"), topic="weather")
    assert found.topic == "weather"
    assert found.probability == pytest.approx(torch.tensor([3.0, 2, 0]).softmax(0)[1].item())
    weights = dict(found.words)
    assert weights["rain"] > 0 > weights["goal"]
    with pytest.raises(InputError, match="no topic 'news'; the model knows sport, weather"):
        explain(reader, said("goal"), topic="news")


def test_what_adds_up_is_told_in_full(reader: TextClassifier) -> None:
    """Of two topics whose log-odds are a sum over words, the weights are the summands."""
    reader.labels, reader.head = ["sport", "weather"], nn.Linear(2, 2)
    reader.head.weight.data = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    reader.head.bias.data = torch.tensor([0.5, 0.0])
    for text in ("goal and rain and goal", "goal " + "and " * 150 + "rain goal"):
        found = explain(reader, said(text))
        assert [word for word, _ in found.words] == text.split()
        total = sum(weight for _, weight in found.words)
        assert total == pytest.approx(2 * 3 - 2)  # with the bias: the log-odds
        assert log_odds(found.probability) == pytest.approx(total + 0.5, rel=1e-4)


def test_long_texts_cost_no_more(reader: TextClassifier) -> None:
    words = [f"w{n}" for n in range(1000)]
    words[500] = "goal"
    found = explain(reader, said(" ".join(words)))
    assert reader.encoder.asked <= PASSES
    assert [word for word, _ in found.words] == words
    best = max(weight for _, weight in found.words)
    marked_words = [word for word, weight in found.words if weight == best > 0]
    assert "goal" in marked_words
    assert len(marked_words) == 16
    assert sum(weight for _, weight in found.words) == pytest.approx(16 * best)
    for count in (PASSES - 1, PASSES):
        reader.encoder.asked = 0
        explain(reader, said(" ".join(words[:count])))
        assert reader.encoder.asked <= PASSES


def test_short_texts(reader: TextClassifier) -> None:
    ((word, weight),) = explain(reader, said("goal")).words
    chances = torch.tensor([3.0, 0.0, 0.0]).softmax(0)
    assert word == "goal"
    assert weight == pytest.approx(log_odds(chances[0].item()) - log_odds(1 / 3), rel=1e-5)
    reader._readings[said("")] = reader._readings.popitem()[1].__class__("", None, (), 0.0)
    nothing = explain(reader, said(""))
    assert nothing.words == []
    assert nothing.probability == pytest.approx(1 / 3)
    assert marked(nothing).plain == ""


def test_a_trained_reader_says_why() -> None:
    """The text encoder that we ship, fitted to four sentences that differ by a word."""
    torch.manual_seed(0)
    model = TextClassifier(["sport", "weather"], view="gold", dropout=0.0)
    frames = ("the late {} came at night", "another {} was seen")
    texts = [frame.format(word) for word in ("goal", "storm") for frame in frames]
    model.encoder.fit(texts)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(8):
        loss = nn.functional.cross_entropy(model.logits_of(texts), torch.tensor([0, 0, 1, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for word, topic in (("goal", "sport"), ("storm", "weather")):
        found = explain(model, said(f"the late {word} was seen"))
        assert found.topic == topic
        assert max(found.words, key=lambda pair: pair[1])[0] == word
        for left_out, weight in found.words:  # each by itself, not in a batch
            rest = " ".join(w for w, _ in found.words if w != left_out)
            change = log_odds(found.probability) - log_odds(
                explain(model, said(rest), topic=topic).probability
            )
            assert weight == pytest.approx(change, abs=1e-4)


def test_what_was_read_is_asked_and_nothing_is_transcribed_again(tone, tmp_path) -> None:
    class Once:
        spells, longest, fingerprint, calls = "uroman", None, "once", 0

        def supports(self, language):
            return True

        def transcribe(self, waveforms, language):
            self.calls += 1
            return [Transcript("", "ukraina dvi hodyny")] * len(waveforms)

    model = TextClassifier(LABELS, view="romanized", recognizer="once")
    model._transcriber = Transcriber(Once(), TranscriptStore(tmp_path / "s.sqlite"))
    clip = Utterance("a", "ukr", audio=str(tone()))
    found = explain(model, clip)
    assert [word for word, _ in found.words] == ["ukraina", "dvi", "hodyny"]
    assert model.transcriber.recognizer.calls == 1
    (row,) = model.classify([clip])
    assert found.probability == pytest.approx(row.probabilities[found.topic])
    model.temperature = 2.0
    (cooler,) = model.classify([clip])
    assert explain(model, clip).probability == pytest.approx(cooler.probabilities[found.topic])


class Tones(SpeechClassifier):
    """Tells two tones apart by how loud they are; notes how much it hears at once."""

    def __init__(self) -> None:
        super().__init__(["a", "c"])
        self.head = nn.Linear(2, 2)
        self.head.weight.data = 0.2 * torch.eye(2)
        self.head.bias.data.zero_()
        self.heard_at_once: list[int] = []

    def embed(self, batch):
        self.heard_at_once.append(batch.waveforms.numel())
        time = torch.arange(1600) / 16_000  # whole periods of both
        waves = torch.stack([torch.exp(2j * math.pi * hertz * time) for hertz in (440, 1000)], -1)
        frames = batch.waveforms.unfold(1, 1600, 1600).to(waves.dtype)
        return (frames @ waves).abs().mean(1)


@pytest.fixture
def planted(tmp_path) -> str:
    """Return a file of 8 s: noise, 440 Hz from 5 to 6 s, a fainter 1000 Hz from 2 to 3 s."""
    random = np.random.default_rng(0)
    time = np.arange(8 * 16_000) / 16_000
    wave = 0.01 * random.standard_normal(len(time))
    wave += 0.4 * np.sin(2 * np.pi * 440 * time) * ((time >= 5) & (time < 6))
    wave += 0.2 * np.sin(2 * np.pi * 1000 * time) * ((time >= 2) & (time < 3))
    soundfile.write(tmp_path / "planted.wav", wave.astype(np.float32), 16_000)
    return str(tmp_path / "planted.wav")


def test_the_second_that_decides(planted: str) -> None:
    hearer = Tones()
    found = explain(hearer, Utterance("u", "eng", audio=planted))
    assert found.words is None
    assert found.topic == "a"
    rows = sorted(found.seconds, key=lambda row: row[2])
    assert rows[-1][:2] == (5.0, 6.0)
    assert rows[0][:2] == (2.0, 3.0)
    assert rows[-1][2] > 0 > rows[0][2]
    for start, stop, weight in found.seconds:
        if stop <= 1.9 or start >= 6.1 or (start >= 3.1 and stop <= 4.9):
            assert abs(weight) < 0.02 * rows[-1][2]
    (row,) = hearer.classify(planted)
    assert found.probability == pytest.approx(row.probabilities["a"], rel=1e-5)
    everything = 0.2 * (
        hearer.embed(collate([None], [load(planted)], [-1])) @ torch.tensor([1, -1.0])
    )
    alone = [row[2] for row in found.seconds if row[0] == int(row[0])]  # side by side, no overlap
    assert sum(alone) == pytest.approx(everything.item(), rel=0.05)


def test_other_topics_and_other_places(planted: str) -> None:
    hearer = Tones()
    found = explain(hearer, Utterance("u", "eng", audio=planted, start=4.5, duration=2.0))
    assert found.seconds[0][0] == 4.5
    assert found.seconds[-1][1] == 6.5
    strongest = max(found.seconds, key=lambda row: row[2])
    assert 5 <= strongest[0] < strongest[1] <= 6
    against = explain(hearer, Utterance("u", "eng", audio=planted), topic="c")
    towards = explain(hearer, Utterance("u", "eng", audio=planted))
    assert [row[2] for row in against.seconds] == pytest.approx([-r[2] for r in towards.seconds])
    with pytest.raises(InputError, match="names no audio"):
        explain(hearer, said("only text"))


@pytest.mark.parametrize("length", [160, 999, 8_000, 48_001, 16_000 * 31, 16_000 * 3600])
def test_stretches_cover_a_clip_by_half_steps(length: int) -> None:
    found = stretches(length)
    assert 7 <= len(found) < PASSES
    assert (found[0][0], found[-1][1]) == (0, length)
    window = found[0][1]
    assert {stop - start for start, stop in found} == {window}
    assert window == min(16_000, round(length / 4)) or length > 32 * 16_000
    assert np.diff([start for start, _ in found]).max() <= math.ceil(window / 2) + 1


def test_long_clips_cost_no_more(tone) -> None:
    hearer = Tones()
    clip = Utterance("u", "eng", audio=str(tone(seconds=45.0)))
    found = explain(hearer, clip)
    assert len(found.seconds) == PASSES - 1
    assert sum(hearer.heard_at_once) == PASSES * 45 * 16_000
    assert max(hearer.heard_at_once) <= 60 * 16_000


def test_a_trained_hearer_says_why(e2e_run, corpus, tmp_path) -> None:
    """Sweeps of 0.5 to 1 s were learned; one of them amid three seconds of faint noise."""
    from speechtaxi.records import read_manifest

    model = speechtaxi.load(str(e2e_run))
    clip = next(row for row in read_manifest(corpus) if row.split == "test")
    sweep = load(clip.audio)
    wave = 0.002 * np.random.default_rng(0).standard_normal(3 * 16_000).astype(np.float32)
    wave[16_000 : 16_000 + len(sweep)] += sweep
    soundfile.write(tmp_path / "amid.wav", wave, 16_000)
    amid = Utterance("amid", "eng", audio=str(tmp_path / "amid.wav"))
    found = explain(model, amid, topic=clip.label)
    start, stop, _ = max(found.seconds, key=lambda row: abs(row[2]))
    assert start < 1 + len(sweep) / 16_000
    assert stop > 1
    quiet = wave.copy()
    quiet[round(start * 16_000) : round(stop * 16_000)] = 0  # by hand, without fades
    soundfile.write(tmp_path / "quiet.wav", quiet, 16_000, subtype="FLOAT")
    (without,) = model.classify(str(tmp_path / "quiet.wav"))
    change = log_odds(found.probability) - log_odds(without.probabilities[clip.label])
    weight = max((row[2] for row in found.seconds), key=abs)
    assert weight == pytest.approx(change, rel=0.25)


def shown(explanation: Explanation, **options) -> str:
    console = Console(force_terminal=True, width=200, **options)
    with console.capture() as capture:
        console.print(marked(explanation))
    return capture.get()


def test_words_are_marked_with_and_without_colour() -> None:
    words = [("late", 0.1), ("goal", 3.0), ("kick", 1.2), ("rain", -2.5), ("night", -1.1)]
    explanation = Explanation("sport", 0.9, words=words)
    assert marked(explanation).plain == "late goal kick rain night"
    plain = shown(explanation, no_color=True)
    assert "\x1b[1;4mgoal\x1b[0m \x1b[4mkick\x1b[0m \x1b[1;3mrain\x1b[0m \x1b[3mnight" in plain
    assert plain.startswith("late ")
    coloured = shown(explanation, color_system="truecolor")
    assert "48;2;86;180;233mgoal" in coloured  # the full blue
    assert coloured.startswith("late ")
    faint = Explanation("sport", 0.9, words=[("late", 0.02), ("goal", 0.2)])
    assert "\x1b[4mgoal" in shown(faint, no_color=True)  # no bold: little was decided
    assert "[bold]" in marked(Explanation("a", 1.0, words=[("[bold]", 1.0)])).plain


def test_seconds_are_bars() -> None:
    seconds = [(0.0, 1.0, 0.0), (0.5, 1.5, 1.0), (1.0, 2.0, 2.0), (1.5, 2.5, -1.0)]
    text = marked(Explanation("sport", 0.9, seconds=seconds))
    assert text.plain == "0.0 s ▁▅█- 2.5 s  most from 1.0 to 2.0 s"
    silent = Explanation("sport", 0.5, seconds=[(0.0, 1.0, 0.0), (0.5, 1.5, 0.0)])
    assert marked(silent).plain == "0.0 s ▁▁ 1.5 s"
