"""speechtaxi: what is each clip about? Two routes, one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from speechtaxi.classifier import Classifier
    from speechtaxi.ensemble import Ensemble

__version__ = "0.1.0"
__all__ = ["load"]


@overload
def load(model: str, *, allow_remote_code: tuple[str, ...] = ()) -> Classifier: ...
@overload
def load(model: list[str], *, allow_remote_code: tuple[str, ...] = ()) -> Ensemble: ...
def load(
    model: str | Sequence[str], *, allow_remote_code: tuple[str, ...] = ()
) -> Classifier | Ensemble:
    """Open a run folder or an exported model folder, or several as an ensemble.

    See `speechtaxi.checkpoint.load`, `speechtaxi.ensemble.Ensemble`.
    """
    from speechtaxi.checkpoint import load as load_model  # torch is imported only when needed

    if not isinstance(model, (list, tuple)):
        return load_model(model, allow_remote_code=allow_remote_code)
    from speechtaxi.ensemble import Ensemble

    return Ensemble([load_model(one, allow_remote_code=allow_remote_code) for one in model])
