"""The synthesiser's own process: `python -m speechtaxi.synthesize.espeak FOLDER < takes.json`.

eSpeak NG carries state from one text to the next, whatever its seed, and two threads crash it. A
fresh, seeded process that speaks one language's takes in their order always writes the same bytes.
Nothing else in the project imports eSpeak NG, which is GPL-3.
"""

from __future__ import annotations

import ctypes
import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from speechtaxi.audio import SAMPLE_RATE
from speechtaxi.errors import InputError

# The names and numbers of eSpeak NG's speak_lib.h
SYNCHRONOUS, DONT_EXIT = 2, 0x8000
RATE, PITCH = 1, 3
UTF8, CHARACTERS = 1, 1
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Synthesizer:
    """eSpeak NG's shared library; one in a process.

    Raises:
        InputError: `espeakng_loader` is not installed, or its library does not load.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader

            self.library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        except (ImportError, OSError) as error:
            raise InputError(
                f"eSpeak NG is not there ({error}); pip install 'speechtaxi[demo]'"
            ) from None
        data = Path(espeakng_loader.get_data_path())
        self.sample_rate: int = self.library.espeak_Initialize(
            SYNCHRONOUS, 0, str(data).encode(), DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise InputError(f"eSpeak NG does not start with its data in {data}; reinstall it")
        self.variants = sorted(path.name for path in (data / "voices" / "!v").iterdir())
        self.library.espeak_Info.restype = ctypes.c_char_p
        self.version: str = self.library.espeak_Info(None).decode()
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else breathy voices take the time
        self._heard = bytearray()
        self._callback = CALLBACK(self._hear)  # the library keeps no reference
        self.library.espeak_SetSynthCallback(self._callback)

    def _hear(self, samples: Any, count: int, events: Any) -> int:
        if samples:
            self._heard += ctypes.string_at(samples, 2 * count)
        return 0

    def has_language(self, language: str) -> bool:
        """Tell whether there is such a language, as eSpeak NG calls it (en-us)."""
        return self.library.espeak_SetVoiceByName(language.encode()) == 0

    def speak(self, text: str, voice: str, pitch: int, rate: int) -> np.ndarray:
        """Return int16 samples at the library's own rate."""
        self.library.espeak_SetVoiceByName(voice.encode())
        self.library.espeak_SetParameter(PITCH, pitch, 0)
        self.library.espeak_SetParameter(RATE, rate, 0)
        self._heard.clear()
        encoded = text.encode()
        self.library.espeak_Synth(encoded, len(encoded) + 1, 0, CHARACTERS, 0, UTF8, None, None)
        return np.frombuffer(bytes(self._heard), np.int16)


def finish(wave: np.ndarray, rate: int, peak: float, snr: float, noise: int) -> np.ndarray:
    """Return int16 at 16 kHz: white noise `snr` dB below the speech, the peak at `peak` dBFS."""
    import soxr

    speech = soxr.resample(wave.astype(np.float32) / 32768, rate, SAMPLE_RATE)
    hiss = np.random.default_rng(noise).standard_normal(len(speech), dtype=np.float32)
    mixed = speech + hiss * np.sqrt(np.mean(speech**2)) * 10 ** (-snr / 20)
    return np.round(mixed * (32767 * 10 ** (peak / 20) / np.abs(mixed).max())).astype(np.int16)


def speak_all(takes: list[dict[str, Any]], folder: Path) -> None:
    """Write FOLDER/<id>.flac for each take; print a JSON line for each.

    Raises:
        InputError: a text in which there is nothing to say.
    """
    import soundfile

    synthesizer = Synthesizer()
    for take in takes:
        row = take["row"]
        wave = synthesizer.speak(row["text"], take["voice"], take["pitch"], take["rate"])
        if not wave.any():
            raise InputError(f"{row['id']}: eSpeak NG finds nothing to say in '{row['text']}'")
        clip = finish(wave, synthesizer.sample_rate, take["peak"], take["snr"], take["noise"])
        flac = io.BytesIO()  # a full disk is told as such only when Python writes the file
        soundfile.write(flac, clip, SAMPLE_RATE, format="FLAC")
        (folder / f"{row['id']}.flac").write_bytes(flac.getvalue())
        print(json.dumps({"id": row["id"]}), flush=True)


def describe(languages: list[str]) -> dict[str, Any]:
    """Return the version, the voice variants, and which of the languages are unknown."""
    espeak = Synthesizer()
    unknown = [language for language in languages if not espeak.has_language(language)]
    return {"version": espeak.version, "variants": espeak.variants, "unknown": unknown}


def main(argv: list[str]) -> int:
    """Speak takes into a folder; without one, describe eSpeak NG to the parent process."""
    for name in ("SIGINT", "SIGPIPE"):  # end quietly when the user or the parent does
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    job = json.load(sys.stdin)
    try:
        if argv:
            speak_all(job, Path(argv[0]))
        else:
            print(json.dumps(describe(job)))
    except InputError as error:
        print(json.dumps({"error": str(error)}))
    except OSError as error:
        print(json.dumps({"errno": error.errno, "error": error.strerror, "file": error.filename}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
