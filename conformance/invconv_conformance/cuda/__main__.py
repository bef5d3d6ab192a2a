"""``python -m invconv_conformance.cuda``."""

import sys

from invconv_conformance.cuda.command import main

if __name__ == "__main__":
    sys.exit(main())
