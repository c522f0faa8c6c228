"""The server against its own OpenAPI document: whatever is sent, what comes back is documented."""

from __future__ import annotations

import base64
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("uvicorn")
pytest.importorskip("schemathesis")

import schemathesis
import uvicorn
from schemathesis.specs.openapi.checks import positive_data_acceptance

from speechtaxi.serve import listen
from speechtaxi.serve.app import create_app
from speechtaxi.serve.models import open_models
from speechtaxi.serve.upload import Limits
from speechtaxi.serve.worker import Worker


@pytest.fixture(scope="module")
def document(e2e_run):
    """Serve a model on loopback; return its document."""
    worker = Worker(lambda private: open_models([str(e2e_run)], private, "cpu"), 4)
    app = create_app(worker, Limits(bytes=100_000, seconds=5, timeout=10))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while worker.state != "ready":
                assert worker.error is None
                time.sleep(0.01)
            port = listening.getsockname()[1]
            yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
            assert worker._in_hand == 0
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("mode", ["positive", "negative", "with sound"])
def test_every_answer_is_documented(document, mode, tone):
    sound, seen = tone().read_bytes(), set()
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 5
    modes = dict.fromkeys(("positive", "with sound"), schemathesis.GenerationMode.POSITIVE)
    modes["negative"] = schemathesis.GenerationMode.NEGATIVE
    for operation in operations:
        if mode == "negative" and not operation.query:
            continue  # nothing can be wrong
        cases = operation.as_strategy(generation_mode=modes[mode])

        @given(case=cases)
        @settings(
            max_examples=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def holds(case):
            if mode == "with sound" and case.method == "POST":
                if case.media_type == "application/json":
                    case.body = {"audio": base64.b64encode(sound).decode()}
                else:
                    case.media_type, case.body = "application/octet-stream", sound
                case.headers["content-type"] = case.media_type
            # A form that fits its schema may hold no audio, and is refused
            reply = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            seen.add((case.path, case.media_type, reply.status_code))

        holds()
    asked = {one[1:] for one in seen if one[0] == "/v1/classify"}
    wanted = {"positive": {400}, "negative": {422}, "with sound": {200, 400}}[mode]
    for statuses in (
        {status for _, status in asked},
        {status for kind, status in asked if kind == "application/json"},
    ):
        assert statuses >= wanted
