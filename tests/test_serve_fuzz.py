"""The server against its own OpenAPI document: whatever is sent, what comes back is documented."""

from __future__ import annotations

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


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_documented(document, mode):
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 5
    for operation in operations:
        if mode == "negative" and not operation.query:
            continue  # nothing can be wrong
        cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

        @given(case=cases)
        @settings(
            max_examples=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def holds(case):
            # A form that fits its schema may hold no audio, and is refused
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        holds()
