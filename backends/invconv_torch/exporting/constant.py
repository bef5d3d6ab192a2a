"""Graphs for ONNX files: operators with parameters that are constants.

The core computes numbers that depend only on parameters in NumPy's float64: weights, inverses at
the pixel and of spectra, log-determinants. The graph has the rest. If a product with an inverse
would lose digits that a solve keeps, one step of refinement restores them.

An autoregressive solve is a scan over its wavefronts: a graph of one size for every grid. Its index
arrays (`invconv.kernels.wavefront.Lanes`) are NumPy's, or made by torch in the graph, since the
decomposition of an operator cannot hold constants.

A spectral solve is in real arithmetic, and transforms are products with cosines and sines. ONNX has
a DFT, which runtimes compute in float32 at best, and no complex products. A complex vector is its
real part above its imaginary one, and M z becomes [[Re M, -Im M], [Im M, Re M]] [re; im].
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import invconv as ic
from invconv.arrays.namespaces import Shape, per_channel, size
from invconv.arrays.stencil import Offset, Stencil
from invconv.families import path as paths
from invconv.families.exponential import Exponential, reaching_taps
from invconv.families.path import Multiply, Path, multiplied, split_by_leg, undoing, undone_as_one
from invconv.families.pointwise import MATRIX
from invconv.kernels.exponential import series
from invconv.kernels.frequencies.spectrum import SpectralSolver
from invconv.kernels.frequencies.waves import fourier, turns
from invconv.kernels.matrices import PixelSteps, Product
from invconv.kernels.primitives import grid_of
from invconv.kernels.wavefront import Lanes, inverse_at_the_pixel, lanes_of
from invconv.operators.base.calls import Call, for_each
from invconv.operators.base.factors import require_regular
from invconv_torch.native import kernels
from invconv_torch.private import FakeTensor, behind, scan_op, without_modes

Matrix: TypeAlias = np.ndarray[Any, Any]


def values_of(tensor: Tensor) -> Matrix:
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
        values: Matrix = (host.double() if real.is_floating_point() else host).numpy()
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


def evaluate(call: Call, conv: ic.InvertibleConv, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Return K x + b and log|det K|, or K^-1 (y - b) and log|det K^-1|, in a graph of constants.

    ``call`` has x or y, and ``conv`` NumPy's float64 arrays. NotImplementedError if the grid is
    dynamic, or a class of operators has no ONNX form.
    """
    shape = fixed(call.name, call.spatial_shape)
    log_det = conv.log_det(shape)
    path = paths.inverse(conv._path()) if inverse else conv._path()
    require_regular(conv, shape, back=inverse)
    y = _run(path, call.x)
    log_dets = for_each(call.x, constant(-log_det if inverse else log_det, call.x))
    return call.restore_shape(y), call.restore_batch(log_dets)


def _run(path: Path, x: Tensor) -> Tensor:
    for leg in split_by_leg(path):
        factor = leg[0]
        if factor.is_shift:
            shift = per_channel(constant(factor.w, x), x)
            x = x - shift if factor.inverted else x + shift
        elif factor.inverted and undone_as_one(leg):
            x = _undo(undoing(leg), x)
        elif factor.inverted:
            x = _solve(factor.family, factor.w, x)
        elif multiplied(leg):
            x = _apply(MATRIX, Multiply(leg).product, x)
        elif isinstance(factor.family, Exponential):
            x = _exponential(factor.family, factor.w, x, 1)
        else:
            x = _apply(*factor.family.lowered(factor.w), x)
    return x


def _refusal(found: Any) -> NotImplementedError:
    return NotImplementedError(
        "torch.onnx.export: expected maps that lower to taps, a matrix or a scale, and solves by "
        "wavefronts, by frequencies or at each pixel, which ONNX's operators can run, got "
        f"{type(found).__name__}, which does not say that it is one"
    )


def _apply(family: Any, w: Matrix, x: Tensor) -> Tensor:
    if family.lowers == "matrix":
        return torch.matmul(constant(w, x), _of_pixels(x)).reshape(x.shape)
    if family.lowers == "scale":
        return per_channel(constant(w, x), x) * x
    if family.lowers != "taps":
        raise _refusal(family)
    whole: Any = family.whole
    stencil = Stencil(whole.offsets, whole.taps(family.unfolded(w)))
    if isinstance(whole.wrap, bool):
        return _correlation(stencil, whole.wrap, x)(x)
    x = whole.continued(x)
    return torch.as_tensor(whole.cropped(_correlation(stencil, False, x)(x)))


def _correlation(stencil: Stencil, wrap: bool, x: Tensor) -> Callable[[Tensor], Tensor]:
    shape = tuple(x.shape[2:])
    grid = grid_of(stencil.offsets, wrap, shape)
    # onnxruntime has no convolution in float64
    if x.dtype == torch.float32 and grid is not None and kernels.has_convolution(x, grid):
        return partial(kernels.convolution, grid, wrap, constant(stencil.taps, x))
    weights = constant(stencil.taps.transpose(1, 0, 2).reshape(x.shape[1], -1), x)
    reads = constant(_reads(stencil.offsets, wrap, shape), x)

    def correlate(x: Tensor) -> Tensor:
        seen = F.pad(x.flatten(2), (0, 1)).index_select(2, reads)  # (B, C, T N)
        seen = seen.unflatten(2, (len(stencil.offsets), -1)).transpose(1, 2).flatten(1, 2)
        return torch.matmul(weights, seen).unflatten(2, shape)

    return correlate


def _reads(offsets: tuple[Offset, ...], wrap: bool, shape: Shape) -> Matrix:
    """Return the index of the pixel that each tap reads from each pixel, N outside, (T N,)."""
    pixels = np.indices(shape).reshape(1, len(shape), -1)
    there = pixels + np.asarray(offsets)[:, :, None]
    n = np.asarray(shape)[:, None]
    inside = np.all((there >= 0) & (there < n), axis=1) | wrap
    flat = np.ravel_multi_index(tuple((there % n).swapaxes(0, 1)), shape)
    return np.where(inside, flat, size(shape)).reshape(-1)


def _exponential(family: Exponential, w: Matrix, x: Tensor, sign: int) -> Tensor:
    """Return e^M x, or e^-M x, by the core's series with the terms that the dtype needs."""
    linear = family.linear
    taps = sign * reaching_taps(linear, w, tuple(x.shape[2:]))
    terms = series(linear, taps.astype(str(x.dtype)[6:]), (), None, 0)
    run = _correlation(Stencil(linear.offsets, terms.taps), linear.wrap, x)
    steps, count = terms.counts
    for _ in range(steps):
        start = x
        for n in range(count, 0, -1):
            x = start + run(x) / n
        x = x * constant(terms.scale, x)  # a Python number would go through float32
    return x if steps else x * math.nan


def _solve(family: Any, w: Matrix, y: Tensor) -> Tensor:
    shape = tuple(y.shape[2:])
    if isinstance(family, Exponential):
        return _exponential(family, w, y, -1)
    linear, weights = family.lowered(w)
    if linear.solved == "causal":
        c = linear.stencil(w).within(shape)
        inverse = inverse_at_the_pixel(c)
        at_the_pixel = _refined(c.diagonal) if inverse is None else (inverse,)
        matrices = [constant(matrix, y) for matrix in at_the_pixel]
        on_host = lanes_of(c.sweep, np)
        lanes = Lanes._make([*(constant(index, y) for index in on_host[:4]), on_host.back])
        y = y.detach()  # PyTorch's scan takes no dynamic batch where a gradient is wanted
        return causal_solve(constant(c.others, y), lanes, y, _multiply, *matrices)
    if linear.solved == "scale":
        return y / per_channel(constant(weights, y), y)
    solver = family.solver(w, shape)
    return _spectral_solve(solver, y) if isinstance(solver, SpectralSolver) else _undo(solver, y)


def _undo(solver: Any, y: Tensor) -> Tensor:
    """Return W^-1 y at every pixel, by a product with W^-1 or factor by factor."""
    steps: list[tuple[Matrix, ...]]
    if isinstance(solver, Product):
        steps = [(solver.inverse,)]
    elif isinstance(solver, PixelSteps):
        steps = [_refined(step.matrix) for step in solver.steps]
    else:
        raise _refusal(solver)
    x = _of_pixels(y)
    for step in steps:
        x = _multiply(x, *(constant(matrix, y) for matrix in step))
    return x.reshape(y.shape)


def _of_pixels(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:2], -1)  # flatten(2) refuses vectors, which have no pixel axes


def _refined(matrix: Matrix) -> tuple[Matrix, ...]:
    return np.linalg.inv(matrix), matrix


def _multiply(y: Tensor, inverse: Tensor, matrix: Tensor | None = None) -> Tensor:
    """Return A^-1 y for y (B, C, M), with one step of refinement if A is given."""
    x = torch.matmul(inverse, y)
    return x if matrix is None else x + torch.matmul(inverse, y - torch.matmul(matrix, x))


def causal_solve(
    taps: Tensor, lanes: Lanes, y: Tensor, solve: Callable[..., Tensor], *matrices: Tensor
) -> Tensor:
    """Return x, shape (B, C, *spatial), of a causal stencil `within` the grid.

    ``taps`` are all taps but D, shape (T, C, C), and the lanes hold tensors; ``solve`` maps
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
    # D may share memory with the taps, and a scan requires arrays that share none
    weights = taps.permute(1, 2, 0).clone().reshape(channels, channels * count)
    held = lanes.reads.reshape(-1), weights, *matrices
    levels = scan_op(step, [window], [rows, lanes.inside], held)[1]
    x = levels.permute(1, 2, 0, 3).flatten(2).index_select(2, lanes.places)
    return x.unflatten(2, y.shape[2:])


def _spectral_solve(solver: SpectralSolver, y: Tensor) -> Tensor:
    """Return x = K^-1 y, shape (B, C, *shape), for the core's solver of NumPy arrays."""
    basis, shape, x = solver.basis, solver.shape, y
    pairs = enumerate(zip(basis.waves, shape, strict=True), 2)
    walls = [(axis, waves, n) for axis, (waves, n) in pairs if waves is not None]
    axes = [2 + axis for axis in basis.closed]
    for axis, waves, n in walls:
        x = along(x, axis, constant(waves.matrix(n).T, x))
    z = _to_frequencies(x, axes) if axes else x.unsqueeze(2)  # (B, C, 2 or 1, *frequencies)
    rows = z.flatten(3).permute(3, 2, 1, 0).flatten(1, 2)  # (F, 2 C, B)
    exact = solver.product  # None unless a product is as good as a solve
    matrices = _refined(solver.spectrum) if exact is None else (exact.matrices,)
    x_hat = _multiply(rows, *(constant(_real(m) if axes else m, rows) for m in matrices))
    x_hat = x_hat.unflatten(1, (-1, y.shape[1])).permute(3, 2, 1, 0)
    z = x_hat.unflatten(3, basis.frequencies(shape))
    x = _from_frequencies(z, axes, shape) if axes else z.squeeze(2)
    for axis, waves, n in walls:
        x = along(x, axis, constant(waves.matrix(n, True).T, x))
    return x


def along(x: Tensor, axis: int, turned: Tensor) -> Tensor:
    """Return the products with a matrix, given as its transpose, along an axis."""
    return torch.matmul(x.movedim(axis, -1), turned).movedim(-1, axis)


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
    return np.block([[matrices.real, -matrices.imag], [matrices.imag, matrices.real]])
