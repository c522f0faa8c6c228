"""Speech encoders: a waveform becomes frames. Both routes hear through these."""

from __future__ import annotations

from typing import Any, Literal

from speechtaxi import checkpoint
from speechtaxi.encoder.frames import Frames, SpeechEncoder
from speechtaxi.encoder.small import SmallEncoder

__all__ = ["Frames", "SmallEncoder", "SpeechEncoder", "open_encoder"]


def open_encoder(
    name: str = "small",
    *,
    config: dict[str, Any] | None = None,
    allow_remote_code: tuple[str, ...] | list[str] = (),
    lora: dict[str, Any] | None = None,
    whisper_window: Literal["30s", "clip"] | None = None,
) -> SpeechEncoder:
    """Return a speech encoder by name, or built from the `config` of one that was saved.

    Args:
        name: "small"; a hub id or local folder of a transformers speech encoder; or a run folder or
            model folder of ours, whose encoder is taken with its weights (a warm start).
        config: an encoder's `config`: builds it without weights and without looking at `name`.
        allow_remote_code: names of encoders whose own modelling code may be run.
        lora: trains small matrices beside the layers' own: r, alpha, targets ("attention" or
            "all"), dropout. A `config` knows it already, and so it does the next.
        whisper_window: what Whisper's encoder hears at a time, "30s" or "clip"; see
            `PretrainedEncoder`. None: as it was saved, or 30 s.

    Raises:
        InputError: there is no such encoder, it cannot be reached, its code is not allowed, or it
            is not for such an option.
    """
    if config is not None:
        return _built(config, allow_remote_code)
    if checkpoint.is_model(name):
        saved = checkpoint.read(name)
        encoder = _built(saved.settings["encoder_config"], allow_remote_code)
        prefix = "encoder."
        state = {k[len(prefix) :]: v for k, v in saved.state.items() if k.startswith(prefix)}
        encoder.load_state_dict(state)
        encoder.merge_lora()
    elif name == "small":
        encoder = SmallEncoder()
    else:
        from speechtaxi.encoder.pretrained import PretrainedEncoder  # takes seconds to import

        encoder = PretrainedEncoder(name, allow_remote_code=allow_remote_code)
    if whisper_window is not None:
        encoder.set_window(whisper_window)
    if lora is not None:
        encoder.add_lora(lora)
    return encoder


def _built(config: dict[str, Any], allow_remote_code: tuple[str, ...] | list[str]) -> SpeechEncoder:
    """Return an encoder without weights."""
    if config["kind"] == "small":
        return SmallEncoder(**{k: v for k, v in config.items() if k != "kind"})
    from speechtaxi.encoder.pretrained import PretrainedEncoder

    return PretrainedEncoder(config["name"], config=config, allow_remote_code=allow_remote_code)
