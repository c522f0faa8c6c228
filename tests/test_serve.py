"""The server: every form of sound and of asking, one answer each, nothing left."""

from __future__ import annotations

import base64
import io
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")

import speechtaxi
from speechtaxi import audio, recordings
from speechtaxi.records import read_manifest

RAW = {"content-type": "application/octet-stream"}
ASK = "/v1/classify?gate=false"
"""The corpus' sweeps are no speech."""


@pytest.fixture(scope="module")
def cascade_run(fit_arguments, tmp_path_factory):
    """A cascade on a recogniser that spells uroman, both trained for a moment."""
    from speechtaxi.cli import main as run

    folder = tmp_path_factory.mktemp("reads")
    speller, cascade = folder / "speller", folder / "cascade"
    trained = ["-c", "recognizer_romanized", "--trainer.max_epochs=2", f"--run={speller}"]
    assert run(["fit", *fit_arguments, *trained]) == 0
    model = [f"--model.recognizer={speller}", f"--model.store={folder / 't.sqlite'}"]
    epochs = "--trainer.max_epochs=1"
    options = [*fit_arguments, "-c", "cascade_tiny", *model, epochs, f"--run={cascade}"]
    assert run(["fit", *options]) == 0
    return cascade


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.01)


def fault(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert "\n" not in error["message"]
    assert tempfile.gettempdir() not in response.text
    return error["message"]


def uploads(worker):
    return [path for path in Path(worker._folder.name).rglob("*") if path.stem != "transcripts"]


def encoded(wave, form, subtype=None, rate=16_000):
    file = io.BytesIO()
    soundfile.write(file, np.asarray(wave, np.float32), rate, format=form, subtype=subtype)
    return file.getvalue()


def webm(wave):
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            (np.repeat(wave, 3)[None] * 32767).astype(np.int16), "s16", "mono"
        )
        frame.rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def test_each_model_answers_as_on_the_command_line(serving, e2e_run, cascade_run, corpus, sounds):
    client, worker = serving([e2e_run, cascade_run], ensemble=True)
    (told,) = client.get("/v1/models").json().values()
    assert [one["route"] for one in told] == ["e2e", "cascade", "ensemble"]
    assert [one["reads"] for one in told] == [False, True, False]
    assert all(one["labels"] == ["up", "down"] for one in told)
    assert told[0]["languages"] == ["eng", "fra"]
    name, sound = next(iter(sounds.items()))
    reply = client.post(f"{ASK}&language=eng&top_k=1", files={"file": (f"../{name}.flac", sound)})
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert answer["name"] == f"{name}.flac"
    path = next(row.audio for row in read_manifest(corpus) if row.id == name)
    for result, folder in zip(answer["results"], (e2e_run, cascade_run), strict=False):
        (row,) = speechtaxi.load(str(folder)).classify(path, language="eng")
        (got,) = result["answers"]
        assert got["id"] == got["path"] == f"{name}.flac"
        assert got["topic"] == row.prediction
        assert got["probabilities"] == {
            row.prediction: pytest.approx(row.probabilities[row.prediction], abs=1e-4)
        }
        assert got["text"] == row.text
        assert result["stories"] == []
    topics = {result["answers"][0]["topic"] for result in answer["results"]}
    assert answer["agree"] == (len(topics) == 1)
    mean = [result["answers"][0] for result in answer["results"]][2]
    assert mean["system"] == " + ".join(one["name"] for one in told[:2])
    read = client.post("/v1/transcribe?language=eng&gate=false", content=sound, headers=RAW).json()
    (transcript,) = read["results"]
    assert transcript["text"] == transcript["romanized"] == row.text
    assert transcript["language"] == "eng"
    assert transcript["segments"] == []
    assert uploads(worker) == []


def test_what_is_long_is_cut_and_told_as_stories(serving, e2e_run, cascade_run):
    client, _ = serving([e2e_run, cascade_run])
    wave = 0.1 * np.random.default_rng(1).standard_normal(45 * 16_000)
    sound = encoded(wave, "FLAC")
    answer = client.post("/v1/classify?segments=fixed", content=sound, headers=RAW).json()
    for result in answer["results"]:
        *parts, whole = result["answers"]
        assert [(part["start"], part["end"]) for part in parts] == [
            (0, 10), (10, 20), (20, 30), (30, 40), (40, 45),
        ]  # fmt: skip
        assert whole["kind"] == "recording"
        assert whole["end"] == answer["seconds"] == 45
        assert result["stories"][0]["start"] == 0
        assert result["stories"][-1]["end"] == 45
    read = client.post("/v1/transcribe?segments=fixed", content=sound, headers=RAW).json()
    assert [part["end"] for part in read["results"][0]["segments"]] == [10, 20, 30, 40, 45]
    whole = client.post("/v1/classify?segments=none", content=sound, headers=RAW).json()
    assert [len(result["answers"]) for result in whole["results"]] == [1, 1]


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "webm"])
@pytest.mark.parametrize("way", ["form", "body"])
def test_formats(serving, e2e_run, sounds, form, way):
    client, worker = serving([e2e_run])
    wave, _ = soundfile.read(io.BytesIO(next(iter(sounds.values()))))
    sound = webm(wave) if form == "webm" else encoded(wave, form)
    sent = {"files": {"file": sound}} if way == "form" else {"content": sound}
    kind = {} if way == "form" else {"content-type": f"audio/{form.lower()}; codecs=x"}
    reply = client.post("/v1/classify", headers=kind, **sent)
    assert reply.status_code == 200, reply.text
    assert reply.json()["seconds"] == pytest.approx(len(wave) / 16_000, abs=0.1)
    assert uploads(worker) == []


def test_pages_load_nothing_from_elsewhere(serving, e2e_run):
    client, _ = serving([e2e_run])
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.headers["content-security-policy"]
    for script in ("/result.js", "/page.js"):
        assert client.get(script).headers["content-type"].startswith("text/javascript")
    assert client.get("/page.css").headers["content-type"].startswith("text/css")
    assert client.get("/docs").status_code == 404
    assert "/v1/classify" in client.get("/openapi.json").json()["paths"]


def test_forms_and_json_tell_options_as_the_address_does(serving, e2e_run, cascade_run, sounds):
    client, worker = serving([e2e_run, cascade_run])
    sound = next(iter(sounds.values()))
    options = {"language": "English", "segments": "none", "gate": False}
    topics = {"top_k": 1, "romanize": True}
    lines = base64.encodebytes(sound).decode()
    assert "\n" in lines
    for path, asked in (("classify", options | topics), ("transcribe", options)):
        by_address = client.post(f"/v1/{path}", params=asked, content=sound, headers=RAW)
        by_form = client.post(f"/v1/{path}", data=asked, files={"file": ("../a.flac", sound)})
        body = {"audio": lines, "name": "../a.flac", **asked}
        by_json = client.post(f"/v1/{path}", json=body)
        replies = [reply.json() for reply in (by_address, by_form, by_json)]
        assert [reply.pop("name") for reply in replies] == ["upload", "a.flac", "a.flac"]
        for reply in replies:
            for one in reply["results"]:
                for row in one.get("answers", ()):
                    assert len(row["probabilities"]) == 1
                    assert row["language"] == "eng"
                    assert row.pop("id") == row.pop("path") in ("upload", "a.flac")
        assert replies[0] == replies[1] == replies[2]
    assert uploads(worker) == []


def test_the_document_tells_how_to_ask(serving, e2e_run):
    client, _ = serving([e2e_run])
    paths = client.get("/openapi.json").json()["paths"]
    common = {"language", "segments", "gate"}
    for path, more in (("/v1/classify", {"top_k", "romanize"}), ("/v1/transcribe", set())):
        bodies = paths[path]["post"]["requestBody"]["content"]
        form = bodies["multipart/form-data"]["schema"]
        json = bodies["application/json"]["schema"]
        assert set(form["properties"]) == {"file"} | common | more
        assert set(json["properties"]) == {"audio", "name"} | common | more
        assert (form["required"], json["required"]) == (["file"], ["audio"])
        assert json["additionalProperties"] is False
        assert {one["name"] for one in paths[path]["post"]["parameters"]} == common | more


def test_a_recording_is_decoded_and_cut_once_for_all_models(
    serving, e2e_run, cascade_run, sounds, monkeypatch
):
    client, _ = serving([e2e_run, cascade_run], ensemble=True)
    done = []

    def counted(real):
        def do(*args):
            done.append(real.__name__)
            return real(*args)

        return do

    monkeypatch.setattr(audio, "blocks", counted(audio.blocks))
    monkeypatch.setattr("speechtaxi.serve.worker.cut", counted(recordings.cut))
    for sound in list(sounds.values())[:3]:
        assert client.post(ASK, content=sound, headers=RAW).status_code == 200
        assert done == ["blocks", "cut"]
        done.clear()


@pytest.mark.skipif(not find_spec("silero_vad"), reason="the extra vad is not installed")
def test_what_is_short_and_no_speech_has_no_topic(serving, cascade_run, tone):
    client, _ = serving([cascade_run])
    sound = tone(seconds=3.0).read_bytes()

    def whole(path):
        (result,) = client.post(path, content=sound, headers=RAW).json()["results"]
        return result

    (row,) = whole("/v1/classify?language=eng")["answers"]
    assert (row["kind"], row["end"], row["language"]) == ("recording", 3, "eng")
    assert (row["topic"], row["probability"]) == ("no speech", None)
    assert whole(ASK)["answers"][0]["topic"] in ("up", "down")
    read = whole("/v1/transcribe?language=eng")
    assert (read["text"], read["segments"]) == ("", [])
