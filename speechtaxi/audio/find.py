"""Recordings: the audio files that paths, folders and patterns name, and what each is called."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from speechtaxi.errors import InputError

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "flac", "mp3", "ogg", "oga", "opus", "spx"),
        *("aif", "aiff", "au", "caf", "w64", "wv"),
        *("m4a", "m4b", "aac", "ac3", "wma", "mka", "weba", "amr", "awb", "mp2"),
        *("webm", "mp4", "m4v", "mkv", "mov", "3gp", "3g2", "ogv"),  # pictures too
        *("avi", "flv", "wmv", "mpg", "mpeg", "ts", "mts"),
    )
)
"""What a folder is searched for; a file that is named itself may have any suffix."""

Patterns = Iterable[str]


def find_audio(
    paths: Iterable[str | os.PathLike[str]], include: Patterns = (), exclude: Patterns = ()
) -> Iterator[Path]:
    """Yield files as named, folders as their audio files (recursively, sorted), globs as matches.

    Hidden files and folders, and links to folders, are passed over. `include` and `exclude` choose
    among what is in folders: a file is taken that matches an `include` (or there is none) and no
    `exclude`. A pattern must match the whole path below the folder, written with slashes, case
    counting, as by `fnmatch`: `*` stands for anything, slashes too; `**/` for nothing as well.

    Raises:
        InputError: a path that does not exist, a glob that matches nothing, a folder without audio.
    """
    return (path for path, _ in _found(paths, tuple(include), tuple(exclude)))


def find_recordings(
    paths: Iterable[str | os.PathLike[str]], include: Patterns = (), exclude: Patterns = ()
) -> Iterator[tuple[str, Path]]:
    """Yield what `find_audio` does, each file once, after an id that is its alone.

    The id is the path below the folder that was named, with slashes, or the name of a file that was
    named itself. Where two would be alike, both grow by folders above until they differ.

    Raises:
        InputError: as `find_audio`.
    """
    files: dict[str, Path] = {}
    depth: dict[str, int] = {}
    for path, parts in _found(paths, tuple(include), tuple(exclude)):
        absolute = os.path.abspath(path)
        files.setdefault(absolute, path)
        depth.setdefault(absolute, parts)
    while True:
        ids = {file: _printable(Path(file).parts[-parts:]) for file, parts in depth.items()}
        count = Counter(ids.values())
        alike = [file for file, name in ids.items() if count[name] > 1]
        if not alike:
            return iter([(ids[file], path) for file, path in files.items()])
        for file in alike:
            depth[file] += 1


def _printable(parts: Iterable[str]) -> str:
    """Join a path; bytes that are not UTF-8, as in old archives, become \\xNN."""
    return os.fsencode("/".join(parts)).decode("utf-8", "backslashreplace")


def _found(
    paths: Iterable[str | os.PathLike[str]], include: tuple[str, ...], exclude: tuple[str, ...]
) -> Iterator[tuple[Path, int]]:
    """Yield a file, and how many of its last parts name it."""

    def chosen(below: list[Path]) -> list[Path]:
        if include:
            below = [path for path in below if _like(path, include)]
        return [path for path in below if not _like(path, exclude)]

    for path in map(Path, paths):
        if os.path.isdir(path):
            below = _below(path)
            if not below:
                suffixes = " ".join(sorted(AUDIO_SUFFIXES))
                raise InputError(f"{path}: holds no audio files (searched for {suffixes})")
            found = [(path / file, len(file.parts)) for file in chosen(below)]
            if not found:
                raise InputError(
                    f"{path}: include and exclude leave none of its {len(below)} audio files; "
                    f"they match paths such as {below[0].as_posix()}"
                )
        elif os.path.exists(path):
            found = [(path, 1)]
        else:
            found = [
                (match / file, len(file.parts) or 1)
                for match in _matches(path)
                for file in (chosen(_below(match)) if match.is_dir() else [Path()])
            ]
            if not found:
                raise InputError(f"{path}: no such file or folder, and no pattern that matches one")
        yield from found


def _below(folder: Path) -> list[Path]:
    """Return the audio files in a folder, as paths below it, sorted."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        path for path in files if path.suffix.lower() in AUDIO_SUFFIXES and not _hidden(path)
    )


def _like(path: Path, patterns: tuple[str, ...]) -> bool:
    name = path.as_posix()
    return any(fnmatchcase(name, form) for p in patterns for form in (p, p.replace("**/", "")))


def _matches(pattern: Path) -> list[Path]:
    """Return what a glob matches, sorted; unlike glob.glob it is not caught in circles of links."""
    anchor = Path(pattern.anchor)
    parts = pattern.relative_to(anchor).parts
    words = [part if part == "**" else re.sub(r"\*+", "*", part) for part in parts]
    try:
        found = sorted(anchor.glob("/".join(words)))
    except OSError:  # a name too long
        return []
    return found if _hidden(pattern) else [path for path in found if not _hidden(path)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.parts)
