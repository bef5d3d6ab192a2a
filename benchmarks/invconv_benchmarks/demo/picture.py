"""The demo's picture: an image, its image under each map, and back."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from invconv_benchmarks.report.figures import Floats, save, stretch


def draw_demo(image: Floats, panels: dict[str, tuple[Floats, Floats]], path: Path) -> None:
    """Draw, a row per map: the image, the image under the map, the reconstruction, its error.

    Images are (H, W, 3) in [0, 1]; ``panels`` has (mapped, restored) by the map's name.
    """
    rows = len(panels)
    height = 3.1 * image.shape[0] / image.shape[1]
    figure, axes = plt.subplots(
        rows, 4, figsize=(13.4, height * rows + 0.3), squeeze=False, layout="compressed"
    )
    for line, (name, (mapped, restored)) in zip(axes, panels.items(), strict=True):
        shown = image[: restored.shape[0], : restored.shape[1]]
        error = np.abs(restored - shown).max(axis=-1)
        line[0].imshow(stretch(shown))
        line[1].imshow(stretch(spread(mapped)))
        line[2].imshow(stretch(restored.clip(0, 1)))
        shades = line[3].imshow(error.clip(1e-8), norm=LogNorm(1e-8, 1e-6), cmap="magma")
        line[0].set_ylabel(name, fontsize=13)
    label = "largest error of a pixel's colours"
    figure.colorbar(shades, ax=axes, shrink=0.6, pad=0.01, label=label)
    titles = ("image x, in tiles of 32 x 32", "y = forward(x), contrast stretched",
              "inverse(y), in float32", "|inverse(y) - x|")  # fmt: skip
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    save(figure, path)


def spread(pixels: Floats) -> Floats:
    """Scale values of any range to [0, 1], all but the most extreme of a thousand."""
    low, high = np.quantile(pixels, [0.0005, 0.9995])
    return np.asarray(((pixels - low) / max(high - low, 1e-12)).clip(0, 1))
