"""Results survive SIGKILL at any moment: what the next runs add makes an uninterrupted run's."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet  # noqa: F401  (once, not in every child)
import pytest
from test_results import beside, read

from speechtaxi.errors import InputError
from speechtaxi.results import KINDS, STREAMS, open_results
from speechtaxi.types import Answer, Span

SETTINGS = {"model": "runs/a"}


def recordings(seed: int, count: int) -> Iterator[tuple[str, str, list[Answer] | None]]:
    """Yield key, id and answers of a folder; every tenth cannot be used."""
    mixed = random.Random(seed)
    for number in range(count):
        id = f"{number:04}.wav"
        spans = [Span(10.0 * n, 10.0 * n + 10) for n in range(mixed.randrange(4))]
        whole = Span(0.0, 10.0 * len(spans) + 3)
        text = "".join(mixed.choices('abc"\n\r\t,ọ̀\U0001f695', k=mixed.choice((0, 20, 20, 9000))))
        answers = [
            Answer(
                id=id,
                path=f"/audio/{id}",
                kind="recording" if span is whole else "segment",
                span=span,
                language="eng",
                topic=(topic := mixed.choice(("sport", "health"))),
                probability=0.7,
                probabilities={topic: 0.7, "art": 0.3},
                calibrated=True,
                system="e2e",
                text=text,
            )
            for span in (*spans, whole)
        ]
        yield f"key{number}", id, None if number % 10 == 3 else answers


def yesterday(output: Path, seed: int, count: int) -> None:
    """Classify a part of the folder, some of it with other content than today."""
    with open_results(output, None, SETTINGS) as results:
        for number, (key, _, answers) in enumerate(recordings(seed, count)):
            if answers and number % 4 == 0:
                other = number % 8 == 0
                results.write("old" if other else key, answers[-1:] if other else answers)


def today(output: Path, seed: int, count: int, say: Callable[[str], None] = str) -> None:
    """Classify the folder, and say what is done as it is."""
    with open_results(output, None, SETTINGS) as results:
        say("open")
        for key, id, answers in recordings(seed, count):
            if results.skip(key, id):
                continue
            results.begin(key, id)
            if answers is None:
                results.fail(key, id, f"/audio/{id}", "damaged")
            else:
                results.write(key, answers)
                say(id)
        say("close")


def killed_run(output: Path, seed: int, count: int, words: int, delay: float) -> list[str]:
    """Kill a run some time after it said so many words (or all), before more than two others."""
    listen, mouth = os.pipe()
    said = list[str]()

    def say(word: str) -> None:
        os.write(mouth, f"{word}\n".encode())
        said.append(word)
        if len(said) == words + 2:
            signal.pause()

    if (child := os.fork()) == 0:
        try:
            today(output, seed, count, say)
            signal.pause()
        finally:
            os._exit(1)
    os.close(mouth)
    with open(listen) as pipe:
        while len(said) < words and said[-1:] != ["close"] and (word := pipe.readline()):
            said.append(word.strip())
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        said += pipe.read().split()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the run failed by itself"
    return said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_kills(tmp_path: Path, kind: str, kills: int) -> None:
    seed, count = kills, 5 * kills
    straight, output = tmp_path / f"straight.{kind}", tmp_path / f"killed.{kind}"
    for path in (straight, output):
        yesterday(path, seed, count)
    today(straight, seed, count)

    mixed, done = random.Random(f"{kind} {seed}"), set[str]()
    expected = [tuple(line.items()) for line in read(straight)]
    for number in range(kills):
        words = mixed.randrange(5) if number < 0.7 * kills else count  # the last while it finishes
        slow = words in (0, count)
        said = killed_run(output, seed, count, words, mixed.uniform(0, 0.03 if slow else 0.001))
        written = set(said) - {"open", "close"}
        assert not written & done, "what was reported done is done twice"
        done |= written
        assert ("close" in said) == (words == count)
        if kind == "sqlite" and "open" in said:  # the rows of whole recordings only
            found = read(output)
            assert len({line["id"] for line in found if line["kind"] == "recording"}) == len(
                {line["id"] for line in found}
            )
    with open_results(output, None, SETTINGS) as results:
        for key, id, answers in recordings(seed, count):
            assert results.skip(key, id) == (answers is not None)
            if answers is None:
                results.fail(key, id, f"/audio/{id}", "damaged")

    assert [tuple(line.items()) for line in read(output)] == expected
    if kind in STREAMS:
        assert output.read_bytes() == straight.read_bytes()
    failed = beside(output, "failed.jsonl").read_text()
    assert failed == beside(straight, "failed.jsonl").read_text() != ""
    summary = results.summary()
    assert summary["inputs"] == count == summary["skipped"] + summary["failed"]
    assert summary["recordings"] == summary["skipped"]
    assert summary["rows"] == len(expected)
    assert not list(tmp_path.glob(".*.part"))


def killed_with(output: Path, *ids: str) -> None:
    """Kill a run while it has recordings in hand."""
    if (child := os.fork()) == 0:
        try:
            with open_results(output, None, SETTINGS) as results:
                for id in ids:
                    results.begin("key", id)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_runs_die_of_is_found_out_and_passed_over(tmp_path: Path, kind: str) -> None:
    output = tmp_path / f"out.{kind}"
    rows = {id: answers for _, id, answers in recordings(1, 3)}
    killed_with(output, "0000.wav", "0001.wav")  # read ahead together
    with open_results(output, None, SETTINGS) as results:
        assert results.suspect("0000.wav")
        assert results.suspect("0001.wav")
        assert not results.suspect("0002.wav")
        results.begin("key", "0000.wav")
        results.write("key", rows["0000.wav"] or [])
        assert not results.suspect("0000.wav")
    killed_with(output, "0001.wav")
    with suppress(KeyboardInterrupt), open_results(output, None, SETTINGS) as results:
        results.begin("key", "0001.wav")
        raise KeyboardInterrupt  # is no death
    killed_with(output, "0001.wav")
    for _ in range(2):  # until it is asked for
        with open_results(output, None, SETTINGS) as results:
            with pytest.raises(InputError, match="died 3 times while this was in hand") as raised:
                results.begin("key", "0001.wav")
            results.fail("key", "0001.wav", "/audio/0001.wav", str(raised.value))
            results.begin("key", "0002.wav")
            results.fail("key", "0002.wav", "/audio/0002.wav", "damaged")
        assert "died 3 times" in beside(output, "failed.jsonl").read_text()
    with open_results(output, None, SETTINGS, retry_crashed=True) as results:
        results.begin("key", "0001.wav")
        results.write("key", rows["0001.wav"] or [])
    with open_results(output, None, SETTINGS) as results:
        assert results.skip("key", "0001.wav")


def test_other_content_has_killed_nobody(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    for _ in range(3):
        killed_with(output, "0000.wav")
    with open_results(output, None, SETTINGS) as results:
        results.begin("other", "0000.wav")


def test_what_fails_in_the_ordinary_way_has_not_killed(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    for _ in range(5):
        killed_with(output, "0000.wav")
        with open_results(output, None, SETTINGS) as results:
            results.begin("key", "0000.wav")
            results.fail("key", "0000.wav", "/audio/0000.wav", "damaged")
