"""Real images: where they come from, and their tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from skimage import data
from skimage.io import imread
from skimage.util import img_as_float64

from invconv.arrays.errors import CommandError

Image = np.ndarray[Any, Any]

TILE = 32


def hubble() -> Image:
    """Return the Hubble deep field (NASA, public domain) that scikit-image ships, in [0, 1]."""
    return as_rgb(data.hubble_deep_field())


def read(path: Path) -> Image:
    """Read an image file as RGB in [0, 1].

    Raises
    ------
    ValueError
        If the file is missing, is no image, or is smaller than one tile.
    """
    if not path.is_file():
        raise CommandError(f"--image: expected an image file, but there is no file {path}")
    try:
        pixels = imread(path)
    except Exception as error:  # each image reader raises errors of its own
        raise CommandError(f"--image: {path} cannot be read as an image") from error
    return as_rgb(pixels)


def as_rgb(pixels: Image) -> Image:
    """Return (H, W, 3) in [0, 1] from grey, RGB or RGBA pixels of any depth."""
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=-1)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        shape = pixels.shape
        raise CommandError(f"--image: expected a grey, RGB or RGBA picture, got shape {shape}")
    if pixels.dtype.kind == "f" and not (0 <= pixels.min() <= pixels.max() <= 1):
        raise CommandError("--image: expected floating-point pixels in [0, 1], without NaN")
    if min(pixels.shape[:2]) < TILE:
        size = pixels.shape[:2]
        raise CommandError(f"--image: expected at least {TILE} x {TILE} pixels, got {size}")
    return np.asarray(img_as_float64(pixels[..., :3]))


def tiles(image: Image) -> Image:
    """Cut (H, W, 3) into non-overlapping tiles (rows columns, 3, 32, 32); the rest is left out."""
    rows, columns = image.shape[0] // TILE, image.shape[1] // TILE
    cut = image[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
    return cut.transpose(0, 2, 4, 1, 3).reshape(rows * columns, 3, TILE, TILE)


def assemble(cut: Image, image: Image) -> Image:
    """Undo `tiles` for tiles of ``image``."""
    rows, columns = image.shape[0] // TILE, image.shape[1] // TILE
    grid = cut.reshape(rows, columns, 3, TILE, TILE).transpose(0, 3, 1, 4, 2)
    return grid.reshape(rows * TILE, columns * TILE, 3)
