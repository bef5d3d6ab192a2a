"""Writing figures, labels at the ends of lines, and brightening images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import isotonic_regression

from invconv.files.whole_files import replacing

Floats = np.ndarray[Any, Any]


def stretch(pixels: Floats) -> Floats:
    """Brighten dark pixels by arcsinh, as astronomers do."""
    return np.asarray(np.arcsinh(8 * pixels) / np.arcsinh(8.0)).clip(0, 1)


def show(panel: Any, image: Floats, title: str, **settings: Any) -> None:
    """Show an image without axes, with `imshow`'s settings."""
    panel.imshow(image, **settings)
    panel.set_title(title, fontsize=10)
    panel.set_axis_off()


def label_ends(axis: Any, ends: Sequence[tuple[str, float, float, str]], gap: float = 0.05) -> None:
    """Write the names of lines (name, x, y, color) to the right of an axis, near to their ends.

    ``gap`` is the least distance between two names, as a share of the axis's height.
    """
    to_share = axis.transData + axis.transAxes.inverted()
    ends = sorted(ends, key=lambda end: end[2])
    heights = np.asarray([to_share.transform(end[1:3])[1] for end in ends]).clip(0, 1)
    steps = gap * np.arange(len(ends))
    highest = max(0.0, 1 - steps[-1])  # of the lowest name, for all to stay beside the axis
    places = isotonic_regression(heights - steps).x.clip(0, highest) + steps
    for (name, x, y, color), place in zip(ends, places, strict=True):
        axis.annotate(
            name, (x, y), (1.04, place), textcoords=axis.transAxes, color=color, va="center",
            fontsize=8, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.6, "shrinkA": 2, "shrinkB": 0,
                        "relpos": (0.0, 0.5)},
        )  # fmt: skip


def save(figure: Any, path: Path) -> None:
    """Write a figure in the format of the file's suffix, at once or not at all."""
    try:
        with replacing(path) as part:
            figure.savefig(part, format=path.suffix[1:].lower(), dpi=110)
    finally:
        plt.close(figure)
