"""A result as one HTML page that needs nothing else, and its picture."""

import base64
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from invconv_benchmarks.report import tables
from invconv_benchmarks.report.figures import save
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.suites.group import CONV2D, as_text
from invconv_conformance.pages import Line, Styled, render

_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def as_page(result: Result, pictures: Mapping[str, Path]) -> str:
    """Return the page, with PNG files by their captions."""
    images = {name: base64.b64encode(path.read_bytes()) for name, path in pictures.items()}
    return render(
        __package__,
        "page.html",
        result=result,
        count=[limit.verdict for limit in result.limits].count,
        pictures=[(caption, data.decode()) for caption, data in images.items()],
        limits=[(s, _lines(s)) for s in tables.limits(result.limits)],
        times=[(s, _lines(s)) for s in tables.times(result.rows)],
    )


def _lines(section: tables.Section) -> list[Line]:
    return [Line((*cells, Styled(last, last))) for *cells, last in section.lines]


def draw(result: Result, folder: Path) -> dict[str, Path]:
    """Write inverses of one thread beside F.conv2d, if there are any; return it by its caption."""
    rows = [r for r in result.rows if (r.suite, r.role, r.does) == ("inverse", "ours", "inverse")]
    rows = [r for r in rows if r.yardstick]
    rows = [r for r in rows if (r.dtype, r.threads) == (rows[0].dtype, rows[0].threads)]
    if not rows:
        return {}
    labels = list(dict.fromkeys(f"{r.map}\n{as_text(r.shape)}" for r in rows))
    places = list(dict.fromkeys(tables.place(r) for r in rows))
    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.55 * len(labels)), layout="constrained")
    for number, name in enumerate(places):
        mine = [r for r in rows if tables.place(r) == name]
        lines = [labels.index(f"{r.map}\n{as_text(r.shape)}") for r in mine]
        intervals = [r.yardstick for r in mine if r.yardstick]
        values = [i.value for i in intervals]
        sides = [[i.value - i.low for i in intervals], [i.high - i.value for i in intervals]]
        shifted = [line + 0.6 * ((number + 0.5) / len(places) - 0.5) for line in lines]
        axis.errorbar(values, shifted, xerr=sides, fmt="o", ms=4, capsize=2, label=name)
    axis.axvline(1, color="black", lw=0.8)
    axis.set_xscale("log")
    axis.set_xticks(_TICKS, [f"{t:g}" for t in _TICKS])
    axis.minorticks_off()
    axis.autoscale(axis="x")
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_xlabel(f"time of the inverse ÷ {CONV2D}")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(places), frameon=False)
    save(figure, folder / "ratios.png")
    first = rows[0]
    caption = f"Inverse ÷ PyTorch's {CONV2D} with the stated spread, {first.dtype}, "
    return {f"{caption}{first.threads} thread{'s' * (first.threads > 1)}": folder / "ratios.png"}
