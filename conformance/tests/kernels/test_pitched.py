"""The plain wavefront (`invconv.kernels.plain.pitched`) by itself, against the dense oracle.

Its operations are NumPy's, or PyTorch's on tensors of the CPU. CuPy's run in the conformance suite
on a stand-in for it (`tests.test_cupy_stand_in`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.kernels.plain.pitched import NUMPY, PitchedSolver
from invconv.kernels.wavefront import inverse_at_the_pixel
from invconv_conformance.truth.oracle import affine
from invconv_torch.native.devices import TORCH

OPS = {"numpy": NUMPY, "torch": TORCH}
Shape = tuple[int, ...]
Matrix = np.ndarray[Any, Any]

libraries = pytest.mark.parametrize("library", OPS)
folded = pytest.mark.parametrize("folded", [True, False], ids=["D folded", "D solved"])


def like(library: str, dtype: str) -> Any:
    """Return an array of a library and dtype."""
    values = np.zeros((), dtype)
    return values if library == "numpy" else torch.as_tensor(values)


def solver_of(
    conv: ic.AutoregressiveConv, grid: Shape, library: str, dtype: str, folded: bool
) -> PitchedSolver:
    """Return the plain wavefront for a convolution of NumPy float64 arrays."""
    causal = conv.asarrays(like(library, dtype))._causal()
    inverse = None
    if folded:
        inverse = np.linalg.inv(to_numpy(causal.diagonal).astype("float64")).astype(dtype)
        inverse = inverse if library == "numpy" else torch.as_tensor(inverse)
    return PitchedSolver(causal, inverse, grid, OPS[library])


def solved(solver: PitchedSolver, y: Matrix) -> Matrix:
    """Return the solution for values of NumPy, in the solver's library and dtype."""
    here = solver.causal.diagonal
    values = y.astype(str(here.dtype).rpartition(".")[2])
    return to_numpy(solver(values if solver.ops is NUMPY else torch.as_tensor(values)))


def backward_error(matrix: Matrix, x: Matrix, y: Matrix) -> float:
    """Return the largest |K x - y| of a sample over |K| |x| + |y|, in the largest norm."""
    x, y = (a.reshape(len(a), -1).astype("float64") for a in (x, y))
    left = np.abs(x @ matrix.T - y).max(axis=1)
    norm = np.abs(matrix).sum(axis=1).max()
    size = norm * np.abs(x).max(axis=1) + np.abs(y).max(axis=1)
    return float((left / size).max())


def draw(seed: int) -> tuple[ic.AutoregressiveConv, Shape, np.random.Generator]:
    """Return a convolution and a grid, with any setting there is."""
    rng = np.random.default_rng(seed)
    ndim = 1 + seed % 4
    largest = (12, 9, 5, 4)[ndim - 1]
    mask = str(rng.choice(["corner", "raster"]))
    direction = tuple(int(s) for s in rng.choice([-1, 1], ndim))
    conv = ic.AutoregressiveConv.init(
        int(rng.integers(1, 5 if ndim < 4 else 3)),
        tuple(int(k) for k in rng.integers(1, 4 if ndim < 4 else 3, ndim)),
        ndim,
        mask=mask,
        direction=direction[0] if mask == "raster" else direction,
        channel_order=str(rng.choice(["lower", "upper"])),
        dilation=tuple(int(d) for d in rng.choice([1, 1, 2, 3, 7], ndim)),
        rng=rng,
    )
    moved = conv.kernel + 0.2 * rng.standard_normal(conv.kernel.shape)
    return conv.replace(kernel=moved), tuple(map(int, rng.integers(1, largest + 1, ndim))), rng


@libraries
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(120))
def test_any_setting_solves_the_dense_system(seed: int, dtype: str, library: str) -> None:
    conv, grid, rng = draw(seed)
    # the arrays in float64 hold what those of the dtype do
    conv = conv.replace(kernel=conv.kernel.astype(dtype).astype("float64"))
    matrix, _ = affine(conv, grid)
    causal = conv.asarrays(like(library, dtype))._causal()
    inverse = None if seed % 5 < 2 else inverse_at_the_pixel(causal)
    solver = PitchedSolver(causal, inverse, grid, OPS[library])
    y = rng.standard_normal((int(rng.integers(1, 4)), conv.channels, *grid)).astype(dtype)
    for right_side in (y, (y.reshape(len(y), -1) @ matrix.T).reshape(y.shape).astype(dtype)):
        before = right_side.copy()
        x = solved(solver, right_side)
        assert (x.dtype, x.shape) == (right_side.dtype, right_side.shape)
        assert backward_error(matrix, x, right_side) <= 5 * len(matrix) * np.finfo(dtype).eps
        np.testing.assert_array_equal(right_side, before)


def depends(matrix: Matrix, pixels: int) -> Matrix:
    """Return which pixel of a solution depends on which of y, through any number of taps."""
    channels = len(matrix) // pixels
    blocks = matrix.reshape(channels, pixels, channels, pixels) != 0
    step: Matrix = blocks.any(axis=(0, 2))
    while True:
        more = (step.astype(int) @ step.astype(int)) > 0
        if (more == step).all():
            return step
        step = more


@libraries
@folded
@pytest.mark.parametrize("seed", range(40))
def test_nan_reaches_only_what_depends_on_it(seed: int, folded: bool, library: str) -> None:
    conv, grid, rng = draw(seed)
    solver = solver_of(conv, grid, library, "float64", folded)
    y = rng.standard_normal((3, conv.channels, *grid))
    clean, pixels = solved(solver, y), int(np.prod(grid))
    reached = depends(affine(conv, grid)[0], pixels)
    for pixel in rng.integers(0, pixels, 4):
        spoilt = y.copy()
        spoilt.reshape(3, conv.channels, pixels)[1, 0, pixel] = np.nan
        x = solved(solver, spoilt)
        np.testing.assert_array_equal(x[[0, 2]], clean[[0, 2]])
        found = np.isnan(x[1]).reshape(conv.channels, pixels).any(axis=0)
        assert found[pixel]
        assert not (found & ~reached[:, pixel]).any()
        np.testing.assert_array_equal(x[1][~np.isnan(x[1])], clean[1][~np.isnan(x[1])])


@libraries
@pytest.mark.parametrize("shape", [(1, 32, 4, 7), (1, 512, 4, 6), (2, 64, 3, 15), (70, 8, 5, 63)])
def test_many_channels_and_images_a_power_of_two_wide(shape: Shape, library: str) -> None:
    rng = np.random.default_rng(0)
    kernel = 0.1 / shape[1] * rng.standard_normal((shape[1], shape[1], 2, 2))
    kernel[:, :, 0, 0] = np.eye(shape[1])
    conv = ic.AutoregressiveConv(kernel)
    x = rng.standard_normal(shape)
    solver = solver_of(conv, shape[2:], library, "float64", folded=True)
    assert np.abs(solved(solver, conv.forward(x)) - x).max() < 1e-13
