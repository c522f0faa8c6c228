"""Route 2: read it. A transcript becomes one vector, through a text encoder."""

from cascade.asr import open_recognizer
from cascade.classifier import TextClassifier
from cascade.floor import TfidfClassifier
from cascade.recognizer import Recognizer
from cascade.transcriber import Transcriber

__all__ = ["Recognizer", "TextClassifier", "TfidfClassifier", "Transcriber", "open_recognizer"]
