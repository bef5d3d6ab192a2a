"""The READMEs' tables and charts of committed results.

``python -m invconv_benchmarks.docs.readmes`` writes them anew, in a clone of the repository. A
comparison of density models is committed as it ended: its result.json and comparison.jpg are
density-NAME.json and density-NAME.jpg in the version's folder.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from invconv.files.whole_files import write_text
from invconv_benchmarks.density.compare import report
from invconv_benchmarks.density.compare import result as comparison
from invconv_benchmarks.docs.pages import CHECKOUT
from invconv_benchmarks.report import readme
from invconv_benchmarks.results.committed import RESULTS, newest
from invconv_benchmarks.results.result import read
from invconv_benchmarks.studies import sampling

FRONT, OWN = CHECKOUT / "README.md", RESULTS.parent / "README.md"


def _blocks() -> Iterator[tuple[Path, str, list[str]]]:
    """Yield a README, the name of the marks in it, and the lines between them."""
    yield FRONT, "benchmark table", readme.block([read(p) for p in newest("benchmark-*.json")])
    for path in newest("sampling.json"):
        times = sampling.read(path)
        yield FRONT, "sampling", [sampling.headline(times)]
        chart = _picture(sampling.CAPTION, path.with_suffix(".png"))
        yield OWN, "sampling", [*sampling.block(times), "", chart]
    for path in newest("density-*.json"):
        lines = report.markdown(comparison.read(path))
        yield OWN, path.stem, [*lines, "", _picture(report.CAPTION, path.with_suffix(".jpg"))]


def _picture(caption: str, path: Path) -> str:
    return f"![{caption}]({path.relative_to(RESULTS.parent).as_posix()})"


def updated() -> dict[Path, str]:
    """Return the text of each README with the newest results between its marks."""
    texts = {path: path.read_text(encoding="utf-8") for path in (FRONT, OWN)}
    for path, name, lines in _blocks():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        around = re.split(f"{start}.*?{end}", texts[path], flags=re.DOTALL)
        if len(around) != 2:
            raise ValueError(f"{path}: expected the marks {start} and {end}")
        texts[path] = "\n".join((start, "", *lines, "", end)).join(around)
    return texts


if __name__ == "__main__":
    for path, text in updated().items():
        write_text(path, text)
    for path in newest("sampling.json"):
        sampling.draw(sampling.read(path), path.with_suffix(".png"))
