"""Run the command line: ``python -m invconv``."""

import sys

from invconv._cli import main

if __name__ == "__main__":
    sys.exit(main())
