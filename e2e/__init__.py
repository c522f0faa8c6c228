"""Route 1: hear it. A waveform becomes one vector, through a speech encoder."""

from typing import TYPE_CHECKING, Any

from e2e.model import SpeechModel

if TYPE_CHECKING:
    from e2e.classifier import SpeechClassifier

__all__ = ["SpeechClassifier", "SpeechModel"]

UNTRAINED = {"SpeechClassifier": SpeechModel}
"""What classifies without Lightning, by the name of what was trained."""


def __getattr__(name: str) -> Any:
    if name != "SpeechClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from e2e.classifier import SpeechClassifier

    return SpeechClassifier
