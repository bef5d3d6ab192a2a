"""``python -m invconv_conformance.peers``: every drop-in, by its library's own rules, as a table.

``--write`` renews the table in ``backends/README.md``, in a clone of the repository.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import invconv_jax.interop
import invconv_torch.interop
from invconv.files.whole_files import write_text
from invconv_conformance.pages.words import replaced
from invconv_conformance.peers.checks import COMMON, OPERATORS
from invconv_conformance.peers.own import checks
from invconv_conformance.peers.subjects import LIBRARIES, float64, subject

START, END = "<!-- peers table -->", "<!-- end of peers table -->"
README = Path(__file__).parents[3] / "backends" / "README.md"
_DROP_INS = {
    {"pyro-ppl": "pyro"}.get(drop_in.package, drop_in.package): (name, drop_in.package)
    for package in (invconv_torch.interop, invconv_jax.interop)
    for name, drop_in in package.DROP_INS.items()
}


@dataclass
class Row:
    """What a library's drop-in was asked, and where it failed: "periodic: both ways ..."."""

    library: str
    asked: int
    own: int
    failed: list[str]

    @property
    def cells(self) -> tuple[str, ...]:
        """The drop-in, the package, how much was asked and passed."""
        name, package = _DROP_INS[self.library]
        passed = self.asked - len(self.failed)
        version = importlib.metadata.version(package).partition("+")[0]
        return f"`{name}`", f"{package} {version}", f"{passed} of {self.asked}", str(self.own)


def rows(libraries: Sequence[str] = LIBRARIES) -> Iterator[Row]:
    """Yield a row for each library that is installed."""
    with float64():
        for library in libraries:
            if importlib.util.find_spec(library) is not None:
                yield _row(library)


def _row(library: str) -> Row:
    every, failed = checks(library), []
    for name, make in OPERATORS.items():
        asked = subject(library, make())
        for check in every:
            try:
                check(asked)
            except Exception as error:
                failed.append(f"{library}, {name}: {check.__name__}: {error!s:.300}")
    number = len(OPERATORS)
    return Row(library, number * len(every), number * (len(every) - len(COMMON)), failed)


def block(found: Sequence[Row]) -> str:
    """Return the table with its marks."""
    head = "| drop-in | package | checks passed | of them by the package's own code |"
    lines = [f"| {' | '.join(row.cells)} |" for row in found]
    return "\n".join([START, "", head, "|---|---|---|---|", *lines, "", END])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and what failed; 1 if anything did."""
    parser = argparse.ArgumentParser(
        prog="python -m invconv_conformance.peers", description=__doc__
    )
    parser.add_argument(
        "--write", action="store_true", help="renew the table in backends/README.md"
    )
    arguments = parser.parse_args(argv)
    found = list(rows())
    print(block(found))
    failures = [line for row in found for line in row.failed]
    print(*failures, sep="\n", end="\n" if failures else "")
    if arguments.write and not failures:
        text = README.read_text(encoding="utf-8")
        write_text(README, replaced(text, START, END, block(found)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
