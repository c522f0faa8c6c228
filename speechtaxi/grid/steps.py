"""From runs to the public commands that are still to be run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechtaxi.grid.estimate import MARK, Corpus, load, read_mark
from speechtaxi.grid.experiment import Experiment
from speechtaxi.grid.plan import Run
from speechtaxi.records import replacing
from speechtaxi.workers import Step


def steps(
    experiment: Experiment, runs: Sequence[Run], corpus: Corpus, output: Path, clips: Path
) -> list[Step]:
    """Return the commands that are still to be run; what is shared comes once, and first."""
    todo: list[Step] = []
    transcripts: set[str] = set()
    hours = sum(part.hours or 0.0 for part in corpus.values())
    for run in runs:
        folder = output / run.folder
        cost = load(run, corpus).passes or 1.0
        after = [f"fit {other.name}" for other in runs if other.folder in run.needs]
        if run.recognizer is not None:
            step, done = transcription(run, hours, output, clips, tuple(after))
            if step.name not in transcripts and not done:
                todo.append(step)
            transcripts.add(step.name)
            after.append(step.name)
        if run.frozen:  # the first run over all languages keeps the features for the others
            widest = max(
                (other for other in runs if other.system == run.system),
                key=lambda other: len(other.fold.languages),
            )
            if widest is not run:
                after.append(f"fit {widest.name}")
        if not (folder / "run.json").is_file():
            todo.append(Step(f"fit {run.name}", fit_command(experiment, run, output, clips),
                             tuple(after), cost))  # fmt: skip
        known = read_mark(folder).get("targets", ())
        if run.tested and not set(run.fold.targets) <= set(known):
            command = ("test", str(folder), f"--data.test_languages=[{','.join(run.fold.targets)}]")
            todo.append(Step(f"test {run.name}", command, (f"fit {run.name}",), cost / 100))
    return todo


def fit_command(experiment: Experiment, run: Run, output: Path, clips: Path) -> tuple[str, ...]:
    """Return the training of a run, as a user could type it."""
    data = run.settings.get("data", {})
    plain = [f"--data.{n}=null" for n in ("columns", "label_names", "language") if data.get(n)]
    return (
        "fit",
        *run.fit,
        f"--data.manifest={clips}",
        *plain,
        f"--data.languages=[{','.join(run.fold.languages)}]",
        f"--data.test_languages=[{','.join(run.fold.targets)}]",
        f"--data.seed={run.seed}",
        f"--seed_everything={run.seed}",
        f"--system={run.system}",
        *([f"--setup={run.fold.setup}"] if run.fold.setup else []),
        *([f"--notes={json.dumps(experiment.notes)}"] if experiment.notes else []),
        f"--run={output / run.folder}",
        "--ckpt_path=last",
    )


def transcription(
    run: Run, hours: float, output: Path, clips: Path, after: tuple[str, ...]
) -> tuple[Step, bool]:
    """Return the step that transcribes all clips for a run and all others like it."""
    settings = run.settings["model"]["init_args"]
    options: dict[str, Any] = {
        "recognizer": run.recognizer,
        "task": "translate" if settings.get("view") == "english" else None,
        **(settings.get("decoding") or {}),
        "unsupported": settings.get("unsupported"),
        "fallback": settings.get("fallback"),
        "store": settings.get("store"),
    }
    words = ["transcribe", str(clips)]
    for name, value in options.items():
        if isinstance(value, dict):
            value = ",".join(f"{ours}={related}" for ours, related in value.items())
        if value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=4).hexdigest()
    table = output / "transcripts" / f"{digest}.jsonl"
    command = tuple(word.replace("{output}", str(output)) for word in (*words, "--output"))
    return Step(f"transcripts {digest}", (*command, str(table)), after, hours), table.is_file()


def with_smaller_batches(command: tuple[str, ...], run: Run, times: int) -> tuple[str, ...]:
    """Return a command with its batches halved so often, at an equal effective batch size.

    A fit notes it, so that a report says so.
    """
    data, trainer = run.settings.get("data", {}), run.settings.get("trainer", {})
    parts = 2**times
    smaller = (
        f"--data.batch_seconds={data.get('batch_seconds', 120.0) / parts}",
        f"--data.batch_size={max(1, data.get('batch_size', 16) // parts)}",
    )
    if command[0] == "fit":
        steps = trainer.get("accumulate_grad_batches", 1) * parts
        told = next((word[8:] for word in command if word.startswith("--notes=")), "[]")
        notes = [*json.loads(told), f"{run.name}: batches of 1/{parts}, as memory ran out"]
        smaller = (
            *smaller,
            f"--trainer.accumulate_grad_batches={steps}",
            f"--notes={json.dumps(notes)}",
        )
    names = tuple(word.partition("=")[0] for word in smaller)
    return (*(word for word in command if not word.startswith(names)), *smaller)


def note(run: Run, corpus: Corpus, output: Path, keep: str) -> None:
    """Note in a run's folder that it is tested, and drop checkpoints.

    Args:
        keep: "all"; "best" drops what only a resume needs; "predictions" drops the best too.
    """
    told = {"targets": run.fold.targets, "passes": load(run, corpus).passes}
    with replacing(output / run.folder / MARK) as file:
        json.dump(told, file)
    checkpoints = output / run.folder / "checkpoints"
    if keep == "predictions":
        shutil.rmtree(checkpoints, ignore_errors=True)
    elif keep == "best" and (checkpoints / "best.ckpt").is_file():
        (checkpoints / "last.ckpt").unlink(missing_ok=True)
