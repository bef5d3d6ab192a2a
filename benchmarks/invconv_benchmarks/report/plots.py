"""The picture of a result: ratios of inverses to plain convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from invconv_benchmarks.report.figures import save
from invconv_benchmarks.report.tables import place
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import Row
from invconv_benchmarks.suites.group import as_text

COLORS = {"numpy": "#4c78a8", "torch": "#e4572e", "jax": "#2a9d8f", "cupy": "#8e6bbf"}
_CAPTION = (
    "Inverse ÷ the library's plain convolution (bars) and ÷ PyTorch's F.conv2d (diamonds), "
    "with the stated spread"
)
_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)


def draw(result: Result, folder: Path) -> dict[str, Path]:
    """Write the picture if the result has data for it, and return it by its caption."""
    rows = [r for r in result.rows if (r.suite, r.role, r.does) == ("inverse", "ours", "inverse")]
    rows = [r for r in rows if r.ratio]
    if not rows:
        return {}
    path = folder / "ratios.png"
    save(_ratios(rows), path)
    return {_CAPTION: path}


def _ratios(rows: list[Row]) -> Any:
    panels = sorted({(r.dtype, r.threads) for r in rows})
    labels = list(dict.fromkeys(_label(r) for r in rows))
    places = {place(r): COLORS.get(r.library, "#777777") for r in rows}
    size = (2.6 + 3.1 * len(panels), 1.2 + 0.2 * len(labels) * len(places))
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    intervals = [i for r in rows for i in (r.ratio, r.yardstick) if i]
    low, high = min(i.low for i in intervals), max(i.high for i in intervals)
    ticks = [t for t in _TICKS if low / 2 <= t <= high * 1.5]
    for axis, panel in zip(axes[0], panels, strict=True):
        for row in rows:
            if (row.dtype, row.threads) == panel:
                _bar(axis, row, labels.index(_label(row)), list(places))
        axis.axvline(1, color="black", lw=0.8)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.set_title(f"{panel[0]}, {panel[1]} thread{'s' * (panel[1] > 1)}", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[0][0].set_ylim(len(labels) - 0.5, -0.5)
    figure.supxlabel("inverse ÷ plain convolution of the same library; ◇: ÷ F.conv2d", fontsize=10)
    handles = [plt.Line2D([], [], color=c, lw=5, label=n) for n, c in places.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    return figure


def _label(row: Row) -> str:
    return f"{row.map}\n{as_text(row.shape)}"


def _bar(axis: Any, row: Row, line: int, places: list[str]) -> None:
    """Draw a row's ratio as a bar and the one to F.conv2d as a diamond, both with their spread."""
    height, color = 0.8 / len(places), COLORS.get(row.library, "#777777")
    y = line - 0.4 + height * (places.index(place(row)) + 0.5)
    if own := row.ratio:
        axis.barh(y, own.value - 1, height, left=1, color=color, alpha=0.85)
        sides = [[own.value - own.low], [own.high - own.value]]
        axis.errorbar(own.value, y, xerr=sides, color="black", lw=0.8, capsize=1.5)
    if common := row.yardstick:
        sides = [[common.value - common.low], [common.high - common.value]]
        axis.errorbar(
            common.value, y, xerr=sides, fmt="D", ms=3.5, mfc="white", mec=color, ecolor=color
        )
