"""Graphs for ONNX files: operators with parameters that are constants.

The core computes numbers that depend only on parameters in NumPy's float64: weights, inverses at
the pixel and of spectra, log-determinants. The graph has the rest. If a product with an inverse
would lose digits that a solve keeps, one step of refinement restores them.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import invconv as ic
from invconv.arrays.namespaces import Shape, per_channel, size
from invconv.arrays.stencil import Offset, Stencil
from invconv.families import path as paths
from invconv.families.exponential import Exponential, reaching_taps
from invconv.families.path import Multiply, Path, multiplied, runs, undoing, undone_as_one
from invconv.families.pointwise import MATRIX
from invconv.kernels.exponential import series
from invconv.kernels.frequencies.spectrum import SpectralSolver
from invconv.kernels.matrices import PixelSteps, Product
from invconv.kernels.primitives import grid_of
from invconv.kernels.wavefront import Lanes, inverse_at_the_pixel, lanes_of
from invconv.operators.base.calls import Call, for_each
from invconv.operators.base.factors import require_regular
from invconv_torch.exporting.graphs import Matrix, causal_solve, constant, fixed, spectral_solve
from invconv_torch.native import kernels


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
    log_det = constant(-log_det if inverse else log_det, call.x)
    return call.restore_shape(y), for_each(call.batch_shape, log_det)


def _run(path: Path, x: Tensor) -> Tensor:
    for run in runs(path):
        factor = run[0]
        if factor.is_shift:
            shift = per_channel(constant(factor.w, x), x)
            x = x - shift if factor.inverted else x + shift
        elif factor.inverted and undone_as_one(run):
            x = _undo(undoing(run), x)
        elif factor.inverted:
            x = _solve(factor.family, factor.w, x)
        elif multiplied(run):
            x = _apply(MATRIX, Multiply(run).product, x)
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


def _reads(offsets: tuple[Offset, ...], wrap: bool, shape: Shape) -> np.ndarray[Any, Any]:
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
        x = x * constant(terms.scale, x)  # a number would go through float32
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
        gather, inside, reads, places = (constant(index, y) for index in on_host[:4])
        lanes = Lanes(gather, inside, reads, places, on_host.back)
        return causal_solve(constant(c.others, y), lanes, y, _multiply, *matrices)
    if linear.solved == "scale":
        return y / per_channel(constant(weights, y), y)
    solver = family.solver(w, shape)
    return spectral_solve(solver, y) if isinstance(solver, SpectralSolver) else _undo(solver, y)


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
