"""`python -m speechtaxi` is `speechtaxi`."""

import sys

from speechtaxi.cli import main

sys.exit(main())
