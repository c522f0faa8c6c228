"""Speech-MASSIVE (arXiv 2408.03900): spoken requests to an assistant, 12 languages, 60 intents.

Layout, from the data set's card and history and from public code that reads it:
`<locale>/<train_115|train|validation>-NNNNN-of-NNNNN.parquet` with the columns `id locale partition
utt intent_str speaker_id audio` and more; `id` is MASSIVE's, the same in all languages: the group.
The full `train` is there for de-DE and fr-FR; where it is, it is taken, elsewhere the 115 requests
of `train_115`. The test split is a repository of its own, `FBK-MT/Speech-MASSIVE-test`, which asks
for a login; without it there is no test split (test on dev, or share some of it out).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from speechtaxi.corpora.clip import Clip, Shard, Wish
from speechtaxi.corpora.mirror import Mirror
from speechtaxi.corpora.shards import find_shards, read_shards
from speechtaxi.corpora.source import Source
from speechtaxi.errors import InputError
from speechtaxi.labels import label_set

PATTERNS = ("{config}/*.parquet",)
LAYOUTS = (
    r"(?P<config>[a-z]{2}-[A-Z]{2})/(?P<part>train_115|train|validation|test)-\d+-of-\d+\.parquet",
)
FIELDS = {
    "audio": ("audio",),
    "text": ("utt",),
    "label": ("intent_str", "intent"),
    "group": ("id",),
    "speaker": ("speaker_id",),
}


def shards(mirror: Mirror, wish: Wish) -> list[Shard]:
    """Return the Parquet files of the wished languages, and of the test split if it can be had."""
    found = find_shards(mirror, LAYOUTS, wish, PATTERNS)
    full = {shard.config for shard in found if shard.part == "train"}
    found = [shard for shard in found if shard.part != "train_115" or shard.config not in full]
    if mirror.also is not None:
        try:
            tests = find_shards(mirror.also, LAYOUTS, wish, PATTERNS)
        except InputError:  # told by the summary: no test rows
            tests = list[Shard]()
        there = {(shard.config, shard.part) for shard in found}
        found += [shard for shard in tests if (shard.config, shard.part) not in there]
    return found


def read(shards: Sequence[Shard], wish: Wish) -> Iterator[Clip]:
    """Yield a clip for each request."""
    return read_shards(shards, wish, FIELDS, label_set("massive"))


SOURCE = Source(
    name="speech_massive",
    about="Speech-MASSIVE: 12 languages, requests to an assistant, 60 intents",
    shards=shards,
    read=read,
    patterns=PATTERNS,
    repository="FBK-MT/Speech-MASSIVE",
    also="FBK-MT/Speech-MASSIVE-test",
    revision="5c7bad24706e6919e1857a3b57ca9474557d730b",
    licence="cc-by-nc-sa-4.0",
    labels="massive",
)
