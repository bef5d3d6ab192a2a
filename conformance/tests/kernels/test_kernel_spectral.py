"""Compiled products with a matrix a frequency, against SciPy's transforms in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft

from invconv.kernels.cpu import costs
from invconv.kernels.cpu.program import address_of
from invconv.kernels.cpu.spectral.product import compiled_product
from invconv.kernels.frequencies.cosine import Basis, Cosine
from invconv.kernels.frequencies.fourier import Fourier
from tests.kernels.test_kernels import narrower

Array = np.ndarray[Any, Any]
SHAPES = (37,), (13, 6), (3, 5, 4), (3, 4, 2, 3)  # three axes of which turn there and back


def multiplied(matrices: Array, basis: Basis, y: Array, bits: int | None, workers: int) -> Array:
    """Return the kernel's result, in memory that is not zero where nothing is written."""
    target = None if bits is None else narrower(bits)
    shape = y.shape[2:]
    x = np.full_like(y, np.nan)
    found = compiled_product(matrices, shape, basis.real(shape), target)
    found.run(address_of(y), address_of(x), len(y), workers, y, x)
    return x


def expected(matrices: Array, basis: Basis, y: Array) -> Array:
    """Return what the definition says, by SciPy's transforms."""
    shape, y = y.shape[2:], y.astype("float64")
    axes = tuple(range(2, y.ndim))
    fourier = isinstance(basis, Fourier)
    y_hat = scipy.fft.rfftn(y, axes=axes) if fourier else scipy.fft.dctn(y, axes=axes, norm="ortho")
    rows = y_hat.reshape(*y.shape[:2], -1)
    x_hat = np.einsum("foc,bcf->bof", matrices, rows).reshape(y_hat.shape)
    if fourier:
        return np.asarray(scipy.fft.irfftn(x_hat, s=shape, axes=axes))
    return np.asarray(scipy.fft.idctn(x_hat, axes=axes, norm="ortho"))


def spectrum(
    rng: np.random.Generator, basis: Basis, shape: tuple[int, ...], channels: int
) -> Array:
    """Return matrices of a random real kernel that is as large as the grid."""
    count = int(np.prod(basis.frequencies(shape)))
    if not isinstance(basis, Fourier):
        return rng.standard_normal((count, channels, channels))
    kernel = rng.standard_normal((channels, channels, *shape)) / np.sqrt(np.prod(shape))
    turned = scipy.fft.rfftn(kernel, axes=range(2, kernel.ndim))
    return np.asarray(turned.reshape(channels, channels, count).transpose(2, 0, 1))


def random_grid(rng: np.random.Generator) -> tuple[int, ...]:
    ndim = int(rng.integers(1, 5))
    return tuple(map(int, rng.integers(1, {1: 60, 2: 14, 3: 7, 4: 5}[ndim], ndim)))


@pytest.mark.parametrize("basis", ["fourier", "cosine"])
@pytest.mark.parametrize("seed", range(8))
def test_products_of_transforms(seed: int, basis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "SHARED", 0.0)
    rng = np.random.default_rng(seed)
    bits = (None, None, None, 256, 128)[seed % 5]
    shape = SHAPES[seed] if seed < len(SHAPES) else random_grid(rng)
    ndim = len(shape)
    channels, batch = int(rng.choice([1, 2, 3, 9, 25])), int(rng.choice([1, 2, 9, 33]))
    known: Basis = Fourier((1,) * ndim) if basis == "fourier" else Cosine()
    matrices = spectrum(rng, known, shape, channels)
    y = rng.standard_normal((batch, channels, *shape))
    truth = expected(matrices, known, y)
    for half in (False, True):
        kind = {"c": "complex64", "f": "float32"}[matrices.dtype.kind] if half else matrices.dtype
        images, chosen = y.astype("float32" if half else "float64"), matrices.astype(kind)
        x = multiplied(chosen, known, images, bits, 1)
        eps = np.finfo(images.dtype).eps
        norm = np.linalg.norm(matrices, axis=(1, 2)).max() * np.abs(y).max()
        assert np.abs(x - truth).max() <= 4 * eps * norm
        assert np.array_equal(multiplied(chosen, known, images, bits, 2), x)
        assert np.array_equal(multiplied(chosen, known, images[-1:], bits, 1), x[-1:])
