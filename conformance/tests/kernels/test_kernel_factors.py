"""LU factors of a matrix a lane: multiplied out, beside what LAPACK chooses as pivots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import lu_factor

from invconv.kernels import numpy_primitives
from invconv.kernels.cpu.compiled import address_of
from invconv.kernels.cpu.spectral.factors import factor
from tests.kernels.test_kernels import narrower

Array = np.ndarray[Any, Any]
DTYPES = "float32", "float64", "complex64", "complex128"


def factored(matrices: Array, bits: int | None = None) -> tuple[Array, Array]:
    """Return the factors, and the rows that were swapped."""
    target = None if bits is None else narrower(bits)
    found, number = matrices.copy(), matrices.real.dtype
    rows = np.full(matrices.shape[:2], np.nan, number)
    parts = 2 if found.dtype.kind == "c" else 1
    given = address_of(found), address_of(rows), matrices.shape[:2], parts, number.itemsize
    factor(*given, target)
    return found, rows


def product(factors: Array, rows: Array) -> Array:
    """Return P^-1 L U of one matrix, in double precision."""
    wide = factors.astype(np.result_type(factors, np.float64))
    found = (np.tril(wide, -1) + np.eye(len(wide))) @ np.triu(wide)
    for k in reversed(range(len(found))):
        found[[k, int(rows[k])]] = found[[int(rows[k]), k]]
    return found


def drawn(rng: np.random.Generator, count: int, channels: int, dtype: str) -> Array:
    parts = rng.standard_normal((2, count, channels, channels))
    return np.asarray(parts[0] + 1j * parts[1] if dtype[0] == "c" else parts[0], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(8))
def test_factors_are_those_of_the_matrices(dtype: str, seed: int) -> None:
    """Of any number of matrices, in vectors of any length, with the pivots that LAPACK takes."""
    rng = np.random.default_rng(seed)
    count, channels = int(rng.integers(1, 40)), int(rng.integers(1, 20))
    matrices = drawn(rng, count, channels, dtype)
    factors, rows = factored(matrices, [None, 128, 256][seed % 3])
    eps = np.finfo(rows.dtype).eps
    for matrix, found, swapped in zip(matrices, factors, rows, strict=True):
        largest = np.abs(np.triu(found)).max()  # what pivoting lets grow
        error = np.abs(product(found, swapped) - matrix).max()
        assert error <= 4 * channels * eps * largest
        assert np.abs(np.tril(found, -1)).max(initial=0) <= np.sqrt(2) * (1 + 4 * eps)
        np.testing.assert_array_equal(swapped, lu_factor(matrix)[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_of_any_size(dtype: str) -> None:
    """A pivot whose square is too large or too small is divided by like any other."""
    matrices = drawn(np.random.default_rng(0), 20, 6, dtype)
    limits = np.finfo(matrices.real.dtype)
    for scale in (float(limits.max) / 16, float(limits.tiny) * 16):
        factors, rows = factored(matrices * np.asarray(scale, matrices.real.dtype))
        scaled, found = factors.astype(np.result_type(dtype, "f8")), factored(matrices)
        np.testing.assert_array_equal(rows, found[1])
        upper = np.triu(scaled) / scale
        assert np.abs(upper - np.triu(found[0])).max() <= 300 * limits.eps


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpys_log_determinants(dtype: str) -> None:
    """Of matrices with several axes before, singular ones, none, and foreign or strided memory."""
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
    foreign = matrices.astype(matrices.dtype.newbyteorder())
    np.testing.assert_array_equal(numpy_primitives.log_abs_det(foreign), logs)
    strided = np.repeat(matrices, 2, axis=0)[::2]
    np.testing.assert_array_equal(numpy_primitives.log_abs_det(strided), logs)
    assert numpy_primitives.log_abs_det(matrices[:0]).shape == (0,)
