"""NumPy's native primitives: the compiled kernel, products, and BLAS's trsm.

Products are silenced against "invalid value encountered in matmul": on AVX-512, OpenBLAS's sgemv
(0.3.31) reads uninitialised memory for a matrix of five columns. The result is right, but NumPy
warns if that memory happens to hold a NaN.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import get_blas_funcs

from invconv.arrays.namespaces import Array, NumpyOps, Shape, triangle
from invconv.arrays.registry import PRIMITIVES
from invconv.arrays.stencil import CausalStencil, Offset
from invconv.kernels import primitives
from invconv.kernels.cpu import compiled, propagation, recursive, threads
from invconv.kernels.cpu.correlate.correlation import compiled_correlation, compiled_kernel_vjp
from invconv.kernels.cpu.machine import reason
from invconv.kernels.cpu.program import Floats, addresses
from invconv.kernels.cpu.recursive import Filter
from invconv.kernels.cpu.spectral.factors import eliminate, prefers_lanes
from invconv.kernels.cpu.spectral.product import CompiledProduct
from invconv.kernels.frequencies import spectrum
from invconv.kernels.frequencies.spectrum import SpectralProduct
from invconv.kernels.pitched import NUMPY, PitchedSolver
from invconv.kernels.primitives import Plan, Solver
from invconv.kernels.wavefront import inverse_at_the_pixel

ARRAY_OPS = NumpyOps

_quiet = np.errstate(invalid="ignore")
# Above this size SciPy's BLAS starts threads while those of NumPy's BLAS still spin, which takes
# far longer than the solve: split B to stay below it, unless that makes too many pieces.
_SHARED_OUT, _PIECES = 1024, 16


@_quiet
def matmul(a: Floats, b: Floats) -> Array:
    """See `invconv.kernels.primitives.matmul`."""
    return np.matmul(a, b)


def add_pivots(kernel: Floats, centre: Offset, v: Floats) -> Floats:
    """See `invconv.kernels.primitives.add_pivots`."""
    np.einsum("cc...->c...", kernel)[(..., *centre)] += v
    return kernel


def apply(family: Any, w: Floats, x: Floats) -> Array:
    """See `invconv.kernels.maps.apply`; the compiled kernel reads the taps where they are."""
    by_taps = family.lowers == "taps" and isinstance(family.wrap, bool) and not family.wide
    if not by_taps or not x.size or reason(x.dtype.itemsize):
        return family.apply(w, x)
    whole = family.whole
    given = x.shape[1], x.shape[2:], whole.offsets, whole.wrap
    correlation = compiled_correlation(*given, x.dtype.itemsize)
    if correlation is None:
        return np.zeros_like(x)
    w, x = map(np.ascontiguousarray, (family.unfolded(w), x))
    y = np.empty(x.shape, x.dtype)
    first, places = whole.placed([stride // w.itemsize for stride in w.strides])
    taps, *images = addresses(w, x, y)
    taps += first * w.itemsize
    correlation.run(taps, places, *images, len(x), threads.number, w, x, y)
    return y


def _mapped(kernel: compiled.CompiledSolve | CompiledProduct, y: Floats) -> Floats:
    """Run a kernel on images (B, C, *shape), and return the resulting images."""
    compiled.require_images(kernel.images, y.shape, y.itemsize)
    given, x = np.ascontiguousarray(y), np.empty(y.shape, y.dtype)
    kernel.run(*addresses(given, x), len(y), threads.number, given, x)
    return x


def correlate_kernel_vjp(
    x: Floats, y_bar: Floats, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Array:
    """See `invconv.kernels.primitives.correlate_kernel_vjp`."""
    if not x.size or reason(x.dtype.itemsize) is not None:
        return primitives.correlate_kernel_vjp.agnostic(x, y_bar, offsets, wrap=wrap)
    given, bar = map(np.ascontiguousarray, (x, y_bar))
    return compiled_kernel_vjp(given, bar, offsets, wrap, threads.number)


def triangular_solve(matrix: Floats, rhs: Floats, *, lower: bool) -> Array:
    """See `invconv.kernels.primitives.triangular_solve`."""
    trsm = get_blas_funcs("trsm", (matrix, rhs))

    def solve(part: Floats) -> Array:
        # X^T T^T = B^T, since BLAS takes the transpose of a row-major B without a copy
        return trsm(1.0, matrix, part.T, side=1, lower=lower, trans_a=1).T

    step = max(1, (_SHARED_OUT - 1) // max(1, len(matrix)))
    starts = range(0, rhs.shape[1], step)
    if not 1 < len(starts) <= _PIECES:
        return solve(rhs)
    return np.concatenate([solve(rhs[:, i : i + step]) for i in starts], axis=1)


@np.errstate(divide="ignore", invalid="ignore")
def log_abs_det(matrices: Floats) -> Array:
    """See `invconv.kernels.primitives.log_abs_det`; compiled for many small matrices.

    The factorisation runs in float64 for float32 matrices too, as NumPy's `slogdet` does.
    """
    kind, parts = (np.complex128, 2) if np.iscomplexobj(matrices) else (np.float64, 1)
    count, channels = math.prod(matrices.shape[:-2]), matrices.shape[-1]
    if channels == 1:
        logs = np.log(np.abs(matrices[..., 0, 0].astype(kind)))
        return np.asarray(logs, matrices.real.dtype)
    if not prefers_lanes(count, channels):
        return primitives.log_abs_det.agnostic(matrices)
    factors = np.array(matrices, kind, order="C")
    eliminate(addresses(factors)[0], count, channels, parts)
    pivots = np.abs(np.diagonal(factors, axis1=-2, axis2=-1))
    return np.asarray(np.log(pivots).sum(-1), matrices.real.dtype)


@dataclass(frozen=True, eq=False)
class CompiledSolver:
    """The map y -> x, both (B, C, *shape), that undoes a causal convolution, in one call."""

    family: Any  # `families.Causal`
    kernel: Floats  # shape (C, C, *k)
    shape: Shape  # the grid
    factored: compiled.CompiledSolve

    @property
    def plan(self) -> Plan:
        return self.factored.plan

    def __call__(self, y: Floats) -> Floats:
        return _mapped(self.factored, y) if y.size else y

    def __reduce__(self) -> Any:
        """Leave the weights out: another processor lays them out in another way."""
        return factor, (self.family, self.kernel, self.shape)


def factor(family: Any, w: Floats, shape: Shape) -> Solver:
    """See `invconv.kernels.maps.factor`."""
    if family.solved == "causal" and reason(w.dtype.itemsize) is None:
        channels = len(w)
        taps = w.reshape(channels, channels, -1).transpose(2, 0, 1)[family.first :]
        matrices = np.array(taps, order="C")
        matrices[0] = triangle(matrices[0], lower=family.lower)
        state = compiled.compiled_solve(matrices, family.sweep.on(shape))
        return CompiledSolver(family, w, shape, state)
    solver: Solver = family.factor(w, shape)
    return solver


def filtered(b: Floats, a: Floats, x: Floats, z: Floats | None) -> tuple[Floats, Floats | None]:
    """See `invconv.operators.recursion`: sections of a filter in one pass."""
    order, length = 0 if z is None else z.shape[-1], x.shape[-1]
    shape = Filter(len(b), b.shape[3] - 1, a.shape[3], order)
    if not shape.at_once or reason(x.dtype.itemsize) is not None:
        agnostic: tuple[Floats, Floats | None] = PRIMITIVES["filtered"].agnostic(b, a, x, z)
        return agnostic
    b, a = map(np.ascontiguousarray, (b, a))
    y, last = np.empty_like(x), None  # y has x's order of axes in memory
    found = recursive.laid_out(shape, x.shape, x.strides, y.strides, x.itemsize)
    if found is None:
        x, y = np.ascontiguousarray(x), np.empty(x.shape, x.dtype)
        found = shape, recursive.apart(length)
    if z is None:
        places = [*addresses(b, a, x, y), 0, 0]
    else:
        z, last = np.ascontiguousarray(z), np.zeros(z.shape, z.dtype)
        places = addresses(b, a, x, y, z, last)
    code, layout = found
    steps = x.size // length, b.shape[1], length, *layout, order, order
    recursive.run(code, x.itemsize, places, steps, threads.number, b, a, x, z, y, last)
    return y, last


def propagated(family: Any, taps: Floats, x: Floats) -> Floats:
    """See `invconv.operators.propagation`."""
    shape: propagation.Recursion = family.compiled
    h = _propagated(shape, x, taps)
    return PRIMITIVES["propagated"].agnostic(family, taps, x) if h is None else h


def driven(
    family: Any, inputs: tuple[Offset, ...], gains: Floats, taps: Floats, x: Floats
) -> Floats:
    """See `invconv.operators.propagation`."""
    h = _propagated(family.compiled._replace(inputs=inputs), x, taps, gains)
    return PRIMITIVES["driven"].agnostic(family, inputs, gains, taps, x) if h is None else h


def _propagated(shape: propagation.Recursion, x: Floats, *weights: Floats) -> Floats | None:
    """Return the images of a recursion, None if it has no kernel."""
    if not shape.compiles or reason(x.dtype.itemsize) is not None:
        return None
    x, taps, *gains = map(np.ascontiguousarray, (x, *weights))
    h = np.empty(x.shape, x.dtype)
    places = addresses(x, taps, h, *gains) + [0] * (not gains)
    shapes = [v.shape for v in (x, taps, *gains)]
    keeps = x, taps, h, gains
    propagation.run(shape, x.itemsize, places, *shapes, workers=threads.number, keeps=keeps)
    return h


def by_frequencies(product: SpectralProduct, y: Floats) -> Array:
    """See `invconv.kernels.frequencies.spectrum.by_frequencies`."""
    if not product.prefers_kernel(len(y), y.dtype.itemsize):
        return spectrum.by_frequencies.agnostic(product, y)
    return _mapped(product.compiled, y)


def causal_solver(stencil: CausalStencil, shape: Shape) -> PitchedSolver:
    """See `invconv.kernels.wavefront.causal_solver`; used where no compiled kernel runs."""
    return PitchedSolver(stencil, inverse_at_the_pixel(stencil), shape, NUMPY)
