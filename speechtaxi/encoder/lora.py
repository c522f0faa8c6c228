"""LoRA: small matrices are trained beside an encoder's own, which stay as they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from speechtaxi.errors import InputError

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
ATTENTION += ("linear_q", "linear_k", "linear_v", "linear_out")
ATTENTION += ("query", "key", "value", "q", "k", "v", "o", "o_proj")  # of text encoders


@dataclass(frozen=True)
class Lora:
    """What is adapted and how much (Hu et al. 2021, arXiv 2106.09685).

    Args:
        r: rank of the update of a matrix.
        alpha: the update is scaled by alpha / r.
        targets: the projections of attention, or all linear maps of the layers.
        dropout: before the update, in training.
    """

    r: int = 8
    alpha: int = 16
    targets: Literal["attention", "all"] = "attention"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        whole = isinstance(self.r, int) and isinstance(self.alpha, int) and self.r > 0
        if not whole or self.targets not in ("attention", "all") or not 0 <= self.dropout < 1:
            raise InputError(
                f"no such LoRA: {asdict(self)}; r is 1 or more, alpha a whole number, "
                "targets attention or all, dropout at least 0 and below 1"
            )


def lora(options: dict[str, Any]) -> Lora:
    """Return LoRA's settings with what is not given filled in.

    Raises:
        InputError: an option is unknown or has no such value.
    """
    try:
        return Lora(**options)
    except TypeError as error:
        raise InputError(
            f"lora takes r, alpha, targets and dropout, not {', '.join(map(str, options))}"
        ) from error


def add_lora(model: nn.Module, layers: list[nn.Module], family: str, settings: Lora) -> None:
    """Freeze a model and put adapters into its layers, in place.

    Raises:
        InputError: peft is not installed, or adapters in such a model would not be heard.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("LoRA needs peft: pip install 'speechtaxi[lora]'") from error
    if family == "wavlm":  # reads the matrices of its attention past the modules that hold them
        raise InputError("LoRA has no effect on WavLM's attention; tune it whole or by layers")
    chosen = {
        module
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
        and (settings.targets == "all" or name.rpartition(".")[2] in ATTENTION)
    }
    names = [name for name, module in model.named_modules() if module in chosen]
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=names,
    )
    inject_adapter_in_model(config, model)  # freezes all but the adapters


def merge_lora(model: nn.Module) -> None:
    """Add adapters to the matrices that they are beside, and take them out, in place."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    model.requires_grad_(True)
