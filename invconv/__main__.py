"""Run the command line: ``python -m invconv``."""

import sys

from invconv._cli import main

sys.exit(main())
