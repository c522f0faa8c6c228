"""Route 1: hear it. A waveform becomes one vector, through a speech encoder."""

from e2e.classifier import SpeechClassifier

__all__ = ["SpeechClassifier"]
