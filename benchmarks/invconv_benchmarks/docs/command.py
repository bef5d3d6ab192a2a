"""``invconv docs``: build the pages of this version, to be read in a browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from invconv.arrays.errors import CommandError
from invconv_benchmarks.docs import site


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    about = "the folder to write, which must not exist or hold such pages (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("invconv-docs"), help=about)


def run(arguments: argparse.Namespace) -> int:
    """Build the site and say where it is."""
    out: Path = arguments.out
    if out.exists() and not (out / "api" / "invconv" / "index.html").is_file():
        raise CommandError(f"--out: {out} exists, and is no folder of pages that it wrote")
    if not out.absolute().parent.is_dir():
        raise CommandError(f"--out: there is no folder {out.absolute().parent}")
    number = site.build(out)
    print(f"wrote {number} pages: open {out / 'index.html'}")
    print(f"with the search, which browsers allow a server only: python -m http.server -d {out}")
    return 0
