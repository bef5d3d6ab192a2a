"""Undo a blur exactly, and see what noise does to that.

Deconvolution: a blur on a closed frame is a `PeriodicConv` of the flipped point-spread function
(PSF), and its inverse is exact, without regularisation or iterations. Its condition says what that
costs: an error in the blurred image may grow by so much, and one of rounding to 8 bits does.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import moon

from invconv import PeriodicConv
from invconv_benchmarks.report import figures


def moffat(width: float, radius: int = 12) -> figures.Floats:
    """Return a telescope's point-spread function (1 + r^2 / width^2)^-3, of sum 1."""
    row, column = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    spread = (1 + (row**2 + column**2) / width**2) ** -3.0
    return np.asarray(spread / spread.sum())


def draw(out: Path) -> None:
    """Blur the moon twice, undo both, before and after rounding to 8 bits."""
    sharp = moon()[100:356, 60:316][None] / 255.0
    figure, axes = plt.subplots(2, 5, figsize=(15, 6.4), layout="constrained")
    for row, width in zip(axes, (1.5, 4.0), strict=True):
        spread = moffat(width)
        blur = PeriodicConv(spread[None, None, ::-1, ::-1])
        blurred = blur.forward(sharp)
        eight_bits = np.round(blurred * 255) / 255
        undone, lost = blur.inverse(blurred), blur.inverse(eight_bits)
        error, noise = (np.abs(image - sharp).max() for image in (undone, lost))
        condition = blur.condition(sharp.shape[1:])
        print(f"width {width}: condition {condition:.2g}, error {error:.1e}, of 8 bits {noise:.2g}")
        images = {
            "the moon": sharp,
            f"blurred, width {width} pixels": blurred,
            f"undone: off by {error:.0e} at most": undone,
            f"of 8 bits, undone: off by {noise:.2g}": lost,
        }
        for panel, (title, image) in zip(row, images.items(), strict=False):
            figures.show(panel, image[0], title, cmap="gray", vmin=0.2, vmax=0.75)
        gain = np.abs(np.fft.rfft2(spread, sharp.shape[1:]))
        frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
        row[4].semilogy(frequency.ravel(), gain.ravel(), ",")
        row[4].axhline(1 / condition, color="tab:red", label=f"1 / condition, {condition:.0f}")
        row[4].set(xlabel="periods a pixel", ylabel="what the blur leaves")
        row[4].legend(loc="lower left")
    figures.save(figure, out)
