"""Is a corpus whole, balanced and free of leaks? Damage, doubles, leaks, counts, shortcuts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechtaxi.errors import InputError
from speechtaxi.types import Utterance

SPLIT_ORDER = ("train", "dev", "test", "predict")
MELS = 40


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found: problems, one line each, and notes that are none."""

    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """Measured length by id, of the clips that can be read."""
    spectra: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    """Mean log-mel spectrum (MELS,) by id, where it was asked for."""


def inspect(utterances: Iterable[Utterance], spectra: bool = False) -> Findings:
    """Read every clip and every row; collect damage, doubles and leaks."""
    from speechtaxi import audio

    findings = Findings()
    rows: list[Utterance] = []
    digests: dict[str, str] = {}  # by path: many segments may lie in one long file
    doubles: defaultdict[tuple[str, float, float | None], list[Utterance]] = defaultdict(list)
    for row in utterances:
        rows.append(row)
        if row.audio is None:
            continue
        try:
            wave = audio.load(row.audio, row.start, row.duration)
            if row.audio not in digests:
                digests[row.audio] = audio.digest(row.audio)
        except InputError as error:
            findings.problems.append(str(error))
            continue
        findings.seconds[row.id] = len(wave) / audio.SAMPLE_RATE
        doubles[digests[row.audio], row.start, row.duration].append(row)
        if audio.is_silent(wave):
            findings.problems.append(f"{row.audio}: silent (below {audio.SILENCE_DBFS:g} dBFS)")
        if spectra:
            findings.spectra[row.id] = mean_spectrum(wave)
    for same in doubles.values():
        if len(same) > 1:
            where = "same audio: " + ", ".join(f"{row.audio} ({_place(row)})" for row in same)
            harmless = len({(row.split, row.label) for row in same}) == 1
            (findings.notes if harmless else findings.problems).append(where)
    findings.problems.extend(leaks(rows))
    findings.notes.extend(_notes(rows))
    return findings


def _place(row: Utterance) -> str:
    return ", ".join(filter(None, (row.language, row.split, row.label)))


def leaks(utterances: Iterable[Utterance]) -> Iterator[str]:
    """Name each group (verse, sentence) that two splits share, in whatever languages."""
    for group, places in _splits_by(utterances, "group").items():
        if len(places) > 1:
            where = " and ".join(
                f"{split} ({', '.join(sorted(places[split]))})"
                for split in SPLIT_ORDER
                if split in places
            )
            yield f"leak: group {group} is in {where}"


def _notes(rows: Sequence[Utterance]) -> Iterator[str]:
    shared = [name for name, splits in _splits_by(rows, "speaker").items() if len(splits) > 1]
    if shared:
        named = ", ".join(shared[:10]) + (", ..." if len(shared) > 10 else "")
        yield f"{len(shared)} speaker(s) in more than one split: {named}"
    unlabelled = sum(row.label is None for row in rows)
    if unlabelled:
        yield f"{unlabelled} row(s) without a label"


def _splits_by(rows: Iterable[Utterance], name: str) -> dict[str, dict[str, set[str]]]:
    """Return value of a field -> split -> languages; rows to predict belong to no split."""
    found: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        value = getattr(row, name)
        if value is not None and row.split != "predict":
            found[value][row.split].add(row.language)
    return {value: dict(splits) for value, splits in found.items()}


# ------------------------------------------------------------------------------------ counting


def count(utterances: Iterable[Utterance], seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return one row per language and split: rows, hours, and the spread of clip lengths."""
    parts: defaultdict[tuple[str, str], list[Utterance]] = defaultdict(list)
    for row in utterances:
        parts[row.language, row.split].append(row)
    table: list[dict[str, Any]] = []
    for language, split in sorted(parts, key=lambda part: (part[0], SPLIT_ORDER.index(part[1]))):
        rows = parts[language, split]
        known = [seconds[row.id] for row in rows if row.id in seconds]
        spread = np.quantile(known, [0.5, 0.95, 1]).round(2).tolist() if known else [None] * 3
        hours = round(sum(known) / 3600, 4) if known else None
        table.append(
            {"language": language, "split": split, "rows": len(rows), "hours": hours}
            | dict(zip(("median_seconds", "p95_seconds", "max_seconds"), spread, strict=True))
        )
    return table


def count_labels(utterances: Iterable[Utterance]) -> dict[str, dict[str, int]]:
    """Return label -> split -> rows, the most frequent label first."""
    pairs = Counter((row.label, row.split) for row in utterances if row.label is not None)
    totals: Counter[str] = Counter()
    for (label, _), rows in pairs.items():
        totals[label] += rows
    return {
        label: {split: pairs[label, split] for split in SPLIT_ORDER if pairs[label, split]}
        for label, _ in totals.most_common()
    }


# ----------------------------------------------------------------------------------- shortcuts


def mean_spectrum(wave: np.ndarray) -> np.ndarray:
    """Return the log of a clip's mean mel spectrum (MELS,): its timbre without its words."""
    import librosa

    from speechtaxi.audio import SAMPLE_RATE

    mels = librosa.feature.melspectrogram(
        y=wave, sr=SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=MELS
    )
    return np.log(mels.mean(axis=1) + 1e-10)


def measure_shortcuts(utterances: Sequence[Utterance], findings: Findings) -> dict[str, float]:
    """Score length, voice and mean spectrum as predictors of the label, beside chance.

    Raises:
        InputError: no labelled, readable rows to train on or to test on.
    """
    held = "test" if any(row.split == "test" for row in utterances) else "dev"
    rows = [
        row
        for row in utterances
        if row.label is not None and row.split in ("train", held) and row.id in findings.seconds
    ]
    length = np.log([findings.seconds[row.id] for row in rows])
    features = {"duration": np.stack([length, length**2], axis=1)}  # also "middling means yes"
    if all(row.speaker for row in rows):
        names = sorted({row.speaker for row in rows if row.speaker})
        features["speaker"] = np.array([[row.speaker == name for name in names] for row in rows])
    if findings.spectra:
        features["mean spectrum"] = np.array([findings.spectra[row.id] for row in rows])
    labels = [row.label or "" for row in rows]
    return shortcut_scores(features, labels, np.array([row.split == "train" for row in rows]))


def shortcut_scores(
    features: Mapping[str, np.ndarray], labels: Sequence[str], train: np.ndarray
) -> dict[str, float]:
    """Return macro-F1 on the rows not in `train`, by feature set, with majority and uniform chance.

    Each feature set (rows, size) alone feeds a class-balanced logistic regression. The average runs
    over the labels that the held-out rows have.

    Raises:
        InputError: no rows on one of the sides, or fewer than two labels to train on.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    gold = np.array(labels)
    train = np.asarray(train, dtype=bool)
    if len(set(gold[train])) < 2 or train.all():
        raise InputError(
            "shortcuts need labelled, readable audio in train (two labels or more) "
            "and in test or dev"
        )

    def score(guess: Any) -> float:
        held = gold[~train]
        options = {"labels": sorted(set(held)), "average": "macro", "zero_division": 0}
        return round(float(f1_score(held, guess, **options)), 4)

    scores: dict[str, float] = {}
    with threadpool_limits(1):  # threads make this regression many times slower on shared cores
        for name, values in features.items():
            model = make_pipeline(
                StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
            )
            scores[name] = score(model.fit(values[train], gold[train]).predict(values[~train]))
    majority = Counter(gold[train]).most_common(1)[0][0]
    scores["chance: majority"] = score(np.full((~train).sum(), majority))
    scores["chance: uniform"] = round(1 / len(set(gold[train])), 4)
    return scores
