"""Planted speech is found amid silence, noise and music, however the recording comes in blocks."""

from __future__ import annotations

import tracemalloc
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechtaxi import audio
from speechtaxi.errors import InputError
from speechtaxi.segment import open_segmenter, silero
from speechtaxi.segment.stretches import Heard, Limits, spans
from speechtaxi.types import Span

RATE = audio.SAMPLE_RATE
COLLAR = 0.25
"""Seconds around planted speech that count neither way: a span has 0.1 s of context."""

needs_vad = pytest.mark.skipif(not silero.installed(), reason="the extra vad is not installed")
LISTENERS = ["energy", pytest.param("vad", marks=needs_vad)]
ALL = [*LISTENERS, "fixed"]
quick = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def noise(seconds: float, dbfs: float, seed: int = 0) -> np.ndarray:
    white = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (10 ** (dbfs / 20) * white).clip(-1, 1).astype(np.float32)


def syllables(seconds: float, dbfs: float = -26.0, seed: int = 0) -> np.ndarray:
    """Return noise that swells about five times a second, as talk does."""
    random = np.random.default_rng(seed)
    swells = np.cumsum(random.uniform(0.3, 0.7, round(seconds * 10) + 1))
    rise = np.interp(np.arange(round(seconds * RATE)), np.arange(len(swells)) * RATE / 10, swells)
    return noise(seconds, dbfs + 6, seed) * np.sin(np.pi * rise).astype(np.float32) ** 2


def chords(seconds: float, dbfs: float, each: float = 2.0) -> np.ndarray:
    """Return triads that fade, one after the other, each with six harmonics."""
    wave = np.zeros(round(seconds * RATE))
    for number in range(round(seconds / each)):
        first = round(number * each * RATE)
        time = np.arange(min(round((each + 0.4) * RATE), len(wave) - first)) / RATE
        shape = np.minimum(time / 0.03, 1) * np.clip((each + 0.4 - time) / 0.4, 0, 1)
        shape *= np.exp(-1.2 * time / each)
        for ratio in (1, 2 ** (4 / 12), 2 ** (7 / 12)):
            hertz = (220, 174.6, 130.8, 196)[number % 4] * ratio
            tones = [np.sin(2 * np.pi * hertz * h * time + h) / h**1.2 for h in range(1, 7)]
            wave[first : first + len(time)] += shape * np.sum(tones, axis=0)
    return (wave * 10 ** (dbfs / 20) / np.sqrt(np.mean(wave**2))).clip(-1, 1).astype(np.float32)


def hum(seconds: float, dbfs: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    tones = np.sum([np.sin(2 * np.pi * 50 * h * time) / h for h in range(1, 9)], axis=0)
    return (10 ** (dbfs / 20) * tones).astype(np.float32)


def stage(bursts: list[np.ndarray], gap: float = 3.0) -> tuple[np.ndarray, list[Span]]:
    """Return bursts with silence before, between and after, and where they lie."""
    parts, planted, now = [np.zeros(round(gap * RATE), np.float32)], list[Span](), gap
    for burst in bursts:
        parts += [burst, parts[0]]
        planted.append(Span(now, now + len(burst) / RATE))
        now = planted[-1].end + gap
    return np.concatenate(parts), planted


def inside(found: list[Span], seconds: float) -> np.ndarray:
    """Return which hundredths of a second lie in a span."""
    marks = np.zeros(round(seconds * 100), bool)
    for span in found:
        marks[round(span.start * 100) : round(span.end * 100)] = True
    return marks


def shares(found: list[Span], planted: list[Span], seconds: float) -> tuple[float, float]:
    """Return how much of the speech was found, and how much of the rest was not."""
    wide = [Span(max(one.start - COLLAR, 0), one.end + COLLAR) for one in planted]
    marks = inside(found, seconds)
    said, near = inside(planted, seconds), inside(wide, seconds)
    return float(marks[said].mean()), float(1 - marks[~near].mean())


def found_by(name: str, wave: np.ndarray, **limits: float) -> list[Span]:
    return list(open_segmenter(name, **limits).spans([wave]))


PIECES = {
    "nothing": lambda seconds, seed: np.zeros(round(seconds * RATE), np.float32),
    "faint": lambda seconds, seed: noise(seconds, -90, seed),
    "noise": lambda seconds, seed: noise(seconds, -30, seed),
    "talk": lambda seconds, seed: syllables(seconds, -20, seed),
    "square": lambda seconds, seed: np.sign(noise(seconds, 0, seed)),
    "beyond": lambda seconds, seed: noise(seconds, 0, seed) * np.float32(1e38),
    "offset": lambda seconds, seed: np.full(round(seconds * RATE), 0.9, np.float32),
    "click": lambda seconds, seed: (np.arange(round(seconds * RATE)) % 4000 == 0) * np.float32(1),
}

waves = st.lists(
    st.tuples(st.sampled_from(sorted(PIECES)), st.floats(0.0, 5.0), st.integers(0, 9)), max_size=6
).map(
    lambda plan: np.concatenate(
        [PIECES[kind](seconds, seed) for kind, seconds, seed in plan] or [np.zeros(0, np.float32)]
    )
)


@pytest.mark.parametrize("name", ALL)
@quick
@given(wave=waves, cuts=st.lists(st.floats(0, 1), max_size=8), size=st.integers(100, 70_000))
def test_blocks_change_nothing(name: str, wave: np.ndarray, cuts: list[float], size: int):
    whole = found_by(name, wave)
    uneven = np.split(wave, sorted(round(cut * len(wave)) for cut in cuts))
    even = [wave[first : first + size] for first in range(0, len(wave), size)]
    segmenter = open_segmenter(name)
    assert list(segmenter.spans(uneven)) == whole
    assert list(segmenter.spans(iter(even))) == whole  # and it remembers nothing


def lawful(found: list[Span], wave: np.ndarray, longest: float, shortest: float) -> None:
    assert found == sorted(found, key=lambda span: span.start)
    for span in found:
        assert 0 <= span.start < span.end <= len(wave) / RATE
        assert shortest - 1 / RATE <= span.end - span.start <= longest + 1 / RATE  # rounded


@pytest.mark.parametrize("name", LISTENERS)
@quick
@given(wave=waves, shortest=st.floats(0, 1.5), more=st.floats(0, 5), pause=st.floats(0, 2))
def test_spans_keep_the_limits(name, wave, shortest, more, pause):
    longest = max(1.0, 3 * shortest) + more
    found = found_by(name, wave, longest=longest, shortest=shortest, pause=pause)
    lawful(found, wave, longest, shortest)
    assert all(one.end <= other.start for one, other in pairwise(found))


frames = st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=30).map(
    lambda runs: np.concatenate([np.full(n, on) for on, n in runs] or [np.zeros(0, bool)])
)


@settings(max_examples=300, deadline=None)
@given(
    speech=frames,
    rest=st.integers(1, 512),
    shortest=st.integers(0, 20_000),
    more=st.integers(0, 100_000),
    pause=st.integers(0, 40_000),
)
def test_any_pattern_of_speech_keeps_the_limits(speech, rest, shortest, more, pause):
    longest = max(RATE, 3 * shortest) + more
    samples = max(len(speech) * 512 - 512 + rest, 0) if len(speech) else 0
    power = np.random.default_rng(0).random(len(speech))
    found = list(spans([Heard(speech, power, samples)], 512, Limits(longest, shortest, pause)))
    lawful(found, np.empty(samples), longest / RATE, shortest / RATE)
    assert all(one.end <= other.start for one, other in pairwise(found))
    if pause >= 512:  # where there is enough speech, none is lost
        for first, end in runs_of(speech):
            if (end - first) * 512 >= max(shortest, 1024) and end < len(speech):
                middle = (first + end) / 2 * 512 / RATE
                assert any(span.start <= middle <= span.end for span in found)


def runs_of(speech: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], speech.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def pattern(text: str, longest: float = 30, shortest: float = 0.5, pause: float = 0.5):
    """Return the spans of tenths of a second: "." quiet, "#" speech, "-" quieter speech."""
    speech = np.array([letter != "." for letter in text])
    power = np.array([{".": 0.0, "-": 0.1, "#": 1.0}[letter] for letter in text])
    limits = Limits(*(round(value * RATE) for value in (longest, shortest, pause)))
    found = spans([Heard(speech, power, len(text) * 1600)], 1600, limits)
    return [(round(one.start, 3), round(one.end, 3)) for one in found]


def test_stretches_of_speech():
    assert pattern("." * 20) == []
    assert pattern("..########......") == [(0.1, 1.1)]
    assert pattern("#####") == [(0.0, 0.5)]
    assert pattern("..####....####......") == [(0.1, 1.5)]  # a pause of 0.4 s is one of breath
    assert pattern("..####.....####.....") == [(0.1, 0.7), (1.0, 1.6)]
    assert pattern("..####.####......", pause=0.0) == [(0.1, 0.6), (0.6, 1.1)]
    assert pattern("..#####.#####......", pause=0.1) == [(0.15, 0.75), (0.75, 1.35)]
    assert pattern("....##......", shortest=0.6) == []
    assert pattern("....###......", shortest=0.6) == [(0.2, 0.8)]  # half of it is speech
    assert pattern("###..........", shortest=0.6) == []  # but there is no room


def test_long_speech_is_cut_where_it_is_quiet():
    talk = "#" * 80 + "-" + "#" * 40
    assert pattern(talk, longest=10) == [(0.0, 8.0), (8.0, 12.1)]
    (_, first), *_, (last, end) = pattern("#" * 1000, longest=10)
    assert 6.9 < first <= 9.5
    assert end == 100
    assert end - last >= 0.5


@pytest.mark.parametrize("name", ["energy", "fixed"])
def test_spans_come_while_it_listens(name: str):
    wave, _ = stage([syllables(4.0, seed=seed) for seed in range(4)], gap=4.0)
    taken = 0

    def blocks():
        nonlocal taken
        for first in range(0, len(wave), RATE):
            taken += 1
            yield wave[first : first + RATE]

    found = [(span, taken) for span in open_segmenter(name).spans(blocks())]
    assert taken == len(wave) / RATE
    for span, seconds in found[:-1]:
        assert seconds <= span.end + 21
    assert found[0][1] < len(wave) / RATE


@pytest.mark.parametrize("name", ALL)
def test_memory_does_not_grow_with_the_recording(name: str):
    block = syllables(10.0)

    def peak(times: int) -> int:
        tracemalloc.start()
        for _ in open_segmenter(name).spans(block for _ in range(times)):
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1)  # weights, imports
    assert peak(30) < peak(9) + 1_000_000  # five minutes are 19 MB


def test_planted_syllables_are_found_by_energy():
    wave, planted = stage([syllables(length, seed=int(length)) for length in (1.5, 3, 6, 12)])
    for ratio in (None, 20, 10):
        noisy = wave if ratio is None else wave + noise(len(wave) / RATE, -26 - ratio)
        found = found_by("energy", noisy)
        for one in planted:
            assert min(abs(span.start - one.start) for span in found) < 0.3
            assert min(abs(span.end - one.end) for span in found) < 0.3
        said, quiet = shares(found, planted, len(wave) / RATE)
        assert said >= 0.95
        assert quiet >= 0.9


NO_SPEECH = {
    "nothing": np.zeros(30 * RATE, np.float32),
    "offset": np.full(30 * RATE, 0.5, np.float32),
    "faint": noise(30, -70),
    "white": noise(60, -20),
    "brown": np.cumsum(noise(30, -60)).clip(-1, 1),
    "hum": hum(30, -20),
    "chords": chords(40, -26),
    "quick chords": chords(40, -26, each=1.0),
    "chords in silence": stage([chords(6, -26)] * 3)[0],
}


@pytest.mark.parametrize("name", LISTENERS)
@pytest.mark.parametrize("what", NO_SPEECH)
def test_what_is_no_speech_gives_no_span(name: str, what: str):
    assert found_by(name, NO_SPEECH[what]) == []


@needs_vad
@pytest.mark.parametrize("seconds", [2.0, 5.0, 30.0])
@pytest.mark.parametrize("what", NO_SPEECH)
def test_what_is_short_and_no_speech_does_not_speak(what: str, seconds: float):
    wave = NO_SPEECH[what][: round(seconds * RATE)]
    assert not silero.speaks(wave)
    assert not silero.speaks(wave / 50)
    assert silero.speaks(wave[: silero.SHORT - 1])  # too short to judge


@needs_vad
@pytest.mark.assets
def test_no_real_clip_is_without_speech(assets: Path):
    """One in twelve of 3,978; all were tried once."""
    paths = sorted((assets / "data" / "speech").rglob("*.flac"))[::12]
    assert len(paths) > 300
    assert [path.name for path in paths if not silero.speaks(audio.load(path))] == []
    quiet = 0.003 * audio.load(assets / "data" / "speech" / "fixtures" / "jfk.flac")
    assert silero.speaks(quiet.astype(np.float32))


@needs_vad
def test_the_network_is_that_of_the_package():
    import torch

    wave = syllables(4.0)[: 96 * 512] + chords(4.0, -30)[: 96 * 512]
    path = Path(find_spec("silero_vad").origin).parent / "data" / "silero_vad.jit"  # type: ignore
    theirs = torch.jit.load(path)
    with torch.inference_mode():
        expected = [theirs(torch.from_numpy(part), RATE).item() for part in wave.reshape(-1, 512)]
    network = silero.Silero()
    heard = np.concatenate([network(part) for part in np.split(wave, 3)])
    np.testing.assert_allclose(heard, expected, atol=1e-5)
    assert np.ptp(expected) > 0.01


def test_windows():
    def windows(seconds: float, **options: float) -> list[tuple[float, float]]:
        found = found_by("fixed", np.zeros(round(seconds * RATE), np.float32), **options)
        return [(span.start, span.end) for span in found]

    assert windows(0) == windows(0.4) == []
    assert windows(0.5) == [(0, 0.5)]
    assert windows(10) == [(0, 10)]
    assert windows(25) == [(0, 10), (10, 20), (20, 25)]
    assert windows(20.25) == [(0, 10), (10, 19.75), (19.75, 20.25)]
    assert windows(25, overlap=2) == [(0, 10), (8, 18), (16, 25)]
    assert windows(26, overlap=2) == [(0, 10), (8, 18), (16, 26)]
    assert windows(6, window=4, overlap=1) == [(0, 4), (3, 6)]


@quick
@given(
    samples=st.integers(0, 20 * RATE),
    window=st.floats(1.5, 8),
    share=st.floats(0, 0.5),
    shortest=st.floats(0, 0.5),
)
def test_windows_leave_nothing_out(samples, window, share, shortest):
    wave = np.zeros(samples, np.float32)
    overlap = share * window
    found = found_by("fixed", wave, window=window, overlap=overlap, shortest=shortest)
    lawful(found, wave, window, shortest)
    if samples / RATE >= shortest + 1 / RATE:
        assert (found[0].start, found[-1].end) == (0, samples / RATE)
    for one, other in pairwise(found):
        assert other.start <= one.end
        if overlap == 0:
            assert other.start == one.end


def test_what_cannot_be_is_said():
    for name, options, message in (
        ("voice", {}, "no segmenter voice; there are auto, vad, energy, fixed"),
        ("energy", {"longest": 1.0, "shortest": 0.5}, "three times the shortest"),
        ("energy", {"shortest": -1}, "none negative"),
        ("energy", {"pause": float("nan")}, "none negative"),
        ("fixed", {"window": 40}, "at most the longest"),
        ("fixed", {"overlap": 6}, "at most half"),
    ):
        with pytest.raises(InputError, match=message):
            open_segmenter(name, **options)
    bad = np.full(RATE, np.nan, np.float32)
    for name in ("energy", "fixed"):
        with pytest.raises(InputError, match="not numbers"):
            list(open_segmenter(name).spans([bad]))


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch):
    assert open_segmenter("auto").name == ("vad" if silero.installed() else "energy")
    monkeypatch.setattr(silero, "find_spec", lambda name: None)
    silero.weights.cache_clear()
    assert open_segmenter("auto").name == "energy"
    with pytest.raises(InputError, match=r"speechtaxi\[vad\]"):
        open_segmenter("vad")


def loud(wave: np.ndarray, pause: float = 0.3) -> list[Span]:
    """Return where a clean recording is within 30 dB of its loudest, short pauses included."""
    power = np.square(wave[: len(wave) // 160 * 160].reshape(-1, 160)).mean(1)
    on = np.flatnonzero(np.convolve(power, np.ones(5) / 5, "same") > power.max() / 1000)
    return [
        Span(run[0] / 100, (run[-1] + 1) / 100)
        for run in np.split(on, np.nonzero(np.diff(on) > 100 * pause)[0] + 1)
    ]


def trimmed(path: Path, longest: float = 8.0) -> np.ndarray:
    """Return a recording from its first to its last sound, at -26 dBFS."""
    wave = audio.load(path)
    said = loud(wave)
    first = round(said[0].start * RATE)
    wave = wave[first : min(round(said[-1].end * RATE), first + round(longest * RATE))]
    return (wave * 0.05 / np.sqrt(np.mean(wave**2))).clip(-1, 1)


@pytest.mark.assets
@pytest.mark.parametrize("name", LISTENERS)
def test_real_speech_is_found(name: str, assets: Path):
    speech = assets / "data" / "speech"
    yoruba = sorted((speech / "yoruba_speech_project").rglob("*.flac"))[:3]
    digits = sorted((speech / "fsdd").glob("*_5.flac"))[::20]
    clips = [trimmed(path) for path in (speech / "fixtures" / "jfk.flac", *yoruba, *digits)]
    wave, _ = stage(clips)
    planted, seconds = loud(wave), len(wave) / RATE
    long = [one for one in loud(wave, pause=1.0) if one.end - one.start > 2]
    assert len(long) > 3
    for ratio in (None, 20, 10):
        noisy = wave if ratio is None else wave + noise(seconds, -26 - ratio)
        found = found_by(name, noisy)
        said, quiet = shares(found, planted, seconds)
        assert quiet >= 0.9, (ratio, quiet)
        assert said >= (0.85 if (name, ratio) == ("energy", 10) else 0.95), (ratio, said)
        for one in long:
            assert min(abs(span.start - one.start) for span in found) < 0.3, (ratio, one)
