"""Text-only corpora for the text routes: Taxi1500, SIB-200, MasakhaNEWS.

Taxi1500 (arXiv 2305.08487) is given out by its authors on request, not by the hub. Read are tables
`<code>.tsv` with a header (`verse_id label split text`) and the authors' own form, as their script
writes it: `<train|dev|test>/<code>.tsv` or `<code>_data/<code>_<split>.tsv` with three cells (verse
id, label, verse), with or without a header `id label verse`.

SIB-200 (arXiv 2309.07445), hub `Davlan/sib200`: `data/<FLORES code>/<train|dev|test>.tsv` with
`index_id category text`, cells in quotation marks where needed. `index_id` is the sentence in all
languages: the same group as in SIB-Fleurs. The commit is not pinned: only a short form is public.

MasakhaNEWS, hub `masakhane/masakhanews`, 16 languages, seven topics: tables of `category headline
text url`, cells in quotation marks where needed, as in the authors' repository; on the hub read
from its own conversion (`refs/convert/parquet`: `<code>/<split>/0000.parquet`), as the data set
itself is a loading script. What the columns of that conversion are called is not public; any of
`category label`, `headline headline_text` and `text` is taken. The text is headline and body;
`--columns text=headline` takes the headline alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from speechtaxi.corpora.clip import Clip, Shard, Wish, language_code
from speechtaxi.corpora.mirror import Mirror, whole
from speechtaxi.corpora.shards import find_shards, read_shards
from speechtaxi.corpora.source import Source
from speechtaxi.errors import InputError
from speechtaxi.labels import label_set
from speechtaxi.languages import is_code
from speechtaxi.records import SPLITS
from speechtaxi.types import Utterance

SIB_PATTERNS = ("data/{config}/*.tsv",)
SIB_LAYOUTS = (r"(?:data/(?:annotated/)?)?(?P<config>[a-z]{3}_\w+)/(?P<part>train|dev|test)\.tsv",)
SIB_FIELDS = {"text": ("text",), "label": ("category",), "group": ("index_id",)}

NEWS_PATTERNS = ("{config}/*/*.parquet",)
NEWS_LAYOUTS = (
    r"(?:data/)?(?P<config>[a-z]{3})/(?P<part>train|dev|test)\.tsv",
    r"(?P<config>[a-z]{3})/(?P<part>train|validation|test)/\d+\.parquet",
    r"(?P<config>[a-z]{3})/masakhanews-(?P<part>train|validation|test)\.parquet",
)
NEWS_FIELDS = {
    "text": ("headline+text", "headline_text", "text", "headline"),
    "label": ("category", "label"),
    "group": ("url",),
}

TAXI_COLUMNS = ("id", "label", "verse")
TAXI_LAYOUTS = (
    r"(?:.*/)?(?P<config>[a-z]{3}|tw-[a-z]+)(?P<part>)\.tsv",
    r"(?:.*/)?(?P<config>[a-z]{3})_(?P<part>train|dev|test)\.tsv",
)


def sib_shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return SIB-200's tables of the wished languages."""
    return find_shards(mirror, SIB_LAYOUTS, wish, SIB_PATTERNS)


def read_sib(shards: Sequence[Shard], wish: Wish) -> Iterator[Clip]:
    """Yield SIB-200's sentences."""
    return read_shards(shards, wish, SIB_FIELDS, label_set("sib200"))


def news_shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return MasakhaNEWS' tables of the wished languages."""
    return find_shards(mirror, NEWS_LAYOUTS, wish, NEWS_PATTERNS)


def read_news(shards: Sequence[Shard], wish: Wish) -> Iterator[Clip]:
    """Yield MasakhaNEWS' articles; an article is its own group, by address."""
    return read_shards(shards, wish, NEWS_FIELDS, label_set("masakhanews"))


def taxi_shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return Taxi1500's tables; the split is in the name of the file or a folder, or a column."""
    found = find_shards(mirror, TAXI_LAYOUTS, wish)
    return [replace(shard, split=_taxi_split(mirror, shard)) for shard in found]


def _taxi_split(mirror: Mirror, shard: Shard):
    folders = shard.path.relative_to(mirror.root).parent.parts
    words = [shard.part, *(word for name in reversed(folders) for word in re.split(r"[_-]", name))]
    return next((SPLITS[word] for word in words if word in SPLITS), "predict")


def read_taxi(shards: Sequence[Shard], wish: Wish) -> Iterator[Clip]:
    """Yield Taxi1500's verses; cells are taken as they are, quotation marks included.

    Raises:
        InputError: a row of another width or label, a table that tells no split.
    """
    for shard in shards:
        header: list[str] = []
        with whole(shard.path).open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                cells = [cell.strip() for cell in line.rstrip("\r\n").split("\t")]
                where = f"{shard.path}:{number}"
                if not header and not cells[0].isdecimal():
                    header = cells
                    continue
                header = header or list(TAXI_COLUMNS)
                if len(cells) != len(header):
                    raise InputError(f"{where}: {len(cells)} cells, but there are {len(header)}")
                yield Clip(_verse(where, shard, dict(zip(header, cells, strict=True))))


def _verse(where: str, shard: Shard, cells: dict[str, str]) -> Utterance:
    verse, text = cells.get("verse_id") or cells.get("id"), cells.get("text") or cells.get("verse")
    labels, split = label_set("taxi1500"), SPLITS.get(cells.get("split", ""), shard.split)
    if not verse or not text or cells.get("label") not in labels or split == "predict":
        raise InputError(
            f"{where}: not a verse of Taxi1500: it needs an id, one of the labels "
            f"{', '.join(labels)}, a text, and a split in a column or in the path; found {cells}"
        )
    language = language_code(shard.config)
    assert is_code(language)
    return Utterance(
        id=f"{language}-{verse}",
        language=language,
        split=split,
        text=text,
        label=cells["label"],
        group=verse,
    )


TAXI1500 = Source(
    name="taxi1500",
    about="Taxi1500: Bible verses as text, 6 topics (a local folder)",
    shards=taxi_shards,
    read=read_taxi,
    labels="taxi1500",
    mapped=False,
)
SIB200 = Source(
    name="sib200",
    about="SIB-200: 205 languages, sentences as text, 7 topics",
    shards=sib_shards,
    read=read_sib,
    patterns=SIB_PATTERNS,
    repository="Davlan/sib200",
    labels="sib200",
)
MASAKHANEWS = Source(
    name="masakhanews",
    about="MasakhaNEWS: 16 languages, news articles as text, 7 topics",
    shards=news_shards,
    read=read_news,
    patterns=NEWS_PATTERNS,
    repository="masakhane/masakhanews",
    revision="refs/convert/parquet",
    licence="afl-3.0",
    labels="masakhanews",
)
