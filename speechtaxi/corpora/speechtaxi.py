"""SpeechTaxi (arXiv 2409.06372): read Bible verses in 28 languages, six topics.

The hub's data set `LennartKeller/SpeechTaxi` is a loading script, which `datasets` >= 4 refuses,
and two archives, which are read here: `data.zip` (an MP3 for each verse, in folders such as
`data/039316d8ba074002-rev4/039316d8ba074002-rev4-1CO/001/Verse__10.mp3`) and `tables.zip`.

Read off the published script and the history of the data set: both archives' names, the columns
`verse_ref text_en language transcription transcription_romanized label audio`, the order of the
classes, the 28 configurations and `all`. Not public, and therefore read in any form: the kind of
the tables (CSV, TSV, JSON lines, Parquet), how they are named (a language and a split may stand
in the path or in columns), and from which folder the audio paths count. A table that cannot be
understood is refused with what is in it.

The licence is not declared. Splits are as published. The romanised gold text is kept in the column
`text_romanized`, which a model reads with `--data.columns '{text: text_romanized}'`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

from speechtaxi.corpora.archive import DAMAGE, Archive
from speechtaxi.corpora.clip import Clip, Shard, Sound, Wish
from speechtaxi.corpora.mirror import Mirror
from speechtaxi.corpora.source import Source
from speechtaxi.corpora.tables import SUFFIXES, read_rows
from speechtaxi.errors import InputError
from speechtaxi.labels import label_set
from speechtaxi.languages import LANGUAGES
from speechtaxi.records import SPLITS
from speechtaxi.types import Split, Utterance

TABLES, AUDIO = "tables.zip", "data.zip"
CODES = tuple(code for code, language in LANGUAGES.items() if language.in_speechtaxi)
AUDIO_COLUMNS = ("audio", "audio_path", "audio_file", "file_name", "filename", "file", "path")
Row = tuple[str, str, Split, dict[str, Any]]  # where it stands, language, split, cells


def shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return the two archives."""
    return [Shard(mirror.need(TABLES)), Shard(mirror.need(AUDIO))]


def read(shards: Sequence[Shard], wish: Wish) -> Iterator[Clip]:
    """Yield the verses of the wished languages; a verse without its recording comes as a problem.

    Raises:
        InputError: a damaged archive, a table that cannot be understood, a language not there.
    """
    tables, audio = (shard.path for shard in shards)
    rows = list(_rows(tables, wish))
    with Archive(audio) as archive:
        members = _by_path(archive)
        seen: Counter[str] = Counter()
        for where, language, split, cells in rows:
            name = f"{language}-{_cell(where, cells, 'verse_ref')}"
            seen[name] += 1
            row = Utterance(
                id=name if seen[name] == 1 else f"{name}-{seen[name]}",
                language=language,
                split=split,
                text=str(cells.get("transcription") or "").strip() or None,
                label=_label(where, cells),
                group=_cell(where, cells, "verse_ref"),
            )
            path = _audio_path(where, cells)
            member = _find(members, path)
            if member is None:
                yield Clip(row, problem=f"{row.id}: {audio.name} has no {path}")
                continue
            sound = Sound(member, archive.members[member].file_size, partial(archive.open, member))
            romanized = str(cells.get("transcription_romanized") or "").strip() or None
            yield Clip(row, sound, romanized)


def _rows(tables: Path, wish: Wish) -> Iterator[Row]:
    with Archive(tables) as archive:
        names = sorted(name for name in archive.members if name.lower().endswith(SUFFIXES))
        names = [name for name in names if "all" not in _words(name)] or names  # "all" repeats them
        if not names:
            raise InputError(f"{tables}: holds no tables, but {', '.join(archive.members)}")
        languages: set[str] = set()
        for name in names:
            try:
                with archive.open(name) as stream:
                    for where, cells in read_rows(tables, stream, name=name):
                        language = _language(where, name, cells)
                        languages.add(language)
                        if not wish.languages or language in wish.languages:
                            yield where, language, _split(where, name, cells), cells
            except DAMAGE as error:
                raise InputError(f"{tables}: {name} is damaged ({error})") from None
    missing = [code for code in wish.languages if code not in languages]
    if missing:
        raise InputError(f"{tables}: lacks {', '.join(missing)}; it has {_list(languages)}")


def _words(name: str) -> list[str]:
    return re.split(r"[/_. ]+", name.lower())


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "no rows"


def _language(where: str, name: str, cells: Mapping[str, Any]) -> str:
    told = str(cells.get("language") or "").strip()
    by_name = {LANGUAGES[code].name.lower(): code for code in CODES}
    for word in (told, by_name.get(told.lower(), ""), *_words(name)):
        if word in CODES:
            return word
    raise InputError(
        f"{where}: language {told!r} is none of SpeechTaxi's ({', '.join(CODES)}), "
        "and the table's name has none either"
    )


def _split(where: str, name: str, cells: Mapping[str, Any]) -> Split:
    for word in (str(cells.get("split") or "").lower(), *reversed(_words(name))):
        if word in SPLITS:
            return SPLITS[word]
    raise InputError(
        f"{where}: neither a column 'split' nor the table's name tells the split; the columns are "
        f"{', '.join(cells)}"
    )


def _label(where: str, cells: Mapping[str, Any]) -> str:
    labels = label_set("taxi1500")
    value = _cell(where, cells, "label")
    if value in labels:
        return value
    if value.isdecimal() and int(value) < len(labels):
        return labels[int(value)]
    raise InputError(
        f"{where}: label {value!r} is none of {', '.join(labels)}, and no number of one"
    )


def _audio_path(where: str, cells: Mapping[str, Any]) -> str:
    for column in AUDIO_COLUMNS:
        value = cells.get(column)
        if isinstance(value, dict):  # the `datasets` library's {bytes, path}
            value = cast("dict[str, Any]", value).get("path")
        if value:
            return str(value)
    raise InputError(f"{where}: no path of a recording; the columns are {', '.join(cells)}")


def _cell(where: str, cells: Mapping[str, Any], column: str) -> str:
    value = str(cells.get(column) if cells.get(column) is not None else "").strip()
    if not value:
        raise InputError(f"{where}: {column} is missing; the columns are {', '.join(cells)}")
    return value


def _by_path(archive: Archive) -> dict[str, str]:
    """Return path -> member, also without the one folder that everything may lie in."""
    names = list(archive.members)
    tops = {PurePosixPath(name).parts[0] for name in names}
    whole = {name: name for name in names}
    if len(tops) == 1 and all("/" in name for name in names):
        whole |= {name.partition("/")[2]: name for name in names}
    return whole


def _find(members: Mapping[str, str], path: str) -> str | None:
    """Return the member that a table's path means, whatever folder the path counts from."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    for start in range(len(parts)):
        if (name := "/".join(parts[start:])) in members:
            return members[name]
    return None


SOURCE = Source(
    name="speechtaxi",
    about="SpeechTaxi: 28 languages, verses read aloud, 6 topics",
    shards=shards,
    read=read,
    patterns=(TABLES, AUDIO),
    repository="LennartKeller/SpeechTaxi",
    revision="43b2a5137951cc3ddac31ba64cca74ea6e69b52c",
    labels="taxi1500",
    mapped=False,
)
