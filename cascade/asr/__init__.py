"""Who can transcribe: recognisers by name, behind one interface."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from cascade.asr.decoding import Decoding
from cascade.asr.guards import Guarded
from cascade.asr.interface import SpeechRecognizer
from cascade.asr.trained import TrainedRecognizer
from speechtaxi import audio, checkpoint
from speechtaxi.errors import InputError

__all__ = ["Decoding", "SpeechRecognizer", "TrainedRecognizer", "open_recognizer"]


def open_recognizer(
    spec: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    decoding: Decoding | None = None,
    digest: Callable[[str], str] = audio.digest,
    allow_remote_code: tuple[str, ...] = (),
) -> SpeechRecognizer:
    """Return a recogniser by name; its weights wait until there is something to transcribe.

    Args:
        spec: "whisper:NAME" is openai-whisper by name or .pt file; "faster-whisper:NAME" is
            faster-whisper by name, hub id or folder; else a run folder or exported folder of a
            `cascade.Recognizer`, or a folder or hub id of a transformers Whisper, Seamless M4T v2
            or CTC model.
        dtype: float32, float16 or bfloat16 (faster-whisper: int8 too); part of the fingerprint, as
            it may change a text.
        decoding: task, search and guards; part of the fingerprint.
        digest: how to hash a file of weights (a store remembers).
        allow_remote_code: pretrained encoders whose own modelling code may be run, by name.

    Raises:
        InputError: there is no such recogniser, it cannot be reached, or cannot do what is asked.
    """
    asked = decoding or Decoding()
    settings = f"{asked.fingerprint} {dtype}"
    if dtype == "int8" and not spec.startswith("faster-whisper:"):
        raise InputError(f"{spec} does not compute in int8; faster-whisper does")
    recognizer = _open(spec, device, dtype, asked, settings, digest, allow_remote_code)
    asked.refuse(spec, recognizer.takes)
    return Guarded(recognizer, asked) if asked.guards else recognizer


def _open(
    spec: str,
    device: str,
    dtype: str,
    decoding: Decoding,
    settings: str,
    digest: Callable[[str], str],
    allow_remote_code: tuple[str, ...],
) -> SpeechRecognizer:
    kind, _, name = spec.partition(":")
    if kind == "whisper":
        from cascade.asr.openai import OpenAIWhisper, openai_revision

        revision = openai_revision(name) or digest(name)
        fingerprint = f"openai-whisper:{revision} {settings}"
        return OpenAIWhisper(name, device, dtype, fingerprint, decoding)
    if kind == "faster-whisper":
        from cascade.asr.faster import FasterWhisper, faster_revision

        revision = faster_revision(name) or _folder_digest(Path(name), digest)
        fingerprint = f"faster-whisper:{revision} {settings}"
        return FasterWhisper(name, device, dtype, fingerprint, decoding)
    folder = Path(spec)
    if checkpoint.is_model(folder) or (folder / "checkpoints").is_dir():
        revision = digest(str(checkpoint.weights_file(folder)))
        fingerprint = f"speechtaxi:{revision} {decoding.fingerprint} float32"
        return TrainedRecognizer(spec, device, fingerprint, allow_remote_code)
    local = folder.exists()
    if not local and (folder.is_absolute() or spec.startswith(".") or spec.count("/") > 1):
        raise InputError(f"there is no recogniser {spec}; fit one, or give another folder")
    if local and not (folder / "config.json").is_file():
        raise InputError(
            f"{spec} is no recogniser: it holds no config.json; give a model folder, a run folder, "
            "a hub id, or whisper:FILE.pt"
        )
    from transformers import AutoConfig

    from cascade.asr.ctc import FAMILIES, CTCRecognizer
    from speechtaxi.hub import from_hub

    config = from_hub(AutoConfig, spec)
    revision = _folder_digest(folder, digest) if local else f"{spec}@{config._commit_hash}"
    fingerprint = f"transformers:{revision} {settings}"
    if config.model_type == "whisper":
        from cascade.asr.whisper import TransformersWhisper

        return TransformersWhisper(spec, device, dtype, fingerprint, decoding)
    if config.model_type == "seamless_m4t_v2":
        from cascade.asr.seamless import Seamless

        return Seamless(spec, device, dtype, fingerprint, decoding)
    if config.model_type in FAMILIES:
        return CTCRecognizer(spec, device, dtype, fingerprint, decoding)
    raise InputError(
        f"{spec} is a {config.model_type} model, not a recogniser that is known here: "
        f"whisper, seamless_m4t_v2, {', '.join(sorted(FAMILIES))}"
    )


def _folder_digest(folder: Path, digest: Callable[[str], str]) -> str:
    """Hash a model folder: weights in one format, configuration, vocabulary."""
    weights = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    settings = (path for suffix in ("json", "txt", "model") for path in folder.glob(f"*.{suffix}"))
    lines = sorted(f"{path.name} {digest(str(path))}" for path in {*weights, *settings})
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
