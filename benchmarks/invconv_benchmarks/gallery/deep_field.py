"""The Hubble deep field, blurred and noisy: undone exactly, damped, and by a Wiener filter.

`from_psf` makes the blur of a point-spread function (PSF), mirrored at the frame: in a closed frame
the left edge would leak into the right one. Its inverse is exact, and multiplies noise by up to the
condition. `least_squares` minimises |K x - y|^2 + damp^2 |x|^2 (Tikhonov's regularisation), of an
image without its mean, and `damp_for_noise` finds the damp that a noise level suggests.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import hubble_deep_field
from skimage.restoration import wiener

from invconv import damp_for_noise, diagnose, from_psf
from invconv_benchmarks.gallery.deblur import moffat
from invconv_benchmarks.report import figures

_NOISE = 0.01  # standard deviation; white is 1


def draw(out: Path) -> None:
    """Set the field beside the blurred one and three ways back, with what each is off by."""
    sharp = hubble_deep_field()[300:556, 420:676].mean(axis=2)[None] / 255.0
    spread = moffat(2.5, radius=7)
    blur = from_psf(spread, boundary="symmetric")
    rng = np.random.default_rng(0)
    seen = blur.forward(sharp) + _NOISE * rng.standard_normal(sharp.shape)
    mean = seen.mean()
    damp = damp_for_noise(blur, seen - mean, _NOISE)
    print(diagnose(blur, sharp.shape[1:]))
    images = {
        "the field": sharp,
        f"seen, noise {_NOISE}": seen,
        "the exact inverse": blur.inverse(seen),
        f"least squares, damp {damp:.2g}": blur.least_squares(seen - mean, damp) + mean,
        "skimage's wiener, balance damp²": wiener(seen[0], spread, damp**2, clip=False)[None],
    }
    figure, axes = plt.subplots(2, 5, figsize=(15, 6.4), layout="constrained")
    for column, (title, image) in zip(axes.T, images.items(), strict=True):
        error = np.sqrt(np.mean((image - sharp) ** 2))
        edge = np.sqrt(np.mean((image - sharp)[:, :8] ** 2))
        print(f"{title}: off by {error:.3g} (rms), {edge:.3g} at the upper edge")
        named = title if image is sharp else f"{title}\noff by {error:.2g}, at the edge {edge:.2g}"
        figures.show(column[0], image[0], named, cmap="gray", vmin=0, vmax=0.6)
        figures.show(column[1], image[0, :96, :96], "", cmap="gray", vmin=0, vmax=0.6)
    figures.save(figure, out)
