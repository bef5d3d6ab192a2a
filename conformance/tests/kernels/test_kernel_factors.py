"""Pivots of a matrix a lane, beside those of LAPACK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import lu_factor

from invconv.kernels import numpy_primitives
from invconv.kernels.cpu.program import address_of
from invconv.kernels.cpu.spectral.factors import eliminate
from tests.kernels.test_kernels import narrower

Array = np.ndarray[Any, Any]
DTYPES = "float32", "float64", "complex64", "complex128"


def pivots(matrices: Array, bits: int | None = None) -> Array:
    """Return the magnitudes of the pivots of float64 or complex128 matrices."""
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
