"""NumPy's native primitives: the compiled kernel, products, and BLAS's trsm.

No product says "invalid value encountered in matmul": on AVX-512, OpenBLAS's sgemv (0.3.31) reads
memory for a matrix of five columns that nothing was written to. The result is right, but depending
on what was there NumPy warns.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from invconv.arrays.namespaces import Shape
from invconv.arrays.stencil import Offset, Stencil
from invconv.kernels import primitives
from invconv.kernels.cpu import compiled, threads
from invconv.kernels.cpu.correlate.correlation import compiled_correlation
from invconv.kernels.cpu.correlate.gram import compiled_kernel_vjp
from invconv.kernels.plain.pitched import NUMPY, PitchedSolver
from invconv.kernels.wavefront import CausalStencil, stable_inverse

Floats = np.ndarray[Any, Any]

# Above this size BLAS's trsm uses threads, which get in others' way: split B to stay below it,
# unless that makes too many pieces.
_SHARED_OUT = 1024
_PIECES = 16

_quiet = np.errstate(invalid="ignore")


@_quiet
def matmul(a: Floats, b: Floats) -> Floats:
    """See `invconv.kernels.primitives.matmul`."""
    product: Floats = np.matmul(a, b)
    return product


def correlate(stencil: Stencil, x: Floats, *, wrap: bool = False) -> Floats:
    """See `invconv.kernels.primitives.correlate`."""
    if not x.size or not compiled.available(x.dtype.itemsize):
        by_taps: Floats = primitives.correlate.agnostic(stencil, x, wrap=wrap)
        return by_taps
    native = x.dtype.newbyteorder("=")
    settings = x.shape[1], x.shape[2:], stencil.offsets, wrap, x.dtype.itemsize
    found = compiled_correlation(*settings)
    if found is None:
        return np.zeros_like(x)
    given, taps = (np.ascontiguousarray(a, native) for a in (x, stencil.taps))
    y = np.empty(x.shape, native)
    addresses = map(compiled.address_of, (taps, given, y))
    found.run(*addresses, len(x), threads.number(), taps, given, y)
    return y.astype(x.dtype, copy=False)


def correlate_kernel_vjp(
    x: Floats, y_bar: Floats, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Floats:
    """See `invconv.kernels.primitives.correlate_kernel_vjp`."""
    if not x.size or not compiled.available(x.dtype.itemsize):
        by_taps = primitives.correlate_kernel_vjp.agnostic(x, y_bar, offsets, wrap=wrap)
        return np.asarray(by_taps)
    native = x.dtype.newbyteorder("=")
    given, bar = (np.ascontiguousarray(a, native) for a in (x, y_bar))
    found = compiled_kernel_vjp(given, bar, offsets, wrap, threads.number())
    return found.astype(x.dtype, copy=False)


def triangular_solve(matrix: Floats, rhs: Floats, *, lower: bool) -> Floats:
    """See `invconv.kernels.primitives.triangular_solve`."""
    trsm = get_blas_funcs("trsm", (matrix, rhs))

    def solve(part: Floats) -> Floats:
        # X^T T^T = B^T, since the transpose of a row-major B is what BLAS takes without a copy
        x: Floats = trsm(1.0, matrix, part.T, side=1, lower=lower, trans_a=1).T
        return x

    step = max(1, (_SHARED_OUT - 1) // max(1, len(matrix)))
    starts = range(0, rhs.shape[1], step)
    if not 1 < len(starts) <= _PIECES:
        return solve(rhs)
    return np.concatenate([solve(rhs[:, i : i + step]) for i in starts], axis=1)


@dataclass(frozen=True, eq=False)
class CompiledSolver:
    """The map y -> x, both (B, C, *shape), that solves ``causal.stencil()`` x = y, in one call.

    Attributes
    ----------
    causal : CausalStencil
    shape : tuple of int
        The grid.
    """

    causal: CausalStencil
    shape: Shape
    _factored: compiled.CompiledSolve = field(init=False, repr=False)

    def __post_init__(self) -> None:
        c = self.causal
        matrices = np.concatenate([c.diagonal[None], c.taps])
        factored = compiled.compiled_solve(
            matrices.astype(matrices.dtype.newbyteorder("="), copy=False),
            self.shape,
            c.reach,
            c.direction,
            c.dilation,
            c.lower,
        )
        object.__setattr__(self, "_factored", factored)

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return self._factored.plan

    def __call__(self, y: Floats) -> Floats:
        """Solve for x, shape (B, C, *shape)."""
        if y.size == 0:
            return y
        given = np.ascontiguousarray(y, y.dtype.newbyteorder("="))
        x = np.empty(y.shape, given.dtype)
        addresses = compiled.address_of(given), compiled.address_of(x)
        self._factored.require(y.shape, y.itemsize)
        self._factored.solve(*addresses, len(y), threads.number(), given, x)
        return x.astype(y.dtype, copy=False)

    def __reduce__(self) -> Any:
        """Leave the weights out: another processor lays them out in another way."""
        return causal_solver, (self.causal, self.shape)


def causal_solver(stencil: CausalStencil, shape: Shape) -> CompiledSolver | PitchedSolver:
    """See `invconv.kernels.wavefront.causal_solver`."""
    if compiled.available(stencil.taps.dtype.itemsize):
        return CompiledSolver(stencil, shape)
    inverse = stable_inverse(stencil.diagonal, functools.partial(_invert, lower=stencil.lower))
    return PitchedSolver(stencil, inverse, shape, NUMPY)


def _invert(matrix: Floats, *, lower: bool) -> Floats:
    """Return the inverse of a regular triangular matrix."""
    trtri: Any = get_lapack_funcs("trtri", (matrix,))
    inverse: Floats = trtri(matrix.T, lower=not lower)[0].T
    return inverse
