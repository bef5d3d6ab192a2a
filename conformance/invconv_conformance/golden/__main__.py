"""``python -m invconv_conformance.golden`` checks the golden vectors, or writes them.

It recomputes every output of the shipped files from its parameters, by the definition in extended
precision and by the core, and fails where one moved. ``--write FOLDER`` makes the files anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from invconv_conformance.cases.table import CASES
from invconv_conformance.golden.files import FOLDER, read, write
from invconv_conformance.golden.format import SCHEMA, require
from invconv_conformance.golden.vectors import SELECTION, make, moved


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files, or write them; 1 if a value moved, 2 if they cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m invconv_conformance.golden.vectors", description=__doc__
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="check the files here")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="make new files there")
    arguments = parser.parse_args(argv)
    console = Console(soft_wrap=True, highlight=False)
    try:
        if arguments.write is not None:
            require(arguments.write.is_dir(), f"there is no folder {arguments.write}")
            cases, names = {case.name: case for case in CASES}, SELECTION.split()
            require(set(names) <= set(cases), f"no case {sorted(set(names) - set(cases))}")
            goldens = [make(cases[name]) for name in _progress(names, console)]
            for path in write(arguments.write, goldens):
                console.print(f"{path}: {path.stat().st_size} bytes", markup=False)
            return 0
        goldens = read(arguments.folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    lines = [line for golden in _progress(goldens, console) for line in moved(golden)]
    for line in lines:
        console.print(f"moved: {line}", markup=False)
    kinds = len({type(golden.conv) for golden in goldens})
    verdict = f"{len(lines)} moved" if lines else "none moved"
    console.print(f"{SCHEMA}: {len(goldens)} cases of {kinds} operators, {verdict}")
    return 1 if lines else 0


def _progress(items: Sequence[Any], console: Console) -> Any:
    return track(items, "golden vectors", console=console, transient=True)


if __name__ == "__main__":
    sys.exit(main())
