"""The controls: planted leaks, hints and abstentions are found, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import OneHotEncoder

from speechtaxi.data import SpeechDataModule
from speechtaxi.errors import InputError
from speechtaxi.labels import label_set
from speechtaxi.records import fingerprint, read_manifest, write_manifest
from speechtaxi.report.comparison import Comparison, compare
from speechtaxi.report.questions.blind import above_chance, baselines, chance, guess
from speechtaxi.report.questions.controls import controls
from speechtaxi.report.questions.coverage import WholeBoard, coverage, whole
from speechtaxi.report.questions.leakage import leakage, leaks
from speechtaxi.report.runs import Run
from speechtaxi.report.section import Section
from speechtaxi.report.sources import compared_clips, read_sources
from speechtaxi.scores import macro_f1, tally
from speechtaxi.splits import with_splits
from speechtaxi.statistics import bootstrap
from speechtaxi.types import Prediction, RunRecord, Utterance

TOPICS = label_set("news6")
TRAINED = ("eng", "fra", "tam")


def run(name: str, rows: list[Prediction], **record) -> Run:
    by_language: dict[str, list[Prediction]] = {}
    for row in sorted(rows, key=lambda row: row.id):
        by_language.setdefault(row.language, []).append(row)
    known = {"route": "e2e", "train_languages": TRAINED, "seed": 0}
    return Run(RunRecord(name, **{**known, **record}), Path(name), by_language)


def answers(language: str, right: float, seed: int, clips: int = 96, **more) -> list[Prediction]:
    """Answers that are right with a given chance; a group is the same clip in each language."""
    rng = np.random.default_rng([seed, *language.encode()])
    made: list[Prediction] = []
    for n in range(clips):
        gold = TOPICS[n % 6]
        answer = gold if rng.random() < right else str(rng.choice(TOPICS))
        made.append(row(f"{language}-{n:02}", f"s{n}", language, gold, answer, **more))
    return made


def row(id: str, group: str, language: str, gold: str, answer: str, **more) -> Prediction:
    odds = {topic: float(topic == answer) for topic in TOPICS}
    return Prediction(id, group, language, gold, answer, odds, **more)


def corpus(found: Comparison, train: int = 60, seed: int = 0) -> list[Utterance]:
    """A clean manifest: the compared clips, and others to train on, with voices of their own."""
    rng = np.random.default_rng(seed)
    clips = [
        Utterance(
            item.id,
            language,
            f"/{item.id}.wav",
            "test",
            text=f"{language} {item.group}",
            label=item.label,
            group=item.group,
            speaker=f"reader {n % 2}",
        )
        for language in found.languages
        for n, item in enumerate(
            next(r.predictions[language] for r in found.runs if language in r.predictions)
        )
    ]
    for language in (*TRAINED, "deu"):  # no run saw German
        clips += [
            Utterance(
                f"{language}-t{n}",
                language,
                f"/{language}-t{n}.wav",
                "dev" if n % 6 == 5 else "train",
                text=f"{language} t{n}",
                label=str(rng.choice(TOPICS)),
                group=f"t{n}",
                speaker="narrator",
            )
            for n in range(train)
        ]
    return clips


@pytest.fixture(scope="module")
def found() -> Comparison:
    heard = [r for lang in ("eng", "fra", "ukr") for r in answers(lang, 0.8, 1)]
    read = [r for lang in ("eng", "fra", "ukr") for r in answers(lang, 0.8, 2)]
    return compare([run("ears", heard), run("eyes", read, route="cascade")], resamples=400)


def table(section: Section | list, name: str) -> list:
    tables = section.tables if isinstance(section, Section) else section
    return next((list(t.rows) for t in tables if t.name == name), [])


# ---------------------------------------------------------------------------------------- leaks


def test_a_clean_corpus_has_no_leak(found):
    clips = corpus(found)
    words, tables = leakage(found, compared_clips(found, clips), clips)
    assert tables == []
    assert words == [
        "No leak is found in verses or sentences, recordings, texts, speakers: none of those "
        "compared is in training or dev of the manifests at hand, in a language that a run was "
        "trained on."
    ]


def test_a_planted_leak_is_named_and_nothing_else(found):
    """s7 is trained on in Tamil, s9 in the dev split, s11 only in German, which no run saw."""
    clips = [
        replace(u, group={"tam-t1": "s7", "eng-t5": "s9", "deu-t1": "s11"}.get(u.id, u.group))
        for u in corpus(found)
    ]
    told = leaks(found, compared_clips(found, clips), clips)
    for leak in told["verses or sentences"]:
        assert {*leak.shared} == {"s7", "s9"}
        assert leak.shared["s7"] == {("train", "tam")}
        assert (leak.clips, len(leak.compared)) == (2, 96)
    assert [k.language for k in told["verses or sentences"]] == ["eng", "fra", "ukr"]
    assert not any(k.shared for what in ("recordings", "texts", "speakers") for k in told[what])
    section = controls(found, clips)
    assert section.words[0] == (
        "Beware of a leak: 2 of the 96 verses or sentences compared, with 6 clips, are also in "
        "training or dev: s7, s9. Scores on them may flatter."
    )
    rows = table(section, "leaks")
    assert [r["language"] for r in rows] == ["English", "French", "Ukrainian"]
    assert {r["where"] for r in rows} == {"dev: English; train: Tamil"}


def test_leaks_are_of_each_language_its_own_runs(found):
    """What only the run on French has learnt is no leak to English."""
    alone = [
        run("e", answers("eng", 0.8, 1), train_languages=("eng",)),
        run("f", answers("fra", 0.8, 1), train_languages=("fra",)),
    ]
    both = compare(alone, resamples=200)
    clips = [replace(u, group="s7") if u.id == "fra-t0" else u for u in corpus(both)]
    told = leaks(both, compared_clips(both, clips), clips)["verses or sentences"]
    assert {k.language: {*k.shared} for k in told} == {"eng": set(), "fra": {"s7"}}


def test_shared_recordings_texts_and_voices_are_told_apart(found):
    clips = corpus(found)
    by_id = {u.id: u for u in clips}
    same = {
        "eng-t0": {"audio": by_id["eng-03"].audio},
        "eng-t1": {"text": " eng  s4 "},
        "fra-t2": {"speaker": "reader 1"},
    }
    clips = [replace(u, **same.get(u.id, {})) for u in clips]
    told = leaks(found, compared_clips(found, clips), clips)
    shared = {w: {v for k in ls for v in k.shared} for w, ls in told.items()}
    assert shared == {
        "verses or sentences": set(),
        "recordings": {"/eng-03.wav from 0.0 s"},
        "texts": {"eng s4"},
        "speakers": {"reader 1"},
    }
    words = "\n".join(leakage(found, compared_clips(found, clips), clips)[0])
    assert "1 of the 2 speakers compared, with 144 clips, are also in training or dev" in words
    assert words.count("Beware of a leak") == 2


def test_without_manifest_or_groups_leaks_cannot_be_told(found):
    assert controls(found).words[0] == (
        "Whether training and test share verses or sentences, recordings, texts, speakers cannot "
        "be told: no manifest names them for both."
    )
    bare = compare(
        [run("ears", [replace(r, group=r.id) for r in answers("eng", 0.8, 1)])], resamples=200
    )
    clips = [replace(u, group=None) for u in corpus(bare)]
    words = controls(bare, clips).words
    assert any(w.startswith("Whether training and test share verses or sent") for w in words)
    assert words[0].startswith("No leak is found in recordings, texts, speakers:")


def test_dev_clips_may_be_dev_when_dev_is_compared(found):
    clips = [replace(u, split="dev") if u.split == "test" else u for u in corpus(found)]
    clips += [replace(u, id=f"{u.id}-again") for u in clips if u.split == "dev"]
    told = leaks(replace(found, split="dev"), compared_clips(found, clips), clips)
    assert not any(leak.shared for of_languages in told.values() for leak in of_languages)


# ------------------------------------------------------------------------------------ baselines


def timed(seconds: dict[str, float], seed: int) -> Comparison:
    """Clips whose length is drawn around that of their topic; one recording a language."""
    rng = np.random.default_rng(seed)
    runs = [
        run(
            name,
            [
                replace(r, duration=seconds[r.label] * float(np.exp(rng.normal(0, 0.2))))
                for lang in ("eng", "fra")
                for r in answers(lang, right, 3)
            ],
            route=route,
        )
        for name, route, right in (("ears", "e2e", 1.0), ("lazy", "cascade", 0.05))
    ]
    return compare(runs, resamples=400)


def told(found: Comparison, clips: list[Utterance]) -> tuple[str, list]:
    words, tables = baselines(found, compared_clips(found, clips), clips)
    return "\n".join(words), list(tables[0].rows)


@pytest.mark.parametrize("manifest", [True, False])
def test_a_corpus_whose_lengths_tell_the_topic(manifest):
    lengths = {topic: 2.0 * 1.6**n for n, topic in enumerate(TOPICS)}
    found = timed(lengths, 0)
    rng = np.random.default_rng(1)
    clips = [
        replace(u, duration=lengths[u.label] * float(np.exp(rng.normal(0, 0.2))))
        for u in corpus(found, 300)
    ]
    words, rows = told(found, clips if manifest else [])
    assert {r["baseline"]: r["tells the topic"] for r in rows} == {
        "majority": "not shown",
        "duration alone": "yes",
    }
    learnt = "750 training clips" if manifest else "compared clips, cross-validated"
    assert rows[1]["learnt from"] == learnt
    assert rows[1]["macro-F1"].estimate > 0.6
    assert rows[1]["by chance"] == pytest.approx(1 / 6, abs=0.03)
    assert "Beware: duration alone tells something of the topic. " in words
    assert "Not shown to beat it: lazy (all-languages).\n" in f"{words}\n"


def test_lengths_that_tell_nothing_are_not_accused():
    """Blind answers surpass the majority's macro-F1, and are still not shown to know a thing."""
    found = timed(dict.fromkeys(TOPICS, 4.0), 0)
    words, rows = told(found, [])
    assert "Beware" not in words
    assert "Not shown to tell the topic: duration alone." in words
    assert "it never varies: speaker, book." in words
    assert rows[1]["macro-F1"].low > rows[0]["macro-F1"].estimate
    assert rows[1]["above chance"].low < 0 < rows[1]["above chance"].high


def test_blind_baselines_are_seldom_accused():
    """Of 200 sets of answers by chance, the interval accuses few: nominally 5."""
    rng = np.random.default_rng(0)
    gold = np.arange(96) % 6
    accused = sum(
        bootstrap(tally(gold, rng.integers(6, size=96), 6), above_chance, resamples=400).low > 0
        for _ in range(200)
    )
    assert accused <= 12  # exceeded in 1 of 500 by a binomial of the nominal rate


def test_speaker_and_book_are_tried_where_the_manifest_tells_them():
    heard = [
        replace(r, group=f"{40 + n % 6}001{n:03}")
        for lang in ("eng", "fra")
        for n, r in enumerate(answers(lang, 0.9, 1))
    ]
    found = compare([run("ears", heard)], resamples=400)
    clips = [
        replace(
            u,
            group=u.group if u.split == "test" else f"{40 + TOPICS.index(u.label)}0020{n:02}",
            speaker=f"v{n % 3}",
        )
        for n, u in enumerate(corpus(found))
    ]
    words, rows = told(found, clips)
    assert {r["baseline"]: r["tells the topic"] for r in rows} == {
        "majority": "not shown",
        "speaker alone": "not shown",
        "book alone": "yes",
    }
    assert rows[2]["macro-F1"].estimate == 1
    assert "Not tried, as the data do not tell it or it never varies: duration." in words


def test_chance_is_what_shuffled_answers_reach():
    rng = np.random.default_rng(0)
    gold, answers = rng.choice(4, 80, p=[0.5, 0.3, 0.15, 0.05]), rng.choice(5, 80)
    scores = [macro_f1(tally(gold, rng.permutation(answers), 6).sum(0)) for _ in range(4000)]
    expected = chance(tally(gold, answers, 6).sum(0))
    assert expected == pytest.approx(np.mean(scores), abs=4 * np.std(scores) / 4000**0.5)


def test_guesses_agree_with_balanced_logistic_regression():
    rng = np.random.default_rng(0)
    known = rng.integers(8, size=2000)
    labels = [TOPICS[(k + rng.choice(6, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])) % 6] for k in known]
    encoder = OneHotEncoder().fit(known[:, None])
    model = LogisticRegression(class_weight="balanced", C=1e3, max_iter=2000)
    model.fit(encoder.transform(known[:, None]), labels)
    asked = np.arange(8)
    expected = model.predict(encoder.transform(asked[:, None])).tolist()
    assert guess(known, labels, asked) == expected
    assert len({*expected}) > 2


# ------------------------------------------------------------------------------------- coverage


def test_abstentions_by_hand():
    """Four clips, two topics: `half` lacks one of four and reads one as empty."""
    a, b = TOPICS[:2]
    full = run("full", [row(f"c{n}", f"c{n}", "eng", g, g) for n, g in enumerate([a, a, b, b])])
    half = run(
        "half",
        [
            row("c0", "c0", "eng", a, a),
            row("c2", "c2", "eng", b, b),
            row("c3", "c3", "eng", b, a, flags=("empty",)),
        ],
        route="cascade",
    )
    found = compare([full, half], common=True, resamples=200)
    words, tables = coverage(found, [full, half])
    first, second = table(tables, "coverage")
    assert (first["coverage"], first["missing"], first["flagged"]) == (1, 0, 0)
    assert (second["coverage"], second["missing"], second["flagged"]) == (0.5, 0.25, 0.25)
    assert (first["clips"], second["clips"], second["flags"]) == (4, 4, "empty 1")
    # both topics: one hit of two clips, one prediction: F1 = 2 x 1 / (2 + 1)
    assert second["macro-F1, counted as wrong"].estimate == pytest.approx(2 / 3)
    assert first["macro-F1, counted as wrong"].estimate == 1
    assert first["macro-F1, dropped for all"].estimate == 1
    assert second["macro-F1, dropped for all"].estimate == 1
    assert "least for half (all-languages): 50.0%. Of 4 clips 2 lack a usable answer" in words[0]


@pytest.fixture(scope="module")
def patchy() -> list[Run]:
    """Two seeds of a cascade, of which one lacks clips and both hear nothing in others."""
    heard = [r for lang in ("eng", "fra") for r in answers(lang, 0.7, 1)]
    read = [r for lang in ("eng", "fra") for r in answers(lang, 0.9, 2)]
    silent = [replace(r, flags=("silent",)) if n % 5 == 1 else r for n, r in enumerate(read)]
    doubtful = [replace(r, flags=("looping",)) if n % 5 == 2 else r for n, r in enumerate(silent)]
    return [
        run("ears", heard),
        run("eyes", doubtful, route="cascade"),
        run("eyes", [r for n, r in enumerate(silent) if n % 4], route="cascade", seed=1),
    ]


def test_abstentions_agree_with_scikit_learn(patchy):
    """A clip without a usable answer is one that was answered with no topic at all."""
    runs = whole(patchy)
    for dropping in (False, True):
        board = WholeBoard(runs, TOPICS, 200, 0, dropping=dropping)
        arm = next(arm for arm in board.arms if arm.system == "eyes")
        for language in ("eng", "fra"):
            full = {r.id: r.label for r in patchy[0].predictions[language]}
            given = [
                {r.id: r.prediction for r in one.predictions[language] if "silent" not in r.flags}
                for one in patchy[1:]
            ]
            shared = [name for name in full if all(name in seed for seed in given)]
            kept = shared if dropping else list(full)
            expected = [
                f1_score(
                    [full[name] for name in kept],
                    [seed.get(name, "none") for name in kept],
                    labels=TOPICS,  # all occur, "none" is no topic
                    average="macro",
                )
                for seed in given
            ]
            assert board.macro_f1(arm, (language,)).seeds == pytest.approx(expected)
            assert len(shared) < len(full)


def test_shares_are_means_over_seeds_and_doubts_are_no_gaps(patchy):
    aligned = [
        replace(
            r, predictions={k: [p for p in v if p.id in common] for k, v in r.predictions.items()}
        )
        for common in [{p.id for p in patchy[2].rows()}]
        for r in patchy
    ]
    _, tables = coverage(compare(aligned, common=True, resamples=200), patchy)
    ears, eyes = table(tables, "coverage")
    assert (ears["coverage"], ears["clips"]) == (1, 192)
    own = [list(seed.rows()) for seed in patchy[1:]]
    counts = [[len(rows), sum(bool(r.flags) for r in rows)] for rows in own]
    silent = [sum(r.flags == ("silent",) for r in rows) for rows in own]
    assert counts[0][0] == 192 > counts[1][0]
    assert eyes["missing"] == pytest.approx((192 - counts[1][0]) / 2 / 192)
    assert eyes["flagged"] == pytest.approx((counts[0][1] + counts[1][1]) / 2 / 192)
    assert eyes["coverage"] == pytest.approx((192 + counts[1][0] - sum(silent)) / 2 / 192)
    assert eyes["flags"] == f"looping {counts[0][1] - silent[0]}, silent {sum(silent)}"
    assert [r["language"] for r in table(tables, "coverage-languages")] == ["English", "French"] * 2


def test_a_finding_that_depends_on_the_way_is_told():
    """The cascade is perfect where it reads, and guesses right where it read nothing."""
    heard = run("ears", answers("eng", 0.85, 1))
    lucky = [
        replace(r, flags=("empty",)) if n % 2 else r for n, r in enumerate(answers("eng", 1.0, 2))
    ]
    read = run("eyes", lucky, route="cascade")
    found = compare([heard, read], resamples=400)
    words, tables = coverage(found, [heard, read])
    assert words[-1] == (
        "Beware: what is found depends on the way. ears against eyes, all-languages: cascade "
        "better as compared, E2E better when counted as wrong."
    )
    rows = table(tables, "coverage-differences")
    assert rows[0]["as compared"].high < 0 < rows[0]["counted as wrong"].low
    few = [
        replace(r, flags=("empty",)) if n == 5 else r for n, r in enumerate(answers("eng", 1, 2))
    ]
    read = run("eyes", few, route="cascade")
    words, _ = coverage(compare([heard, read], resamples=400), [heard, read])
    assert words[-1] == "Neither way changes what is found of hearing against reading."


def test_a_language_that_nobody_can_read_leaves_the_mean_alone():
    heard = run("ears", [*answers("eng", 0.8, 1), *answers("fra", 0.8, 1)])
    deaf = [replace(r, flags=("unsupported_language",)) for r in answers("fra", 0.2, 2)]
    read = run("eyes", [*answers("eng", 0.8, 2), *deaf], route="cascade")
    words, tables = coverage(compare([heard, read], resamples=200), [heard, read])
    assert "Dropped for all, no clip is left in French: those scores are without it." in words
    rows = {(r["system"], r["language"]): r for r in table(tables, "coverage-languages")}
    assert rows["eyes", "French"]["coverage"] == 0
    assert rows["eyes", "French"]["macro-F1, dropped for all"] is None
    assert rows["eyes", "French"]["macro-F1, counted as wrong"].estimate == 0
    for mean in table(tables, "coverage"):
        english = rows[mean["system"], "English"]["macro-F1, dropped for all"]
        assert mean["macro-F1, dropped for all"].estimate == pytest.approx(english.estimate)


def test_nothing_skipped_is_said_in_a_sentence(found):
    assert coverage(found, found.runs) == (
        ["Every system answered every clip, and none is flagged."],
        [],
    )


# -------------------------------------------------------------------------------------- sources


def folder(path: Path, config: str | None, **record) -> Run:
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"system": path.name, "route": "e2e"}))
    if config is not None:
        (path / "config.yaml").write_text(config)
    return Run(RunRecord(path.name, "e2e", **record), path, {})


def test_manifests_are_found_by_the_runs_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("words.tsv").write_text("verse\ttopic\ttext\n1\tRegn\train\n2\tSport\tgoal\n")
    config = (
        "# lightning.pytorch==2.6.6\nseed_everything: 0\ndata:\n  manifest: words.tsv\n"
        "  columns: {group: verse, label: topic}\n  label_names: {Regn: Rain}\n  language: nob\n"
    )
    rows, gaps = read_sources([folder(Path("a"), config), folder(Path("b"), config)])
    told = [(u.language, u.group, u.label, u.text) for u in rows]
    assert told == [("nob", "1", "Rain", "rain"), ("nob", "2", "Sport", "goal")]
    assert gaps == []


def test_what_configs_do_not_tell_is_a_line_each(tmp_path):
    gone = tmp_path / "gone.jsonl"
    runs = [
        folder(tmp_path / "lost", f"data:\n  manifest: {gone}\n"),
        folder(tmp_path / "lost2", f"data:\n  manifest: [{gone}]\n"),
        folder(tmp_path / "mute", None),
        folder(tmp_path / "torn", "data: [\n"),
        folder(tmp_path / "other", "data: 3\n"),
        Run(RunRecord("file", "e2e"), tmp_path / "predictions.jsonl", {}),
    ]
    rows, gaps = read_sources(runs)
    assert rows == []
    assert len(gaps) == 4
    assert not any("\n" in gap for gap in gaps)
    text = "\n".join(gaps)
    assert "(the manifest of lost, lost2)" in text
    assert "names the manifest of mute, file:" in text
    assert "torn/config.yaml: cannot be read" in text
    assert "other/config.yaml: data.manifest names no manifest" in text


def test_manifests_that_are_given_come_first(tmp_path):
    clips = [Utterance("x", "eng", text="rain", group="1", split="train")]
    write_manifest(tmp_path / "given.jsonl", clips)
    runs = [
        folder(tmp_path / "a", "data:\n  manifest: gone.jsonl\n  columns: {group: verse}\n"),
        folder(tmp_path / "b", "data: [\n"),
    ]
    assert read_sources(runs, [tmp_path / "given.jsonl"]) == (clips, [])
    with pytest.raises(InputError, match="gone"):
        read_sources(runs, [tmp_path / "gone.jsonl"])


def test_clips_that_a_run_left_out_as_leaks_are_none(tmp_path):
    clips = [
        Utterance("a", "eng", text="a", group="1", split="train"),
        Utterance("b", "eng", text="b", group="2", split="train"),
        Utterance("c", "fra", text="c", group="1", split="test"),
    ]
    write_manifest(tmp_path / "m.jsonl", clips)
    config = f"data:\n  manifest: {tmp_path / 'm.jsonl'}\n  leakage: "
    dropping, keeping = folder(tmp_path / "d", config + "drop"), folder(tmp_path / "k", config)
    assert [u.id for u in read_sources([dropping])[0]] == ["b", "c"]
    assert {u.id for u in read_sources([dropping, keeping])[0]} == {"a", "b", "c"}


def test_another_manifest_than_the_runs_is_told(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, [Utterance("a", "eng", text="a")])
    config, now = f"data:\n  manifest: {path}\n", fingerprint(read_manifest(path))
    same = folder(tmp_path / "same", config, data_fingerprint=now)
    other = folder(tmp_path / "other", config, data_fingerprint="0000")
    assert read_sources([same])[1] == []
    (gap,) = read_sources([same, other])[1]
    assert f"not the clips that other had (fingerprint {now}, not 0000)" in gap


@pytest.mark.parametrize("splits", [("predict",), ("train",), ("train", "test")])
def test_splits_by_hash_are_those_of_training(tmp_path, splits):
    clips = [
        Utterance(f"u{n}", "eng", text="x", group=f"g{n // 2}", split=splits[n % len(splits)])
        for n in range(400)
    ]
    write_manifest(tmp_path / "m.jsonl", clips)
    module = SpeechDataModule(str(tmp_path / "m.jsonl"), dev_share=0.2, test_share=0.3)
    assert with_splits(clips, {"dev": 0.2, "test": 0.3}) == module.utterances
    config = f"data:\n  manifest: {tmp_path / 'm.jsonl'}\n  dev_share: 0.2\n  test_share: 0.3\n"
    rows, _ = read_sources([folder(tmp_path / "run", config)])
    assert rows == module.utterances
    assert {u.split for u in rows} == {"train", "dev", "test"}
