"""The README's density section, made from the committed results.

``python -m invconv_benchmarks.density.compare.readme`` writes it, in a clone of the repository;
with the folder of a comparison it commits that result and its picture first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from invconv.files.whole_files import replacing, write_text
from invconv_benchmarks.density.compare import report, result
from invconv_benchmarks.density.compare.result import Result
from invconv_benchmarks.report.readme import ROOT
from invconv_benchmarks.results.committed import RESULTS, THIS_VERSION, newest
from invconv_conformance.pages.words import replaced

START, END = "<!-- density table -->", "<!-- end of density table -->"


def committed() -> Result:
    """Return the result that is shown: with most seeds, of those of the newest version.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [result.read(path) for path in newest("density-*.json")]
    if not found:
        raise ValueError(f"{RESULTS}: there is no density-*.json")
    return max(found, key=lambda r: (len(r.seeds), r.training["steps"]))


def block(found: Result) -> str:
    """Return the marked block: the tables, what was found, and the picture."""
    picture = f"results/{found.invconv}/{_name(found)}.jpg"
    caption = (
        "Learning curves of all models; differences from the plain 1x1, seed by seed; test tiles, "
        "their reconstructions and the error; samples: dark noise with "
        "coloured blobs, some of them out of range"
    )
    lines = report.markdown(found)
    return "\n".join([START, "", *lines, "", f"![{caption}]({picture})", "", END])


def _name(found: Result) -> str:
    return f"density-{found.preset}"


def commit(run: Path) -> None:
    """Copy a comparison's result and picture into the repository, each whole.

    Raises
    ------
    ValueError
        If the result is damaged or was changed.
    """
    found = result.read(run / "result.json")
    THIS_VERSION.mkdir(exist_ok=True)
    copies = (("result.json", "json"), ("comparison.jpg", "jpg"))
    for source, suffix in copies:
        with replacing(THIS_VERSION / f"{_name(found)}.{suffix}") as part:
            part.write_bytes((run / source).read_bytes())


def updated(text: str) -> str:
    """Return the README with the block renewed."""
    return replaced(text, START, END, block(committed()))


def main(arguments: Sequence[str]) -> int:
    """Commit a comparison, if one is named, and renew the README's block."""
    for run in arguments:
        commit(Path(run))
    path = ROOT / "benchmarks" / "README.md"
    write_text(path, updated(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
