"""The benchmark table of the main README."""

from collections.abc import Sequence

from invconv_benchmarks.report.tables import markdown
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import TITLES, Row
from invconv_benchmarks.suites.group import CONV2D, LIMIT_SHAPES, Shape

PAGE_SHAPES = (LIMIT_SHAPES[0], LIMIT_SHAPES[1], LIMIT_SHAPES[3], LIMIT_SHAPES[7], LIMIT_SHAPES[9])


def block(results: Sequence[Result]) -> list[str]:
    """Return the lines of the block: a table for each machine and device."""
    parts = []
    for result in results:
        shown = [
            r
            for r in result.rows
            if (r.suite, r.map, r.does, r.role) == ("inverse", "corner 2", "inverse", "ours")
            if (r.dtype, r.threads) == ("float32", 1) and r.mode != "graph"
            if r.shape in PAGE_SHAPES and r.ratio is not None
        ]
        for device in dict.fromkeys(r.device for r in shown):
            rows = [r for r in shown if r.device == device]
            parts += ["", _caption(result, device), "", *_table(rows)]
    return parts[1:]


def _caption(result: Result, device: str) -> str:
    environment = result.environment
    versions = [f"{n} {environment['versions'][n]}" for n in ("numpy", "torch", "jax")]
    versions += [f"OpenBLAS's kernels for {kernel}" for kernel in environment["blas"]]
    where = environment["cpu"] if device == "cpu" else ", ".join(environment["gpus"])
    return (
        f"Time of the inverse ÷ time of the library's plain convolution, and ÷ that of PyTorch's "
        f"`{CONV2D}`, on images padded beforehand: one 2×2 corner, float32, one thread, "
        f"{where}, {', '.join(versions)}, {result.date[:10]}"
        f"{', on a machine that was busy with other work' if result.busy else ''}. "
        f"In brackets what the run states as its spread. "
        f"{len(PAGE_SHAPES)} of {len(LIMIT_SHAPES)} shapes; all are in the committed results."
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
    cells = {s: [column.get(s, "–") for column in ratios.values()] for s in PAGE_SHAPES}
    lines = [[", ".join(map(str, shape)), *line] for shape, line in cells.items()]
    return markdown(["B, C, H, W", *ratios], lines)
