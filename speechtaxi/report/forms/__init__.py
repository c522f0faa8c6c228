"""The forms of a report: each prints any sections."""
