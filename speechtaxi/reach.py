"""Asks once whether the model hub answers; its own library asks for each file, and waits."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any, cast


@cache
def hub() -> bool:
    """Tell whether the hub can be asked; if not, its library uses its cache alone from here on."""
    library = cast(Any, import_module("huggingface_hub"))
    settings = cast(Any, import_module("huggingface_hub.constants"))
    if settings.is_offline_mode():
        return False
    try:
        library.get_session().head(settings.ENDPOINT, timeout=10)
    except Exception as error:  # whatever a network may do
        settings.HF_HUB_OFFLINE = True
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        told = f"{settings.ENDPOINT} cannot be reached ({reason}); looking in the cache"
        print(told, file=sys.stderr, flush=True)
    return not settings.HF_HUB_OFFLINE
