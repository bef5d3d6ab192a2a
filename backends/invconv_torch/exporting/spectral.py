"""A spectral solve in real arithmetic: transforms as products with cosines and sines.

ONNX has a DFT, which runtimes compute in float32 at best, and no complex products. A complex vector
is its real part above its imaginary one, and M z becomes [[Re M, -Im M], [Im M, Re M]] [re; im].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch

from invconv.kernels.frequencies.cosine import Cosine, cosine_matrix
from invconv.kernels.frequencies.fourier import Fourier
from invconv.kernels.frequencies.spectrum import SpectralSolver
from invconv.kernels.frequencies.turns import turns
from invconv_torch.exporting.values import constant

Tensor: TypeAlias = torch.Tensor
Matrix: TypeAlias = np.ndarray[Any, Any]


def spectral_solve(solver: SpectralSolver, y: Tensor) -> Tensor:
    """Return x = K^-1 y, shape (B, C, *shape), for the core's solver of NumPy arrays."""
    solve = _solve_in_cosines if isinstance(solver.basis, Cosine) else _solve
    return solve(solver, y)


def _solve_in_cosines(solver: SpectralSolver, y: Tensor) -> Tensor:
    y_hat, shape = y, solver.shape
    for axis, n in enumerate(shape, 2):
        y_hat = _mixed(y_hat, axis, cosine_matrix(n))
    rows = y_hat.flatten(2).permute(2, 1, 0)  # (F, C, B)
    x = _at_the_frequencies(solver, rows, lambda matrices: matrices)
    x = x.permute(2, 1, 0).unflatten(2, shape)
    for axis, n in enumerate(shape, 2):
        x = _mixed(x, axis, cosine_matrix(n).T)
    return x


def _mixed(x: Tensor, axis: int, matrix: Matrix) -> Tensor:
    """Multiply along an axis by a matrix."""
    return torch.matmul(x.movedim(axis, -1), constant(matrix.T, x)).movedim(-1, axis)


def _at_the_frequencies(
    solver: SpectralSolver, rows: Tensor, real: Callable[[Matrix], Matrix]
) -> Tensor:
    """Return K_hat(f)^-1 y(f) by a product, refined unless the product is as good as a solve."""
    given = solver.product
    inverse = np.linalg.inv(solver.spectrum) if given is None else given.matrices
    solve = constant(real(inverse), rows)
    x_hat = torch.matmul(solve, rows)
    if given is None:
        residual = rows - torch.matmul(constant(real(solver.spectrum), rows), x_hat)
        x_hat = x_hat + torch.matmul(solve, residual)
    return x_hat


def _solve(solver: SpectralSolver, y: Tensor) -> Tensor:
    channels = solver.spectrum.shape[-1]
    y_hat = _to_frequencies(y)
    halves = y_hat.shape[2:]
    rows = y_hat.flatten(2).unflatten(2, (2, -1))  # (B, C, 2, F)
    rows = rows.permute(3, 2, 1, 0).flatten(1, 2)  # (F, 2 C, B)
    x_hat = _at_the_frequencies(solver, rows, _real)
    x_hat = x_hat.unflatten(1, (2, channels)).permute(3, 2, 1, 0)
    return _from_frequencies(x_hat.flatten(2).unflatten(2, halves), y, solver.shape)


def _to_frequencies(x: Tensor) -> Tensor:
    """Return the half spectrum of x (B, C, *shape), shape (B, C, 2, *frequencies)."""
    *others, last = x.shape[2:]
    half = _waves(last)[:, : last // 2 + 1]
    z = torch.matmul(x, constant(np.concatenate([half.real, half.imag], axis=1), x))
    z = z.unflatten(-1, (2, half.shape[1])).movedim(-2, 2)
    for axis, n in enumerate(others):
        z = _along(z, 3 + axis, _waves(n))
    return z


def _from_frequencies(z: Tensor, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `_to_frequencies`, to a grid."""
    for axis, n in enumerate(shape[:-1]):
        z = _along(z, 3 + axis, _waves(n).conj() / n)
    last = shape[-1]
    half = Fourier((1,)).multiplicity((last,))[:, None] * _waves(last)[: last // 2 + 1] / last
    # twice the real part of each frequency that has a conjugate
    matrix = np.concatenate([half.real, half.imag])
    z = z.movedim(2, -2).flatten(-2)
    return torch.matmul(z, constant(matrix, like))


def _along(z: Tensor, axis: int, matrix: Matrix) -> Tensor:
    """Multiply along an axis, and axis 2 of real and imaginary parts, by a symmetric matrix."""
    n = len(matrix)
    z = z.movedim((2, axis), (-2, -1))
    z = torch.matmul(z.flatten(-2), constant(_real(matrix).T, z))
    return z.unflatten(-1, (2, n)).movedim((-2, -1), (2, axis))


def _waves(n: int) -> Matrix:
    """Return exp(-2 pi i p f / n), shape (n, n)."""
    waves: Matrix = np.conj(turns(np.outer(np.arange(n), np.arange(n)), n))
    return waves


def _real(matrices: Matrix) -> Matrix:
    """Return the real 2C x 2C form [[Re, -Im], [Im, Re]] of complex matrices."""
    top = np.concatenate([matrices.real, -matrices.imag], axis=-1)
    return np.concatenate([top, np.concatenate([matrices.imag, matrices.real], axis=-1)], axis=-2)
