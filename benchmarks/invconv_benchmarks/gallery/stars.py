"""Stars under a lopsided blur: Richardson-Lucy beside a Wiener filter and damped least squares.

A frame of a wider sky, with noise, a background and a column of bad pixels. The frame lies between
zeros as wide as the point-spread function (PSF), so that nothing that the periodic border wraps
round falls into it; there and in the bad column the mask is 0. Richardson-Lucy keeps numbers
positive: for points on a dark sky that is worth more than a linear filter can do, whose error in
each pixel is one number, by its response to a point.
"""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.restoration import wiener

from invconv import damp_for_noise, from_psf, richardson_lucy
from invconv_benchmarks.report import figures

_SKY, _NOISE, _RADIUS, _STEPS = 0.05, 0.01, 12, 200
_FRAME = slice(_RADIUS, -_RADIUS)
_BALANCES = np.logspace(-5, 0, 21)  # of Wiener's filter, of which the best one counts


def lopsided() -> figures.Floats:
    """Return a Moffat function that is longer along a diagonal, and more so on one side; sum 1."""
    row, column = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1]
    along, across = (row + column) / 2**0.5, (row - column) / 2**0.5
    width = np.where(along > 0, 3.0, 2.0)
    psf = (1 + along**2 / width**2 + across**2 / 1.5**2) ** -3.0
    return np.asarray(psf / psf.sum())


def draw(out: Path) -> None:
    """Set the sky beside its blurred frame and three ways back, with what each is off by."""
    rng, size = np.random.default_rng(0), 192
    sky = np.zeros((size + 2 * _RADIUS,) * 2)
    at, flux = rng.uniform(0, len(sky) - 1, (300, 2)), 0.5 * rng.pareto(1.5, 300).clip(0, 60)
    pixels, parts = at.astype(int), at % 1
    for corner in np.ndindex(2, 2):  # a star lies between four pixels
        shares = np.where(corner, parts, 1 - parts).prod(1)
        np.add.at(sky, tuple((pixels + corner).T), flux * shares)
    psf = lopsided()
    blur = from_psf(psf, boundary="periodic")
    seen = blur.forward(sky[None])[0] + _SKY + _NOISE * rng.standard_normal(sky.shape)
    good = np.zeros_like(seen)
    good[_FRAME, _FRAME] = 1
    good[:, 90] = 0  # a bad column, NaN in the file
    y = np.where(good, seen, 0)[None]
    filled = np.where(good, seen, _SKY)[None] - _SKY  # one NaN would make all of it NaN
    with warnings.catch_warnings():
        # it warns of the stars, half of the misfit; with a mask of them it is off by .115 or more
        warnings.simplefilter("ignore", UserWarning)
        damp = damp_for_noise(blur, filled, _NOISE)
    delta = np.zeros_like(filled)
    delta[0, 0, 0] = 1
    error = _NOISE * np.linalg.norm(blur.least_squares(delta, damp))
    print(
        f"damp {damp:.2g}: each pixel of least squares has an error of {error:.2g} from the noise"
    )

    def off(x: figures.Floats) -> float:
        return float(np.sqrt(np.mean((x - sky)[_FRAME, _FRAME] ** 2)))

    wieners = (wiener(filled[0], psf, balance, clip=False) for balance in _BALANCES)
    images = {
        "the sky": sky,
        "seen, less the background": filled[0],
        "Wiener, the best of 21": min(wieners, key=off),
        f"least squares, damp {damp:.2g}": blur.least_squares(filled, damp)[0],
        f"Richardson-Lucy, {_STEPS} steps": richardson_lucy(
            blur, y, mask=good[None], background=_SKY, iterations=_STEPS
        )[0],
    }
    figure, axes = plt.subplots(2, 5, figsize=(15, 6.4), layout="constrained")
    for column, (title, image) in zip(axes.T, images.items(), strict=True):
        print(f"{title}: off by {off(image):.3g}")
        named = title if image is sky else f"{title}\noff by {off(image):.2g}"
        inside = image[_FRAME, _FRAME].clip(0)
        figures.show(column[0], inside**0.5, named, cmap="gray", vmin=0, vmax=1)
        figures.show(column[1], inside[:64, 48:112] ** 0.5, "", cmap="gray", vmin=0, vmax=1)
    figures.save(figure, out)
