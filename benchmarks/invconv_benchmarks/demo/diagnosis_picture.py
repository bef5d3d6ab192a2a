"""The picture of a diagnosis: the inverse's impulse response, and the digits left by grid size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

import invconv as ic
from invconv.families import path as paths
from invconv.operators.base import judgement
from invconv_benchmarks.report.figures import Floats, save

Shown = Sequence[tuple[str, ic.InvertibleConv, ic.Diagnosis]]  # a title, and its diagnosis

_LIMIT = 1e7  # an error of float32's eps times this is as large as the image
_SIZES = 10  # the most grids that a curve has
_COLORS = ("tab:blue", "tab:orange", "tab:red", "tab:green", "tab:purple")


def draw(shown: Shown, path: Path) -> None:
    """Draw a panel for each operator, and one with the digits left of all."""
    count = len(shown)
    figure = plt.figure(figsize=(2.7 * count + 4.8, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[2.7 * count, 4.8])
    axes = left.subplots(1, count, squeeze=False)[0]
    for axis, (title, conv, diagnosis), color in zip(axes, shown, _COLORS, strict=False):
        shades = _response(axis, conv, diagnosis)
        axis.set_title(title, fontsize=11, color=color)
    place = {"orientation": "horizontal", "fraction": 0.06, "aspect": 16 * count}
    bar = left.colorbar(shades, ax=list(axes), extend="both", **place)
    gap = " " if count > 1 else "\n"
    bar.set_label(f"an error of y at + is multiplied by this{gap}in x (grey: by 0)", fontsize=9)
    _digits(right.subplots(), shown)
    save(figure, path)


def _response(axis: Any, conv: ic.InvertibleConv, diagnosis: ic.Diagnosis) -> Any:
    """Show the largest |x| over the channels, and over the axes before the last two."""
    shape = diagnosis.spatial_shape
    pixel = diagnosis.pixel or tuple(n // 2 for n in shape)  # the middle, if all are alike
    unit = np.zeros((1, conv.channels, *shape))
    unit[(0, diagnosis.channel or 0, *pixel)] = 1.0
    with np.errstate(all="ignore"):
        path = paths.linear(conv.asarrays(unit)._path())
        response = np.abs(judgement.linear_maps(path, shape)[1](unit)[0])
    response = np.where(np.isfinite(response), response, np.inf)  # an overflow
    image: Floats = response.reshape(-1, *(1, 1, *shape)[-2:]).max(axis=0)
    row, column = (0, 0, *pixel)[-2:]
    shades = axis.imshow(
        np.where(image > 0, image.clip(1 / _LIMIT, _LIMIT), np.nan),
        norm=LogNorm(1 / _LIMIT, _LIMIT),
        cmap=plt.get_cmap("RdBu_r").with_extremes(bad="0.85"),
        aspect="auto" if len(shape) == 1 else "equal",
    )
    axis.plot(column, row, "k+", ms=9, mew=2)
    axis.set(xticks=[], yticks=[])
    digits = getattr(diagnosis, f"worst_{diagnosis.precision}")
    left = f"{digits:.1f} digits left in {diagnosis.precision} at worst"
    caption = f"{' x '.join(map(str, shape)) or 1}: condition {diagnosis.condition:.2g}\n{left}"
    axis.set_xlabel(caption, fontsize=9)
    return shades


def _digits(axis: Any, shown: Shown) -> None:
    axis.axhspan(0, 2, color="0.88")
    where = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "center"}
    axis.text(0.98, 1, "the inverse warns", fontsize=9, **where)
    for (_, conv, diagnosis), color in zip(shown, _COLORS, strict=False):
        grids = _grids(diagnosis.spatial_shape)
        sides = [max(grid, default=1) for grid in grids]
        diagnoses = [ic.diagnose(conv, g, diagnosis.precision) for g in grids]
        axis.plot(sides, [d.worst_float64 for d in diagnoses], "o--", color=color, lw=1.5, ms=3)
        axis.plot(sides, [d.worst_float32 for d in diagnoses], "o-", color=color, lw=2, ms=3)
    axis.plot([], [], "k-", lw=2, label="in float32")
    axis.plot([], [], "k--", lw=1.5, label="in float64")
    axis.set(xlabel="pixels along the longest axis", ylim=(0, 18.5), yticks=range(0, 17, 2))
    axis.set_title("digits left at worst", fontsize=11)
    axis.set_xlim(left=1)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="upper center", ncols=2, frameon=False)


def _grids(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    longest = max(shape, default=1)
    some = np.concatenate([np.arange(1, 8), np.linspace(1, longest, _SIZES)])
    sides = np.unique(some[some <= longest].round().astype(int))
    return [tuple(max(1, round(n * int(side) / longest)) for n in shape) for side in sides]
