"""Label sets: the published order, and what is refused."""

from __future__ import annotations

import pytest

from speechtaxi.errors import InputError
from speechtaxi.labels import LABEL_SETS, label_set


def test_published_sizes_and_order():
    assert {name: len(labels) for name, labels in LABEL_SETS.items()} == {
        "taxi1500": 6,
        "sib200": 7,
        "masakhanews": 7,
        "iptc": 17,
        "minds14": 14,
        "massive": 60,
        "news6": 6,
    }
    assert label_set("taxi1500")[0] == "Recommendation"
    assert label_set("sib200")[0] == "science/technology"
    assert label_set("massive")[-1] == "lists_query"
    assert all(len(set(labels)) == len(labels) for labels in LABEL_SETS.values())


def test_given_labels_keep_their_order():
    assert label_set(("b", "a")) == ["b", "a"]


def test_a_named_set_is_not_shared():
    label_set("news6").append("gossip")
    assert "gossip" not in label_set("news6")


@pytest.mark.parametrize("labels", [[], ["one"], ["a", "b", "a"]])
def test_useless_labels_are_refused(labels):
    with pytest.raises(InputError, match="at least two different names"):
        label_set(labels)


def test_an_unknown_set_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown label set 'taxi'; use one of taxi1500, sib200"):
        label_set("taxi")


@pytest.mark.assets
def test_taxi1500_tables_use_these_labels(assets):
    from speechtaxi.records import read_manifest

    rows = read_manifest(assets / "data" / "taxi1500" / "eng.tsv", language="eng")
    assert {row.label for row in rows} == set(label_set("taxi1500"))
