"""A local copy of a source: a folder, a copied hub cache, or the hub cache itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import langcodes
import yaml

from speechtaxi import reach
from speechtaxi.corpora.clip import Wish
from speechtaxi.errors import InputError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Mirror:
    """The folder that holds a source's files under their published paths."""

    root: Path
    repository: str | None = None
    revision: str | None = None
    """Commit, where the hub's cache tells it."""
    also: Mirror | None = None
    """The second repository of a source that has two."""

    @cached_property
    def paths(self) -> list[str]:
        """Every visible file below the folder, with forward slashes, sorted."""
        return sorted(_visible(self.root))

    def need(self, name: str) -> Path:
        """Return a file that must be there.

        Raises:
            InputError: it is not.
        """
        path = self.root / name
        if not path.is_file():
            raise InputError(f"{self.root}: no {name}; {self._how(name)}")
        return whole(path)

    def _how(self, name: str) -> str:
        if self.repository is None:
            return "name the folder that holds it with --from"
        return "get it with: " + download_command(self.repository, [name])

    @cached_property
    def licence(self) -> str | None:
        """What the card (README.md) declares; "not declared" where it is silent; None without."""
        card = self.root / "README.md"
        if not card.is_file():
            return None
        _, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
        try:
            head: object = yaml.safe_load(rest.partition("\n---")[0])
        except yaml.YAMLError:
            return None
        declared = cast("dict[str, Any]", head).get("license") if isinstance(head, dict) else None
        if isinstance(declared, list):
            declared = ", ".join(map(str, cast("list[Any]", declared)))
        return str(declared) if declared else "not declared"


def whole(path: Path) -> Path:
    """Return a file, or refuse the stand-in that git leaves where git-lfs is not installed.

    Raises:
        InputError: a pointer, or an empty file.
    """
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        raise InputError(f"{path}: only a Git LFS pointer, not the file; run git lfs pull there")
    if not head:
        raise InputError(f"{path}: the file is empty; download it again")
    return path


def digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def download_command(repository: str, patterns: Sequence[str]) -> str:
    """Return the shell command that brings files of a data set into the hub's cache."""
    include = " ".join(f"--include '{pattern}'" for pattern in patterns)
    return f"hf download --repo-type dataset {repository} {include}".rstrip()


def wanted(patterns: Sequence[str], wish: Wish) -> list[str]:
    """Return what to download: patterns with the languages put in, and the card.

    >>> wanted(["data/{config}/*"], Wish(("eng",)))
    ['README.md', 'data/eng/*', 'data/eng_*/*', 'data/en-*/*']
    """
    names: list[str] = []
    for code in wish.languages:
        names += [code, f"{code}_*"]
        short = langcodes.standardize_tag(code.split("-")[0])
        names += [f"{short}-*"] if len(short) == 2 and "-" not in code else []
    filled = [p.replace("{config}", name) for p in patterns for name in names or ["*"]]
    return list(dict.fromkeys(["README.md", *filled]))


def from_hub(repository: str, revision: str | None, patterns: Sequence[str], wish: Wish) -> Mirror:
    """Return a data set in the hub's cache, filled from the hub if it can be.

    Raises:
        InputError: it is not there; the line says how to get it.
    """
    hub = cast(Any, import_module("huggingface_hub"))
    settings = cast(Any, import_module("huggingface_hub.constants"))
    errors = cast(Any, import_module("huggingface_hub.errors"))
    cache = Path(settings.HF_HUB_CACHE)
    include = wanted(patterns, wish)
    reason = "HF_HUB_OFFLINE is set" if settings.HF_HUB_OFFLINE else "the hub cannot be reached"
    if reach.hub():
        import_module("huggingface_hub.utils.logging").set_verbosity_error()  # our line says it
        try:
            root = hub.snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=include
            )
            return Mirror(Path(root), repository, Path(root).name)
        except (OSError, ValueError, errors.HfHubHTTPError) as error:
            lines = str(error).strip().splitlines()
            reason = lines[0] if lines else type(error).__name__
    found = cached(cache, repository, revision)
    if found is None:
        raise InputError(
            f"{repository} is not in the cache {cache} ({reason}); on a connected machine run: "
            f"{download_command(repository, include)} - then copy that cache here and set HF_HOME, "
            "or name a folder with its files by --from"
        )
    return found


def cached(folder: Path, repository: str | None, revision: str | None) -> Mirror | None:
    """Return a snapshot in a hub cache: the revision asked for, else main, else the only one.

    Layout: huggingface.co/docs/hub/local-cache.
    """
    if repository is None:
        return None
    name = "datasets--" + repository.replace("/", "--")
    for home in (folder / name, folder / "hub" / name, folder):
        snapshots = home / "snapshots"
        if not snapshots.is_dir() or (home == folder and folder.name != name):
            continue
        for wish in (revision, "main"):
            reference = home / "refs" / (wish or "main")
            commit = reference.read_text().strip() if reference.is_file() else wish
            if commit and (snapshots / commit).is_dir():
                return Mirror(snapshots / commit, repository, commit)
        there = [path for path in snapshots.iterdir() if path.is_dir()]
        if len(there) == 1:
            return Mirror(there[0], repository, there[0].name)
    return None


def _visible(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()
