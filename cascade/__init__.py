"""Route 2: read it. A transcript becomes one vector, through a text encoder."""
