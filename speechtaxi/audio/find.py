"""Recordings: the audio files that paths, folders and patterns name, and what each is called."""

from __future__ import annotations

import os
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
    for path in map(Path, paths):
        if os.path.isdir(path):
            for file in _in_folder(path, include, exclude):
                yield file, len(file.relative_to(path).parts)
        elif os.path.exists(path):
            yield path, 1
        elif found := _matches(path):
            yield from _found(found, include, exclude)
        else:
            raise InputError(f"{path}: no such file or folder, and no pattern that matches one")


def _in_folder(folder: Path, include: tuple[str, ...], exclude: tuple[str, ...]) -> list[Path]:
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not _hidden(path.relative_to(folder))
        and path.is_file()
    )
    if not found:
        raise InputError(
            f"{folder}: holds no audio files (searched for {' '.join(sorted(AUDIO_SUFFIXES))})"
        )
    chosen = [
        path
        for path in found
        if (not include or _like(path.relative_to(folder), include))
        and not _like(path.relative_to(folder), exclude)
    ]
    if not chosen:
        raise InputError(
            f"{folder}: include and exclude leave none of its {len(found)} audio files; "
            f"they match paths such as {found[0].relative_to(folder).as_posix()}"
        )
    return chosen


def _like(path: Path, patterns: tuple[str, ...]) -> bool:
    name = path.as_posix()
    return any(fnmatchcase(name, form) for p in patterns for form in (p, p.replace("**/", "")))


def _matches(pattern: Path) -> list[Path]:
    """Return what a glob matches, sorted; unlike glob.glob it is not caught in circles of links."""
    anchor = Path(pattern.anchor)
    try:
        found = sorted(anchor.glob(str(pattern.relative_to(anchor))))
    except (OSError, ValueError):  # a name too long, "**" inside of a word
        return []
    return found if _hidden(pattern) else [path for path in found if not _hidden(path)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.parts)
