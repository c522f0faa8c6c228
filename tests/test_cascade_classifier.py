"""The cascade route: views, what is read of a clip, and the same text in training and use."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import speechtaxi
from cascade import TextClassifier
from cascade.transcriber import Transcriber
from speechtaxi.batch import collate
from speechtaxi.cli import main
from speechtaxi.errors import InputError
from speechtaxi.records import read_manifest, read_predictions, read_run
from speechtaxi.store import TranscriptStore
from speechtaxi.types import Transcript, Utterance

LABELS = ["up", "down"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep what is romanised out of the user's cache."""
    monkeypatch.setenv("SPEECHTAXI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def speller(fit_arguments, tmp_path_factory):
    """A recogniser that spells uroman, trained for a moment."""
    run = tmp_path_factory.mktemp("runs") / "speller"
    arguments = [*fit_arguments, "-c", "recognizer_romanized", "--trainer.max_epochs=25"]
    assert main(["fit", *arguments, f"--run={run}", "--model.upsample=4"]) == 0
    return run


@pytest.fixture(scope="module")
def cascade_run(speller, fit_arguments, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "cascade"
    model = ["-c", "cascade_tiny", f"--model.recognizer={speller}"]
    store = f"--model.store={run.parent / 'transcripts.sqlite'}"
    assert main(["fit", *fit_arguments, *model, store, f"--run={run}"]) == 0
    assert main(["test", str(run)]) == 0
    return run


@pytest.mark.parametrize("view", ["gold", "gold_romanized"])
def test_gold_views_train_and_score(view, fit_arguments, tmp_path):
    run = tmp_path / view
    options = ["-c", "cascade_tiny", f"--model.view={view}", f"--run={run}"]
    assert main(["fit", *fit_arguments, *options]) == 0
    assert main(["test", str(run)]) == 0
    rows = read_predictions(run / "predictions-test.jsonl")
    assert all(row.prediction == row.label for row in rows)
    assert all(row.text and row.reference is None for row in rows)
    record = read_run(run)
    assert (record.view, record.romanize) == (view, "all" if "romanized" in view else None)


def test_gold_romanized_reads_latin_letters():
    model = TextClassifier(LABELS, view="gold_romanized")
    assert model.read([Utterance("a", "rus", text="дождь")]) == [("dozhd", None)]


@pytest.mark.parametrize(("romanize", "read"), [("all", "ete goda"), ("non_latin", "été goda")])
def test_what_is_romanised_is_a_setting_of_the_model(romanize, read, tmp_path):
    from speechtaxi import checkpoint

    model = TextClassifier(LABELS, view="gold_romanized", romanize=romanize)
    clip = Utterance("a", "rus", text="été года")
    assert model.read([clip]) == [(read, None)]
    checkpoint.save(model, tmp_path / "model", "card")
    assert speechtaxi.load(str(tmp_path / "model")).read([clip]) == [(read, None)]


def test_models_from_before_that_setting_romanise_all(tmp_path):
    import json

    from speechtaxi import checkpoint

    checkpoint.save(TextClassifier(LABELS, view="gold_romanized"), tmp_path / "model", "card")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for name in ("romanize", "freeze", "lora"):
        del config["settings"][name]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    model = speechtaxi.load(str(tmp_path / "model"))
    assert model.read([Utterance("a", "rus", text="été года")]) == [("ete goda", None)]


def test_only_romanised_views_have_that_setting():
    with pytest.raises(InputError, match=r"'gold' is not romanised.*--model\.view gold_romanized"):
        TextClassifier(LABELS, view="gold", romanize="non_latin")


def test_a_gold_model_cannot_classify_audio(corpus):
    model = TextClassifier(LABELS, view="gold")
    with pytest.raises(InputError, match="train on the transcripts of a recogniser"):
        list(model.classify(read_manifest(corpus)[0].audio))


def test_predictions_tell_what_was_read_and_what_was_said(cascade_run, speller):
    record = read_run(cascade_run)
    assert record.view == "romanized"
    assert record.recognizer.startswith("speechtaxi:")
    assert record.seconds["transcribe"] > 0
    alone = sum(p.numel() for p in speechtaxi.load(str(cascade_run)).parameters())
    assert record.parameters == alone + read_run(speller).parameters  # it needs both
    rows = read_predictions(cascade_run / "predictions-test.jsonl")
    assert {row.reference for row in rows} == {"rise and climb", "sink and fall"}
    assert all(set(row.text) <= set("abcdefghijklmnopqrstuvwxyz' ") for row in rows)
    assert sum(row.prediction == row.label for row in rows) >= 14


def test_classifies_without_lightning(e2e_run, cascade_run, corpus):
    """Both routes, and the recogniser that was trained here."""
    clip = read_manifest(corpus)[0].audio
    lines = [["classify", str(run), clip, "--language", "eng"] for run in (e2e_run, cascade_run)]
    script = (
        "import sys; sys.modules.update(lightning=None, torchmetrics=None)\n"
        "from speechtaxi.cli import main\n"
        f"sys.exit(max(main(line) for line in {lines!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_classify_reads_what_test_read(cascade_run, corpus):
    tested = {row.id: row for row in read_predictions(cascade_run / "predictions-test.jsonl")}
    clips = [row for row in read_manifest(corpus) if row.id in tested]
    model = speechtaxi.load(str(cascade_run))
    for clip, row in zip(
        clips, model.classify([c.audio for c in clips], language="eng"), strict=True
    ):
        assert row.text == tested[clip.id].text
        assert row.probabilities == pytest.approx(tested[clip.id].probabilities, abs=1e-4)


def test_clips_are_transcribed_together_whatever_the_batch(cascade_run, corpus, tmp_path):
    clips = [row.audio for row in read_manifest(corpus)[:6]]
    rows = []
    for size in (1, 6):
        model = speechtaxi.load(str(cascade_run))
        model.store = str(tmp_path / f"{size}.sqlite")
        recognizer, heard = model.transcriber.recognizer, []
        real = recognizer.transcribe
        recognizer.transcribe = lambda w, code, real=real, heard=heard: (
            heard.append(len(w)) or real(w, code)
        )
        rows.append([row.text for row in model.classify(clips, language="eng", batch_size=size)])
        assert sum(heard) == 6
        assert max(heard) > 1
    assert rows[0] == rows[1]


def test_nothing_is_transcribed_twice(cascade_run, monkeypatch):
    from cascade.asr import TrainedRecognizer

    def refuse(*_):
        raise AssertionError("transcribed again")

    monkeypatch.setattr(TrainedRecognizer, "transcribe", refuse)
    assert main(["test", str(cascade_run)]) == 0


def test_an_exported_cascade_brings_its_recogniser(cascade_run, corpus, tmp_path):
    folder = tmp_path / "model"
    assert main(["export", str(cascade_run), str(folder)]) == 0
    assert (folder / "recognizer" / "model.safetensors").is_file()
    moved = folder.rename(tmp_path / "moved")
    clip = next(row.audio for row in read_manifest(corpus) if row.split == "test")
    model = speechtaxi.load(str(moved))
    model.store = str(tmp_path / "fresh.sqlite")
    (row,) = model.classify(clip, language="eng")
    (known,) = speechtaxi.load(str(cascade_run)).classify(clip, language="eng")
    assert row == known


def test_a_recogniser_named_from_elsewhere_is_found(cascade_run, speller, tmp_path, monkeypatch):
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    shutil.copytree(speller, tree / "runs" / "speller")
    assert main(["export", str(cascade_run), str(tree / "models" / "cascade")]) == 0
    config = tree / "models" / "cascade" / "config.json"
    told = config.read_text().replace('"./recognizer"', '"runs/speller"')
    config.write_text(told.replace('"store": null', '"store": "runs/transcripts.sqlite"'))
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    model = speechtaxi.load(str(tree / "models" / "cascade"))
    assert model.recognizer == str(tree / "runs" / "speller")
    assert model.store is None  # rather than a new one here
    (tree / "openai" / "whisper-tiny").mkdir(parents=True)  # no model of ours
    config.write_text(config.read_text().replace("runs/speller", "openai/whisper-tiny"))
    named = speechtaxi.load(str(tree / "models" / "cascade"))
    assert named.recognizer == "openai/whisper-tiny"
    config.write_text(config.read_text().replace("openai/whisper-tiny", "runs/speller"))
    monkeypatch.chdir(tree)
    (tree / "runs" / "transcripts.sqlite").touch()
    assert speechtaxi.load("models/cascade").store == "runs/transcripts.sqlite"
    assert speechtaxi.load("models/cascade").recognizer == "runs/speller"


def test_the_recogniser_is_no_part_of_the_model(cascade_run):
    model = speechtaxi.load(str(cascade_run))
    before = set(model.state_dict())
    assert model.transcriber.recognizer.spells == "uroman"
    assert set(model.state_dict()) == before
    assert all(p.requires_grad for p in model.parameters())


def test_a_uroman_recogniser_has_no_native_view(speller, corpus, tmp_path):
    model = TextClassifier(
        LABELS, view="native", recognizer=str(speller), store=str(tmp_path / "s.sqlite")
    )
    with pytest.raises(InputError, match=r"use --model\.view romanized"):
        model.read(read_manifest(corpus)[:1])


def test_a_uroman_recogniser_keeps_no_latin(speller, corpus, tmp_path):
    model = TextClassifier(
        LABELS, romanize="non_latin", recognizer=str(speller), store=str(tmp_path / "s.sqlite")
    )
    with pytest.raises(InputError, match=r"use --model\.romanize all"):
        model.read(read_manifest(corpus)[:1])


class Told:
    """Writes Ukrainian whatever it hears; tells so where it is asked."""

    spells, longest, fingerprint = "native", None, "told"
    sure: float | None = 0.75

    def supports(self, language):
        return True

    def transcribe(self, waveforms, language):
        unasked = language != "und"
        told = {} if unasked else {"heard": "ukr", "heard_probability": self.sure}
        return [Transcript("", "Україна, 2 години", **told) for _ in waveforms]


@pytest.mark.parametrize("sure", [0.75, None])
def test_a_recogniser_tells_the_language(sure, tone, tmp_path):
    model = TextClassifier(LABELS, recognizer="told")
    recognizer = Told()
    recognizer.sure = sure
    model._transcriber = Transcriber(recognizer, TranscriptStore(tmp_path / "s.sqlite"))
    clips = [Utterance(code, code, audio=str(tone())) for code in ("und", "rus", "ukr")]
    heard = [model.heard(clip) for clip in clips]
    assert heard == [sure and ("ukr", sure), None, None]  # None: a store of old knows no number
    texts = [text for text, _ in model.read(clips)]
    assert texts == ["Ukrayina, 2 hodyny", "Ukrayina, 2 godini", "Ukrayina, 2 hodyny"]
    assert TextClassifier(LABELS, view="gold").heard(Utterance("g", "und", text="x")) is None


def test_memory_is_flat_in_the_number_of_files(monkeypatch):
    monkeypatch.setattr("cascade.model.RECENT", 10)
    model = TextClassifier(LABELS, view="gold")
    model._remembered = 10
    clips = [Utterance(str(n), "eng", text=f"text {n}") for n in range(100)]
    for start in range(0, 100, 4):
        batch = clips[start : start + 4]
        assert [text for text, _ in model.read(batch)] == [clip.text for clip in batch]
        assert len(model._readings) <= 10
    assert len(model.read(clips)) == 100  # more at once than are remembered
    model.read(clips[:1])
    assert len(model._readings) <= 10


def test_a_stage_reads_each_clip_once(fit_arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.model.RECENT", 0)
    asked = []
    real = TextClassifier._gold
    monkeypatch.setattr(
        TextClassifier, "_gold", lambda self, clip: asked.append(clip.id) or real(self, clip)
    )
    run = ["-c", "cascade_tiny", "--model.view=gold", f"--run={tmp_path / 'run'}"]
    assert main(["fit", *fit_arguments, *run, "--trainer.max_epochs=2"]) == 0
    assert len(asked) == len(set(asked)) == 40


@pytest.mark.parametrize(("view", "recognizer"), [("native", None), ("gold", "whisper:tiny")])
def test_views_and_recognisers_go_together(view, recognizer):
    with pytest.raises(InputError, match=r"model\.recognizer"):
        TextClassifier(LABELS, view=view, recognizer=recognizer)


def test_logits_do_not_change_with_batch_or_order():
    model = TextClassifier(LABELS, view="gold").eval()
    clips = [Utterance(str(n), "eng", text="word " * n) for n in range(1, 5)]

    def logits(rows):
        return model(collate(rows, [torch.zeros(0).numpy()] * len(rows), [-1] * len(rows)))

    alone = torch.cat([logits([clip]) for clip in clips])
    torch.testing.assert_close(logits(clips), alone)
    torch.testing.assert_close(logits(clips[::-1]).flip(0), alone)


def test_a_clip_whose_audio_changed_is_read_again(cascade_run, corpus, tmp_path):
    import shutil

    clips = [row for row in read_manifest(corpus) if row.split == "test"]
    up, down = (next(r.audio for r in clips if r.label == label) for label in LABELS)
    path = tmp_path / "clip.flac"
    texts = []
    for source in (up, down):
        shutil.copyfile(source, path)
        model = speechtaxi.load(str(cascade_run))
        (row,) = model.classify(str(path), language="eng")
        texts.append(row.text)
    assert texts[0] != texts[1]
    assert TranscriptStore(model.store)


def test_english_is_a_view_of_its_own(corpus, tmp_path):
    model = TextClassifier(LABELS, view="english", recognizer="whisper:tiny")
    assert model.decoding.task == "translate"
    model._transcriber = Transcriber(Told(), TranscriptStore(tmp_path / "t.sqlite"))
    clip = replace(read_manifest(corpus)[0], language="rus", text="дождь")
    assert model.read([clip]) == [("Україна, 2 години", None)]  # as it came, and no gold text of it
    assert model.settings["view"] == "english"


def test_a_fallback_is_for_the_romanised_view(corpus, tmp_path):
    options = {"recognizer": "whisper:tiny", "unsupported": "romanized", "fallback": "a/b"}
    for view in ("native", "english"):
        with pytest.raises(InputError, match=f"'{view}' takes no romanised transcripts"):
            TextClassifier(LABELS, view=view, **options)
    with pytest.raises(InputError, match="name it in fallback"):
        TextClassifier(LABELS, recognizer="whisper:tiny", unsupported="romanized")
    model = TextClassifier(LABELS, view="romanized", **options)
    deaf, latin = Told(), Told()
    deaf.supports = lambda language: language == "ukr"
    latin.spells, latin.fingerprint = "uroman", "latin"
    model._transcriber = Transcriber(
        deaf, TranscriptStore(tmp_path / "t.sqlite"), unsupported="romanized", fallback=latin
    )
    clip = replace(read_manifest(corpus)[0], text="дождь")
    known, unknown = replace(clip, language="ukr"), replace(clip, language="rus")
    assert model.read([known, unknown]) == [
        ("Ukrayina, 2 hodyny", "dozhd"),
        ("Україна, 2 години", "dozhd"),
    ]
    assert (model.flags(known), model.flags(unknown)) == ((), ("fallback",))


def test_a_recogniser_that_cannot_translate_has_no_english_view(speller, corpus, tmp_path):
    store = str(tmp_path / "s.sqlite")
    model = TextClassifier(LABELS, view="english", recognizer=str(speller), store=store)
    with pytest.raises(InputError, match="cannot translate into English; Whisper and Seamless"):
        model.read(read_manifest(corpus)[:1])


def test_decoding_is_part_of_the_model(speller, tmp_path):
    options = {"recognizer": str(speller), "store": str(tmp_path / "s.sqlite")}
    model = TextClassifier(LABELS, decoding={"compression_ratio_threshold": 2.4}, **options)
    plain = TextClassifier(LABELS, **options)
    assert model.transcriber.fingerprint != plain.transcriber.fingerprint
    assert model.settings["decoding"] == {"compression_ratio_threshold": 2.4}
    beams = TextClassifier(LABELS, decoding={"beam_size": 5}, **options)
    with pytest.raises(InputError, match="does not take beam_size"):
        _ = beams.transcriber
