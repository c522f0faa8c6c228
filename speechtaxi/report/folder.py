"""A report's folder: what lies there, and from what it was made, so that a rerun is cheap."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import speechtaxi
from speechtaxi.errors import InputError

STATE = ".state.json"

Inputs = Mapping[str, Any]
"""What decides on a report: options, code, and each file's size and time; plain JSON."""


@dataclass(frozen=True)
class File:
    """A file of a report; the name is relative to its folder."""

    name: str
    make: Callable[[], str | bytes]
    source: str = ""
    """All that the file is made from, where making it again takes long; else empty."""


def predictions(run: Path, split: str) -> Path:
    """Return the file of predictions that a run, or a file, stands for."""
    return run / f"predictions-{split}.jsonl" if run.is_dir() else run


def refuse_repeated(runs: Sequence[Path], split: str) -> None:
    """Refuse a run that is given twice, in whatever spelling.

    Raises:
        InputError: one is.
    """
    seen: dict[Path, Path] = {}
    for run in runs:
        file = predictions(run, split).resolve()
        if file in seen:
            also = f" (as {seen[file]} too)" if seen[file] != run else ""
            raise InputError(f"{run}: is given twice{also}; name each run once")
        seen[file] = run


def inputs_of(
    runs: Sequence[Path], split: str, manifests: Sequence[Path] = (), **options: Any
) -> Inputs:
    """Return what a report of these runs depends on; a file that is not there is null."""
    files = [predictions(run, split) for run in runs]
    beside = [file.parent / name for file in files for name in ("run.json", "config.yaml")]
    return {
        "version": speechtaxi.__version__,
        "code": _code(),
        "runs": [str(run) for run in runs],
        "split": split,
        "manifests": [str(path) for path in manifests],
        **options,
        "files": {str(path): _stamp(path) for path in (*files, *beside, *manifests)},
    }


class Folder:
    """A folder that remembers what it was made from, and which files were made there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            state: Any = json.loads((path / STATE).read_text(encoding="utf-8"))
            self._inputs: Inputs | None = state["inputs"]
            self._made: dict[str, str] = dict(state["made"])
        except (OSError, ValueError, KeyError, TypeError):  # as if nothing had been made
            self._inputs, self._made = None, {}

    def is_of(self, inputs: Inputs) -> bool:
        """Tell whether all files are there, made from these inputs."""
        return inputs == self._inputs and all((self.path / name).exists() for name in self._made)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            InputError: it cannot be made, or not be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            why = "it is a file" if self.path.is_file() else error.strerror
            raise InputError(
                f"{self.path}: cannot be written ({why}); give a folder for the report"
            ) from None

    def write(self, files: Iterable[File], inputs: Inputs) -> None:
        """Write the files that are not there yet, and remove what an earlier report made besides.

        Each appears at once and whole. A report that is broken off is not taken for a whole one.
        """
        files = list(files)
        old, new = self._made, {file.name: _hash(file.source.encode()) for file in files}
        kept = {n for n, source in new.items() if source and source == old.get(n)}
        self._remember(None, {n: new[n] if n in kept else "" for n in {**old, **new}})
        for file in files:
            if file.name not in kept or not (self.path / file.name).exists():
                _replace(self.path / file.name, file.make())
        for name in old.keys() - new.keys():
            self._remove(name)
        self._remember(inputs, new)

    def _remember(self, inputs: Inputs | None, made: dict[str, str]) -> None:
        self._inputs, self._made = inputs, made
        text = json.dumps({"inputs": inputs, "made": made}, ensure_ascii=False, indent=1)
        _replace(self.path / STATE, text + "\n")

    def _remove(self, name: str) -> None:
        path, home = (self.path / name).resolve(), self.path.resolve()
        if home not in path.parents:  # the state came from elsewhere
            return
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == home or any(folder.iterdir()):
                return
            folder.rmdir()


def _replace(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(
            content if isinstance(content, bytes) else content.encode(errors="replace")
        )
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _stamp(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


@cache
def _code() -> str:
    """Return a hash of the code that makes reports: it changes between releases, too."""
    home = Path(__file__).parents[1]
    parts = [*(home / "report").rglob("*.*"), *home.glob("statistics/*.py"), *home.glob("*.py")]
    return _hash(b"".join(path.read_bytes() for path in sorted(parts) if path.is_file()))


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest() if content else ""
