"""The data module: selection, leaks, damage, batches in every loop."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechtaxi import audio
from speechtaxi.data import SpeechDataModule
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest, write_manifest


def module(manifest, **options):
    return SpeechDataModule(str(manifest), **{"labels": ["up", "down"], "batch_size": 4} | options)


def ids(loader):
    return [u.id for batch in loader for u in batch.utterances]


def changed(corpus, tmp_path, change):
    """Return a copy of the manifest with each row changed by a function, or dropped by None."""
    rows = [change(row) for row in read_manifest(corpus)]
    write_manifest(tmp_path / "changed.jsonl", [row for row in rows if row is not None])
    return tmp_path / "changed.jsonl"


def test_every_loop_brings_its_clips_once(corpus):
    data = module(corpus)
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    expected = {
        s: {r.id for r in read_manifest(corpus) if r.split == s} for s in ("train", "dev", "test")
    }
    for split, loader in (
        ("train", data.train_dataloader()),
        ("dev", data.val_dataloader()),
        ("test", data.test_dataloader()),
        ("test", data.predict_dataloader()),
    ):
        assert sorted(ids(loader)) == sorted(expected[split])


def test_batches_hold_what_the_files_hold(corpus):
    from speechtaxi.audio import load

    data = module(corpus)
    data.setup("test")
    for _ in range(2):  # decoded, then from memory
        batch = next(iter(data.test_dataloader()))
        for row, n, label, utterance in zip(
            batch.waveforms, batch.lengths, batch.labels, batch.utterances, strict=True
        ):
            heard = torch.from_numpy(load(utterance.audio))
            torch.testing.assert_close(row[:n], heard, atol=1e-4, rtol=0)
            assert not row[n:].any()
            assert ["up", "down"][label] == utterance.label


def test_train_languages_and_test_languages(corpus):
    data = module(corpus, languages=["eng"], test_languages=["eng", "fra"])
    data.setup("fit")
    data.setup("test")
    assert {u.language for u in data.clips["train"].utterances} == {"eng"}
    assert {u.language for u in data.clips["test"].utterances} == {"eng", "fra"}
    assert data.describe()["train_languages"] == ("eng",)


def test_fingerprint_is_the_corpus_not_the_selection(corpus):
    one, other = module(corpus, languages=["eng"]), module(corpus)
    one.setup("fit")
    other.setup("test")
    assert one.describe()["data_fingerprint"] == other.describe()["data_fingerprint"]


def test_an_unknown_language_lists_what_is_there(corpus):
    with pytest.raises(InputError, match=r"'deu'; there are: eng, fra"):
        module(corpus, languages=["deu"]).setup("fit")


def test_an_unknown_label_names_row_and_set(corpus):
    with pytest.raises(InputError, match=r"eng-train-1 has the label 'down'"):
        module(corpus, labels=["up", "other"]).setup("fit")


def test_labels_can_be_mapped(corpus):
    data = module(corpus, labels=["bass", "treble"], label_names={"up": "bass", "down": "treble"})
    data.setup("fit")
    assert {u.label for u in data.clips["train"].utterances} == {"bass", "treble"}


def test_unlabelled_training_clips_are_refused(corpus, tmp_path):
    manifest = changed(corpus, tmp_path, lambda r: replace(r, label=None))
    with pytest.raises(InputError, match="32 clips of split 'train' have no label"):
        module(manifest).setup("fit")


def test_a_group_in_train_and_in_another_languages_test_is_a_leak(corpus, tmp_path):
    def leak(row):
        return replace(row, group="test-3") if row.id == "eng-train-5" else row

    manifest = changed(corpus, tmp_path, lambda r: None if r.id == "eng-test-3" else leak(r))
    with pytest.raises(InputError, match=r"1 training clips.*eng-train-5 \(group test-3\)"):
        module(manifest).setup("fit")
    data = module(manifest, leakage="drop")
    data.setup("fit")
    assert "eng-train-5" not in {u.id for u in data.clips["train"].utterances}
    assert len(data.clips["train"]) == 31


def test_missing_files_are_skipped_and_counted_or_refused(corpus, tmp_path):
    def lose(row):
        return replace(row, audio="/nowhere.wav") if row.id == "fra-train-2" else row

    manifest = changed(corpus, tmp_path, lose)
    data = module(manifest)
    data.setup("fit")
    assert list(data.skipped) == ["fra-train-2"]
    assert data.describe()["skipped"] == 1
    with pytest.raises(InputError, match=r"fra-train-2: .*nowhere.wav"):
        module(manifest, damaged="error").setup("fit")


def test_a_file_damaged_behind_its_header_is_left_out_once(corpus, tmp_path, caplog, monkeypatch):
    victim = next(r for r in read_manifest(corpus) if r.id == "eng-test-0")
    data = bytearray(Path(victim.audio).read_bytes())
    data[len(data) // 2 :] = b"\0" * (len(data) - len(data) // 2)
    (tmp_path / "damaged.flac").write_bytes(data)
    manifest = changed(
        corpus,
        tmp_path,
        lambda r: replace(r, audio=str(tmp_path / "damaged.flac")) if r.id == victim.id else r,
    )
    decoded = []
    load = audio.load
    monkeypatch.setattr(audio, "load", lambda *clip: decoded.append(clip[0]) or load(*clip))
    module_ = module(manifest)
    module_.setup("test")
    for _ in range(2):
        assert sorted(ids(module_.test_dataloader())) == sorted(
            r.id for r in read_manifest(corpus) if r.split == "test" and r.id != victim.id
        )
    assert caplog.text.count("skipped eng-test-0") == 1
    assert decoded.count(str(tmp_path / "damaged.flac")) == 1
    assert module_.describe()["skipped"] == 1


def test_long_clips_are_cut(corpus):
    data = module(corpus, max_seconds=0.25)
    data.setup("test")
    assert all(batch.waveforms.shape[1] == 4000 for batch in data.test_dataloader())


def test_dev_can_be_held_out_by_group(corpus, tmp_path):
    manifest = changed(corpus, tmp_path, lambda r: None if r.split == "dev" else r)
    with pytest.raises(InputError, match="dev_share"):
        module(manifest).setup("fit")
    data = module(manifest, dev_share=0.3)
    data.setup("fit")
    train, dev = ({u.group for u in data.clips[s].utterances} for s in ("train", "dev"))
    assert dev
    assert not train & dev
    assert len(data.clips["train"]) + len(data.clips["dev"]) == 32


def test_a_folder_of_label_folders_becomes_a_corpus(corpus, tmp_path):
    for row in read_manifest(corpus):
        folder = tmp_path / "clips" / row.label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row.id}.flac").symlink_to(row.audio)
    with pytest.raises(InputError, match="test_share"):
        module(tmp_path / "clips", language="eng").setup("fit")
    data = module(tmp_path / "clips", language="eng", dev_share=0.2, test_share=0.3)
    data.setup("fit")
    data.setup("test")
    sizes = [len(data.clips[split]) for split in ("train", "dev", "test")]
    assert sum(sizes) == 56
    assert sizes[0] > sizes[2] > sizes[1] > 0


def test_ids_repeated_across_manifests_are_refused(corpus):
    with pytest.raises(InputError, match="more than one of"):
        SpeechDataModule([str(corpus), str(corpus)], labels=["up", "down"]).setup("fit")


def test_class_weights_are_inverse_frequencies(corpus, tmp_path):
    manifest = changed(
        corpus,
        tmp_path,
        lambda r: None if r.split == "train" and r.label == "up" and r.language == "fra" else r,
    )
    data = module(manifest)
    data.setup("fit")
    torch.testing.assert_close(data.class_weights(), torch.tensor([24 / 16, 24 / 32]))


def test_segments_of_one_file(corpus, tmp_path):
    source = read_manifest(corpus)[0]
    rows = [
        {
            "audio_filepath": source.audio,
            "offset": i / 10,
            "duration": 0.2,
            "label": "up",
            "lang": "eng",
            "split": "test",
            "id": str(i),
        }
        for i in range(3)
    ]
    manifest = tmp_path / "segments.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    data = module(manifest)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch.lengths.tolist() == [3200] * 3
    assert not torch.equal(batch.waveforms[0], batch.waveforms[1])
