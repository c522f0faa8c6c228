"""Zip archives of strangers: checked as a whole before the first member is read, then streamed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from speechtaxi.errors import InputError

MAX_RATIO = 100
"""How many times its size an archive, or a member of it, may grow; tables shrink some 10 times."""

SMALL = 1 << 20
"""Bytes; smaller than this a member is harmless, however well it is packed."""

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What reading a damaged, encrypted or exotic member raises."""


class Archive:
    """An archive whose members have safe names and honest sizes.

    Raises:
        InputError: not a whole zip archive, a path that climbs out, a bomb, an encrypted member.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            size = path.stat().st_size
            raise InputError(
                f"{path}: not a whole zip archive ({error}; {size} bytes are here); "
                "download it again"
            ) from None
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        for info in infos:
            self._check(info)
        packed, unpacked = path.stat().st_size, sum(info.file_size for info in infos)
        if unpacked > max(MAX_RATIO * packed, SMALL):
            raise InputError(
                f"{path}: {packed} bytes would unpack to {unpacked}; refused as a bomb"
            )
        self.members: Mapping[str, zipfile.ZipInfo] = {
            info.filename: info for info in infos if _is_content(info.filename)
        }
        """By path in the archive; folders and what operating systems leave are not among them."""

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def open(self, name: str) -> IO[bytes]:
        """Open a member; it never yields more than its declared size, and its end is checked.

        Raises:
            InputError: damaged at its very beginning (later damage raises one of `DAMAGE`).
        """
        try:
            return self._zip.open(self.members[name])
        except DAMAGE as error:
            raise InputError(f"{self.path}: {name} is damaged ({error})") from None

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.orig_filename
        windows = PureWindowsPath(name)
        if "\\" in name or "\0" in name or windows.drive or windows.root or ".." in windows.parts:
            raise InputError(
                f"{self.path}: holds {name!r}, which climbs out of its folder; refused"
            )
        if info.flag_bits & 1:
            raise InputError(f"{self.path}: {name} is encrypted; no published corpus is")
        if info.file_size > max(MAX_RATIO * info.compress_size, SMALL):
            raise InputError(
                f"{self.path}: {name} declares {info.file_size} bytes packed in "
                f"{info.compress_size}; refused as a bomb"
            )


def _is_content(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)
