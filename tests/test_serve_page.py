"""The page of `speechtaxi serve`, in a real browser, before a server that only pretends."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytestmark = pytest.mark.browser

PAGE = Path(__file__).parents[1] / "speechtaxi" / "serve"
FILES = {"/": "page.html"} | {f"/{name}": name for name in ("result.js", "page.js", "page.css")}
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src 'self' blob:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LABELS = ["economy", "health", "politics", "sports", "weather"]
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
HINDI = "गाँव में नया अस्पताल खुल गया है और डॉक्टर हर सोमवार को आएँगे"
ROMAN = "gaamv mem nayaa aspataala khula gayaa hai aura doktara hara somavaara ko aaemge"


def row(topic: str, start=0.0, end=12.4, kind="recording", **more: Any) -> dict[str, Any]:
    others = [label for label in LABELS if label != topic][:2]
    return {
        "id": "x",
        "path": "x",
        "kind": kind,
        "start": start,
        "end": end,
        "language": "hin",
        "topic": topic,
        "probability": None if topic == "no speech" else 0.82,
        "probabilities": {} if topic == "no speech" else {others[0]: 0.11, topic: 0.82},
        "calibrated": True,
        "system": "x",
        "heard": None,
        "text": None,
        "romanized": None,
        "flags": [],
        **more,
    }


def reply(name: str, ears: list[dict], eyes: list[dict], stories=((), ()), seconds=12.4) -> dict:
    """Return an answer of two routes, ears that hear and eyes that read."""
    results = [
        {"system": "xlsr_hin", "route": "e2e", "answers": ears, "stories": list(stories[0])},
        {
            "system": "whisper_furina",
            "route": "cascade",
            "answers": eyes,
            "stories": list(stories[1]),
        },
    ]
    agree = ears[0]["topic"] == eyes[0]["topic"]
    told = [{**result, "calibrated": True} for result in results]
    return {"name": name, "seconds": seconds, "results": told, "agree": agree}


def short(name: str, eyes="health", **more: Any) -> dict:
    said = {"text": HINDI, "romanized": ROMAN, "heard": 0.97, **more}
    return reply(name, [row("health")], [row(eyes, **said)])


def long(name: str) -> dict:
    """Two minutes: health, then politics, in which the second stretch is in dispute."""
    topics = (
        ["health", "health", "politics", "no speech"],
        ["health", "sports", "politics", "no speech"],
    )
    sides = []
    for route, topic in enumerate(topics):
        read = {"text": HINDI, "romanized": ROMAN} if route else {}
        parts = [
            row(t, 30.0 * n, 30.0 * n + 28, "segment", **(read if t in LABELS else {}))
            for n, t in enumerate(topic)
        ]
        sides.append(([row("health", 0, 120), *parts], parts))
    return reply(name, sides[0][0], sides[1][0], (sides[0][1], sides[1][1]), 120.0)


ANSWERS = {
    "clip.wav": short,
    "talk.wav": lambda name: short(name, "economy"),
    "long.wav": long,
    "hostile.wav": lambda name: short(name, text=HOSTILE, romanized=HOSTILE, system=HOSTILE),
    "formula.wav": lambda name: short(name, text='=HYPERLINK("x")'),
    "silent.wav": lambda name: reply(name, [row("no speech")], [row("unknown", text="")]),
}


class Stub(ThreadingHTTPServer):
    """Answers by the name of the file; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.token = ""
        self.release = Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def uploads(self) -> list[tuple[str, dict[str, str], bytes]]:
        return [one for one in self.asked if one[0].startswith("/v1/classify")]


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def log_message(self, *_: Any) -> None: ...

    def answer(self, status: int, body: bytes, kind="application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, message: str, **headers: str) -> None:
        error = {"error": {"code": "no", "message": message}}
        self.answer(status, json.dumps(error).encode(), **headers)

    def refused(self) -> bool:
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            self.refuse(401, "Send the token of this server.")
            return True
        return False

    def do_GET(self) -> None:
        if file := FILES.get(self.path):
            body = (PAGE / file).read_bytes()
            kind = TYPES[Path(file).suffix]
            self.answer(200, body, kind, Content_Security_Policy=POLICY)
        elif self.path == "/v1/models" and not self.refused():
            model = {"name": "x", "route": "e2e", "labels": LABELS, "languages": ["eng", "hin"]}
            self.answer(200, json.dumps({"models": [model]}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        if self.refused():
            return
        name = re.search(rb'name="file"; filename="([^"]*)"', body)[1].decode()
        if status := re.match(r"(\d{3})\.", name):
            self.refuse(int(status[1]), f"Refused with {status[1]}: <b>so</b>.")
        elif name == "plain.wav":
            self.answer(502, b"<html>bad gateway</html>", "text/html")
        elif name == "busy.wav" and len(self.server.uploads()) == 1:
            self.refuse(429, "The queue is full.", Retry_After="600")
        elif name == "slow.wav":
            self.server.release.wait(20)
        else:
            self.answer(200, json.dumps(ANSWERS.get(name, short)("upload")).encode())


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(chromium, stub):
    """Return a function that opens the page; nothing may go wrong, or be asked for elsewhere."""
    troubles: list[str] = []
    requests: list[str] = []
    contexts = []

    def opened(**options: Any):
        context = chromium.new_context(**options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: troubles.append(said.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(stub.address)
        if not stub.token:
            page.wait_for_selector("#languages option", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    # The browser itself notes each refusal that the tests provoke
    assert [said for said in troubles if not said.startswith("Failed to load resource")] == []
    origins = (f"{stub.address}/", f"blob:{stub.address}/", "data:")
    assert [url for url in requests if not url.startswith(origins)] == []


def sound(name: str, seconds: float = 0.2) -> dict[str, Any]:
    """Return a file as Playwright chooses it: silence, 8 kHz, one byte a sample."""
    data = io.BytesIO()
    with wave.open(data, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(8000)
        out.writeframes(b"\x80" * round(8000 * seconds))
    return {"name": name, "mimeType": "audio/wav", "buffer": data.getvalue()}


def choose(page, *names: str, seconds: float = 0.2):
    """Choose files; return the first result when all have ended."""
    page.set_input_files("#files", [sound(name, seconds) for name in names])
    ended = page.locator("#list > li:has(.routes), #list > li:has(.state.wrong)")
    ended.nth(len(names) - 1).wait_for()
    return ended.first


def wait_for(true, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_chosen_file_is_told_route_by_route(visit, stub):
    page = visit()
    page.fill("#language", "Hindi (hin)")
    card = choose(page, "clip.wav")
    path, headers, body = stub.uploads()[0]
    asked = parse_qs(urlsplit(path).query)
    assert asked == {"language": ["hin"], "top_k": ["3"], "romanize": ["true"]}
    assert sound("clip.wav")["buffer"] in body
    assert "Authorization" not in headers
    routes = card.locator(".route")
    assert routes.locator("h4").all_inner_texts() == ["E2E xlsr_hin", "The cascade whisper_furina"]
    assert routes.locator(".topic").all_inner_texts() == ["health", "health"]
    bars = routes.first.locator(".bars li")
    assert bars.all_inner_texts() == ["health\n0.82", "economy\n0.11", "other topics\n0.07"]
    wide = bars.locator(".track i").evaluate_all(
        "bars => bars.map(b => b.getBoundingClientRect().width / b.parentElement.clientWidth)"
    )
    assert wide == pytest.approx([0.82, 0.11, 0.07], abs=0.01)
    said = card.locator("dd")
    assert said.all_inner_texts() == [HINDI, ROMAN]
    looks = said.evaluate_all("all => all.map(one => [one.dir, one.lang])")
    assert looks == [["auto", "hi"], ["auto", "hi-Latn"]]
    assert card.locator(".note").count() == 0
    assert page.inner_text("#told") == "clip.wav: The routes agree: health."
    assert page.locator("#token").is_hidden()


def test_a_dropped_file_is_taken(visit, stub):
    page = visit()
    page.evaluate(
        """() => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(["RIFF"], "clip.wav", { type: "audio/wav" }));
            for (const kind of ["dragover", "drop"])
                document.querySelector("h1").dispatchEvent(
                    new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
        }"""
    )
    page.locator(".routes").wait_for()
    assert b"RIFF" in stub.uploads()[0][2]
    assert "language=und" in stub.uploads()[0][0]
    assert page.locator("body.dragged").count() == 0


def test_a_recording_is_heard_again_and_sent(visit, stub):
    page = visit()
    page.get_by_role("button", name="Record", exact=True).press("Enter")
    page.locator("#recording").wait_for()
    assert page.evaluate("document.activeElement.id") == "stop"
    loud = "document.getElementById('level').value > .1"
    wait_for(lambda: page.evaluate(loud))  # the fake one beeps
    page.keyboard.press("Enter")
    page.locator("#review").wait_for()
    assert stub.uploads() == []
    wait_for(lambda: page.evaluate("document.getElementById('playback').readyState > 0"))
    first = page.get_attribute("#playback", "src")
    page.get_by_role("button", name="Record again").click()
    page.locator("#recording").wait_for()
    wait_for(lambda: page.evaluate(loud))
    page.locator("#stop").click()
    page.locator("#review").wait_for()
    assert page.get_attribute("#playback", "src") != first
    page.get_by_role("button", name="Classify").click()
    page.locator(".routes").wait_for()
    (_, _, body) = stub.uploads()[0]
    assert re.search(rb'filename="recording [\d.]+\.webm"', body)
    assert b"\x1a\x45\xdf\xa3" in body  # EBML, as WebM begins
    assert b"A_OPUS" in body
    assert page.locator("#idle").is_visible()


def test_a_refused_microphone_is_told(visit):
    page = visit()
    page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = () =>
            Promise.reject(new DOMException("no", "NotAllowedError")); }"""
    )
    page.click("#record")
    page.locator("#unable").wait_for()
    assert "not allowed" in page.inner_text("#unable")
    assert page.locator("#record").is_visible()


def test_a_long_file_has_a_timeline(visit):
    page = visit()
    card = choose(page, "long.wav", seconds=120)
    bars = card.locator(".spans")
    assert [bar.locator("g").count() for bar in bars.all()] == [4, 4]
    box, part = bars.first.bounding_box(), bars.first.locator("g").nth(2).bounding_box()
    assert (part["x"] - box["x"]) / box["width"] == pytest.approx(0.5, abs=0.01)
    assert part["width"] / box["width"] == pytest.approx(28 / 120, abs=0.01)
    fills = bars.first.locator("g rect").evaluate_all(
        "all => all.map(r => getComputedStyle(r).fill)"
    )
    assert len(set(fills[::2])) == 3  # colours: health, politics, no speech
    assert all(re.search(r"url\(.#p\d.\)", fill) for fill in fills[1::2])
    assert "0:30 health" in bars.first.get_attribute("aria-label")
    assert card.locator(".ticks text").all_text_contents() == ["0:00", "0:30", "1:00", "1:30"]
    player = card.locator("audio")
    player.evaluate(
        "audio => { audio.play = () => { audio.asked = true; return Promise.resolve(); } }"
    )
    bars.nth(1).locator("g").nth(2).click()
    assert player.evaluate("audio => [audio.currentTime, audio.asked]") == [60, True]
    card.locator(".route summary").first.press("Enter")
    card.locator(".route .at").nth(1).press("Enter")
    assert player.evaluate("audio => audio.currentTime") == 30
    wait_for(lambda: page.evaluate("document.querySelector('.cursor').getAttribute('x') === '25%'"))
    told = card.locator(".note").inner_text()
    assert "0:30–0:58 E2E says health, the cascade says sports." in told
    assert card.locator(".differ rect").count() == 1


def test_disputes_are_joined_only_where_they_touch(visit, monkeypatch):
    def told(name: str) -> dict:
        sides = [
            [row(topic, n, n + 1, "segment") for n, topic in enumerate(topics)]
            for topics in (["health"] * 5, ["sports", "sports", "health", "sports", "unknown"])
        ]
        return reply(name, *([row("health"), *side] for side in sides))

    monkeypatch.setitem(ANSWERS, "clip.wav", told)
    notes = choose(visit(), "clip.wav").locator(".note li").all_inner_texts()
    line = "E2E says health, the cascade"
    assert notes == [
        f"▶ 0:00–0:02 {line} says sports.",
        f"▶ 0:03–0:04 {line} says sports.",
        f"▶ 0:04–0:05 {line} is not sure.",
    ]


def test_routes_that_disagree_are_told(visit):
    page = visit()
    card = choose(page, "talk.wav")
    line = "The routes disagree. E2E says health, the cascade says economy."
    assert card.locator(".note").inner_text() == line
    assert page.inner_text("#told") == f"talk.wav: {line}"


def test_no_speech_and_doubt_are_no_topics(visit):
    card = choose(visit(), "silent.wav")
    assert "E2E finds no speech, the cascade is not sure." in card.locator(".note").inner_text()
    assert card.locator(".route").first.locator(".bars").count() == 0
    assert card.locator("dd").inner_text() == "(nothing)"


def test_errors_are_told_in_the_servers_words(visit, stub):
    page = visit()
    codes = [400, 413, 415, 422, 503, 504]
    card = choose(page, *(f"{code}.wav" for code in codes))
    words = [f"Refused with {code}: <b>so</b>." for code in codes]
    assert page.locator(".state.wrong").all_inner_texts() == words
    assert words[-1] in page.inner_text("#told")
    card.get_by_role("button", name="Try again").click()
    wait_for(lambda: len(stub.uploads()) == 7 and card.locator(".state.wrong").count())
    for _ in codes:
        page.get_by_role("button", name="Remove").first.click()
    assert page.locator("#results").is_hidden()


def test_an_answer_from_elsewhere_is_told(visit):
    assert "answered 502" in choose(visit(), "plain.wav").locator(".wrong").inner_text()


def test_a_lost_server_is_told(visit, stub):
    page = visit()
    page.context.set_offline(True)
    assert "cannot be reached" in choose(page, "clip.wav").locator(".wrong").inner_text()


def test_a_busy_server_is_asked_again(visit, stub):
    page = visit()
    page.set_input_files("#files", [sound("busy.wav")])
    page.get_by_text("The server is busy: tried again in 600 s.", exact=True).wait_for()
    page.get_by_role("button", name="Try now").press("Enter")
    page.locator(".routes").wait_for()
    assert len(stub.uploads()) == 2
    assert page.evaluate("document.activeElement.textContent") == "busy.wav"  # focus is not lost


def test_a_token_is_asked_for_and_sent(visit, stub):
    stub.token = "open-sesame"
    page = visit()
    page.locator("#unlock").wait_for()  # the list of models needs it too
    assert page.evaluate("document.activeElement.id") == "token"
    page.set_input_files("#files", [sound("clip.wav")])
    page.get_by_text("Waits for the token.", exact=True).wait_for()
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.get_by_text("Not accepted: Send the token of this server.", exact=True).wait_for()
    page.fill("#token", stub.token)
    page.get_by_role("button", name="Go on").click()
    page.locator(".routes").wait_for()
    assert stub.uploads()[-1][1]["Authorization"] == "Bearer open-sesame"
    assert page.locator("#unlock").is_hidden()
    page.wait_for_selector("#languages option[value='Hindi (hin)']", state="attached")
    assert (
        page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    )


def test_what_is_sent_can_be_cancelled_and_the_next_goes_on(visit, stub):
    page = visit()
    page.set_input_files("#files", [sound("slow.wav"), sound("clip.wav")])
    wait_for(lambda: len(stub.uploads()) == 1)
    assert page.get_by_text("Waits for its turn.", exact=True).count() == 1
    page.get_by_role("button", name="Cancel slow.wav").click()
    page.locator(".routes").wait_for()
    states = page.locator("#list > li").all_inner_texts()
    assert "Cancelled." in states[0]
    assert "health" in states[1]
    assert len(stub.uploads()) == 2


def test_hostile_names_and_words_are_only_words(visit):
    page = visit()
    name = "<img src=x onerror=alert(1)>.wav"
    choose(page, "hostile.wav", name)
    assert page.locator("h3").all_inner_texts() == ["hostile.wav", name]
    assert page.locator("dd").first.inner_text() == HOSTILE
    assert page.locator("img, #list script, main b").count() == 0
    assert page.title() == "The topic of speech"


def test_results_leave_as_json_and_csv(visit, stub):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=stub.address)
    choose(page, "clip.wav", "formula.wav")
    page.click("#copy")
    page.get_by_role("button", name="Copied").wait_for()
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == [
        short("clip.wav"),
        ANSWERS["formula.wav"]("formula.wav"),
    ]
    with page.expect_download() as download:
        page.click("#csv")
    text = Path(download.value.path()).read_text("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [one["name"] for one in rows] == ["clip.wav"] * 2 + ["formula.wav"] * 2
    assert rows[1]["text"] == HINDI
    assert (rows[1]["route"], rows[1]["topic"], rows[1]["probability"]) == (
        "cascade",
        "health",
        "0.82",
    )
    assert json.loads(rows[1]["probabilities"]) == {"economy": 0.11, "health": 0.82}
    assert rows[3]["text"] == '\'=HYPERLINK("x")'  # no formula to a spreadsheet


def test_languages_are_known_by_name_and_code(visit, stub):
    page = visit()
    wanted = {"": "und", "not known": "und", "hindi": "hin", "HIN": "hin", "swh": "swh"}
    for number, written in enumerate(wanted):
        page.fill("#language", written)
        choose(page, "clip.wav")
        wait_for(lambda number=number: len(stub.uploads()) == number + 1)
    asked = [parse_qs(urlsplit(path).query)["language"][0] for path, *_ in stub.uploads()]
    assert asked == list(wanted.values())


def test_no_language_is_no_guess(visit, stub):
    page = visit()
    page.fill("#language", "Klingonese!")
    page.set_input_files("#files", [sound("clip.wav")])
    page.locator("#doubt").wait_for()
    assert page.evaluate("document.activeElement.id") == "language"
    assert stub.uploads() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hinders_access(visit, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(color_scheme=scheme)
    choose(page, "talk.wav", "413.wav", "long.wav")
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    page.locator("#unlock, #review, #recording, #doubt").evaluate_all(
        "all => all.forEach(one => { one.hidden = false; })"
    )
    found = axe.run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


def test_it_fits_a_phone(visit):
    page = visit(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    choose(page, "talk.wav", "long.wav", "n" * 90 + ".wav")
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    small = page.locator("button:visible, .pick").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().height < 24).length"
    )
    assert small == 0


def test_the_keyboard_goes_in_order(visit):
    page = visit()
    choose(page, "clip.wav")
    page.locator("#language").focus()
    order = []
    for _ in range(6):
        order.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert order == ["language", "record", "files", "copy", "csv", "AUDIO"]
