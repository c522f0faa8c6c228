"""The questions of a report: each makes a section, or nothing where the runs cannot answer."""
