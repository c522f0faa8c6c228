"""MInDS-14 (arXiv 2104.08524): telephone requests to a bank, 14 varieties, 14 intents, 8 kHz.

Layout, from the data set's card and its conversion to Parquet:
`<locale>/train-00000-of-00001.parquet` with the columns `audio transcription english_transcription
intent_class lang_id`. Everything is `train`: give the data module `dev_share` and `test_share`. No
speakers are told, and no request is repeated across varieties by name, so there is no group: a
speaker may be on both sides of such a split. The commit is not pinned: none of the public ones is
known to be on the main branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from speechtaxi.corpora.clip import Clip, Shard, Wish
from speechtaxi.corpora.mirror import Mirror
from speechtaxi.corpora.shards import find_shards, read_shards
from speechtaxi.corpora.source import Source
from speechtaxi.labels import label_set

PATTERNS = ("{config}/*.parquet",)
LAYOUTS = (r"(?P<config>[a-z]{2}-[A-Z]{2})/(?P<part>train)-\d+-of-\d+\.parquet",)
FIELDS = {"audio": ("audio",), "text": ("transcription",), "label": ("intent_class",)}


def shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return the Parquet files of the wished languages; eng means all three Englishes."""
    return find_shards(mirror, LAYOUTS, wish, PATTERNS)


def read(shards: Sequence[Shard], wish: Wish) -> Iterator[Clip]:
    """Yield a clip for each request, at its own 8 kHz."""
    return read_shards(shards, wish, FIELDS, label_set("minds14"))


SOURCE = Source(
    name="minds14",
    about="MInDS-14: 14 varieties, requests to a bank by telephone, 14 intents",
    shards=shards,
    read=read,
    patterns=PATTERNS,
    repository="PolyAI/minds14",
    licence="cc-by-4.0",
    labels="minds14",
    notes=("only a train split is published; share out dev and test",),
)
