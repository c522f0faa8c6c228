"""Speech encoders: a waveform becomes frames. Both routes hear through these."""

from __future__ import annotations

from typing import Any

from speechtaxi import checkpoint
from speechtaxi.encoder.frames import Frames, SpeechEncoder
from speechtaxi.encoder.small import SmallEncoder

__all__ = ["Frames", "SmallEncoder", "SpeechEncoder", "open_encoder"]


def open_encoder(
    name: str = "small",
    *,
    config: dict[str, Any] | None = None,
    allow_remote_code: tuple[str, ...] | list[str] = (),
) -> SpeechEncoder:
    """Return a speech encoder by name, or built from the `config` of one that was saved.

    Args:
        name: "small"; a hub id or local folder of a transformers speech encoder; or a run folder or
            model folder of ours, whose encoder is taken with its weights (a warm start).
        config: an encoder's `config`: builds it without weights and without looking at `name`.
        allow_remote_code: names of encoders whose own modelling code may be run.

    Raises:
        InputError: there is no such encoder, it cannot be reached, or its code is not allowed.
    """
    if config is None and checkpoint.is_model(name):
        saved = checkpoint.read(name)
        encoder = open_encoder(
            config=saved.settings["encoder_config"], allow_remote_code=allow_remote_code
        )
        prefix = "encoder."
        state = {k[len(prefix) :]: v for k, v in saved.state.items() if k.startswith(prefix)}
        encoder.load_state_dict(state)
        return encoder
    if config is not None and config["kind"] == "small":
        return SmallEncoder(**{k: v for k, v in config.items() if k != "kind"})
    if config is None and name == "small":
        return SmallEncoder()
    from speechtaxi.encoder.pretrained import (
        PretrainedEncoder,  # transformers takes seconds to import
    )

    return PretrainedEncoder(name, config=config, allow_remote_code=allow_remote_code)
