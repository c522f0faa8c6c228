"""Stories found again where they were planted, and timelines read back by others."""

from __future__ import annotations

import csv
import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import pytest

from speechtaxi.errors import InputError
from speechtaxi.timeline import (
    as_audacity,
    as_html,
    as_rttm,
    as_webvtt,
    stories,
    summarize,
)
from speechtaxi.types import NO_SPEECH, UNKNOWN_TOPIC, Answer, Span

LABELS = ("economy", "health", "sport")


def segment(start: float, end: float, odds: dict[str, float] | str, **fields: Any) -> Answer:
    """Return a segment; a topic alone is certain."""
    if isinstance(odds, str):
        odds = {label: float(label == odds) for label in LABELS}
    topic = max(odds, key=lambda label: odds[label])
    known = {"language": "eng", "calibrated": True, "system": "eyes", "id": "a.mp3", **fields}
    return Answer(
        path="/far/a.mp3",
        kind="segment",
        span=Span(start, end),
        topic=topic,
        probability=odds[topic],
        probabilities=odds,
        **known,
    )


SILENCE = replace(
    segment(0, 5, "sport"), topic=NO_SPEECH, probability=None, probabilities={}, flags=("silent",)
)


def summary(*segments: Answer, **options: Any) -> Answer:
    return summarize(segments, path="/far/a.mp3", id="a.mp3", seconds=60, **options)


# One summary


def test_a_summary_weighs_by_length():
    told = summary(
        segment(0, 30, {"economy": 0.6, "sport": 0.4}, text="one ", heard=0.9, flags=("looping",)),
        segment(30, 40, {"economy": 0.2, "sport": 0.8}, text=" ", heard=0.5, flags=("empty",)),
        segment(40, 60, {"sport": 1.0}, text="two", language="fra", heard=0.1, calibrated=False),
        replace(SILENCE, span=Span(0, 1000)),
    )
    assert told.probabilities == pytest.approx({"economy": 20 / 60, "sport": 40 / 60})
    assert (told.topic, told.kind, told.span) == ("sport", "recording", Span(0, 60))
    assert told.probability == pytest.approx(2 / 3)
    assert (told.text, told.romanized, told.language) == ("one two", None, "eng")
    assert told.heard == pytest.approx((30 * 0.9 + 10 * 0.5) / 40)  # where English was heard
    assert told.flags == ("looping", "empty", "silent")
    assert not told.calibrated


def test_a_doubtful_summary_is_unknown():
    part = segment(0, 9, {"economy": 0.5, "sport": 0.5})
    assert summary(part, min_probability=0.5).topic == "economy"
    doubtful = summary(part, min_probability=0.51)
    assert (doubtful.topic, doubtful.probability) == (UNKNOWN_TOPIC, 0.5)


@pytest.mark.parametrize("segments", [(), (SILENCE,)])
def test_no_speech_is_no_topic(segments):
    told = summary(*segments, system="eyes")
    assert (told.topic, told.probability, told.probabilities) == (NO_SPEECH, None, {})
    assert (told.kind, told.span, told.system, told.text) == (
        "recording",
        Span(0, 60),
        "eyes",
        None,
    )
    assert stories(segments) == []


def test_segments_of_no_length_count():
    assert summary(segment(3, 3, "health")).topic == "health"


# Stories


def told(found: list[Answer]) -> list[tuple[str, float, float]]:
    return [(s.topic, s.span.start, s.span.end) for s in found]


def test_neighbours_are_joined_and_fragments_absorbed():
    parts = [segment(n, n + 10, "economy", text=f"{n}") for n in range(0, 100, 10)]
    parts[4] = segment(40, 50, "sport", text="40")  # 10 s: less than the 20 that two changes cost
    parts += [segment(100, 125, "health")]
    found = stories(parts)
    assert told(found) == [("economy", 0, 100), ("health", 100, 125)]
    assert found[0].probability == pytest.approx(0.9)
    assert found[0].text == " ".join(f"{n}" for n in range(0, 100, 10))
    assert len(stories(parts, change=4)) == 4


def test_stories_end_at_a_long_pause_and_not_at_a_short_one():
    parts = [segment(0, 10, "sport"), segment(30, 40, "sport"), segment(80, 90, "sport")]
    assert told(stories(parts)) == [("sport", 0, 40), ("sport", 80, 90)]
    assert len(stories(parts, pause=15)) == 3
    apart = [segment(0, 9, "sport"), segment(60, 69, "health")]  # a pause makes the change free
    assert [s.topic for s in stories(apart)] == ["sport", "health"]


def test_doubt_is_a_story_of_its_own():
    vague = {"economy": 0.4, "health": 0.35, "sport": 0.25}
    turned = {"economy": 0.35, "health": 0.4, "sport": 0.25}
    parts = [segment(0, 60, "sport"), segment(60, 120, vague), segment(120, 180, turned)]
    found = stories(parts, min_probability=0.6)
    assert told(found) == [("sport", 0, 60), (UNKNOWN_TOPIC, 60, 180)]
    assert found[1].probability == pytest.approx(0.375)


def test_overlapping_windows_are_parted_in_the_middle():
    parts = [segment(0, 30, "sport"), segment(25, 55, "sport"), segment(50, 80, "health")]
    assert told(stories(parts)) == [("sport", 0, 52.5), ("health", 52.5, 80)]


def worth(parts: list[Answer], topics: tuple[str, ...], change: float, pause: float) -> float:
    """Return what `stories` maximises, written anew, segment by segment."""
    total = 0.0
    for n, (part, topic) in enumerate(zip(parts, topics, strict=True)):
        total += (part.span.end - part.span.start) * part.probabilities[topic]
        free = n == 0 or part.span.start - parts[n - 1].span.end > pause
        total -= 0 if free or topic == topics[n - 1] else change
    return total


@pytest.mark.parametrize("seed", range(20))
def test_no_other_parting_is_worth_more(seed):
    """Against every one of 3 ** 7."""
    random = np.random.default_rng(seed)
    parts, time = [], 0.0
    for odds in random.dirichlet([0.5] * 3, 7):
        end = time + random.uniform(1, 20)
        parts.append(segment(time, end, dict(zip(LABELS, odds.tolist(), strict=True))))
        time = end + random.uniform(0, 20)
    best = max(worth(parts, way, 5, 15) for way in itertools.product(LABELS, repeat=7))
    found = stories(parts, change=5, pause=15)
    middles = [(p.span.start + p.span.end) / 2 for p in parts]
    topics = tuple(
        next(s.topic for s in found if s.span.start <= middle <= s.span.end) for middle in middles
    )
    assert worth(parts, topics, 5, 15) == pytest.approx(best)
    for one, other in itertools.pairwise(found):
        assert one.topic != other.topic or other.span.start - one.span.end > 15


def bulletin(seed: int, shift: float, scale: float) -> tuple[list[Answer], list[str]]:
    """Return an hour of stories of 3 minutes in the mean, as a classifier hears their segments.

    Args:
        shift: of the true topic's logit, over noise of variance 1.
        scale: of all logits; the larger, the surer is the classifier, right or wrong.
    """
    random = np.random.default_rng(seed)
    labels = [f"topic {n}" for n in range(6)]
    parts: list[Answer] = []
    truth: list[str] = []
    time = story_ends = 0.0
    topic = 0
    while time < 3600:
        if time >= story_ends:
            topic = (topic + int(random.integers(1, 6))) % 6
            story_ends = time + max(20.0, random.exponential(180))
        end = time + float(np.clip(random.gamma(3, 3.5), 1, 30))
        logits = random.normal(size=6)
        logits[topic] += shift
        odds = np.exp(scale * logits)
        parts.append(
            segment(time, end, dict(zip(labels, (odds / odds.sum()).tolist(), strict=True)))
        )
        truth.append(labels[topic])
        time = end + random.exponential(0.5)
    return parts, truth


@pytest.mark.parametrize(("shift", "scale"), [(1.5, 1.0), (2.0, 1.0), (2.5, 2.5), (3.0, 4.0)])
def test_planted_stories_are_found(shift, scale):
    """An hour of wavering segments is told as about as many stories as it has."""
    right, alone, found, true = 0.0, 0.0, 0, 0
    hours = [bulletin(seed, shift, scale) for seed in range(10)]
    for parts, truth in hours:
        told = stories(parts)
        for part, topic in zip(parts, truth, strict=True):
            middle = (part.span.start + part.span.end) / 2
            story = next(s for s in reversed(told) if s.span.start <= middle)
            length = part.span.end - part.span.start
            right += length * (story.topic == topic)
            alone += length * (part.topic == topic)
        found += len(told)
        true += 1 + sum(a != b for a, b in itertools.pairwise(truth))
    spoken = sum(part.span.end - part.span.start for parts, _ in hours for part in parts)
    assert right / spoken > 0.9
    assert right / spoken > alone / spoken + 0.04
    assert 0.7 < found / true < 1.4


def test_negative_seconds_are_refused():
    with pytest.raises(InputError, match="0 or more, not -1"):
        stories([], change=-1)


# For other programs

NASTY = "a b%\t<script>alert(1)</script>\n\n&--> \udcff\x00é/ש.mp3"
PARTS = [
    segment(
        0, 61.5, {"public health": 0.75, "x": 0.25}, id=NASTY, text="x --> y\n\n<b>&", heard=0.5
    ),
    segment(
        3661.0001, 3661.0002, "sport", id=NASTY, language="hin", text="नमस्ते", romanized="namaste"
    ),
]
ROWS = [
    summarize(PARTS, path="p", id=NASTY, seconds=4000),
    PARTS[1],
    replace(SILENCE, id=NASTY),
    PARTS[0],
]


def test_audacity_reads_its_labels():
    rows = list(csv.reader(io.StringIO(as_audacity(ROWS)), delimiter="\t"))
    assert rows == [
        ["0.000000", "61.500000", "public health 0.75"],
        ["3661.000100", "3661.000200", "sport 1.00"],
    ]


def test_rttm_has_ten_fields():
    lines = [line.split() for line in as_rttm(ROWS).splitlines()]
    assert [line[:1] + line[2:] for line in lines] == [
        ["SPEAKER", "1", "0.000", "61.500", "<NA>", "<NA>", "public%20health", "0.7500", "<NA>"],
        ["SPEAKER", "1", "3661.000", "0.001", "<NA>", "<NA>", "sport", "1.0000", "<NA>"],
    ]
    assert {unquote(line[1]) for line in lines} == {NASTY.replace("\udcff", "?")}
    as_rttm(ROWS).encode()


def test_a_recording_that_was_not_cut_is_one_stretch():
    whole = replace(segment(0, 9, "sport"), kind="recording")
    assert as_audacity([whole]) == "0.000000\t9.000000\tsport 1.00\n"
    assert as_audacity([replace(SILENCE, kind="recording")]) == ""


def test_libav_reads_webvtt(tmp_path):
    """FFmpeg's reader as the second opinion on where cues begin and end."""
    path = tmp_path / "a.vtt"
    path.write_text(as_webvtt(ROWS), encoding="utf-8")
    with av.open(str(path)) as container:
        cues = [
            (float(packet.pts * packet.time_base), float(packet.duration * packet.time_base))
            for packet in container.demux()
            if packet.size
        ]
    assert cues == [pytest.approx((0, 61.5)), pytest.approx((3661, 0.001))]


# The page


class Texts(HTMLParser):
    """Collects what a page says, what it loads, and whether its tags are paired."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]
        links = {"src", "href", "srcset", "data", "action", "poster"}
        self.loads += [(tag, v) for k, v in attrs if k in links and (v or "")[:1] != "#"]
        if tag not in ("meta", "br", "link", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


MARKS = {(NASTY, PARTS[0].span): [("<img src=x onerror=alert(1)>", 0.5), ("&amp;", -0.25)]}


def test_the_page_is_whole_and_escaped():
    hostile = {'"><img src=x onerror=alert(1)>': 0.9, "</title></script>": 0.1}
    rows = [*ROWS, segment(0, 9, hostile, id="b", text="</script><script>", language='"><b>')]
    html = as_html(rows, audio={NASTY: "//evil.org/a b?#.mp3", "b": "javascript:x"}, marks=MARKS)
    html.encode()
    read = Texts(html)
    assert read.open == []
    assert not read.tags & {"img", "iframe", "link", "object", "form"}
    assert html.count("<script") == 1
    assert read.loads == [
        ("audio", ".///evil.org/a%20b%3F%23.mp3"),
        ("audio", "./javascript%3Ax"),
    ]
    said = "".join(read.said)
    for text in ('"><img src=x onerror=alert(1)>', "</script><script>", "नमस्ते", "namaste"):
        assert text in said
    assert 'lang="hi"' in html
    assert 'lang="hi-Latn"' in html
    assert "unsafe" not in re.search(r"Content-Security-Policy.*", html)[0]


def test_the_page_tells_where_probabilities_are_not_calibrated():
    def page(**languages):
        rows = [
            segment(0, 9, "sport", id=code, language=code, calibrated=known)
            for code, known in languages.items()
        ]
        return as_html([*rows, *(summarize([r], path="p", id=r.id, seconds=9) for r in rows)])

    assert "calibrated" not in page(eng=True, fra=True).split("<body>")[1]
    assert "not calibrated in French, Yoruba: they" in page(yor=False, eng=True, fra=False)
    assert "not calibrated: they" in page(fra=False)


def test_an_empty_page_is_a_page():
    assert "0 recordings" in as_html([])


@pytest.fixture
def visit(chromium, tmp_path, tone):
    """Return a function that opens a page of four recordings; nothing may go wrong."""
    tone("the tone.wav", 60)
    troubles: list[str] = []
    contexts = []
    other = [
        segment(0, 30, "sport", id="b", text="long words " * 50, calibrated=False),
        segment(31, 60, "economy", id="b", text="short", flags=("looping",)),
    ]
    rows = [*ROWS, *other, replace(SILENCE, id="c"), segment(0, 300, "health", id="d")]
    html = as_html(rows, audio={"b": "the tone.wav", "d": "gone.wav"}, marks=MARKS)
    page_file = tmp_path / "page.html"
    page_file.write_text(html, encoding="utf-8", newline="")

    def opened(**options):
        context = chromium.new_context(**options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: troubles.append(said.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.goto(page_file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [said for said in troubles if "ERR_FILE_NOT_FOUND" not in said] == []


def playing(page) -> tuple[float, bool]:
    return tuple(page.evaluate("(a => [a.currentTime, a.paused])(document.querySelector('audio'))"))


@pytest.mark.browser
def test_hostile_words_are_only_words(visit):
    page = visit()
    assert page.inner_text("#r1 mark.for4") == "<img src=x onerror=alert(1)>"
    assert page.inner_text("#r1 mark.against2") == "&amp;"
    seen = page.evaluate("document.querySelector('#r1-name bdi').textContent")
    assert seen.startswith("a b%\t<script>alert(1)</script>\n\n&--> ?")
    assert page.locator("img").count() == 0


@pytest.mark.browser
def test_a_click_plays_from_there_and_the_place_is_marked(visit):
    page = visit()
    page.locator("audio").first.evaluate("audio => { audio.muted = true }")
    page.locator("#r2-2 .at").first.click()
    page.wait_for_selector("#r2-2[aria-current=time]")
    assert playing(page)[0] == pytest.approx(31, abs=5)
    assert not playing(page)[1]
    bar = page.locator("#r2 .topics").bounding_box()
    page.mouse.click(bar["x"] + bar["width"] / 4, bar["y"] + 5)
    page.wait_for_selector("#r2-1[aria-current=time]")
    assert playing(page)[0] == pytest.approx(15, abs=5)
    place = float(page.get_attribute("#r2 .cursor", "x").rstrip("%"))
    assert place == pytest.approx(25, abs=8)
    assert page.locator("#r2-2[aria-current]").count() == 0
    page.locator("#r4 .at").first.press("Enter")  # the file is gone
    page.locator("#r4 [role=status]:not([hidden])").wait_for()


@pytest.mark.browser
def test_without_audio_the_bar_leads_to_its_story(visit):
    page = visit()
    assert page.locator("#r1 button").count() == 0
    bar = page.locator("#r1 .topics")
    box = bar.bounding_box()
    bar.click(position={"x": 2, "y": 5})
    assert page.url.endswith("#r1-1")
    assert box["width"] > 300


@pytest.mark.browser
def test_the_table_sorts(visit):
    page = visit()
    head = page.locator("th", has_text="length").get_by_role("button")
    column = page.locator("tbody td:nth-child(4)")
    head.press("Enter")
    assert column.all_inner_texts() == ["0:05", "1:00", "5:00", "1:06:40"]
    head.press("Enter")
    assert column.all_inner_texts() == ["1:06:40", "5:00", "1:00", "0:05"]
    page.locator("th", has_text="probability").get_by_role("button").click()
    assert page.locator("tbody td:nth-child(3)").all_inner_texts()[-1] == "–"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("options", "page_colour"),
    [
        ({"color_scheme": "light"}, "rgb(255, 255, 255)"),
        ({"color_scheme": "dark"}, "rgb(20, 23, 27)"),
        ({"viewport": {"width": 375, "height": 740}, "is_mobile": True}, "rgb(255, 255, 255)"),
    ],
    ids=["light", "dark", "phone"],
)
def test_it_can_be_seen_by_all(visit, options, page_colour):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(**options)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == page_colour
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    looks = page.locator("#r2 .topics a rect:first-of-type").evaluate_all(
        "all => all.map(one => [getComputedStyle(one).fill, one.getBoundingClientRect().width])"
    )
    assert len({colour for colour, _ in looks}) == 2  # the style is let through
    assert min(width for _, width in looks) > 100
    found = axe.run(page).response["violations"]
    grave = [
        (v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")
    ]
    assert grave == []


@pytest.mark.browser
def test_chromium_reads_webvtt(chromium):
    page = chromium.new_page()
    cues = page.evaluate(
        """async text => {
            const track = document.createElement("track");
            track.src = URL.createObjectURL(new Blob([text], { type: "text/vtt" }));
            const video = document.createElement("video");
            video.append(track);
            document.body.append(video);
            track.track.mode = "showing";
            await new Promise((done, failed) => { track.onload = done; track.onerror = failed; });
            return [...track.track.cues].map(cue => [cue.startTime, cue.endTime,
                cue.getCueAsHTML().textContent, cue.id]);
        }""",
        as_webvtt(ROWS),
    )
    page.close()
    assert cues == [
        [0, 61.5, "public health (0.75)\nx --> y <b>&", "1"],
        [3661, 3661.001, "sport (1.00)\nनमस्ते\nnamaste", "2"],
    ]
