"""Write a spoken corpus: each language in a process of its own, the manifest last."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any, get_args

from rich.console import Console
from rich.progress import Progress

from speechtaxi.errors import InputError
from speechtaxi.languages import LANGUAGES, espeak_voice, name_of
from speechtaxi.records import replacing, write_manifest
from speechtaxi.synthesize.voices import Take
from speechtaxi.types import Split, Utterance

PROCESSES = 2
RECORD = "synthesis.json"
"""What the corpus in a folder was asked to be; a folder without it is not ours."""


def write_corpus(folder: Path, takes: Sequence[Take], about: str) -> bool:
    """Write manifest.jsonl, audio/<language>/<id>.flac and README.md; tell if there was work to do.

    A language is there as a whole or not at all, so that an interrupted run goes on with the next.

    Raises:
        InputError: no eSpeak NG, a language or voice that it does not have, a folder with something
            else in it, a text in which there is nothing to say.
    """
    espeak = _check_voices(takes)
    _claim(folder, _settings(takes, about, espeak))
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        return False
    for leftover in folder.glob("audio/.*.part"):
        shutil.rmtree(leftover)
    languages: defaultdict[str, list[Take]] = defaultdict(list)
    for take in takes:
        languages[take.row.language].append(take)
    missing = {
        code: takes for code, takes in languages.items() if not (folder / "audio" / code).is_dir()
    }
    _speak_languages(missing, folder / "audio")
    with replacing(folder / "README.md") as file:
        file.write(_readme(takes, about, espeak))
    write_manifest(manifest, (_measured(take, folder) for take in takes))
    return True


# ---------------------------------------------------------------------------- what a folder is


def _settings(takes: Sequence[Take], about: str, espeak: str) -> dict[str, Any]:
    """Return what decides every byte of the corpus; `takes` sums up texts, voices and seed."""
    lines = json.dumps([asdict(take) for take in takes], ensure_ascii=False)
    return {
        "about": about,
        "espeak": espeak,
        "languages": sorted({take.row.language for take in takes}),
        "clips": len(takes),
        "takes": hashlib.blake2b(lines.encode(), digest_size=8).hexdigest(),
    }


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder ours, or find that it already is."""
    record = folder / RECORD
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose a folder for the corpus")
    if not record.exists():
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder}: holds something else; choose a new folder")
        with replacing(record) as file:
            file.write(json.dumps(settings, ensure_ascii=False, indent=2) + "\n")
        return
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if found.get(name) != value]
    except (ValueError, AttributeError):
        raise InputError(f"{record}: is damaged; delete {folder} and repeat") from None
    if other:
        raise InputError(
            f"{folder}: holds a corpus made with other settings ({', '.join(other)} differ); "
            "choose another folder, or delete this one"
        )


def _measured(take: Take, folder: Path) -> Utterance:
    """Return the row with its file and length."""
    import soundfile

    path = folder / "audio" / take.row.language / f"{take.row.id}.flac"
    return replace(take.row, audio=str(path), duration=soundfile.info(path).duration)


def _readme(takes: Sequence[Take], about: str, espeak: str) -> str:
    """Say what this is, first of all that nobody spoke it."""
    rows = [take.row for take in takes]
    splits = [split for split in get_args(Split) if any(row.split == split for row in rows)]
    counts = Counter((row.language, row.split) for row in rows)
    table = [
        f"| {code} | {name_of(code)} | " + " | ".join(str(counts[code, s]) for s in splits) + " |"
        for code in dict.fromkeys(row.language for row in rows)
    ]
    voices = [
        f"- {split}: " + ", ".join(sorted({str(r.speaker) for r in rows if r.split == split}))
        for split in splits
    ]
    header = f"| code | language | {' | '.join(splits)} |"
    return "\n".join(
        (
            "# Synthetic speech\n",
            f"No human voice is in this corpus: eSpeak NG {espeak} reads {about}.",
            "It tells little about real speech; say that it is synthetic wherever you show a",
            "figure from it.\n",
            "16 kHz mono FLAC, a row of manifest.jsonl for each clip. `speaker` is eSpeak's voice",
            "variant, `group` the text behind the clip, the same in all languages. Pitch, speaking",
            "rate, level and white noise vary from clip to clip.\n",
            "Voices (no voice is in two splits):\n",
            *voices,
            f"\n{header}\n|---|---|{'---|' * len(splits)}",
            *table,
            "",
        )
    )


# -------------------------------------------------------------------------------- eSpeak NG


def _check_voices(takes: Sequence[Take]) -> str:
    """Refuse what eSpeak NG cannot speak; return its version."""
    codes = dict.fromkeys(take.row.language for take in takes)
    (espeak,) = _espeak([], [espeak_voice(code) for code in codes if espeak_voice(code)])
    silent = [c for c in codes if not espeak_voice(c) or espeak_voice(c) in espeak["unknown"]]
    if silent:
        able = ", ".join(code for code in LANGUAGES if espeak_voice(code))
        raise InputError(f"eSpeak NG has no voice for {', '.join(silent)}; it has {able} and more")
    for speaker in dict.fromkeys(take.row.speaker for take in takes):
        if speaker not in espeak["variants"]:
            known = ", ".join(espeak["variants"])
            raise InputError(f"eSpeak NG has no voice variant '{speaker}'; it has {known}")
    return espeak["version"]


def _speak_languages(languages: Mapping[str, Sequence[Take]], audio: Path) -> None:
    """Speak each language in a process of its own, `PROCESSES` at a time."""
    stop = Event()

    def speak(code: str) -> None:
        part = audio / f".{code}.part"
        part.mkdir(parents=True)
        for _ in _espeak([str(part)], [asdict(take) for take in languages[code]]):
            if stop.is_set():
                return
            bar.advance(task)
        os.rename(part, audio / code)

    with Progress(console=Console(stderr=True)) as bar, ThreadPoolExecutor(PROCESSES) as threads:
        task = bar.add_task("speaking", total=sum(map(len, languages.values())))
        futures = [threads.submit(speak, code) for code in languages]
        try:
            for future in futures:
                future.result()
        except BaseException:  # Ctrl-C too: end the processes at their next clip
            stop.set()
            threads.shutdown(cancel_futures=True)
            raise


def _espeak(arguments: Sequence[str], job: Any) -> Iterator[dict[str, Any]]:
    """Yield what the synthesiser's process tells, line by line.

    Raises:
        InputError, OSError: as the process reports.
    """
    command = [sys.executable, "-m", "speechtaxi.synthesize.espeak", *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            with suppress(BrokenPipeError), process.stdin:
                json.dump(job, process.stdin)
            for line in process.stdout:
                told = json.loads(line)
                if "errno" in told:
                    raise OSError(told["errno"], told["error"], told["file"])
                if "error" in told:
                    raise InputError(told["error"])
                yield told
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RuntimeError(f"the synthesiser ended with status {process.returncode}")
