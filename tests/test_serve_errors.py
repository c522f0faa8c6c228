"""The server refuses: one JSON error for everything wrong, and nothing is left of it."""

from __future__ import annotations

import base64
import json
import socket

import numpy as np
import pytest

pytest.importorskip("fastapi")

from test_serve import RAW, encoded, fault, uploads

from speechtaxi.errors import InputError
from speechtaxi.serve import listen, main
from speechtaxi.serve.upload import Limits

SECRET = "correct horse battery staple"


def test_errors(serving, e2e_run, sounds):
    client, worker = serving([e2e_run], Limits(bytes=200_000, seconds=20))
    sound = next(iter(sounds.values()))
    post = client.post
    assert "not audio" in fault(
        post("/v1/classify", files={"file": ("a.wav", b"no sound" * 99)}), 400, "bad_input"
    )
    assert "empty" in fault(post("/v1/classify", content=b"", headers=RAW), 400, "bad_input")
    short = encoded(np.zeros(80), "WAV")
    assert fault(
        post("/v1/classify", files={"file": ("../x/b.wav", short)}), 400, "bad_input"
    ).startswith("b.wav: only 0.005 s")
    fault(post("/v1/classify?language=klingonese", content=sound, headers=RAW), 400, "bad_input")
    fault(post("/v1/classify", files={"other": sound}), 422, "no_file")
    fault(post("/v1/classify", files=[("file", sound), ("file", sound)]), 400, "bad_request")
    fault(post("/v1/classify?top_k=0", content=sound, headers=RAW), 422, "invalid")
    fault(post("/v1/classify?segments=odd", content=sound, headers=RAW), 422, "invalid")
    fault(post("/v1/classify", data={"top_k": 3}), 415, "unsupported_type")
    odd = {"files": {"file": sound}}
    told = fault(post("/v1/classify", data={"top_n": "1"}, **odd), 422, "invalid")
    assert told.startswith("top_n: ")
    told = fault(post("/v1/classify?gate=1", data={"gate": "1"}, **odd), 422, "invalid")
    assert told.startswith("gate: is told in the address and in the body")
    fault(post("/v1/classify?top_n=1", content=sound, headers=RAW), 422, "invalid")
    fault(post("/v1/classify", content=sound), 415, "unsupported_type")
    broken = {"content-type": "multipart/form-data"}
    fault(post("/v1/classify", content=sound, headers=broken), 400, "bad_request")
    fault(post("/v1/classify", content=bytes(300_000), headers=RAW), 413, "too_large")
    fault(post("/v1/classify", files={"file": bytes(300_000)}), 413, "too_large")
    long = encoded(np.zeros(21 * 16_000), "FLAC")
    assert len(long) < 200_000
    fault(post("/v1/classify", content=long, headers=RAW), 413, "too_long")
    fault(post("/v1/transcribe", content=sound, headers=RAW), 404, "no_reader")
    fault(client.get("/v2/classify"), 404, "not_found")
    wrong = client.get("/v1/classify")
    fault(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    cross = RAW | {"sec-fetch-site": "cross-site"}
    fault(post("/v1/classify", content=sound, headers=cross), 403, "cross_site")
    assert uploads(worker) == []
    assert worker._in_hand == 0
    assert post("/v1/classify", content=sound, headers=RAW).status_code == 200


def test_wrong_json(serving, e2e_run, sounds):
    client, worker = serving([e2e_run], Limits(bytes=200_000, seconds=20))
    sound = base64.b64encode(next(iter(sounds.values()))).decode()
    kind = {"content-type": "application/json; charset=utf-8"}

    def post(body, address="/v1/classify"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return client.post(address, content=body, headers=kind)

    for body in (b"", b"{", b"[]", b"null", b'"', b"\xff", b'{"audio":' + b"[" * 100_000):
        fault(post(body), 422, "invalid")
    for wrong, told in (
        ({}, "audio: Field required"),
        ({"audio": 3}, "audio: must be a string of base64"),
        ({"audio": "/etc/passwd"}, "audio: is no base64"),
        ({"audio": "http://127.0.0.1/a.wav"}, "audio: is no base64"),
        ({"audio": sound[:-1] + "é"}, "audio: is no base64"),
        ({"audio": sound, "path": "/etc/passwd"}, "path: Extra inputs are not permitted"),
        ({"audio": sound, "top_k": 0}, "top_k: Input should be greater"),
        ({"audio": sound, "top_k": "3"}, "top_k: Input should be a valid integer"),
        ({"audio": sound, "gate": "no"}, "gate: Input should be a valid boolean"),
        ({"audio": sound, "segments": "odd"}, "segments: Input should be 'auto', 'vad'"),
    ):
        assert fault(post(wrong), 422, "invalid").startswith(told)
    twice = post({"audio": sound, "language": "fra"}, "/v1/classify?language=eng")
    assert "in the address and in the body" in fault(twice, 422, "invalid")
    fault(post({"audio": sound, "language": "klingonese"}), 400, "bad_input")
    assert "empty" in fault(post({"audio": ""}), 400, "bad_input")
    noise = {"audio": base64.b64encode(b"no sound" * 99).decode(), "name": "/x/b.wav"}
    assert fault(post(noise), 400, "bad_input").startswith("b.wav: not audio")
    long = base64.b64encode(encoded(np.zeros(21 * 16_000), "FLAC")).decode()
    fault(post({"audio": long}), 413, "too_long")
    for size in (200_001, 300_000):  # known once it is decoded; known while it comes
        large = base64.b64encode(bytes(size)).decode()
        assert "0.2 MB" in fault(post({"audio": large}), 413, "too_large")
    assert uploads(worker) == []
    assert worker._in_hand == 0
    assert post({"audio": sound}).status_code == 200


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json"])
def test_too_much_is_refused_while_it_comes(serving, e2e_run, kind):
    client, _ = serving([e2e_run], Limits(bytes=100_000))
    sent = 0

    def endless():
        nonlocal sent
        while sent < 10_000_000:
            sent += 10_000
            yield bytes(10_000)

    fault(
        client.post("/v1/classify", content=endless(), headers={"content-type": kind}),
        413,
        "too_large",
    )


def test_a_bug_shows_no_traceback_and_harms_no_other(serving, e2e_run, sounds, monkeypatch, capsys):
    client, worker = serving([e2e_run])
    model = worker.models[0].teller.model

    def fail(*_, **__):
        raise RuntimeError("secret inside")

    with monkeypatch.context() as patch:
        patch.setattr(model, "classify", fail)
        sound = next(iter(sounds.values()))
        reply = client.post("/v1/classify", content=sound, headers=RAW)
    fault(reply, 500, "internal")
    assert "secret" not in reply.text
    assert "secret inside" in capsys.readouterr().err
    assert client.post("/v1/classify", content=sound, headers=RAW).status_code == 200
    assert uploads(worker) == []


def test_the_token(serving, e2e_run, sounds):
    client, _ = serving([e2e_run], token=SECRET)
    sound = next(iter(sounds.values()))
    for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {SECRET}"}):
        reply = client.post("/v1/classify", content=sound, headers=RAW | given)
        fault(reply, 401, "unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"
        fault(client.get("/metrics", headers=given), 401, "unauthorized")
    own = {"authorization": f"Bearer {SECRET}"}
    assert client.post("/v1/classify", content=sound, headers=RAW | own).status_code == 200
    assert client.get("/health").json() == {"status": "ready"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_waits_for_no_acknowledgement(host):
    """Nagle's algorithm would hold its second half back for 40 ms."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            pytest.skip(f"{host} is no address here")
    with listen(host, 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_models_that_cannot_be_opened_end_the_server(tmp_path, fit_arguments):
    with pytest.raises(InputError, match="no model folder"):
        main([str(tmp_path / "none")])
    empty = tmp_path / "token"
    empty.write_text("\n")
    with pytest.raises(InputError, match="no token"):
        main([str(tmp_path), "--token-file", str(empty)])
    with pytest.raises(InputError, match="--queue"):
        main([str(tmp_path), "--queue", "0"])
