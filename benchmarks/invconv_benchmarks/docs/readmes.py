"""The READMEs' tables and charts of committed results.

``python -m invconv_benchmarks.docs.readmes`` writes them anew, in a clone of the repository. A
comparison of density models is committed as it ended: its result.json and comparison.jpg are
density-NAME.json and density-NAME.jpg in the version's folder.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from invconv.arrays.namespaces import Shape
from invconv.files.container import write_text
from invconv_benchmarks.density import comparison
from invconv_benchmarks.docs.pages import CHECKOUT, RESULTS
from invconv_benchmarks.measure.environment import told
from invconv_benchmarks.report.tables import markdown
from invconv_benchmarks.results.result import TITLES, Result, Row, read, read_document
from invconv_benchmarks.studies import sampling, survey
from invconv_benchmarks.suites import CONV2D, LIMIT_SHAPES

FRONT, OWN = CHECKOUT / "README.md", RESULTS.parent / "README.md"
_SHAPES = (LIMIT_SHAPES[0], LIMIT_SHAPES[1], LIMIT_SHAPES[3], LIMIT_SHAPES[7], LIMIT_SHAPES[9])


def newest(pattern: str) -> list[Path]:
    """Return the files that a pattern matches in the newest version's folder that has any."""
    versions = sorted(RESULTS.glob("[0-9]*"), key=lambda p: [*map(int, p.name.split("."))])
    found = (sorted(folder.glob(pattern)) for folder in reversed(versions))
    return next(filter(None, found), [])


def _blocks() -> Iterator[tuple[Path, str, list[str]]]:
    """Yield a README, the name of the marks in it, and the lines between them."""
    yield FRONT, "benchmark table", _inverses(map(read, newest("benchmark-*.json")))
    for path in newest("sampling.json"):
        times = read_document(path, sampling.SCHEMA)
        yield FRONT, "sampling", [sampling.headline(times)]
        chart = _picture(sampling.CAPTION, path.with_suffix(".png"))
        yield OWN, "sampling", [*sampling.block(times), "", chart]
    for path in newest("survey.json"):
        found = read_document(path, survey.SCHEMA)
        yield FRONT, "survey", survey.block(found, 1)
        yield OWN, "survey", survey.block(found)
    for path in newest("density-*.json"):
        lines = comparison.markdown(read_document(path, comparison.SCHEMA))
        yield OWN, path.stem, [*lines, "", _picture(comparison.CAPTION, path.with_suffix(".jpg"))]


def _picture(caption: str, path: Path) -> str:
    return f"![{caption}]({path.relative_to(RESULTS.parent).as_posix()})"


def _inverses(results: Iterable[Result]) -> list[str]:
    """Return a table of inverses for each machine and device."""
    parts = []
    for result in results:
        shown = [
            r
            for r in result.rows
            if (r.suite, r.map, r.does, r.role) == ("inverse", "corner 2", "inverse", "ours")
            if (r.dtype, r.threads) == ("float32", 1) and r.mode != "graph"
            if r.shape in _SHAPES and r.ratio is not None
        ]
        for device in dict.fromkeys(r.device for r in shown):
            rows = [r for r in shown if r.device == device]
            parts += ["", _caption(result, device), "", *_table(rows)]
    return parts[1:]


def _caption(result: Result, device: str) -> str:
    environment = result.environment
    where = [environment["cpu"]] if device == "cpu" else environment["gpus"]
    where = [*where, *(f"OpenBLAS's kernels for {kernel}" for kernel in environment["blas"])]
    return (
        f"Time of the inverse ÷ time of the library's plain convolution, and ÷ that of PyTorch's "
        f"`{CONV2D}`, on images padded beforehand: one 2×2 corner, float32, one thread, "
        f"{', '.join(where)}, {told(vars(result), 'numpy', 'torch', 'jax')}. "
        f"In brackets: the spread that the run states. "
        f"{len(_SHAPES)} of {len(LIMIT_SHAPES)} shapes; all are in the committed results."
    )


def _table(rows: list[Row]) -> list[str]:
    """Return a table with two columns a library, one where its plain convolution is F.conv2d."""
    ratios: dict[str, dict[Shape, str]] = {}
    for row in sorted(rows, key=lambda r: list(TITLES).index(r.library)):
        columns = {CONV2D: row.yardstick}
        if row.against != CONV2D:
            columns = {"its own": row.ratio} | columns
        for other, ratio in columns.items():
            if ratio is not None:
                cell = f"{ratio.value:.2g} ({ratio.low:.2g}–{ratio.high:.2g})"
                ratios.setdefault(f"{TITLES[row.library]} ÷ {other}", {})[row.shape] = cell
    cells = {s: [column.get(s, "–") for column in ratios.values()] for s in _SHAPES}
    lines = [[", ".join(map(str, shape)), *line] for shape, line in cells.items()]
    return markdown(["B, C, H, W", *ratios], lines)


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
        sampling.draw(read_document(path, sampling.SCHEMA), path.with_suffix(".png"))
