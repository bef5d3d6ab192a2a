"""A volume of 48 x 48 x 48 as a light-sheet microscope sees it, and as it was.

Deconvolution in 3-D: the blur (PSF) is three times as wide along its axis. The inverse is a solve
a frequency, as in two dimensions; `condition` says beforehand what precision it takes.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import binary_blobs

from invconv import PeriodicConv, diagnose
from invconv_benchmarks.report import figures

_SIDE = 48


def microscope() -> PeriodicConv:
    """Return the blur: exponential tails, of length 1.5 along the axis and 0.5 across."""
    offset = np.abs(np.arange(-4, 5))
    along, across = np.exp(-offset / 1.5), np.exp(-offset / 0.5)
    spread = along[:, None, None] * across[:, None] * across
    return PeriodicConv((spread / spread.sum())[None, None])


def draw(out: Path) -> None:
    """Blur porous rock, undo it in float64 and in float32, and print what diagnose foretold."""
    rock = binary_blobs(_SIDE, blob_size_fraction=0.15, n_dim=3, volume_fraction=0.4, rng=0)
    x = rock[None].astype(np.float64)
    conv = microscope()
    y = conv.forward(x)
    print(diagnose(conv, (_SIDE,) * 3, "float32"))
    exact = conv.inverse(y)
    single = conv.asarrays(like=np.empty(0, np.float32)).inverse(y.astype(np.float32))
    for name, undone in ("float64", exact), ("float32", single):
        print(f"{name}: off by {np.abs(undone - x).max():.1e} at most")
    print(f"{int((np.round(single) == x).sum())} of {x.size} voxels right in float32")
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.4), layout="constrained")
    images = {
        "rock": x,
        "seen by the microscope": y,
        "undone, float64": exact,
        "float32: error × 10⁶": np.abs(single - x) * 1e6,
    }
    for column, (title, volume) in zip(axes.T, images.items(), strict=True):
        across, along = volume[0, _SIDE // 2], volume[0, :, _SIDE // 2]
        figures.show(column[0], across, f"{title}\nacross the axis", cmap="gray", vmin=0, vmax=1)
        figures.show(column[1], along, "along the axis", cmap="gray", vmin=0, vmax=1)
    figures.save(figure, out)
