"""Results as they are done: rows of recordings in a file that survives a kill and is gone on with.

A journal (SQLite) holds every row, and is right at any moment: what `write` returned from is in it,
whole recordings only. It is the output itself (SQLite), or lies beside it as OUTPUT.state: then
OUTPUT is a copy, appended to as rows come (JSONL, CSV, TSV) or written at the end (Parquet), and
is made again from the journal where a run did not end well.
"""

from speechtaxi.results.output import KINDS, STREAMS, Results, kind_of, open_results
from speechtaxi.results.rows import cells, columns, encode, row

__all__ = [
    "KINDS",
    "STREAMS",
    "Results",
    "cells",
    "columns",
    "encode",
    "kind_of",
    "open_results",
    "row",
]
