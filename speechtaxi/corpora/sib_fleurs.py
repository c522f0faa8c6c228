"""SIB-Fleurs (arXiv 2501.06117): encyclopaedic sentences read aloud, 102 languages, seven topics.

Layout, from the data set's card at the revision below and the public script that made it:
`data/<FLORES code>/<train|validation|test>-NNNNN-of-NNNNN.parquet`; a row is a sentence, and its
columns `audio`, `filename`, `speaker_id`, `gender` and `num_samples` are lists, one entry for each
recording. `index_id` numbers the sentences of SIB-200, the same in all languages: the group.

The splits are those of FLEURS, made language by language, so a sentence may be for training in one
language and for testing in another: `data.leakage: drop` keeps such sentences out of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from speechtaxi.corpora.clip import Clip, Shard, Wish
from speechtaxi.corpora.mirror import Mirror
from speechtaxi.corpora.shards import find_shards, read_shards
from speechtaxi.corpora.source import Source
from speechtaxi.labels import label_set

PATTERNS = ("data/{config}/*.parquet",)
LAYOUTS = (
    r"data/(?P<config>\w+)/(?P<part>train|validation|test)-\d+-of-\d+\.parquet",
    r"(?P<config>\w+)/(?P<part>train|validation|test)/\d+\.parquet",  # the hub's own conversion
)
FIELDS = {
    "audio": ("audio",),
    "text": ("raw_transcription", "sentence"),
    "label": ("category",),
    "group": ("index_id",),
    "speaker": ("speaker_id",),
}


def shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return the Parquet files of the wished languages."""
    return find_shards(mirror, LAYOUTS, wish, PATTERNS)


def read(shards: Sequence[Shard], wish: Wish) -> Iterator[Clip]:
    """Yield a clip for each recording; speakers are told apart within a language only."""
    return read_shards(shards, wish, FIELDS, label_set("sib200"))


SOURCE = Source(
    name="sib_fleurs",
    about="SIB-Fleurs: 102 languages, sentences read aloud, 7 topics",
    shards=shards,
    read=read,
    patterns=PATTERNS,
    repository="WueNLP/sib-fleurs",
    revision="94b9aebd783cde10e021a5189e4d0038cf26601b",
    licence="cc-by-sa-4.0",
    labels="sib200",
    notes=("splits are FLEURS': a sentence may be in other splits in other languages",),
)
