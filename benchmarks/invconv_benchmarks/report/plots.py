"""Pictures of a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from invconv_benchmarks.contenders.plain import CONV2D
from invconv_benchmarks.report.figures import save
from invconv_benchmarks.report.tables import place
from invconv_benchmarks.results import fits
from invconv_benchmarks.results.fits import Fit
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import Row
from invconv_benchmarks.suites.group import as_text

COLORS = {"numpy": "#4c78a8", "torch": "#e4572e", "jax": "#2a9d8f", "cupy": "#8e6bbf"}


def draw(result: Result, folder: Path) -> dict[str, Path]:
    """Write the pictures that the result has data for, and return them by their captions."""
    drawn: dict[str, Path] = {}
    pictures: tuple[tuple[str, str, Callable[[list[Row]], Any]], ...] = (
        (
            "ratios",
            "Inverse ÷ the library's plain convolution (bars) and ÷ PyTorch's F.conv2d (diamonds), "
            "with the stated spread",
            _ratios,
        ),
        ("scaling", "Cost against size, with fitted exponents", _scaling),
    )
    for name, caption, make in pictures:
        figure = make(result.rows)
        if figure is not None:
            path = folder / f"{name}.png"
            save(figure, path)
            drawn[caption] = path
    return drawn


def color(row: Row) -> str:
    """Return the colour of a row's library."""
    return COLORS.get(row.library, "#777777")


def _ratios(rows: list[Row]) -> Any:
    rows = [
        r
        for r in rows
        if r.suite == "inverse" and (r.role, r.does) == ("ours", "inverse") and r.ratio
    ]
    panels = sorted({(r.dtype, r.threads) for r in rows})
    if not panels:
        return None
    labels = list(dict.fromkeys(_label(r) for r in rows))
    places = list(dict.fromkeys(place(r) for r in rows))
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(2.6 + 3.1 * len(panels), 1.2 + 0.2 * len(labels) * len(places)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        for row in rows:
            if (row.dtype, row.threads) == panel:
                _bar(axis, row, labels, places)
        axis.axvline(1, color="black", lw=0.8)
        axis.set_xscale("log")
        ticks = [t for t in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if _within(t, rows)]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.set_title(f"{panel[0]}, {panel[1]} thread{'s' * (panel[1] > 1)}", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[0][0].set_ylim(len(labels) - 0.5, -0.5)
    figure.supxlabel("inverse ÷ plain convolution of the same library; ◇: ÷ F.conv2d", fontsize=10)
    _legend(figure, rows)
    return figure


def _label(row: Row) -> str:
    return f"{row.map}\n{as_text(row.shape)}"


def _within(tick: float, rows: list[Row]) -> bool:
    found = [r for row in rows for r in (row.ratio, row.yardstick) if r]
    low, high = min(r.low for r in found), max(r.high for r in found)
    return bool(low / 2 <= tick <= high * 1.5)


def _bar(axis: Any, row: Row, labels: list[str], places: list[str]) -> None:
    height = 0.8 / len(places)
    y = labels.index(_label(row)) - 0.4 + height * (places.index(place(row)) + 0.5)
    own, common = row.ratio, row.yardstick
    assert own is not None
    value, error = own.value, [[own.value - own.low], [own.high - own.value]]
    axis.barh(y, value - 1, height, left=1, color=color(row), alpha=0.85)
    axis.errorbar(value, y, xerr=error, color="black", lw=0.8, capsize=1.5)
    if common is not None:
        paint, sides = color(row), [[common.value - common.low], [common.high - common.value]]
        axis.errorbar(
            common.value, y, xerr=sides, fmt="D", ms=3.5, mfc="white", mec=paint, ecolor=paint
        )


def _legend(figure: Any, rows: list[Row]) -> None:
    names = {place(r): color(r) for r in rows}
    handles = [plt.Line2D([], [], color=c, lw=5, label=n) for n, c in names.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _short(scale: Any) -> bool:
    """Tell whether an axis spans less than two decades."""
    low, high = scale.get_view_interval()
    return bool(high < 100 * low)


_AXES = {
    "pixels": "pixels of an image",
    "batch": "images",
    "channels": "channels",
    "kernel": "taps along an axis",
}


def _scaling(rows: list[Row]) -> Any:
    series = {
        name: points
        for name, points in fits.series(rows).items()
        if (points[0].role == "ours" or points[0].contender == CONV2D) and len(points) > 1
    }
    present = [a for a in _AXES if any(name[0] == a for name in series)]
    if not present:
        return None
    figure, axes = plt.subplots(
        2,
        len(present),
        figsize=(1 + 3.3 * len(present), 6.4),
        squeeze=False,
        sharex="col",
        layout="constrained",
    )
    exponents = fits.exponents(rows)
    for i, does in enumerate(("forward", "inverse")):
        for j, axis in enumerate(present):
            mine = [
                p
                for name, p in series.items()
                if name[0] == axis and (p[0].does == does or p[0].contender == CONV2D)
            ]
            _curves(axes[i][j], mine, exponents)
            if axis == "kernel":
                axes[i][j].set_xticks(sorted({fits.size(p) for points in mine for p in points}))
                axes[i][j].xaxis.set_minor_locator(NullLocator())
            axes[i][j].set_title(f"{does}, {_setting(mine)}", fontsize=9)
            if i:
                axes[i][j].set_xlabel(_AXES[axis])
        axes[i][0].set_ylabel("milliseconds")
    return figure


def _setting(series: list[list[Row]]) -> str:
    """Return the map and the sizes that stay the same along a series."""
    if not series:
        return ""
    first, last = series[0][0], series[0][-1]
    sizes = ["?" if a != b else str(a) for a, b in zip(first.shape, last.shape, strict=True)]
    name = first.map if first.map == last.map else "corner ?"
    return f"{name}, {' x '.join(sizes)}"


def _curves(axis: Any, series: list[list[Row]], exponents: list[Fit]) -> None:
    for points in series:
        first = points[0]
        fit = next(
            (
                f"{e.value:.2f} ± {e.error:.2f}"
                for e in exponents
                if e.range == "all" and e.series == fits.series_of(first)
            ),
            "",
        )
        plain = first.contender == CONV2D
        axis.plot(
            [fits.size(p) for p in points],
            [1e3 * p.seconds for p in points],
            "--" if plain else "o-",
            ms=4,
            color="black" if plain else color(first),
            label=f"{CONV2D if plain else place(first)}  {fit}",
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5) if _short(scale) else (1,)))
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, lw=0.5)
    if series:
        axis.legend(fontsize=7, title="exponent, all sizes", title_fontsize=7)
