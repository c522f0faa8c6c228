"""Low-rank adaptation of an encoder (LoRA, Hu et al. 2021, arXiv 2106.09685), by peft."""

from __future__ import annotations

from typing import Any

from torch import nn

from speechtaxi.errors import InputError


def add_lora(encoder: nn.Module, settings: dict[str, Any]) -> None:
    """Freeze an encoder in place, and set a trainable low-rank update beside its linear maps.

    The weights are named as before behind `base_layer`, so that a model built with the same
    settings takes the state of one that was trained.

    Args:
        settings: r (rank, 16), alpha (the update is scaled by alpha / r; 32), dropout (before the
            update, 0.0), targets (names of layers; "all-linear").

    Raises:
        InputError: a setting is unknown, no layer is so named, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("LoRA needs peft: pip install 'speechtaxi[lora]'") from error
    known = {"r": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"}
    if unknown := ", ".join(sorted(set(settings) - set(known))):
        raise InputError(f"model.lora has no setting {unknown}; there are: {', '.join(known)}")
    chosen = known | settings
    encoder.requires_grad_(False)
    try:
        inject_adapter_in_model(
            LoraConfig(
                r=chosen["r"],
                lora_alpha=chosen["alpha"],
                lora_dropout=chosen["dropout"],
                target_modules=chosen["targets"],
            ),
            encoder,
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"model.lora cannot be used: {' '.join(str(error).split())}") from error
