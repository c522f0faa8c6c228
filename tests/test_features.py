"""Features of frozen encoders: encoded once for all runs, the same predictions, safe in a crowd."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from e2e import SpeechClassifier
from e2e.frozen import condense, keeps, recall
from speechtaxi.data import SpeechDataModule
from speechtaxi.encoder import SmallEncoder, open_encoder
from speechtaxi.errors import InputError
from speechtaxi.features import FeatureStore, fingerprint
from speechtaxi.records import read_manifest, write_manifest
from speechtaxi.types import Utterance

CACHED = [
    *((pooling, "last") for pooling in ("mean", "max", "statistics", "attention")),
    ("mean", "weighted"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECHTAXI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features.sqlite"


@pytest.fixture
def encoded(monkeypatch):
    """Return the lengths of all clips that a small encoder hears from here on, in a list."""
    heard = []
    forward = SmallEncoder.forward

    def counted(self, waveforms, lengths, all_layers=False):
        heard.extend(lengths.tolist())
        return forward(self, waveforms, lengths, all_layers)

    monkeypatch.setattr(SmallEncoder, "forward", counted)
    return heard


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Return the folder of a small random encoder."""
    from speechtaxi import checkpoint

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("encoder") / "small"
    checkpoint.save(SpeechClassifier(["a", "b"]), folder, "random")
    return str(folder)


class Rows(Callback):
    def __init__(self):
        self.rows = []

    def on_predict_batch_end(self, trainer, pl_module, outputs, *args):
        self.rows += outputs


def fit(corpus, encoder, *, epochs=1, seed=0, languages=None, data=None, **options):
    """Train and test; return the model and its predictions."""
    seed_everything(seed, verbose=False)
    model = SpeechClassifier(["up", "down"], encoder=encoder, freeze="all", **options)
    data = data or SpeechDataModule(
        str(corpus), ["up", "down"], batch_size=4, languages=languages, seed=seed
    )
    rows = Rows()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[rows],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data)
    trainer.predict(model, data, return_predictions=False)
    return model, sorted(rows.rows, key=lambda row: row.id)


def chances(rows):
    return np.array([list(row.probabilities.values()) for row in rows])


@pytest.mark.parametrize(("pooling", "layers"), CACHED)
def test_kept_features_tell_the_same_within_their_rounding(
    corpus, encoder, encoded, pooling, layers
):
    options = {"pooling": pooling, "layers": layers}
    _, plain = fit(corpus, encoder, features=None, **options)
    encoded.clear()
    _, first = fit(corpus, encoder, **options)
    assert len(encoded) == 56  # every clip once: train, dev and test
    encoded.clear()
    model, second = fit(corpus, encoder, **options)
    assert encoded == []
    assert [(row.id, row.duration) for row in plain] == [(row.id, row.duration) for row in second]
    np.testing.assert_array_equal(chances(first), chances(second))
    np.testing.assert_allclose(chances(plain), chances(second), atol=5e-3)
    data = SpeechDataModule(str(corpus), ["up", "down"])
    data.setup("test")
    deviation = (model.standardize.running_var + model.standardize.eps).sqrt()
    model.eval()
    with torch.inference_mode():
        batch = next(iter(data.test_dataloader()))
        kept = model._features.bring(replace(batch, waveforms=torch.zeros(len(batch), 0)))
        assert kept.lengths.tolist() == batch.lengths.tolist()
        exact = condense(model._hear(batch), model.kept, model.pooling)
        for there, value in zip(kept.features, exact, strict=True):  # half of float16's last bit
            assert ((there - value).abs() <= 2**-11 * value.abs() + 1e-6).all()
        difference = (model(kept) - model(batch)).abs()
        assert difference.max() > 0  # it was the store's
        if model.kept == "frames":  # attention moves its weights too
            assert difference.max() < 5e-3
            return
        largest = torch.stack([value.abs().amax(0) for value in exact])
        bound = (2**-11 * largest + 2e-6) / deviation @ model.head.weight.abs().T
        assert (difference <= bound + 1e-5).all()


def test_other_languages_seeds_and_heads_hear_nothing_new(corpus, encoder, encoded):
    fit(corpus, encoder)
    encoded.clear()
    fit(corpus, encoder, seed=3, languages=["fra"], lr=1e-4, dropout=0.3)
    assert encoded == []


def test_another_model_over_the_same_data_module_hears_for_itself(corpus, encoder, encoded):
    data = SpeechDataModule(str(corpus), ["up", "down"])
    fit(corpus, encoder, data=data)
    for options in ({"features": None}, {"pooling": "max"}):
        encoded.clear()
        fit(corpus, encoder, data=data, **options)
        assert min(encoded) > 1_600
        assert len(encoded) >= 56


def test_what_is_kept_gives_back_the_vector():
    torch.manual_seed(0)
    encoder = SmallEncoder().eval()
    for pooling, layers in CACHED:
        model = SpeechClassifier(["a", "b"], pooling=pooling, layers=layers)
        if model.mix is not None:
            torch.nn.init.normal_(model.mix.weights)
        frames = encoder(torch.randn(3, 9_000), torch.tensor([9_000, 4_000, 7_000]), True)
        heard = model.mix(frames.layers) if model.mix is not None else frames.last
        expected = model.pooling(heard, frames.mask)
        kept = condense(frames, model.kept, model.pooling)
        if model.kept == "vector":
            torch.testing.assert_close(torch.cat(kept), expected)
            continue
        again = recall(tuple(kept), model.kept)
        heard = model.mix(again.layers) if model.mix is not None else again.last
        torch.testing.assert_close(model.pooling(heard, again.mask), expected)
    assert keeps("max", "weighted") is keeps("attention", "weighted") is None


def test_what_cannot_be_kept_is_heard_each_time(corpus, encoder, encoded, cache):
    fit(corpus, encoder, pooling="max", layers="weighted")
    first = len(encoded)
    fit(corpus, encoder, pooling="max", layers="weighted")
    assert len(encoded) == 2 * first
    assert not cache.exists()


def test_training_hears_what_testing_hears(corpus, encoder, monkeypatch):
    """No dropout and no masks in a frozen encoder, in Lightning's loops too."""
    modes = []
    forward = SmallEncoder.forward

    def watched(self, *arguments, **options):
        modes.extend(module.training for module in self.modules())
        return forward(self, *arguments, **options)

    monkeypatch.setattr(SmallEncoder, "forward", watched)
    fit(corpus, encoder, features=None)
    assert modes
    assert not any(modes)


def test_an_encoder_that_is_trained_leaves_no_features(corpus, cache):
    seed_everything(0, verbose=False)
    model = SpeechClassifier(["up", "down"], freeze="all")
    next(model.encoder.blocks.parameters()).requires_grad_(True)  # as an adapter would be
    data = SpeechDataModule(str(corpus), ["up", "down"])
    Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    ).predict(model, data, return_predictions=False)
    assert not cache.exists()


def test_fingerprints_tell_weights_configuration_and_settings_apart(encoder):
    one = open_encoder(encoder)
    same = fingerprint(one, "vector", "mean")
    assert fingerprint(open_encoder(encoder), "vector", "mean") == same
    one.config["name"] = "/elsewhere"  # the same weights, in another place
    assert fingerprint(one, "vector", "mean") == same
    others = [fingerprint(one, "vector", "max"), fingerprint(one.half(), "vector", "mean")]
    one = open_encoder(encoder)
    with torch.no_grad():
        one.front.weight[0, 0] += 1e-6
    others.append(fingerprint(one, "vector", "mean"))
    one = open_encoder(encoder)
    one.config["kernel"] = 7
    others.append(fingerprint(one, "vector", "mean"))
    assert len({same, *others}) == 5


def test_changed_audio_is_heard_anew_and_moved_audio_is_not(corpus, encoder, encoded, tmp_path):
    fit(corpus, encoder)
    encoded.clear()
    rows = read_manifest(corpus)
    moved = tmp_path / "moved.flac"
    moved.write_bytes(Path(rows[0].audio).read_bytes())
    rows[0] = replace(rows[0], audio=str(moved))
    rows[1] = replace(rows[1], start=0.1, duration=0.3)
    write_manifest(tmp_path / "changed.jsonl", rows)
    fit(tmp_path / "changed.jsonl", encoder)
    assert encoded == [4_800]  # the new segment alone


def test_a_damaged_file_is_named_once_and_left_out(corpus, encoder, tmp_path, caplog):
    rows = read_manifest(corpus)
    number = next(n for n, row in enumerate(rows) if row.split == "test")
    data = bytearray(Path(rows[number].audio).read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / "damaged.flac").write_bytes(data)
    rows[number] = replace(rows[number], audio=str(tmp_path / "damaged.flac"))
    write_manifest(tmp_path / "changed.jsonl", rows)
    for _ in range(2):
        caplog.clear()
        _, found = fit(tmp_path / "changed.jsonl", encoder)
        assert rows[number].id not in {row.id for row in found}
        assert len(found) == 15
        assert caplog.text.count(f"skipped {rows[number].id}") == 1


RUN = """
import sys
sys.path.insert(0, "tests")
import e2e, test_features, torch
torch.set_num_threads(1)
forward = test_features.SmallEncoder.forward
def counted(self, waveforms, lengths, all_layers=False):
    print(len(lengths), flush=True)
    return forward(self, waveforms, lengths, all_layers)
test_features.SmallEncoder.forward = counted
print("ready", flush=True)
sys.stdin.readline()
test_features.fit(sys.argv[1], sys.argv[2])
"""


def start(corpus, encoder):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(corpus), encoder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_two_processes_share_the_work_and_a_killed_one_loses_its_batch_alone(
    corpus, encoder, encoded, cache
):
    pair = [start(corpus, encoder), start(corpus, encoder)]
    victim, survivor = pair
    victim.stdin.write("\n")
    victim.stdin.flush()
    for _ in range(4):  # as the fourth batch is heard, three are kept
        assert int(victim.stdout.readline()) <= 4
    victim.send_signal(signal.SIGKILL)
    lost = sum(map(int, victim.stdout.read().split()))
    victim.wait(10)
    database = sqlite3.connect(cache)
    there = database.execute("SELECT rows, dtype, length(data) FROM features").fetchall()
    assert 3 <= len(there) < 56
    assert set(there) == {(1, "<f2", 2 * SmallEncoder().dim)}  # none is half
    other = start(corpus, encoder)
    both = [process.communicate("\n")[0] for process in (survivor, other)]
    assert survivor.returncode == other.returncode == 0
    counts = [sum(map(int, text.split())) for text in both]
    assert sum(counts) >= 56 - len(there)
    assert all(count <= 56 - len(there) for count in counts)
    assert lost <= 56
    fit(corpus, encoder)
    assert encoded == []
    (rows,) = database.execute("SELECT count(*) FROM features").fetchone()
    assert rows == 56


def test_processes_look_again_before_each_batch(corpus, encoder, encoded, monkeypatch):
    """Another run that comes in the middle finishes the work; the first one finds it done."""
    condensed = condense
    calls = Counter()

    def interrupted(*arguments):
        calls["batches"] += 1
        if calls["batches"] == 3:
            with torch.inference_mode(False), torch.enable_grad():
                fit(corpus, encoder)
        return condensed(*arguments)

    monkeypatch.setattr("e2e.classifier.condense", interrupted)
    fit(corpus, encoder)
    assert 56 < len(encoded) <= 56 + 4  # no more than the batch in hand was heard twice


def test_values_beyond_float16_are_kept_whole(tmp_path):
    store = FeatureStore(tmp_path / "f.sqlite")
    large, small = np.array([[1e5, 1e-3]], np.float32), np.array([[1.0, 1 / 3]], np.float32)
    store.put([("large", 5, 0.5, large), ("small", 7, 0.25, small)])
    assert store.get("large")[0] == 5
    np.testing.assert_array_equal(store.get("large")[1], large)
    np.testing.assert_array_equal(store.get("small")[1], small.astype(np.float16))
    assert store.missing(["large", "other"]) == {"other"}
    assert store.seconds(["large", "small", "other"]) == 0.75
    with pytest.raises(KeyError):
        store.get("other")


def test_places_that_hold_no_features(tmp_path):
    (tmp_path / "notes.txt").write_text("no database\n" * 100)
    with pytest.raises(InputError, match=r"notes\.txt.*not a database.*--model\.features"):
        FeatureStore(tmp_path / "notes.txt")
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE mine (x)")
    with pytest.raises(InputError, match="not a feature store"):
        FeatureStore(tmp_path / "other.sqlite")
    with pytest.raises(InputError, match="cannot make a feature store"):
        FeatureStore(tmp_path / "notes.txt" / "f.sqlite")


def test_a_full_disk_keeps_what_is_done(tmp_path):
    store = FeatureStore(tmp_path / "f.sqlite")
    store.put([("a", 1, 0.0, np.ones((1, 4), np.float32))])
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InputError, match=r"full.*make room"):
        store.put([("b", 1, 0.0, np.ones((1000, 400), np.float32))])
    assert store.missing(["a", "b"]) == {"b"}


@pytest.mark.assets
@pytest.mark.parametrize("name", ["speech-embedding", "lyra-encoder"])
def test_real_encoders_tell_the_same_with_and_without(assets, tmp_path, name, monkeypatch):
    chosen = sorted((assets / "data/speech/fsdd").glob("[01]_*_[0-2].flac"))
    rows = [
        Utterance(
            path.stem,
            "eng",
            audio=str(path),
            label=("up", "down")[int(path.name[0])],
            split=("train", "dev", "test")[n % 3],
            group=path.stem,
        )
        for n, path in enumerate(chosen)
    ]
    write_manifest(tmp_path / "digits.jsonl", rows)
    folder = str(assets / "models" / name)
    options = {"allow_remote_code": [folder], "min_seconds": 0.8}
    _, plain = fit(tmp_path / "digits.jsonl", folder, features=None, **options)
    fit(tmp_path / "digits.jsonl", folder, **options)
    monkeypatch.setattr(SpeechClassifier, "_hear", None)  # the second run may not
    _, cached = fit(tmp_path / "digits.jsonl", folder, **options)
    assert len(plain) == 12
    np.testing.assert_allclose(chances(plain), chances(cached), atol=5e-3)
