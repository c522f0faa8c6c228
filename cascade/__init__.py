"""Route 2: read it. A transcript becomes one vector, through a text encoder."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cascade.asr import open_recognizer
from cascade.model import TextModel
from cascade.speller import Speller
from cascade.transcriber import Transcriber

if TYPE_CHECKING:
    from cascade.classifier import TextClassifier
    from cascade.floor import TfidfClassifier
    from cascade.recognizer import Recognizer

__all__ = [
    "Recognizer",
    "Speller",
    "TextClassifier",
    "TextModel",
    "TfidfClassifier",
    "Transcriber",
    "open_recognizer",
]

UNTRAINED = {"Recognizer": Speller, "TextClassifier": TextModel, "TfidfClassifier": TextModel}
"""What does the work without Lightning, by the name of what was trained."""

TRAINED = {"Recognizer": "recognizer", "TextClassifier": "classifier", "TfidfClassifier": "floor"}
"""Where what needs Lightning is; imported when asked for."""


def __getattr__(name: str) -> Any:
    if name not in TRAINED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"cascade.{TRAINED[name]}"), name)
