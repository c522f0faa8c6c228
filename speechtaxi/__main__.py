"""`python -m speechtaxi` is `speechtaxi`."""

import sys

from speechtaxi.cli import run

sys.exit(run())
