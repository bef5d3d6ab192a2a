"""Writing figures, brightening images, and cutting them into tiles."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from skimage.util import view_as_blocks

from invconv.files.container import replacing

Floats = np.ndarray[Any, Any]


def stretch(pixels: Floats) -> Floats:
    """Brighten dark pixels by arcsinh, as astronomers do."""
    return np.asarray(np.arcsinh(8 * pixels) / np.arcsinh(8.0)).clip(0, 1)


def tiles(image: Floats, side: int) -> Floats:
    """Cut (C, H, W) into tiles (N, C, side, side) that do not overlap; the rest is left out."""
    channels, height, width = len(image), *(n // side * side for n in image.shape[1:])
    whole = np.ascontiguousarray(image[:, :height, :width])
    return np.array(view_as_blocks(whole, (channels, side, side))).reshape(-1, channels, side, side)


def show(panel: Any, image: Floats, title: str, **settings: Any) -> None:
    """Show an image without axes, with `imshow`'s settings."""
    panel.imshow(image, **settings)
    panel.set_title(title, fontsize=10)
    panel.set_axis_off()


def save(figure: Any, path: Path) -> None:
    """Write a figure in the format of the file's suffix, at once or not at all."""
    try:
        with replacing(path) as part:
            figure.savefig(part, format=path.suffix[1:].lower(), dpi=110)
    finally:
        plt.close(figure)
