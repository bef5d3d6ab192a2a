"""``python -m invconv_conformance.cuda [--quick]``: the proof, by pytest."""

import argparse
import os
import sys
from pathlib import Path

import pytest


def main() -> int:
    """Run the proof; 0 if all holds that can run here."""
    parser = argparse.ArgumentParser(prog="python -m invconv_conformance.cuda", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of it, within 90 seconds")
    left_out = "long" if parser.parse_args().quick else "brief"
    here = Path(__file__).parent
    options = [f"--rootdir={here}", "-c", str(here.parent / "pytest.ini"), f"-mnot {left_out}"]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options += ["-vsrs", "-pno:cacheprovider", "-pno:warnings"]
    return pytest.main([str(here / "proof.py"), *options])


if __name__ == "__main__":
    sys.exit(main())
