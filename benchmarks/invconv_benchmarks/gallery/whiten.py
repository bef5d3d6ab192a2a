"""Whiten textures: each pixel's news, given those before it, and new textures from noise.

Whitening (decorrelation) by an autoregressive convolution is linear prediction: each pixel minus
what the pixels above and to the left of it foretell, by least squares. Its inverse turns white
noise into a texture with the same power spectrum, and log|det| is the density's.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from invconv import AutoregressiveConv
from invconv_benchmarks.report import figures

ROWS, SIDE = 8, 8  # it looks at so many rows above, and so far to either side


def prediction(texture: figures.Floats) -> AutoregressiveConv:
    """Fit a raster convolution z[p] = (x[p] - sum of a[o] x[p - o]) / sigma, by least squares."""
    offsets = [(i, j) for i in range(ROWS) for j in range(-SIDE, SIDE + 1) if (i, j) > (0, 0)]
    height, width = texture.shape
    inside = np.s_[ROWS:height, SIDE : width - SIDE]
    before = [np.roll(texture, offset, (0, 1))[inside].ravel() for offset in offsets]
    target = texture[inside].ravel()
    a, *_ = np.linalg.lstsq(np.stack(before, 1), target, rcond=None)
    sigma = (target - np.stack(before, 1) @ a).std()
    kernel = np.zeros((1, 1, ROWS, 2 * SIDE + 1))
    kernel[0, 0, 0, SIDE] = 1 / sigma
    for (i, j), weight in zip(offsets, a, strict=True):
        kernel[0, 0, i, j + SIDE] = -weight / sigma
    return AutoregressiveConv(kernel, mask="raster", direction=1)


def spectrum(image: figures.Floats) -> tuple[figures.Floats, figures.Floats]:
    """Return the power of rings of frequencies, in periods a pixel."""
    n = image.shape[-1]
    window = np.outer(np.hanning(n), np.hanning(n))
    power = np.abs(np.fft.fft2(image * window)) ** 2 / (window**2).sum()
    ring = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n)[None])
    edges = np.linspace(0.01, 0.5, 41)
    which = np.digitize(ring, edges)
    return edges[:-1], np.asarray([power[which == i].mean() for i in range(1, len(edges))])


def draw(out: Path) -> None:
    """Whiten three textures and make others like them."""
    rng = np.random.default_rng(0)
    figure, axes = plt.subplots(3, 4, figsize=(12, 9.2), layout="constrained")
    for row, name in zip(axes, ("grass", "gravel", "brick"), strict=True):
        pixels = getattr(data, name)()[:256, :256] / 255.0
        texture = (pixels - pixels.mean()) / pixels.std()
        conv = prediction(texture)
        white, log_det = conv.forward_and_log_det(texture[None])
        back = np.abs(conv.inverse(white) - texture).max()
        new = conv.inverse(rng.standard_normal(white.shape))
        nats = (0.5 * (white**2).sum() - log_det) / white.size + 0.5 * np.log(2 * np.pi)
        bits = nats / np.log(2)
        print(f"{name}: {bits:.2f} bits a pixel, 2.05 if it were white; {back:.0e} back")
        images = {name: texture, "whitened": white[0], "the inverse of noise": new[0]}
        for panel, (title, image) in zip(row, images.items(), strict=False):
            figures.show(panel, image, title, cmap="gray", vmin=-2.5, vmax=2.5)
        for title, image in images.items():
            row[3].loglog(*spectrum(image), label=title)
        row[3].set(xlabel="periods a pixel", ylabel="power")
        row[3].legend(fontsize=8)
    figures.save(figure, out)
