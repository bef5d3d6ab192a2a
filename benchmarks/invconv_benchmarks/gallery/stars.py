"""Stars and a nebula under a lopsided blur, beside scikit-image at its best parameters.

A frame of a wider sky in photons, with read noise and a background; the brightest stars saturate,
and a column is missing. The frame lies between zeros as wide as the point-spread function (PSF),
so that nothing that the periodic border wraps round falls into it. Pixels that are saturated or
missing have a mask of 0. Richardson-Lucy keeps numbers positive: for points on a dark sky that is
worth more than a linear filter can do. scikit-image has no mask: it gets the median of neighbours
in the column. In each column of the table "the best" is the best of several parameters, told by
the true sky.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from skimage import restoration

from invconv import damp_for_noise, from_psf, richardson_lucy
from invconv_benchmarks.report import figures

_SIZE, _RADIUS = 192, 12
_BACKGROUND, _READ, _FULL = 40.0, 4.0, 3000.0  # electrons; a pixel holds no more than the last
_FRAME = slice(_RADIUS, -_RADIUS)
_COLUMN = 90 + _RADIUS
_FAINT = 30.0  # electrons of a star that does not count
_BALANCES = np.logspace(-5, 1, 25)  # of Wiener's filter, of which the best one counts
_STEPS = 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 200, 300


def lopsided() -> figures.Floats:
    """Return a Moffat function that is longer along a diagonal, and more so on one side; sum 1."""
    row, column = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1]
    along, across = (row + column) / 2**0.5, (row - column) / 2**0.5
    width = np.where(along > 0, 3.0, 2.0)
    psf = (1 + along**2 / width**2 + across**2 / 1.5**2) ** -3.0
    return np.asarray(psf / psf.sum())


def true_sky(rng: np.random.Generator) -> tuple[figures.Floats, figures.Floats]:
    """Return stars and a nebula, in electrons a pixel."""
    size = _SIZE + 2 * _RADIUS
    stars = np.zeros((size, size))
    at, flux = rng.uniform(0, size - 1, (300, 2)), 500 * rng.pareto(1.2, 300).clip(0, 100)
    pixels, parts = at.astype(int), at % 1
    for corner in np.ndindex(2, 2):  # a star lies between four pixels
        shares = np.where(corner, parts, 1 - parts).prod(1)
        np.add.at(stars, tuple((pixels + corner).T), flux * shares)
    clouds = np.zeros_like(stars)
    for width in (3, 6, 12, 24):
        noise = rng.standard_normal(clouds.shape)
        clouds += ndimage.gaussian_filter(noise, width, mode="wrap") * width**1.5
    place = np.indices((size, size)) / size - 0.5
    nebula = 60 * np.exp(0.8 * clouds / clouds.std() - 12 * (place**2).sum(0))
    return stars, nebula


def draw(out: Path) -> None:
    """Set the sky beside its frame and four ways back, and print what each is off by."""
    rng = np.random.default_rng(0)
    stars, nebula = true_sky(rng)
    sky, psf = stars + nebula, lopsided()
    blur = from_psf(psf, boundary="periodic")
    light = blur.forward(sky[None])[0].clip(0) + _BACKGROUND
    frame = rng.poisson(light) + _READ * rng.standard_normal(sky.shape)
    good = np.zeros_like(frame)
    good[_FRAME, _FRAME] = frame[_FRAME, _FRAME] < _FULL
    good[:, _COLUMN] = 0
    y, mask = np.where(good, frame, 0)[None], good[None]
    sigma = np.sqrt(_READ**2 + y.clip(0) + (1 - mask))
    lucy = functools.partial(richardson_lucy, blur, y, mask=mask, background=_BACKGROUND)

    filled = frame.clip(None, _FULL)  # without a mask
    sides = np.delete(np.arange(_COLUMN - 2, _COLUMN + 3), 2)
    filled[:, _COLUMN] = np.median(filled[:, sides], axis=1)
    inside = filled[_FRAME, _FRAME]
    dark = np.pad(inside - _BACKGROUND, _RADIUS)
    noise = float(np.sqrt(np.mean(sigma[mask > 0] ** 2)))
    damp = damp_for_noise(blur, dark[None], noise, mask=mask)
    lucys = (restoration.richardson_lucy(inside, psf, n, clip=False) for n in _STEPS)
    wieners = (restoration.wiener(inside - _BACKGROUND, psf, b, clip=False) for b in _BALANCES)
    ways = {
        "the frame, less the background": [dark],
        f"invconv.least_squares, damp {damp:.2g}": [blur.least_squares(dark[None], damp)[0]],
        "invconv.richardson_lucy, stopped by sigma": [lucy(iterations=2000, sigma=sigma)[0]],
        "invconv.richardson_lucy, the best of 12": [lucy(iterations=n)[0] for n in _STEPS],
        "scikit-image: wiener, the best of 25": [np.pad(x, _RADIUS) for x in wieners],
        "scikit-image: richardson_lucy, the best of 12": [
            np.pad(x - _BACKGROUND, _RADIUS) for x in lucys
        ],
    }
    measures = _measures(stars, nebula, good)
    table = Table("", *measures)
    for title, every in ways.items():
        table.add_row(title, *(f"{min(map(off, every)):.3g}" for off in measures.values()))
    Console(width=120).print(table)

    closest = next(iter(measures.values()))
    images = {"the sky": sky, **{title: min(each, key=closest) for title, each in ways.items()}}
    figure, axes = plt.subplots(2, 7, figsize=(21, 6.6), layout="constrained")
    for column, (title, image) in zip(axes.T, images.items(), strict=True):
        part = image[_FRAME, _FRAME].clip(0) ** 0.5
        named = title.replace(": ", "\n").replace(", ", "\n")
        figures.show(column[0], part, named, cmap="gray", vmin=0, vmax=30)
        figures.show(column[1], part[:64, 48:112], "", cmap="gray", vmin=0, vmax=30)
    figures.save(figure, out)


def _measures(
    stars: figures.Floats, nebula: figures.Floats, good: figures.Floats
) -> dict[str, Callable[[figures.Floats], float]]:
    """Return how far an image is off: in electrons, and in percent of the fluxes of stars."""
    sky = stars + nebula
    empty = (ndimage.maximum_filter(stars, 9) < _FAINT) & (good > 0)
    bright = (stars == ndimage.maximum_filter(stars, 9)) & (stars > 10 * _FAINT)
    edge = _RADIUS + 3
    bright[:edge] = bright[-edge:] = bright[:, :edge] = bright[:, -edge:] = False
    flux = ndimage.uniform_filter(sky, 5)[bright]

    def fluxes(x: figures.Floats) -> float:
        return 100 * float(np.median(np.abs(ndimage.uniform_filter(x, 5)[bright] / flux - 1)))

    def rms(where: Any) -> Callable[[figures.Floats], float]:
        return lambda x: float(np.sqrt(np.mean((x - sky)[where] ** 2)))

    return {
        "all pixels": rms((_FRAME, _FRAME)),
        "nebula, off stars": rms(empty),
        "fluxes of stars, %": fluxes,
    }
