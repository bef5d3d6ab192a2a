"""The README's table of densities, from density-PRESET.json and .jpg of the committed results.

``python -m invconv_benchmarks.density.compare.readme`` writes it, in a clone of the repository.
"""

from __future__ import annotations

from invconv.arrays.errors import CommandError
from invconv.files.whole_files import write_text
from invconv_benchmarks.density.compare import report, result
from invconv_benchmarks.density.compare.result import Result
from invconv_benchmarks.report.readme import ROOT, replaced
from invconv_benchmarks.results.committed import RESULTS, newest

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


def updated(text: str) -> str:
    """Return the README with its block renewed: the tables, and the picture."""
    shown = committed()
    picture = f"results/{shown['invconv']}/density-{shown['preset']}.jpg"
    lines = [START, "", *report.markdown(shown), "", f"![{CAPTION}]({picture})", "", END]
    return replaced(text, START, END, "\n".join(lines))


def main() -> None:
    """Renew the README's block."""
    path = ROOT / "benchmarks" / "README.md"
    write_text(path, updated(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
