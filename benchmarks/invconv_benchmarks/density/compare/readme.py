"""The README's tables of densities and of sampling, made from the committed results.

``python -m invconv_benchmarks.density.compare.readme`` writes them, in a clone of the repository;
with the folder of a comparison or of a sampling chart it commits that result and its picture first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from invconv.arrays.errors import CommandError
from invconv.files.whole_files import replacing, write_text
from invconv_benchmarks.density.compare import report, result
from invconv_benchmarks.density.compare.result import Result
from invconv_benchmarks.density.evaluation import sampling_chart
from invconv_benchmarks.report.readme import ROOT
from invconv_benchmarks.results.committed import RESULTS, THIS_VERSION, newest
from invconv_conformance.pages.words import replaced

START, END = "<!-- density table -->", "<!-- end of density table -->"
CHART = "<!-- sampling chart -->", "<!-- end of sampling chart -->"


def committed() -> Result:
    """Return the result that is shown: with most seeds, of those of the newest version.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [result.read(path) for path in newest("density-*.json")]
    if not found:
        raise CommandError(f"{RESULTS}: there is no density-*.json")
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
    """Copy the result and picture of a comparison or a chart into the repository, each whole.

    Raises
    ------
    ValueError
        If the result is damaged or was changed, or the chart is not complete.
    """
    chart = f"{sampling_chart.NAME}.json"
    if (run / chart).exists():
        if sampling_chart.read(run / chart).left:
            raise CommandError(
                f"{run / chart}: the chart is not complete; the same command goes on"
            )
        copies = {name: name for name in (chart, f"{sampling_chart.NAME}.png")}
    else:
        name = _name(result.read(run / "result.json"))
        copies = {"result.json": f"{name}.json", "comparison.jpg": f"{name}.jpg"}
    THIS_VERSION.mkdir(exist_ok=True)
    for source, name in copies.items():
        with replacing(THIS_VERSION / name) as part:
            part.write_bytes((run / source).read_bytes())


def _chart_block() -> str:
    """Return the marked block of the sampling chart: its table and picture."""
    start, end = CHART
    (path,) = newest(f"{sampling_chart.NAME}.json")
    caption = "Time for samples through one layer against the size of the images, both logarithmic"
    picture = f"results/{path.parent.name}/{sampling_chart.NAME}.png"
    lines = sampling_chart.markdown(sampling_chart.read(path))
    return "\n".join([start, "", *lines, "", f"![{caption}]({picture})", "", end])


def updated(text: str) -> str:
    """Return the README with both blocks renewed."""
    return replaced(replaced(text, START, END, block(committed())), *CHART, _chart_block())


def main(arguments: Sequence[str]) -> int:
    """Commit what is named, and renew the README's blocks."""
    for run in arguments:
        commit(Path(run))
    path = ROOT / "benchmarks" / "README.md"
    write_text(path, updated(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
