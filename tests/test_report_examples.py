"""Examples of a report: which clips are chosen, what is written beside the page, what it shows."""

from __future__ import annotations

import random
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from jinja2 import Environment, PackageLoader, StrictUndefined
from scipy.spatial.distance import jensenshannon

from speechtaxi.audio import load
from speechtaxi.report.comparison import Comparison, compare
from speechtaxi.report.forms.texts import markdown
from speechtaxi.report.questions.examples import Examples, choose, disagreement, examples, save
from speechtaxi.report.runs import Run
from speechtaxi.types import Prediction, RunRecord, Utterance

TOPICS = ("sport", "crime", "culture")
CLIPS = 12
GOLD = [TOPICS[n % 3] for n in range(CLIPS)]
HEARD, READ = (3, 4, 5), (7, 8)
"""Planted: clips that only E2E has right, and that only the cascade has right."""


def sure(topic: str, how: float = 0.9) -> dict[str, float]:
    return {t: how if t == topic else (1 - how) / 2 for t in TOPICS}


def other(topic: str) -> str:
    return TOPICS[(TOPICS.index(topic) + 1) % 3]


def run(
    system: str,
    wrong: tuple[int, ...] = (),
    *,
    language: str = "tam",
    how: dict[int, float] | None = None,
    text: str | None = None,
    reference: str | None = None,
    **record,
) -> Run:
    """A run that is right but on some clips, and as sure of each as is said (else 0.8)."""
    rows = []
    for n, gold in enumerate(GOLD):
        answer = other(gold) if n in wrong else gold
        odds = sure(answer, (how or {}).get(n, 0.8))
        said = {"text": text, "reference": reference}
        rows.append(Prediction(f"c{n:02}", f"g{n}", language, gold, answer, odds, **said))
    record = {"route": "cascade" if text else "e2e", "train_languages": ("tam", "eng"), **record}
    return Run(RunRecord(system, **record), Path(), {language: rows})


def compared(*runs: Run) -> Comparison:
    return compare(list(runs), resamples=20)


@pytest.fixture
def pair() -> list[Run]:
    """E2E errs on READ, the cascade on HEARD; the later, the surer."""
    how = {n: 0.6 + n / 40 for n in (*HEARD, *READ)}
    view = {"view": "native", "text": "மழை", "reference": "மழைக்காலம்"}
    return [run("ears", READ, how=how), run("eyes", HEARD, how=how, **view)]


def ids(found: Comparison, limit: int) -> list[tuple[str, str]]:
    part = examples(found, (), Path(), limit)
    return [(clip.id, clip.choice.alone) for clip in part.clips] if part else []


def test_clips_that_one_side_has_right_are_found_on_both_sides(pair):
    """The surest disagreement is shown first, but neither side takes all the places."""
    assert ids(compared(*pair), 5) == [
        ("c08", "cascade"),
        ("c07", "cascade"),
        ("c05", "E2E"),
        ("c04", "E2E"),
        ("c03", "E2E"),
    ]
    assert [side for _, side in ids(compared(*pair), 2)] == ["cascade", "E2E"]
    assert ids(compared(*pair), 1) == [("c08", "cascade")]


def test_clips_on_which_all_agree_are_not_shown(pair):
    assert len(ids(compared(*pair), 100)) == len(HEARD) + len(READ)
    twin = replace(pair[0], record=replace(pair[0].record, system="twin"))
    assert examples(compared(pair[0], twin), (), Path()) is None
    assert examples(compared(pair[0]), (), Path()) is None


def test_ties_are_by_id_and_the_order_of_runs_is_no_matter(pair):
    how = dict.fromkeys(range(CLIPS), 0.75)
    ears, eyes = run("ears", READ, how=how), run("eyes", HEARD, how=how, text="a")
    others = [run(f"eyes{n}", HEARD, how=how, text="a") for n in range(3)]
    first = ids(compared(ears, eyes, *others), 4)
    assert [id_ for id_, _ in first] == ["c03", "c04", "c07", "c08"]
    for seed in range(4):
        runs = [ears, eyes, *others]
        random.Random(seed).shuffle(runs)
        assert ids(compared(*runs), 4) == first


def test_the_number_of_systems_of_a_side_is_no_matter(pair):
    """Copies of the cascade change neither the order nor the bits."""
    copies = [replace(pair[1], record=replace(pair[1].record, system=f"eyes{n}")) for n in range(5)]
    one, many = compared(*pair), compared(*pair, *copies)
    assert list(choose(one, 5)) == list(choose(many, 5))


def test_gold_text_and_baselines_have_no_say_but_gold_text_is_shown(pair):
    gold = run("gold", (0, 1, 2), text="மழைக்காலம்", view="gold")
    always = run("majority", (9, 10, 11), route="baseline")
    found = compared(*pair, gold, always)
    assert list(choose(found, 99)) == list(choose(compared(*pair), 99))
    clip = examples(found, (), Path()).clips[0]
    assert [answer.system for answer in clip.answers] == ["ears", "eyes", "gold"]


def test_disagreement_is_that_of_scipy():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), (2, 9))
    ours = disagreement(p, np.array([0.5, 0.5]))
    assert ours == pytest.approx(jensenshannon(p[0], p[1], axis=1, base=2) ** 2, abs=1e-8)
    sure_ = np.eye(3)[[[0], [1]]]
    assert disagreement(sure_, np.array([0.5, 0.5])).tolist() == [1.0]  # bit


def test_disagreement_is_between_the_sides_and_within_them():
    p = np.random.default_rng(1).dirichlet(np.ones(3), (4, 7))
    halves = np.array([0.5, 0.5])
    heard, read = p[:1].mean(0), p[1:].mean(0)
    inside = disagreement(p[1:], np.full(3, 1 / 3)) / 2
    whole = disagreement(p, np.array([1 / 2, 1 / 6, 1 / 6, 1 / 6]))
    between = disagreement(np.stack([heard, read]), halves)
    assert whole == pytest.approx(between + inside, abs=1e-8)


def test_setups_and_languages_have_their_own_examples(pair):
    unseen = [
        replace(r, record=replace(r.record, train_languages=("eng", "fra")), predictions=rows)
        for r, rows in ((r, r.predictions) for r in pair)
    ]
    french = [
        run("ears", READ, language="fra", train_languages=("eng", "fra")),
        run("eyes", HEARD, language="fra", text="a", view="native", train_languages=("eng", "fra")),
    ]
    found = compared(*pair, *unseen, *french)
    part = examples(found, (), Path(), 2)
    assert [(clip.language, clip.choice.setup) for clip in part.clips] == [
        *[("French", "all-languages")] * 2,
        *[("Tamil", "all-languages")] * 2,
        *[("Tamil", "zero-shot")] * 2,
    ]


def test_answers_are_means_over_seeds(pair):
    seeds = [run("ears", wrong, seed=n) for n, wrong in enumerate([READ, READ, ()])]
    part = examples(compared(*seeds, pair[1]), (), Path(), 99)
    clip = next(clip for clip in part.clips if clip.id == "c07")
    ears = clip.answers[0]
    assert (ears.topic, ears.right, ears.seeds) == (other(GOLD[7]), False, (2, 3))
    assert ears.probability == pytest.approx((0.8 + 0.8 + 0.1) / 3)
    assert dict(ears.top) == pytest.approx(
        {other(GOLD[7]): 1.7 / 3, GOLD[7]: 1.0 / 3, other(other(GOLD[7])): 0.3 / 3}
    )
    assert clip.choice.alone == "cascade"


def test_what_was_read_is_shown_in_all_scripts_with_the_gold_text(pair):
    roman = run("letters", HEARD, text="mazhai", reference="mazhaikkaalam", view="romanized")
    more = replace(pair[1], record=replace(pair[1].record, system="eyes2"))
    elsewhere = replace(roman, record=replace(roman.record, train_languages=("tam",)))
    found = compared(*pair, more, elsewhere)
    said = Utterance("c08", "tam", text="மழைக்காலம் வந்தது")
    clip = examples(found, [said], Path(), 1).clips[0]
    assert [(text.title, text.words, text.tag, list(text.systems)) for text in clip.texts] == [
        ("Gold text", "மழைக்காலம் வந்தது", "ta", []),
        ("Transcript", "மழை", "ta", ["eyes", "eyes2"]),
        ("Gold text, romanised", "mazhaikkaalam", "ta-Latn", []),
        ("Transcript, romanised", "mazhai", "ta-Latn", ["letters"]),
    ]
    said = replace(said, text="mazhaikkaalam")  # where the script is Latin
    titles = [text.title for text in examples(found, [said], Path(), 1).clips[0].texts]
    assert titles == ["Gold text", "Transcript", "Transcript, romanised"]
    clip = examples(found, (), Path(), 1).clips[0]  # without a manifest
    assert clip.texts[0].words == "மழைக்காலம்"


def test_the_table_is_short(pair):
    part = examples(compared(*pair), (), Path(), 1)
    assert markdown(part.tables[0]).splitlines()[2:] == [
        "| language | setup | clip | gold | disagreement | right alone | ears | eyes |",
        "|---|---|---|---|---|---|---|---|",
        "| Tamil | all-languages | c08 | culture | 0.45 | cascade | sport 0.80 | culture 0.80 |",
    ]


# Audio


@pytest.fixture
def recording(tmp_path) -> Utterance:
    """Three seconds at 44.1 kHz: 300 Hz, then 1200 Hz (the clip), then 300 Hz."""
    rate = 44_100
    time = np.arange(rate) / rate
    low, high = (0.3 * np.sin(2 * np.pi * pitch * time) for pitch in (300, 1200))
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([low, high, low]), rate)
    return Utterance("a/b #1?", "tam", str(path), start=1.0, duration=1.0)


def pitch(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave)).argmax() / len(wave) * 16_000)


def test_the_segment_is_written_and_nothing_beside_it(recording, tmp_path):
    name = save(recording, tmp_path)
    wave, clip = load(tmp_path / name), load(recording.audio, 1.0, 1.0)
    assert soundfile.info(tmp_path / name).samplerate == 16_000
    assert len(wave) == pytest.approx(len(clip), abs=320)  # one frame of the codec
    middle = slice(1600, 14_400)
    assert np.corrcoef(wave[middle], clip[middle])[0, 1] > 0.98
    for part in (wave[:1600], wave[middle], wave[-1600:]):
        assert pitch(part) == pytest.approx(1200, abs=15)
    assert [path.name for path in (tmp_path / "audio").iterdir()] == [Path(name).name]
    assert name.startswith("audio/tam-a-b-1-")
    assert len(name) == len("audio/tam-a-b-1-") + 12 + len(".ogg")


def test_flac_is_written_where_there_is_no_opus(recording, tmp_path, monkeypatch):
    monkeypatch.setattr(soundfile, "available_subtypes", lambda kind: {"VORBIS": ""})
    name = save(recording, tmp_path)
    assert soundfile.info(tmp_path / name).format == "FLAC"
    clip = load(recording.audio, 1.0, 1.0)
    assert load(tmp_path / name) == pytest.approx(clip, abs=2**-15)


def test_audio_is_written_once_and_again_when_it_changes(recording, tmp_path, monkeypatch):
    name = save(recording, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "write", lambda *_, **__: pytest.fail("written again"))
        assert save(recording, tmp_path) == name
    assert save(replace(recording, start=0.0), tmp_path) != name
    soundfile.write(recording.audio, np.zeros(44_100 * 4), 44_100)
    assert save(recording, tmp_path) != name


def test_a_broken_off_file_is_no_file(recording, tmp_path, monkeypatch):
    def half(path, *_, **__):
        Path(path).write_bytes(b"OggS")
        raise KeyboardInterrupt

    monkeypatch.setattr(soundfile, "write", half)
    with pytest.raises(KeyboardInterrupt):
        save(recording, tmp_path)
    assert list((tmp_path / "audio").iterdir()) == []


def test_what_cannot_be_played_is_told_in_one_line(pair, recording, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    utterances = [
        replace(recording, id="c08", audio=str(tmp_path / "gone.wav")),
        replace(recording, id="c07", audio=str(tmp_path / "bad.wav")),
        replace(recording, id="c05", audio=None),
        replace(recording, id="c04"),
    ]
    part = examples(compared(*pair), utterances, tmp_path / "report")
    played = {clip.id: clip.audio for clip in part.clips}
    assert {id_ for id_, name in played.items() if name} == {"c04"}
    assert (tmp_path / "report" / played["c04"]).exists()
    told = part.words[-1]
    assert told == (
        "4 of 5 clips cannot be played, such as c08 (Tamil): gone.wav: No such file or directory."
    )
    whole = examples(
        compared(*pair), [replace(recording, id=f"c{n:02}") for n in range(12)], tmp_path
    )
    assert all(clip.audio for clip in whole.clips)
    assert not any("cannot be played" in words for words in whole.words)


# The page


class Elements(HTMLParser):
    """Collects tags with their attributes, and the words between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def rendered(part: Examples) -> str:
    environment = Environment(
        loader=PackageLoader("speechtaxi.report.forms", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    macros = '{% from "examples.html" import examples, style %}'
    page = "<style>{{ style() }}</style>{{ examples(part) }}"
    return environment.from_string(macros + page).render(part=part)


def test_cards_hold_player_texts_and_answers(pair, recording, tmp_path):
    utterances = [replace(recording, id=f"c{n:02}") for n in range(CLIPS)]
    part = examples(compared(*pair), utterances, tmp_path, 1)
    page = Elements(rendered(part))
    (audio,) = page.all("audio")
    assert audio["src"] == part.clips[0].audio
    assert (audio["preload"], audio["aria-label"]) == ("none", "c08, Tamil")
    assert "controls" in audio
    assert [(dd["dir"], dd["lang"]) for dd in page.all("dd")] == [("auto", "ta")] * 2
    (card,) = page.all("details")
    assert (card["data-languages"], card["data-systems"]) == ('["Tamil"]', '["ears", "eyes"]')
    words = " ".join(page.words.split())
    assert "c08 gold: culture · only cascade is right · all-languages · 0.45 bits" in words
    assert "ears ✗wrong: sport sport 0.80 · " in words
    assert "eyes ✓right: culture culture 0.80 · " in words


HOSTILE = """</script><b onclick="x()">'&{{ 7 * 7 }}"""


def test_names_cannot_break_the_page(pair, tmp_path):
    bad = [replace(r, record=replace(r.record, system=f"{HOSTILE}{n}")) for n, r in enumerate(pair)]
    bad = [
        replace(
            r,
            predictions={
                "tam": [
                    replace(row, id=HOSTILE + row.id, text=row.text and HOSTILE, flags=("empty",))
                    for row in r.predictions["tam"]
                ]
            },
        )
        for r in bad
    ]
    said = Utterance(f"{HOSTILE}c08", "tam", str(tmp_path / HOSTILE.replace("/", "")), text=HOSTILE)
    part = examples(compared(*bad), [said], tmp_path, 2)
    part = replace(part, clips=[replace(part.clips[0], audio=HOSTILE), *part.clips[1:]])
    html = rendered(part)
    page = Elements(html)
    assert page.all("script") == []
    assert all("onclick" not in attributes for _, attributes in page.found)
    assert "49" not in html
    assert page.all("audio")[0]["src"] == HOSTILE
    assert page.words.count(HOSTILE) >= 6  # ids, gold text, transcript, systems


def test_long_texts_are_cut_and_empty_ones_told(pair, tmp_path):
    said = Utterance("c08", "tam", text="ம " * 2000)
    part = examples(compared(pair[0], run("eyes", HEARD, text=" ", how={8: 0.8})), [said], tmp_path)
    html = rendered(part)
    assert html.count("ம") == 300
    assert "…" in html
    assert html.count("(nothing)") == 5
