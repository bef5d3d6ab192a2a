"""``python -m invconv_conformance.golden`` checks the golden vectors, or writes them.

It recomputes every output of the shipped files from its parameters, by the definition in extended
precision and by the core, and fails where one moved. ``--write FOLDER`` makes those of the
last version anew; earlier ones are published, and stay.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from invconv_conformance import printing
from invconv_conformance.cases.table import CASES
from invconv_conformance.golden.files import FOLDER, read, versions, write
from invconv_conformance.golden.format import require
from invconv_conformance.golden.vectors import SELECTIONS, make, moved


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files, or write them; 1 if a value moved, 2 if they cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m invconv_conformance.golden.vectors", description=__doc__
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="check the files here")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="make new files there")
    arguments = parser.parse_args(argv)
    console = printing.console(soft_wrap=True, highlight=False)
    try:
        if arguments.write is not None:
            require(arguments.write.is_dir(), f"there is no folder {arguments.write}")
            _write(max(SELECTIONS), arguments.write, console)
            return 0
        require(
            any(arguments.folder.glob("golden-*.json")),
            f"there is none in {arguments.folder}; a clone and an sdist of invconv have them in "
            "conformance/invconv_conformance/golden, a wheel has not",
        )
        goldens = [g for v in versions(arguments.folder) for g in read(arguments.folder, v)]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    lines = [line for golden in _progress(goldens, console) for line in moved(golden)]
    for line in lines:
        console.print(f"moved: {line}", markup=False)
    kinds = len({type(golden.conv) for golden in goldens})
    verdict = f"{len(lines)} moved" if lines else "none moved"
    console.print(f"invconv-golden: {len(goldens)} cases of {kinds} operators, {verdict}")
    return 1 if lines else 0


def _write(version: int, folder: Path, console: Console) -> None:
    """Make the files of a version, and say how large they are."""
    cases, names = {case.name: case for case in CASES}, SELECTIONS[version]
    require(set(names) <= set(cases), f"no case {sorted(set(names) - set(cases))}")
    goldens = [make(cases[name]) for name in _progress(names, console)]
    for path in write(folder, goldens, version):
        console.print(f"{path}: {path.stat().st_size} bytes", markup=False)


def _progress(items: Sequence[Any], console: Console) -> Any:
    return track(items, "golden vectors", console=console, transient=True)


if __name__ == "__main__":
    sys.exit(main())
