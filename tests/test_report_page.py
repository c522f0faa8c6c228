"""The report's page: what it holds, and what it does in a real browser."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_report import rows

from speechtaxi.languages import LANGUAGES
from speechtaxi.report import sections
from speechtaxi.report.comparison import compare
from speechtaxi.report.forms.page import as_html
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Section
from speechtaxi.types import RunRecord, Utterance

LANGUAGES_HERE = ("eng", "fra", "hin", "mar", "tam", "ukr")
SKILL = {"ears": 0.5, "ears_large": 0.7, "eyes": 0.8, "gold": 1.0}
"""The systems and their chances to be right."""


def run(system: str, trained: tuple[str, ...], tested: tuple[str, ...], seed: int) -> Run:
    reads = {} if system.startswith("ears") else {"text": "rain and wnd"}
    gold = {"reference": "Rain, and wind!"} if reads and system != "gold" else {}
    record = RunRecord(
        system,
        "cascade" if reads else "e2e",
        view=None if not reads else "romanized" if gold else "gold_romanized",
        train_languages=trained,
        seed=0,
    )
    skill = SKILL.get(system, 0.6)
    answers = {
        language: sorted(rows(language, skill, seed, **reads, **gold), key=lambda row: row.id)
        for language in tested
    }
    return Run(record, Path(), answers)


@dataclass
class Built:
    html: str
    sections: list[Section]
    path: Path

    @property
    def figures(self) -> dict[str, Any]:
        return {figure.name: figure for section in self.sections for figure in section.figures}


def build(runs: list[Run], path: Path, recording: Path | None = None) -> Built:
    """Write a page; with a recording, each clip is a second of it, to be listened to."""
    found = compare(runs, resamples=200)
    clips = [
        Utterance(row.id, row.language, str(recording), "test", start=n % 5, duration=1.0)
        for n, row in enumerate(row for run in runs[:1] for row in run.rows() if recording)
    ]
    parts = sections(found, clips, path.parent, 1 if recording else 0)
    path.write_text(html := as_html(found, parts), encoding="utf-8")
    return Built(html, parts, path)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """A result of rehearsal size: four systems, six languages, two of them unseen."""
    runs = [run(system, LANGUAGES_HERE[:4], LANGUAGES_HERE, n) for n, system in enumerate(SKILL)]
    folder = tmp_path_factory.mktemp("page")
    tone = np.sin(2 * np.pi * 440 * np.arange(6 * 16_000) / 16_000).astype(np.float32)
    soundfile.write(folder / "tone.wav", 0.3 * tone, 16_000)
    return build(runs, folder / "report.html", folder / "tone.wav")


class Loads(HTMLParser):
    """Collects what a page would load, and checks that its tags are paired."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        names = {"src", "href", "srcset", "data", "action", "poster"}
        self.found += [f"{tag} {k}={v}" for k, v in attrs if k in names and v[:1] != "#"]
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_loads_nothing(built):
    loads = Loads()
    loads.feed(built.html)
    assert all(re.fullmatch(r"audio src=audio/[\w-]+\.(ogg|flac)", x) for x in loads.found)
    assert loads.open == []
    assert built.html.count("<audio") == built.html.count('preload="none"') > 0
    assert "default-src 'none'; script-src 'unsafe-inline'; style-src" in built.html  # nor eval
    style = re.search(r"<style>(.*?)</style>", built.html, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    names = set(re.findall(r"https?://[\w.]+", built.html))  # in vega's code, never loaded
    assert names <= {"http://www.w3.org", "https://vega.github.io", "https://github.com"}


def specs_of(built: Built) -> dict[str, Any]:
    return json.loads(re.search(r'id="specs">(.*?)</script>', built.html, re.DOTALL)[1])


def test_every_chart_has_a_place_and_words(built):
    places = dict(re.findall(r'class="chart" id="([\w-]+)">(.*?)<', built.html, re.DOTALL))
    assert set(specs_of(built)) == set(places) == set(built.figures)
    assert all(len(words) > 20 for words in places.values())


def test_shared_data_stand_once_and_are_whole(built):
    """Layers name their data; put back, they are what was drawn, to five digits."""
    for name, spec in specs_of(built).items():
        chart = built.figures[name].chart.to_dict(validate=False)
        shared = spec.get("datasets", {})
        for mine, whole in zip(spec.get("layer", []), chart.get("layer", []), strict=True):
            if "data" not in whole:
                continue
            data = mine["data"].get("values") or shared[mine["data"]["name"]]
            for short, long in zip(data, whole["data"]["values"], strict=True):
                for key, value in long.items():
                    near = isinstance(value, float)
                    assert short[key] == (pytest.approx(value, rel=1e-4) if near else value)


# In a browser from here on


@pytest.fixture
def visit(chromium, built):
    """Return a function that opens the page; nothing may go wrong, or be asked for elsewhere."""
    troubles: list[str] = []
    requests: list[str] = []
    folders: set[str] = set()
    contexts = []

    def opened(hash_: str = "", path: Path = built.path, **options):
        context = chromium.new_context(**options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: troubles.append(said.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri() + hash_)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-drawn=true]")
        folders.add(path.parent.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []
    assert [url for url in requests if not url.startswith((*folders, "data:"))] == []


def column(page, table: str, head: str) -> list[str]:
    """Return the cells of a column that are seen."""
    return page.locator(f"table[aria-label='{table}']").evaluate(
        """(table, head) => {
            const names = [...table.tHead.rows[0].cells].map(cell => cell.textContent);
            return [...table.tBodies[0].rows].filter(row => !row.hidden)
                .map(row => row.cells[names.indexOf(head)])
                .filter(cell => !cell.hidden).map(cell => cell.textContent);
        }""",
        head,
    )


def figures(page) -> set[str]:
    """Return the names of the figures that the filter shows."""
    return set(
        page.locator("figure:not([hidden]) .chart").evaluate_all("all => all.map(c => c.id)")
    )


def choose(page, facet: str, *values: str) -> None:
    page.locator(f"[data-facet={facet}] summary").click()
    for value in values:
        page.locator(f"[data-facet={facet}] input[value='{value}']").check()
    page.keyboard.press("Escape")


@pytest.mark.browser
def test_all_charts_are_drawn_and_described(visit, built):
    page = visit()
    drawn = page.locator(".chart svg").evaluate_all(
        "all => all.map(svg => [svg.parentElement.id, svg.parentElement.ariaLabel, "
        "svg.getBoundingClientRect().width])"
    )
    assert {name for name, *_ in drawn} == set(built.figures)
    for name, said, width in drawn:
        assert said == built.figures[name].chart.description
        assert width > 100


@pytest.mark.browser
def test_tables_sort_both_ways_and_say_so(visit):
    page = visit()
    table = "Macro-F1, all-languages"
    head = page.get_by_role("table", name=table, exact=True).locator("th", has_text="eyes")
    for direction, reverse in (("ascending", False), ("descending", True)):
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == direction
        scores = [float(text.split()[0]) for text in column(page, table, "eyes")]
        assert scores == sorted(scores, reverse=reverse)
        assert len(scores) == 4
        assert page.locator("#told").inner_text() == f"sorted by eyes, {direction}"
    page.get_by_role("table", name=table, exact=True).locator("button", has_text="language").click()
    assert column(page, table, "language") == ["English", "French", "Hindi", "Marathi"]
    assert page.locator("th[aria-sort]").count() == 1


@pytest.mark.browser
def test_examples_play_one_at_a_time(visit):
    page = visit()
    page.locator(".examples details").evaluate_all("all => all.forEach(d => d.open = true)")
    players = page.locator(".examples audio")
    assert players.count() > 1
    for number in (0, 1):
        player = players.nth(number)
        player.evaluate("async audio => { audio.muted = true; await audio.play() }")
        assert player.evaluate("audio => audio.duration") == pytest.approx(1.0, abs=0.1)
        assert not player.evaluate("audio => audio.paused || audio.error")
    page.wait_for_timeout(200)
    assert players.nth(0).evaluate("audio => audio.paused")


@pytest.mark.browser
def test_what_has_no_value_sorts_last_both_ways(visit):
    page = visit()
    page.get_by_text("All scores, with accuracy").click()
    cells = page.locator("table[aria-label='All scores, with accuracy'] tbody tr td:nth-child(6)")
    cells.nth(0).evaluate("cell => { cell.dataset.n = ''; cell.textContent = '–' }")
    head = page.locator("table[aria-label='All scores, with accuracy'] th").nth(5)
    for _ in range(2):
        head.get_by_role("button").click()
        assert column(page, "All scores, with accuracy", "macro-F1")[-1] == "–"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("facet", "value", "languages"),
    [
        ("language", "Tamil", {"Tamil"}),
        ("script", "Devanagari", {"Hindi", "Marathi"}),
        ("family", LANGUAGES["tam"].family, {"Tamil"}),
    ],
)
def test_filters_by_language(visit, built, facet, value, languages):
    page = visit()
    before = column(page, "All scores, with accuracy", "language")
    choose(page, facet, value)
    assert set(column(page, "All scores, with accuracy", "language")) == languages
    kept = {n for n, f in built.figures.items() if not f.languages or languages & {*f.languages}}
    assert figures(page) == kept != set(built.figures)
    assert re.fullmatch(r"[\d,]+ of [\d,]+ rows, \d+ of \d+ figures", page.inner_text("output"))
    assert f"{len(kept)} of {len(built.figures)} figures" in page.inner_text("output")
    page.get_by_role("button", name="Show all", exact=True).click()
    page.locator("output:empty").wait_for(state="attached")
    assert column(page, "All scores, with accuracy", "language") == before
    assert figures(page) == set(built.figures)
    assert "=" not in page.url.split("#")[-1]


@pytest.mark.browser
def test_filters_of_several_kinds_are_joined(visit):
    page = visit("#script=Devanagari&language=Hindi&language=Tamil")
    assert set(column(page, "All scores, with accuracy", "language")) == {"Hindi"}


@pytest.mark.browser
def test_filters_by_system(visit, built):
    page = visit()
    choose(page, "system", "ears_large")
    assert set(column(page, "All scores, with accuracy", "system")) == {"ears_large"}
    assert column(page, "Macro-F1, all-languages", "eyes") == []  # its column is gone
    assert len(column(page, "Macro-F1, all-languages", "ears_large")) == 4
    assert set(column(page, "All differences", "E2E")) == {"ears_large"}
    assert set(column(page, "All differences", "cascade")) == {"eyes"}  # none was chosen
    assert "difference-all-languages-ears-large-eyes" in figures(page)
    assert not {name for name in figures(page) if name.endswith(("-ears-eyes", "-eyes-ears"))}
    choose(page, "system", "gold")  # neither hears nor reads transcripts: the pair stays
    assert "difference-all-languages-ears-large-eyes" in figures(page)
    assert {n for n in figures(page) if n.startswith("confusion-zero")} == {
        "confusion-zero-shot-ears-large",
        "confusion-zero-shot-gold",
    }


@pytest.mark.browser
def test_an_address_keeps_the_filter_and_the_place(visit):
    page = visit()
    choose(page, "language", "Tamil", "Ukrainian")
    choose(page, "system", "eyes")
    page.get_by_role("navigation").get_by_role("link", name="Topics", exact=True).click()
    hash_ = "#" + page.url.split("#")[1]
    assert hash_ == "#topics&language=Ukrainian&language=Tamil&system=eyes"
    again = visit(hash_)
    assert set(column(again, "All scores, with accuracy", "language")) == {"Tamil", "Ukrainian"}
    assert set(column(again, "All scores, with accuracy", "system")) == {"eyes"}
    bar = again.locator(".bar").bounding_box()
    head = again.locator("#topics h2").bounding_box()
    assert bar["y"] + bar["height"] - 4 <= head["y"] < 200  # its line lies behind the bar
    assert again.inner_text("[data-facet=language] summary") == "Language: 2 of 6"
    again.evaluate("location.hash = 'language=Hindi'")
    again.locator("[data-facet=system] span:empty").wait_for(state="attached")
    assert set(column(again, "All scores, with accuracy", "language")) == {"Hindi"}


@pytest.mark.browser
def test_a_mark_tells_its_values(visit):
    page = visit()
    mark = page.locator("#systems-all-languages .mark-symbol path").first
    mark.scroll_into_view_if_needed()
    mark.hover()
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    told = tip.inner_text()
    assert "ears" in told
    assert re.search(r"macro-F1:?\s*0\.\d{3}", told)


@pytest.mark.browser
def test_the_keyboard_reaches_the_filter(visit):
    page = visit()
    page.locator("[data-facet=language] summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator("[data-facet=language] input:checked").count() == 1
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.parentElement.dataset.facet") == "language"
    assert page.locator(".bar details[open]").count() == 0
    page.locator(".scroll").first.focus()  # what scrolls can be scrolled by keys


@pytest.mark.browser
def test_many_figures_are_folded_until_asked_for(visit):
    page = visit()
    button = page.locator("#topics .more")
    seen = page.locator("#topics figure:visible")
    assert button.is_visible() == (page.locator("#topics figure").count() > 8)
    assert seen.count() <= 8
    page.evaluate("document.querySelectorAll('.more:not([hidden])').forEach(b => b.click())")
    assert page.locator("figure:visible").count() == page.locator("figure").count()
    fits = """figures => figures.every(f => {
        const width = f.querySelector("svg").getBoundingClientRect().width;
        return width > 100 && width <= f.clientWidth;
    })"""
    wait = "() => new Promise(done => setTimeout(done, 50))"  # charts follow their place's width
    all_fit = (page.evaluate(wait) or page.locator("figure").evaluate_all(fits) for _ in range(99))
    assert any(all_fit)


def pixels(png: bytes) -> np.ndarray:
    """Decode the first rows of a PNG enough to tell colours apart: the filtered bytes."""
    parts, place = b"", 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] == b"IDAT":
            parts += png[place + 8 : place + 8 + length]
        place += 12 + length
    return np.frombuffer(zlib.decompress(parts), np.uint8)


PHONE = {"viewport": {"width": 375, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.mark.browser
@pytest.mark.parametrize(
    ("options", "page_colour"),
    [
        ({"color_scheme": "light"}, "rgb(255, 255, 255)"),
        ({"color_scheme": "dark"}, "rgb(20, 23, 27)"),
        ({"color_scheme": "light", **PHONE}, "rgb(255, 255, 255)"),
    ],
    ids=["light", "dark", "phone"],
)
def test_it_can_be_seen(visit, options, page_colour):
    page = visit("#systems", **options)
    assert np.mean(pixels(page.screenshot()) != 0) > 0.01  # a blank row filters to zeros
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == page_colour
    ink = page.locator("#systems-all-languages text").first.evaluate(
        "text => getComputedStyle(text).fill"
    )
    assert ink == page.evaluate("getComputedStyle(document.body).color")
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]


@pytest.mark.browser
def test_it_prints_whole(visit):
    page = visit()
    page.evaluate(
        """addEventListener("beforeprint", () => {
            window.folded = [...document.querySelectorAll("main details:not([open]) tbody")]
                .map(body => body.rows.length);
        })"""
    )
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 3
    folded = page.evaluate("folded")
    assert min(folded, default=101) > 100  # long tables print only where the reader opened them
    closed = page.locator("main details:not([open])").count()
    assert closed == page.locator("main details").count() > len(folded)  # as before
    page.emulate_media(media="print")
    assert page.locator("figure:visible").count() == page.locator("figure").count()
    assert not page.get_by_role("navigation").is_visible()


@pytest.mark.browser
def test_without_scripts_all_stands_there(visit, built):
    page = visit(java_script_enabled=False)
    assert not page.locator(".bar").is_visible()
    assert page.locator("tbody tr[hidden], figure[hidden]").count() == 0
    name, figure = next(iter(built.figures.items()))
    assert page.inner_text(f"#{name}") == " ".join(figure.chart.description.split())


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_hinders_access(visit, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit("#language=Tamil&system=eyes", color_scheme=scheme)
    page.locator("details:not([name])").evaluate_all("all => all.forEach(one => one.open = true)")
    page.locator("[data-facet=language] summary").click()
    found = axe.run(page).response["violations"]
    told = [
        (v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")
    ]
    assert told == []


@pytest.mark.browser
@pytest.mark.slow
def test_many_languages_and_systems_fit(visit, tmp_path):
    """28 languages, 7 systems, 3 setups."""
    codes = tuple(code for code, language in LANGUAGES.items() if language.in_speechtaxi)
    runs = []
    names = ("ears_1", "ears_2", "ears_3", "eyes", "reader", "scribe", "gold")
    for n, system in enumerate(names):
        runs.append(run(system, codes, codes, n))
        for code in codes:
            tested = codes if code == "eng" else (code,)
            runs.append(run(system, (code,), tested, 10 + n))
    big = build(runs, tmp_path / "big.html")
    assert len(big.html.encode()) < 5_000_000
    page = visit(path=big.path)
    assert page.locator(".chart svg").count() == len(big.figures) >= 80
    choose(page, "script", "Tamil")
    assert set(column(page, "All scores, with accuracy", "language")) == {"Tamil"}
