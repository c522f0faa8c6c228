"""The server under load: no answer lost or mixed up, overload refused, an orderly stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("fastapi")

import httpx2
from test_serve import ASK, RAW, encoded, fault, uploads, wait_for

import speechtaxi
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest
from speechtaxi.serve.upload import Limits

SECRET = "correct horse battery staple"


def held(worker, monkeypatch):
    """Make the worker wait; return what lets it go on, and what tells that it waits."""
    model = worker.models[0].teller.model
    go, waits, real = threading.Event(), threading.Event(), model.classify

    def slow(*args, **options):
        waits.set()
        assert go.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(model, "classify", slow)
    return go, waits


def test_overload_is_refused_and_no_answer_is_lost_or_mixed_up(
    serving, e2e_run, sounds, monkeypatch
):
    client, worker = serving([e2e_run], places=8)
    alone = {
        name: client.post(ASK, content=sound, headers=RAW).json()["results"]
        for name, sound in sounds.items()
    }
    go, waits = held(worker, monkeypatch)

    def ask(name):
        files = {"file": (name, sounds[name])}
        return name, client.post(ASK, files=files)

    with ThreadPoolExecutor(16) as threads:
        first = threads.submit(ask, next(iter(sounds)))
        assert waits.wait(30)
        others = [threads.submit(ask, name) for name in [*sounds][1:8]]
        wait_for(lambda: worker._in_hand == 8)
        refused = [ask(name)[1] for name in [*sounds][:3]]
        go.set()
        replies = [future.result() for future in (first, *others)]
    for reply in refused:
        fault(reply, 429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
    for name, reply in replies:
        assert reply.status_code == 200
        assert reply.json()["name"] == name
        (got,), (known,) = (r[0]["answers"] for r in (reply.json()["results"], alone[name]))
        chances = got["probabilities"], known["probabilities"]
        assert chances[0] == pytest.approx(chances[1], abs=2e-4)
    assert (
        len({json.dumps(results[0]["answers"][0]["probabilities"]) for results in alone.values()})
        > 8
    )
    text = client.get("/metrics").text
    assert 'speechtaxi_requests_total{path="/v1/classify",status="429"} 3.0' in text
    assert 'speechtaxi_batch_size_bucket{le="8.0"} 18.0' in text  # 16 alone, the first, 7 at once
    assert 'speechtaxi_batch_size_bucket{le="4.0"} 17.0' in text
    assert "speechtaxi_queue_length 0.0" in text
    assert uploads(worker) == []


def test_one_that_cannot_be_answered_spoils_no_batch(serving, e2e_run, sounds, monkeypatch):
    client, worker = serving([e2e_run])
    go, waits = held(worker, monkeypatch)
    model = worker.models[0].teller.model
    slow = model.classify

    def picky(given, **options):
        if any(clip.language == "deu" for clip in given):
            raise InputError("no German")
        return slow(given, **options)

    monkeypatch.setattr(model, "classify", picky)
    sound = next(iter(sounds.values()))

    def ask(language):
        return client.post(f"{ASK}&language={language}", content=sound, headers=RAW)

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(ask, "eng")
        assert waits.wait(30)
        others = [threads.submit(ask, language) for language in ("eng", "deu", "fra")]
        wait_for(lambda: worker._waiting.qsize() == 3)
        go.set()
        statuses = [one.result().status_code for one in (first, *others)]
    assert statuses == [200, 200, 400, 200]


def test_no_answer_in_time(serving, e2e_run, sounds, monkeypatch):
    client, worker = serving([e2e_run], Limits(timeout=0.5), places=2)
    go, _ = held(worker, monkeypatch)
    sound = next(iter(sounds.values()))
    for _ in range(2):  # one is being answered, one waits
        fault(client.post(ASK, content=sound, headers=RAW), 504, "timeout")
    assert worker._in_hand == 1  # the one that waited has left
    go.set()
    wait_for(lambda: worker._in_hand == 0)
    assert uploads(worker) == []


@pytest.fixture
def process(e2e_run, tmp_path):
    """A server of its own on loopback, at a port that the system chose."""
    (tmp_path / "token").write_text(SECRET + "\n")
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "speechtaxi", "serve", str(e2e_run), "--port", "0"]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [*command, "--queue", "4", "--token-file", str(tmp_path / "token")],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+", server.stderr.readline())[0]
        client = httpx2.Client(
            base_url=url, headers={"authorization": f"Bearer {SECRET}"}, timeout=60
        )
        wait_for(lambda: client.get("/health").status_code == 200, 120)
        yield server, client
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_working(process, number, tmp_path):
    server, client = process
    noise = 0.1 * np.random.default_rng(0).standard_normal(120 * 16_000)
    sound = encoded(noise, "WAV", "PCM_16")

    def ask():
        try:
            return client.post("/v1/classify?segments=fixed", content=sound, headers=RAW)
        except httpx2.ConnectError:  # it came too late
            return None

    with ThreadPoolExecutor(4) as threads:
        replies = [threads.submit(ask) for _ in range(4)]
        seen = 0.0

        def several():
            nonlocal seen
            text = client.get("/metrics").text
            seen = float(re.search(r"speechtaxi_queue_length ([\d.]+)", text)[1])
            return seen >= 2

        wait_for(several)
        server.send_signal(number)
        told = [reply.result() for reply in replies]
    statuses = [reply.status_code for reply in told if reply is not None]
    assert statuses.count(200) >= seen - 1  # one may have been told while the number came
    assert set(statuses) <= {200, 503}
    assert server.wait(30) == 0
    with pytest.raises(httpx2.ConnectError):
        client.get("/health")
    assert list((tmp_path / "temporary").glob("speechtaxi*")) == []
    assert "Traceback" not in server.stderr.read()


@pytest.mark.slow
def test_what_is_too_large_hears_why(process):
    _, client = process
    reply = client.post(ASK, content=bytes(51_000_000), headers=RAW)
    assert reply.json()["error"]["code"] == "too_large"
    assert "server" not in reply.headers


@pytest.mark.slow
def test_sustained_overload_loses_and_mixes_nothing(process, e2e_run, sounds, corpus):
    _, client = process
    model = speechtaxi.load(str(e2e_run))
    paths = {row.id: row.audio for row in read_manifest(corpus) if row.id in sounds}
    known = dict(zip(paths, model.classify(list(paths.values())), strict=True))
    refused = []

    def ask(name):
        for _ in range(1000):
            reply = client.post(ASK, files={"file": (name, sounds[name])})
            if reply.status_code != 429:
                return name, reply
            refused.append(fault(reply, 429, "queue_full"))
            time.sleep(0.02)
        raise AssertionError("never let in")

    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(ask, [name for _ in range(10) for name in sounds]))
    assert len(replies) == 10 * len(sounds)
    assert refused
    for name, reply in replies:
        assert reply.status_code == 200
        (got,) = reply.json()["results"][0]["answers"]
        assert got["id"] == name
        assert got["probabilities"] == pytest.approx(dict(known[name].probabilities), abs=2e-4)
