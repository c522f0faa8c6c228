"""Files of records: manifests, predictions, run records. What is wrong is told as file:line."""

from speechtaxi.records.files import replacing
from speechtaxi.records.manifest import (
    ALIASES,
    SPLITS,
    fingerprint,
    read_manifest,
    write_manifest,
)
from speechtaxi.records.runs import read_predictions, read_run, write_predictions, write_run
from speechtaxi.records.typed import record

__all__ = [
    "ALIASES",
    "SPLITS",
    "fingerprint",
    "read_manifest",
    "read_predictions",
    "read_run",
    "record",
    "replacing",
    "write_manifest",
    "write_predictions",
    "write_run",
]
