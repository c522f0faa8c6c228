"""Write a corpus: source.json first, each recording once, manifest.jsonl last."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from speechtaxi import audio
from speechtaxi.corpora.archive import DAMAGE
from speechtaxi.corpora.clip import Clip, Sound
from speechtaxi.errors import InputError
from speechtaxi.records import replacing
from speechtaxi.types import Utterance

RECORD = "source.json"
MANIFEST = "manifest.jsonl"


@dataclass(slots=True)
class Written:
    """What became of a corpus."""

    manifest: Path
    rows: list[Utterance] = field(default_factory=list[Utterance])
    left_out: list[str] = field(default_factory=list[str])
    """Why, one line for each clip."""
    notes: list[str] = field(default_factory=list[str])
    """What a user should know, one line each."""
    extracted: int = 0
    """Recordings that had to be written; the others were there."""


def write_corpus(output: Path, record: Mapping[str, Any], clips: Iterable[Clip]) -> Written:
    """Write a folder that training reads: recordings, manifest and where it all comes from.

    A recording is written under another name until it is whole, so an interrupted call goes on
    where it was; one that cannot be decoded is named and left out.

    Args:
        record: the content of source.json; `files` (path, bytes, sha256) tells sources apart.

    Raises:
        InputError: the folder holds something else, or the same corpus from other files; two clips
            of one id; not a single clip to write.
    """
    _claim(output, record)
    written = Written(output / MANIFEST, notes=list(record["notes"]))
    seen: set[str] = set()
    with replacing(written.manifest) as file:
        for clip in clips:
            if clip.row.id in seen:
                raise InputError(f"{record['corpus']}: two clips are called {clip.row.id}")
            seen.add(clip.row.id)
            try:
                row = _placed(output, clip, written)
            except InputError as error:
                written.left_out.append(str(error))
                continue
            written.rows.append(row)
            file.write(json.dumps(_cells(row, clip.romanized, output), ensure_ascii=False) + "\n")
        if not written.rows:
            first = f"; the first: {written.left_out[0]}" if written.left_out else ""
            raise InputError(f"{record['corpus']}: no clip could be written{first}")
    counts = {"rows": len(written.rows), "left_out": written.left_out}
    _write_record(output, {**record, **counts})
    return written


def _claim(output: Path, record: Mapping[str, Any]) -> None:
    """Make the folder ours, or find that it already holds this corpus, from the same files."""
    path = output / RECORD
    if not path.exists():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"{output}: holds something else; choose a new folder")
        _write_record(output, record)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        before = {file["path"]: file["sha256"] for file in found["files"]}
        corpus = found["corpus"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged; delete {output} and repeat") from None
    if corpus != record["corpus"]:
        raise InputError(f"{output}: holds {corpus}; choose another folder")
    for file in record["files"]:
        if before.get(file["path"], file["sha256"]) != file["sha256"]:
            raise InputError(
                f"{output}: was made from another {file['path']}; choose another folder, "
                "or delete this one"
            )
    known = {file["path"] for file in record["files"]}
    earlier = [file for file in found["files"] if file["path"] not in known]
    _write_record(output, {**record, "files": [*record["files"], *earlier]})


def _write_record(output: Path, record: Mapping[str, Any]) -> None:
    with replacing(output / RECORD) as file:
        file.write(json.dumps(record, ensure_ascii=False, indent=2) + "\n")


def _placed(output: Path, clip: Clip, written: Written) -> Utterance:
    """Return the row with the file and the length of its recording."""
    if clip.problem is not None:
        raise InputError(clip.problem)
    row = clip.row
    if clip.sound is not None:
        path = output / "audio" / clip.sound.place
        if not (path.is_file() and path.stat().st_size == clip.sound.size):
            _extract(clip, clip.sound, path)
            written.extracted += 1
        row = replace(row, audio=str(path))
    if row.audio is None or row.duration is not None:
        return row
    seconds = audio.probe(row.audio).seconds
    if seconds < audio.MIN_SECONDS:
        raise InputError(f"{row.audio}: only {seconds:.3f} s of audio")
    return replace(row, duration=round(seconds - row.start, 3))


def _extract(clip: Clip, sound: Sound, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")  # what a kill leaves, the next call overwrites
    try:
        with sound.open() as stream, draft.open("wb") as file:
            shutil.copyfileobj(stream, file)
        size = draft.stat().st_size
        if size != sound.size:
            raise InputError(f"{clip.row.id}: {size} of {sound.size} bytes are there")
        os.replace(draft, path)
    except DAMAGE as error:
        raise InputError(f"{clip.row.id}: damaged in its archive ({error})") from None
    finally:
        draft.unlink(missing_ok=True)


def _cells(row: Utterance, romanized: str | None, output: Path) -> dict[str, Any]:
    """Return a manifest row; audio below the folder is written relative to it."""
    cells = {name: value for name, value in asdict(row).items() if value is not None}
    if row.audio is not None:
        home = os.path.abspath(output)
        path = os.path.abspath(row.audio)
        inside = path.startswith(home + os.sep)
        cells["audio"] = Path(os.path.relpath(path, home)).as_posix() if inside else path
    if romanized is not None:
        cells["text_romanized"] = romanized
    return cells
