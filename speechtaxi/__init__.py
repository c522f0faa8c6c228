"""speechtaxi: what is each clip about? Two routes, one comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechtaxi.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["load"]


def load(model: str, *, allow_remote_code: tuple[str, ...] = ()) -> Classifier:
    """Open a run folder or an exported model folder; see `speechtaxi.checkpoint.load`."""
    from speechtaxi.checkpoint import load as load_model  # torch is imported only when needed

    return load_model(model, allow_remote_code=allow_remote_code)
