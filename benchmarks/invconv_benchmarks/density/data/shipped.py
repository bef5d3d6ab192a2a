"""Real images that ordinary packages ship, split by region: nothing is downloaded.

Parts are a tile's width apart, so that none holds the edge of an object of another.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from invconv_benchmarks.density.data.dataset import Bytes, Dataset
from invconv_benchmarks.report.figures import tiles

TILE = 32
_JPEG = 8  # tiles off the grid of a JPEG's blocks cost .05 bits/dim, as much as a layer may gain


def hubble() -> Dataset:
    """Return the Hubble deep field (NASA, public domain); its left two thirds are to train on."""
    from skimage.data import hubble_deep_field

    image = planes(hubble_deep_field())
    validation, test = (tiles(image[:, :, at], TILE) for at in (slice(672, 768), slice(800, None)))
    train = [image[:, :, :640]]
    return Dataset("hubble", train, test, validation, grid=_JPEG, symmetry="horizontal")


def photos() -> Dataset:
    """Return photographs; of each the right fifth is for the test, a tenth to choose by."""
    train, validation, test = [], [], []
    for photograph in _photographs():
        image = planes(photograph)
        columns = image.shape[2] // TILE
        first = TILE * (columns - columns // 5)
        middle = first - TILE * (1 + columns // 10)
        train.append(image[:, :, : middle - TILE])
        validation.append(tiles(image[:, :, middle : first - TILE], TILE))
        test.append(tiles(image[:, :, first:], TILE))
    parts = np.concatenate(test), np.concatenate(validation)
    return Dataset("photos", train, *parts, grid=_JPEG, symmetry="horizontal")


def _photographs() -> Iterator[Any]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        yield getattr(data, name)()
    yield data.stereo_motorcycle()[0]  # the other view shows the same, further to the left
    yield from load_sample_images().images


def digits() -> Dataset:
    """Return scikit-learn's handwritten digits, 8 x 8 in 17 shades of grey: small, for tests."""
    from sklearn.datasets import load_digits

    images = (load_digits().images * 15).astype(np.uint8)[:, None]
    return Dataset("digits", images[:1300], images[1500:], images[1300:1500])


def planes(image: Any) -> Bytes:
    """Return (C, H, W) of (H, W, C)."""
    return np.ascontiguousarray(np.moveaxis(image, -1, 0))
