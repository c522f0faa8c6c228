"""Loads from the model hub, its cache or a local folder, and says plainly where it cannot."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from torch import OutOfMemoryError
from transformers import PreTrainedConfig
from transformers.utils import logging

from speechtaxi import reach
from speechtaxi.errors import InputError

OFFLINE = (
    "download it on a connected machine and give the local folder, or set HF_HOME to a copied "
    "cache and HF_HUB_OFFLINE=1"
)


def from_hub(auto_class: Any, name: str, **options: Any) -> Any:
    """Return `auto_class.from_pretrained(name)`, with one clear line where it cannot be had.

    Raises:
        InputError: the folder is incomplete, or the hub cannot be reached or does not know it.
    """
    if not Path(name).exists():
        reach.hub()
    try:
        return auto_class.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot load {name}: {first_line(error)} - {OFFLINE}") from error
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        if isinstance(error, OutOfMemoryError):
            raise
        what = "its weights and its config.json are not of one model"
        if "ignore_mismatched_sizes" not in str(error):
            what = f"its weights are damaged ({first_line(error)})"
        raise InputError(f"cannot load {name}: {what}; download it again, whole") from error


def weights_from_hub(auto_class: Any, name: str, *, spare: str = "", **options: Any) -> Any:
    """Return a model as `from_hub` does, none of whose weights had to be made up.

    Args:
        spare: pattern of the weights that may be missing (as in `re.search`).

    Raises:
        InputError: weights are missing, or see `from_hub`.
    """
    told = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers' own report of what is missing or left over
    try:
        model, info = from_hub(auto_class, name, output_loading_info=True, **options)
    finally:
        logging.set_verbosity(told)
    missing = sorted(key for key in info["missing_keys"] if not (spare and re.search(spare, key)))
    if missing:
        raise InputError(
            f"{name} lacks {len(missing)} weights of a {type(model).__name__}, such as "
            f"{missing[0]}; download it whole"
        )
    return model


def settings_of(name: str) -> dict[str, Any]:
    """Return a model's configuration as it is written, without running anything of it.

    Raises:
        InputError: it cannot be read.
    """
    if not Path(name).exists():
        reach.hub()
    try:
        settings = PreTrainedConfig.get_config_dict(name)[0]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load {name}: {first_line(error)} - {OFFLINE}") from error
    if not {"model_type", "auto_map"} & set(settings):
        raise InputError(f"cannot load {name}: no config.json of a model is there - {OFFLINE}")
    return settings


def is_allowed(name: str, settings: dict[str, Any] | None, allowed: Collection[str]) -> bool:
    """Tell whether a model brings modelling code of its own that may be run.

    Args:
        name: hub id or folder.
        settings: the model's configuration; None reads it from `name`.
        allowed: names whose code may be run.

    Raises:
        InputError: it brings code that is not allowed, or its configuration cannot be read.
    """
    if "auto_map" not in (settings or settings_of(name)):
        return False
    if str(Path(name)) not in {str(Path(one)) for one in allowed}:
        raise InputError(
            f"{name} brings modelling code of its own, which is not run unasked; read it, then "
            f"allow it by name: --model.allow_remote_code '[{name}]' in training, "
            f"--allow_remote_code {name} elsewhere"
        )
    return True


def plain(value: Any) -> Any:
    """Keep what a checkpoint may hold: numbers, strings, lists and dicts."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
