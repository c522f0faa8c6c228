"""Route 1: hear it. A waveform becomes one vector, through a speech encoder."""
