"""The plain wavefront of NumPy and PyTorch by itself, against the dense oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from invconv.arrays.namespaces import to_numpy
from invconv.kernels.plain.pitched import NUMPY, PitchedSolver
from invconv.kernels.wavefront import inverse_at_the_pixel
from invconv_conformance.truth.oracle import affine
from invconv_torch.native.solvers import TORCH
from tests.kernels.test_kernels import backward_error, random_case

LIBRARIES: dict[str, Any] = {"numpy": (NUMPY, np.asarray), "torch": (TORCH, torch.as_tensor)}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(40))
def test_any_setting_solves_the_dense_system(seed: int, dtype: str, library: str) -> None:
    """With D^-1 folded in and without; a NaN stays in its image, and y is as it was."""
    rng, (ops, array) = np.random.default_rng(seed), LIBRARIES[library]
    conv, grid = random_case(rng)
    # the arrays in float64 hold what those of the dtype do
    conv = conv.replace(kernel=conv.kernel.astype(dtype).astype("float64"))
    causal = conv.asarrays(array(np.zeros((), dtype)))._causal()
    inverse = None if seed % 5 < 2 else inverse_at_the_pixel(causal)
    solve = PitchedSolver(causal, inverse, grid, ops)
    y = rng.standard_normal((3, conv.channels, *grid)).astype(dtype)
    matrix, _ = affine(conv, grid)
    y[1] = (matrix @ y[1].ravel()).reshape(y[1].shape)
    before = y.copy()
    x = to_numpy(solve(array(y)))
    assert (x.dtype, x.shape) == (y.dtype, y.shape)
    assert backward_error(conv, x, y) <= 5 * len(matrix) * np.finfo(dtype).eps
    np.testing.assert_array_equal(y, before)
    y[1, 0] = np.nan
    np.testing.assert_array_equal(to_numpy(solve(array(y)))[::2], x[::2])
