"""Parts of graphs: constants, an autoregressive solve and a spectral one.

An autoregressive solve is a scan over its wavefronts: a graph of one size for every grid. Its index
arrays (`invconv.kernels.wavefront.Lanes`) are NumPy's, or made by torch in the graph, since the
decomposition of an operator cannot hold constants.

A spectral solve is in real arithmetic, and transforms are products with cosines and sines. ONNX has
a DFT, which runtimes compute in float32 at best, and no complex products. A complex vector is its
real part above its imaginary one, and M z becomes [[Re M, -Im M], [Im M, Re M]] [re; im].
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invconv.kernels.frequencies.spectrum import SpectralSolver
from invconv.kernels.frequencies.waves import fourier, turns
from invconv.kernels.wavefront import Lanes
from invconv_torch.private import FakeTensor, behind, scan_op, without_modes


def values_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a parameter in NumPy's float64, though torch.export may show a fake one."""
    real = behind(tensor) if isinstance(tensor, FakeTensor) else tensor
    if real is None:
        raise NotImplementedError(
            "torch.onnx.export of a layer of invconv_torch: expected parameters of the module that "
            "is exported, which are constants in the file, got one that is computed from others "
            "(torch.nn.utils.parametrize, torch.func.functional_call, or a program of "
            "torch.export.export); make it a parameter first, and export the module itself"
        )
    with without_modes():
        host = real.detach().cpu()
        values: np.ndarray[Any, Any] = (host.double() if real.is_floating_point() else host).numpy()
    return values


def constant(values: Any, like: Tensor) -> Tensor:
    """Return an array as a constant of the graph; real numbers in the dtype of a tensor."""
    array = np.asarray(values, order="C")
    dtype = like.dtype if array.dtype.kind == "f" else None
    with without_modes():
        tensor = torch.tensor(array, dtype=dtype, device=like.device)
    return tensor.clone()  # a node of the graph, as a scan requires


def fixed(name: str, grid: Sequence[int]) -> tuple[int, ...]:
    """Return a grid, or raise NotImplementedError if a size is dynamic."""
    if not all(isinstance(n, int) for n in grid):
        raise NotImplementedError(
            f"{name}: expected a fixed grid, got a dynamic one, {tuple(grid)}; in an ONNX file and "
            "a decomposed program only the batch axis may be dynamic, since log-determinants and "
            "inverses are of one grid. Export the layer once for each grid"
        )
    return tuple(grid)


def causal_solve(
    taps: Tensor, lanes: Lanes, y: Tensor, solve: Callable[..., Tensor], *matrices: Tensor
) -> Tensor:
    """Return x, shape (B, C, *spatial), of a causal stencil `within` the grid.

    ``taps`` are those but D, shape (T, C, C), and the lanes are of tensors; ``solve`` takes
    r (B, C, M) and the matrices to D^-1 r.
    """
    channels, count, places = y.shape[1], taps.shape[0], lanes.gather.shape
    if not count:
        return solve(y.flatten(2), *matrices).unflatten(2, y.shape[2:])

    def step(
        window: Tensor, row: Tensor, inside: Tensor, reads: Tensor, weights: Tensor, *more: Tensor
    ) -> list[Tensor]:
        seen = F.pad(window, (0, 1)).index_select(2, reads)  # (B, C, T M)
        seen = seen.unflatten(2, (count, places[1])).flatten(1, 2)
        x = solve(row - torch.matmul(weights, seen), *more)
        x = torch.where(inside, x, torch.zeros_like(x))
        later = torch.cat([window[:, :, places[1] :], x], dim=2)
        # cloned, or a single pixel would keep the strides of the solve's result
        return [later.clone(memory_format=torch.contiguous_format), x.clone()]

    rows = F.pad(y.flatten(2), (0, 1)).index_select(2, lanes.gather.reshape(-1))
    rows = rows.unflatten(2, places).permute(2, 0, 1, 3)  # (L, B, C, M)
    window = y.new_zeros((y.shape[0], channels, lanes.back * places[1]))
    # D may be of the same array: a scan requires arrays of their own
    weights = taps.permute(1, 2, 0).clone().reshape(channels, channels * count)
    held = lanes.reads.reshape(-1), weights, *matrices
    levels = scan_op(step, [window], [rows, lanes.inside], held)[1]
    x = levels.permute(1, 2, 0, 3).flatten(2).index_select(2, lanes.places)
    return x.unflatten(2, y.shape[2:])


Matrix: TypeAlias = np.ndarray[Any, Any]


def spectral_solve(solver: SpectralSolver, y: Tensor) -> Tensor:
    """Return x = K^-1 y, shape (B, C, *shape), for the core's solver of NumPy arrays."""
    basis, shape, x = solver.basis, solver.shape, y
    pairs = enumerate(zip(basis.waves, shape, strict=True), 2)
    walls = [(axis, waves, n) for axis, (waves, n) in pairs if waves is not None]
    axes = [2 + axis for axis in basis.closed]
    for axis, waves, n in walls:
        x = _mixed(x, axis, waves.matrix(n))
    z = _to_frequencies(x, axes) if axes else x.unsqueeze(2)  # (B, C, 2 or 1, *frequencies)
    rows = z.flatten(3).permute(3, 2, 1, 0).flatten(1, 2)  # (F, 2 C, B)
    x_hat = _at_the_frequencies(solver, rows, _real if axes else lambda matrices: matrices)
    x_hat = x_hat.unflatten(1, (-1, y.shape[1])).permute(3, 2, 1, 0)
    z = x_hat.unflatten(3, basis.frequencies(shape))
    x = _from_frequencies(z, axes, shape) if axes else z.squeeze(2)
    for axis, waves, n in walls:
        x = _mixed(x, axis, waves.matrix(n, True))
    return x


def _mixed(x: Tensor, axis: int, matrix: Matrix) -> Tensor:
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


def _to_frequencies(x: Tensor, axes: list[int]) -> Tensor:
    """Return the half spectrum of x (B, C, *shape) along axes, (B, C, 2, *frequencies)."""
    *others, last = axes
    n = x.shape[last]
    half = _waves(n)[:, : n // 2 + 1]
    matrix = constant(np.concatenate([half.real, half.imag], axis=1), x)
    z = torch.matmul(x.movedim(last, -1), matrix)
    z = z.unflatten(-1, (2, half.shape[1])).movedim((-2, -1), (2, last + 1))
    for axis in others:
        z = _along(z, axis + 1, _waves(x.shape[axis]))
    return z


def _from_frequencies(z: Tensor, axes: list[int], shape: tuple[int, ...]) -> Tensor:
    *others, last = axes
    for axis in others:
        n = shape[axis - 2]
        z = _along(z, axis + 1, _waves(n).conj() / n)
    n = shape[last - 2]
    half = fourier(1).multiplicity((n,))[:, None] * _waves(n)[: n // 2 + 1] / n
    # twice the real part of each frequency that has a conjugate
    matrix = constant(np.concatenate([half.real, half.imag]), z)
    z = z.movedim((2, last + 1), (-2, -1)).flatten(-2)
    return torch.matmul(z, matrix).movedim(-1, last)


def _along(z: Tensor, axis: int, matrix: Matrix) -> Tensor:
    n = len(matrix)
    z = z.movedim((2, axis), (-2, -1))
    z = torch.matmul(z.flatten(-2), constant(_real(matrix).T, z))
    return z.unflatten(-1, (2, n)).movedim((-2, -1), (2, axis))


def _waves(n: int) -> Matrix:
    waves: Matrix = np.conj(turns(np.outer(np.arange(n), np.arange(n)), n))
    return waves


def _real(matrices: Matrix) -> Matrix:
    """Return the real 2C x 2C form [[Re, -Im], [Im, Re]] of complex matrices."""
    top = np.concatenate([matrices.real, -matrices.imag], axis=-1)
    return np.concatenate([top, np.concatenate([matrices.imag, matrices.real], axis=-1)], axis=-2)
