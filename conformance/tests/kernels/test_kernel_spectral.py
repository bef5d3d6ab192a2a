"""Compiled products with a matrix per frequency beside SciPy's, and pivots beside LAPACK's."""

from typing import Any

import numpy as np
import pytest
import scipy.fft
from scipy.linalg import lu_factor

from invconv.kernels import numpy_primitives
from invconv.kernels.cpu import costs
from invconv.kernels.cpu.program import address_of
from invconv.kernels.cpu.spectral.factors import eliminate
from invconv.kernels.cpu.spectral.product import compiled_product
from invconv.kernels.frequencies.waves import Basis, real_transform
from tests.kernels.test_kernels import narrower

Array = np.ndarray[Any, Any]
SHAPES = (37,), (13, 6), (3, 5, 4), (3, 4, 2, 3)  # three axes of which turn there and back


def multiplied(matrices: Array, basis: Basis, y: Array, bits: int | None, workers: int) -> Array:
    """Return the kernel's result, in memory that is not zero where nothing is written."""
    target = None if bits is None else narrower(bits)
    shape = y.shape[2:]
    x = np.full_like(y, np.nan)
    transform = real_transform(basis.waves, shape, basis.frequencies(shape))
    found = compiled_product(matrices, shape, transform, target)
    found.run(address_of(y), address_of(x), len(y), workers, y, x)
    return x


def expected(matrices: Array, basis: Basis, y: Array) -> Array:
    """Return what the definition says, by SciPy's transforms."""
    shape, y_hat = y.shape[2:], y.astype("float64")
    closed = [2 + axis for axis in basis.closed]
    y_hat = between_walls(y_hat, basis, scipy.fft.dct, scipy.fft.dst)
    y_hat = scipy.fft.rfftn(y_hat, axes=closed) if closed else y_hat
    rows = y_hat.reshape(*y.shape[:2], -1)
    x = np.einsum("foc,bcf->bof", matrices, rows).reshape(y_hat.shape)
    x = scipy.fft.irfftn(x, s=[shape[axis - 2] for axis in closed], axes=closed) if closed else x
    return np.asarray(between_walls(x, basis, scipy.fft.idct, scipy.fft.idst))


def between_walls(x: Any, basis: Basis, dct: Any, dst: Any) -> Any:
    """Return SciPy's transform, or its inverse, along the axes that are not periodic."""
    for axis, border in enumerate(basis.borders, 2):
        if border == "symmetric":
            x = dct(x, axis=axis, norm="ortho")
        elif border == "odd":
            x = dst(x, type=1, axis=axis, norm="ortho")
        elif border == "mirror" and x.shape[axis] > 1:  # SciPy has none of one point
            x = dct(x, type=1, axis=axis, norm="ortho", orthogonalize=False)
    return x


def spectrum(rng: Any, basis: Basis, shape: tuple[int, ...], channels: int) -> Array:
    """Return matrices of a random real kernel that is as large as the grid along periodic axes."""
    count = int(np.prod(basis.frequencies(shape)))
    kernel: Array = rng.standard_normal((channels, channels, *shape))
    if basis.closed:
        kernel /= np.sqrt(np.prod([shape[axis] for axis in basis.closed]))
        kernel = scipy.fft.rfftn(kernel, axes=[2 + axis for axis in basis.closed])
    return np.asarray(kernel.reshape(channels, channels, count).transpose(2, 0, 1))


@pytest.mark.parametrize("words", ["periodic", "symmetric", "odd symmetric periodic mirror"])
@pytest.mark.parametrize("seed", range(8))
def test_products_of_transforms(seed: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "SHARED", 0.0)
    rng = np.random.default_rng(seed)
    bits = (None, None, None, 256, 128)[seed % 5]
    ndim = int(rng.integers(1, 5))
    grid = tuple(map(int, rng.integers(1, {1: 60, 2: 14, 3: 7, 4: 5}[ndim], ndim)))
    shape = SHAPES[seed] if seed < len(SHAPES) else grid
    ndim = len(shape)
    channels, batch = int(rng.choice([1, 2, 3, 9, 25])), int(rng.choice([1, 2, 9, 33]))
    borders = tuple(map(str, rng.choice(words.split(), ndim)))
    known = Basis(borders, (1,) * ndim)
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


DTYPES = "float32", "float64", "complex64", "complex128"


def pivots(matrices: Array, bits: int | None = None) -> Array:
    target = None if bits is None else narrower(bits)
    given, parts = matrices.copy(), 2 if matrices.dtype.kind == "c" else 1
    count, channels = matrices.shape[:2]
    eliminate(address_of(given), count, channels, parts, target)
    return np.asarray(np.abs(np.diagonal(given, axis1=1, axis2=2)))


def drawn(rng: np.random.Generator, count: int, channels: int, dtype: str) -> Array:
    parts = rng.standard_normal((2, count, channels, channels))
    return np.asarray(parts[0] + 1j * parts[1] if dtype[0] == "c" else parts[0], dtype)


@pytest.mark.parametrize("dtype", DTYPES[1::2])
@pytest.mark.parametrize("seed", range(8))
def test_pivots_are_those_of_lapack(dtype: str, seed: int) -> None:
    """Of any number of matrices, in vectors of any length, of numbers of any size."""
    rng = np.random.default_rng(seed)
    count, channels = int(rng.integers(1, 40)), int(rng.integers(1, 20))
    limits = np.finfo("f8")
    scale = [1.0, float(limits.max) / 64, float(limits.tiny) * 64][seed % 3]
    matrices = drawn(rng, count, channels, dtype)
    found = pivots(matrices * scale, [None, 128, 256][seed % 3]) / scale
    for matrix, mine in zip(matrices, found, strict=True):
        upper = np.triu(lu_factor(matrix)[0])
        error = np.abs(mine - np.abs(np.diagonal(upper))).max()
        assert error <= 300 * channels * limits.eps * np.abs(upper).max()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpys_log_determinants(dtype: str) -> None:
    """Of matrices with several axes before, singular ones, none, and strided memory."""
    matrices = drawn(np.random.default_rng(0), 24, 5, dtype)
    matrices[3], matrices[4, :, 2], matrices[6, 1, 2] = 0, 0, np.nan
    known = matrices.copy()
    found = numpy_primitives.log_abs_det(matrices.reshape(2, 12, 5, 5))
    np.testing.assert_array_equal(matrices, known)
    assert found.shape == (2, 12)
    assert found.dtype == matrices.real.dtype
    logs = found.ravel()
    assert (logs[3:5] == -np.inf).all()
    assert np.isnan(logs[6])
    regular = [i for i in range(24) if i not in (3, 4, 6)]
    wide = matrices[regular].astype(np.result_type(dtype, "f8"))
    expected = np.linalg.slogdet(wide)[1]  # double inside, whatever the dtype
    rtol = max(4 * float(np.finfo(found.dtype).eps), 1e-13)
    np.testing.assert_allclose(logs[regular], expected, rtol=rtol)
    strided = np.repeat(matrices, 2, axis=0)[::2]
    np.testing.assert_array_equal(numpy_primitives.log_abs_det(strided), logs)
    assert numpy_primitives.log_abs_det(matrices[:0]).shape == (0,)
