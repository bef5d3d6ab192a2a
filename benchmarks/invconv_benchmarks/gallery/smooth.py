"""A photograph without its texture: an edge-aware filter, the domain transform, by `propagate`.

E. Gastal, M. Oliveira, Domain transform for edge-aware image and video processing, 2011: recursions
along rows and columns, there and back, whose taps fall where the image changes.
"""

from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import astronaut

from invconv import propagate
from invconv_benchmarks.report import figures

_REACH, _RANGE, _TURNS = 40.0, 0.4, 3  # pixels, a change of the image, and how many rounds


def smooth(image: Any) -> Any:
    """Return an image (channels, height, width), smooth but for its edges."""
    spread, result = [], image
    for axis in (1, 2):  # from a pixel to the next one: 1, and more where the image changes
        change = np.abs(np.diff(image, axis=axis, append=np.take(image, [-1], axis))).sum(0)
        spread.append(1 + _REACH / _RANGE * change)
    for turn, axis in product(range(_TURNS), (1, 0)):
        width = _REACH * np.sqrt(3) * 2.0 ** (_TURNS - turn - 1) / np.sqrt(4.0**_TURNS - 1)
        taps = np.exp(-np.sqrt(2) / width) ** spread[axis]
        for step in (-1, 1):
            offset = (0, step) if axis else (step, 0)
            # a distance belongs to the pixel before it, and the first pixel has none before
            own = np.roll(taps, 1, axis) if step < 0 else taps.copy()
            own[(slice(None),) * axis + (0 if step < 0 else -1,)] = 0
            result = propagate(result, own[None, None], [offset], (1 - own)[None])
    return result


def draw(out: Path) -> None:
    """Smooth a photograph, and draw both beside their rows."""
    image = np.moveaxis(astronaut()[:400, 60:460] / 255.0, -1, 0)
    found = smooth(image)
    edges = np.abs(np.diff(image.sum(0))) > 1
    kept = np.abs(np.diff(found.sum(0)))[edges].mean() / np.abs(np.diff(image.sum(0)))[edges].mean()
    texture = np.abs(np.diff(found.sum(0)))[~edges].mean()
    texture /= np.abs(np.diff(image.sum(0)))[~edges].mean()
    print(f"of steps at edges {kept:.0%} are left, of others {texture:.0%}")
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    for panel, (title, shown) in zip(
        axes, {"photograph": image, "smooth": found}.items(), strict=False
    ):
        figures.show(panel, np.clip(np.moveaxis(shown, 0, -1), 0, 1), title)
        axes[2].plot(shown[0, 200], label=title)
    axes[2].set(xlabel="column", ylabel="red in row 200")
    axes[2].legend()
    figures.save(figure, out)
