"""A comparison as a picture: learning curves, paired differences, reconstructions, samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LogNorm

from invconv_benchmarks.density.compare.result import Result
from invconv_benchmarks.density.compare.summary import BASELINE
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.evaluation import evaluation
from invconv_benchmarks.density.models.appearance import COLORS, title
from invconv_benchmarks.report.figures import label_ends, save, stretch
from invconv_torch.flows import Multiscale

Floats = np.ndarray[Any, Any]

RESTORED, SAMPLED = 4, 10  # tiles of each model


@dataclass(frozen=True)
class Gallery:
    """What a model shows.

    Attributes
    ----------
    images, restored, samples : uint8 array, shape (N, C, H, W)
    error : array, shape (N, H, W)
        The largest over the colours, in units of a pixel's 256 values.
    """

    images: Floats
    restored: Floats
    error: Floats
    samples: Floats


@torch.no_grad()  # type: ignore[untyped-decorator]
def gallery(model: Multiscale, data: Dataset) -> Gallery:
    """Reconstruct some test images, and draw samples, from one noise where latents agree."""
    x = evaluation.images_of_test(model, data, RESTORED)
    back = model.decode(model.encode(x)[0])
    generator = torch.Generator().manual_seed(evaluation.SAMPLE_SEED)
    samples = torch.nan_to_num(model.sample(SAMPLED, generator=generator), nan=0.0)
    return Gallery(
        data.test[:RESTORED],
        model.dequantize.inverse(torch.nan_to_num(back, nan=0.0))[0].cpu().numpy(),
        256 * (back - x).abs().amax(dim=1).double().cpu().numpy(),
        model.dequantize.inverse(samples)[0].cpu().numpy(),
    )


def draw(result: Result, galleries: Mapping[str, Gallery], path: Path) -> None:
    """Write the picture; a half-written one never replaces a good one."""
    rows = [row for row in result.rows if row.mixing in galleries]
    figure = plt.figure(figsize=(13.4, 5.4 + 0.56 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15)  # the rows' names need more than the layout leaves
    above, below = figure.subfigures(2, 1, height_ratios=[5, 0.4 + 0.56 * len(rows)])
    curves, differences = above.subplots(1, 2, width_ratios=[1.5, 1])
    _curves(curves, result)
    _differences(differences, result)
    _tiles(below, rows, galleries)
    save(figure, path)


def _curves(axis: Any, result: Result) -> None:
    last, ends = [], []
    for row in result.rows:
        runs = [run.history for run in row.runs if run.history]
        if not runs:
            continue
        length = min(len(run) for run in runs)
        steps = [entry["step"] for entry in runs[0][:length]]
        values = np.asarray([[entry["held_out"] for entry in run[:length]] for run in runs])
        color = COLORS.get(row.mixing, "black")
        mean = values.mean(axis=0)
        axis.plot(steps, mean, color=color)
        ends.append((title(row.mixing), steps[-1], mean[-1], color))
        axis.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15)
        last += [values[:, -1].min(), np.median(values)]
    if last:
        low, high = min(last), max(last)
        axis.set_ylim(low - 0.05 * (high - low), high + 0.6 * (high - low))
    axis.set_xlabel("steps")
    axis.set_ylabel(f"bits/dim of the {result.data['watched']} tiles")
    axis.set_title("learning curves, averaged parameters; shaded: all seeds", fontsize=10)
    axis.grid(alpha=0.3)
    label_ends(axis, ends, gap=0.07)


def _differences(axis: Any, result: Result) -> None:
    shown = [(row.mixing, row.difference) for row in result.rows if row.difference]
    for y, (mixing, difference) in enumerate(shown):
        color = COLORS.get(mixing, "black")
        axis.errorbar(
            difference.mean, y, xerr=difference.std or None, color=color, fmt="o", capsize=3
        )
        axis.plot(difference.each, [y + 0.25] * len(difference.each), ".", color=color, ms=4)
    axis.axvline(0, color=COLORS[BASELINE], lw=0.8)
    axis.set_yticks(range(len(shown)), [title(mixing) for mixing, _ in shown])
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_xlabel("bits/dim from the plain 1×1, seed by seed")
    axis.locator_params(axis="x", nbins=5)
    axis.set_title("paired differences; dots: each seed", fontsize=10)
    axis.grid(axis="x", alpha=0.3)


def _tiles(figure: Any, rows: list[Any], galleries: Mapping[str, Gallery]) -> None:
    widths = [RESTORED, RESTORED, RESTORED, SAMPLED]
    axes = figure.subplots(len(rows), 4, width_ratios=widths, squeeze=False)
    shades = None
    for line, row in zip(axes, rows, strict=True):
        found = galleries[row.mixing]
        for axis, pixels in zip(line[[0, 1, 3]], (found.images, found.restored, found.samples),
                                strict=True):  # fmt: skip
            axis.imshow(stretch(_strip(pixels) / 255), cmap="gray")
        shades = line[2].imshow(
            np.concatenate(list(found.error), axis=1).clip(1e-6),
            norm=LogNorm(1e-5, 1),
            cmap="magma",
        )
        line[0].set_ylabel(title(row.mixing), rotation=0, ha="right", va="center", size=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    titles = ("test tiles, brightened", "reconstructed", "error", "samples, brightened")
    for axis, text in zip(axes[0], titles, strict=True):
        axis.set_title(text, fontsize=10)
    if shades is not None:
        figure.colorbar(
            shades, ax=axes, shrink=0.6, aspect=30, label="error, in units of one of 256 values"
        )


def _strip(tiles: Floats) -> Floats:
    """Return (H, N W, C) of tiles (N, C, H, W)."""
    return np.concatenate([np.moveaxis(tile, 0, -1) for tile in tiles], axis=1)
