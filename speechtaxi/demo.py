"""Front door: `speechtaxi demo`, the whole comparison on synthetic news, from public commands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from speechtaxi.errors import InputError
from speechtaxi.workers import Event, Step, Workers, follow, spoken

ALONE = "hin"
"""The language that is also trained on alone (In-Language)."""
SAMPLE = "pan"
"""The language of the clip that is classified at the end: one that no model trained on."""

HONESTLY = """
What this shows: two routes, trained alike and compared on the same clips by the commands above.
What it does not show: how they compare on real speech. The speech is synthetic (eSpeak NG), clean,
and made of a closed list of phrases full of cognates, in translations that nobody has reviewed; the
models have under a million weights. All that favours reading, and says nothing of the paper's
findings. The warm-started E2E has heard its recogniser's transcripts; E2E from scratch has not.
"""


def steps(folder: Path) -> dict[Step, Path]:
    """Return the commands of the demo, as a user could type them, and the last file of each."""
    corpus, runs = folder / "news", folder / "runs"
    manifest = corpus / "manifest.jsonl"
    shared = ("-c", "cpu", "-c", "news", f"--data.manifest={manifest}")
    letters, script = "recognizer_romanized", "recognizer_native"
    store = f"--model.store={folder / 'transcripts.sqlite'}"
    warm = f"--model.encoder={runs / letters}"
    romanized = (f"--model.recognizer={runs / letters}", store)
    native = ("--model.view=native", f"--model.recognizer={runs / script}", store)
    alone = (f"--data.languages=[{ALONE}]", f"--data.test_languages=[{ALONE}]")

    def fit(name: str, cost: int, config: str, *options: str, after: str = "corpus") -> Step:
        run = (f"--run={runs / name}", "--ckpt_path=last")
        return Step(name, ("fit", *shared, "-c", config, *options, *run), (after,), cost)

    recognizers = [fit(letters, 200, letters), fit(script, 180, script)]
    classifiers = [
        fit("e2e_scratch", 150, "e2e_tiny"),
        fit("e2e_warm", 90, "e2e_tiny", warm, after=letters),
        fit("cascade_romanized", 30, "cascade_tiny", *romanized, after=letters),
        fit("cascade_native", 30, "cascade_tiny", *native, after=script),
        fit("gold_native", 8, "cascade_tiny", "--model.view=gold"),
        fit("gold_romanized", 8, "cascade_tiny", "--model.view=gold_romanized"),
        fit(f"e2e_warm_{ALONE}", 20, "e2e_tiny", warm, *alone, after=letters),
        fit(f"cascade_{ALONE}", 5, "cascade_tiny", *romanized, *alone, after="cascade_romanized"),
    ]
    tests = [
        Step(f"test {fitted.name}", ("test", str(runs / fitted.name)), (fitted.name,))
        for fitted in classifiers
    ]
    report = ("report", *(str(runs / fitted.name) for fitted in classifiers))
    synthesis = Step("corpus", ("synthesize", "news", "-o", str(corpus)))
    check = Step("check", ("data", "check", str(manifest), "--shortcuts"), ("corpus",))
    return {
        synthesis: manifest,
        check: folder / "logs" / "check.done",
        **{fitted: runs / fitted.name / "run.json" for fitted in (*recognizers, *classifiers)},
        **{test: runs / test.after[0] / "predictions-test.jsonl" for test in tests},
        Step(
            "report",
            (*report, "-o", str(folder / "report")),
            tuple(test.name for test in tests),
        ): folder / "report" / "report.html",
    }


def sample_commands(folder: Path) -> list[tuple[str, ...]]:
    """Return the commands that classify one clip of an unseen language by each route."""
    manifest = folder / "news" / "manifest.jsonl"
    rows = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    row = next(row for row in rows if row["language"] == SAMPLE)
    clip = str(manifest.parent / row["audio"])
    options = ("--language", SAMPLE, "--format", "table")
    return [
        ("classify", str(folder / "runs" / name), clip, *options, *extra)
        for name, extra in (
            ("e2e_warm", ()),
            ("cascade_romanized", ()),
            ("cascade_native", ("--romanize",)),
        )
    ]


def main(argv: list[str]) -> int:
    """Run what is not done yet; then show the report and classify one clip by each route."""
    p = argparse.ArgumentParser(
        prog="speechtaxi demo",
        description="Compare hearing and reading on synthetic spoken news in ten languages: about "
        "ten minutes on two cores, offline. Run it again to go on where it stopped.",
    )
    p.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder (default: demo)")
    p.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    args = p.parse_args(argv)
    folder: Path = args.output
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    todo = [step for step, leaves in steps(folder).items() if not leaves.exists()]
    if todo:
        with Workers(args.workers) as workers:
            events = _noting(workers.run(todo, logs), logs)
            lost = follow(events, sum(step.cost for step in todo), "demo", until_failure=True)
        if lost:
            raise InputError(f"'{lost[0].step.name}' failed: {lost[0].reason}")
    show(folder)
    return 0


def _noting(events: Iterator[Event], logs: Path) -> Iterator[Event]:
    """Note that the check is done, which leaves no file of its own."""
    for event in events:
        if event.kind == "done" and event.step.name == "check":
            (logs / "check.done").touch()
        yield event


def show(folder: Path) -> None:
    """Print what was found out, and classify one clip by each route."""
    from speechtaxi.cli import main as command

    print((folder / "logs" / "check.log").read_text(encoding="utf-8"))
    print((folder / "logs" / "report.log").read_text(encoding="utf-8"))
    for words in sample_commands(folder):
        print(f"$ {spoken(words)}", flush=True)
        command(list(words))
    print(HONESTLY)
    print(f"Open {folder / 'report' / 'report.html'} in a browser.")
