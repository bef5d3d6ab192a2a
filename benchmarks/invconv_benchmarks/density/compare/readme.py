"""The README's table of densities, written from the committed result.

``python -m invconv_benchmarks.density.compare.readme`` writes it, in a clone of the repository;
with the folder of a comparison it commits that result and its picture first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from invconv.arrays.errors import CommandError
from invconv.files.whole_files import replacing, write_text
from invconv_benchmarks.density.compare import report, result
from invconv_benchmarks.density.compare.result import Result
from invconv_benchmarks.report.readme import ROOT
from invconv_benchmarks.results.committed import RESULTS, THIS_VERSION, newest
from invconv_conformance.pages.words import replaced

START, END = "<!-- density table -->", "<!-- end of density table -->"
CAPTION = (
    "Learning curves of all models; differences from the plain 1x1, seed by seed; test tiles, "
    "their reconstructions and the error; samples: dark noise with coloured blobs, some of them "
    "out of range"
)


def committed() -> Result:
    """Return the committed result with most seeds and steps, of those of the newest version."""
    results = [result.read(path) for path in newest("density-*.json")]
    if not results:
        raise CommandError(f"{RESULTS}: there is no density-*.json")
    return max(results, key=lambda r: (len(r["seeds"]), r["training"]["steps"]))


def commit(run: Path) -> None:
    """Copy the result and picture of a comparison into the repository, each whole."""
    name = f"density-{result.read(run / 'result.json')['preset']}"
    THIS_VERSION.mkdir(exist_ok=True)
    for source, target in (("result.json", f"{name}.json"), ("comparison.jpg", f"{name}.jpg")):
        with replacing(THIS_VERSION / target) as part:
            part.write_bytes((run / source).read_bytes())


def updated(text: str) -> str:
    """Return the README with its block renewed: the tables, and the picture."""
    shown = committed()
    picture = f"results/{shown['invconv']}/density-{shown['preset']}.jpg"
    lines = [START, "", *report.markdown(shown), "", f"![{CAPTION}]({picture})", "", END]
    return str(replaced(text, START, END, "\n".join(lines)))


def main(arguments: Sequence[str]) -> int:
    """Commit the named folders, and renew the README's block."""
    for run in arguments:
        commit(Path(run))
    path = ROOT / "benchmarks" / "README.md"
    write_text(path, updated(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
