"""Smooth maps of numbers and matrices to what keeps a bound, nearly the identity far below it.

The docstring of `stability.bounded` has the mathematics.
"""

from __future__ import annotations

from invconv.arrays.namespaces import Array, namespace
from invconv.kernels.primitives import matmul

_SQUARINGS = 4  # of A^T A: a Schatten norm of order 2^(1 + 4), too large by C^(1/32) at most


def norm_bound(matrices: Array) -> Array:
    """Return u(A) >= |A|_2, at most C^(1/32) times that, for matrices (..., C, C).

    With H_0 = A^T A / n_0 and H_i = H_{i-1}^2 / n_i, where n_i are the Frobenius norms before,

        |A|_2^2 = n_0 n_1^(1/2) ... n_j^(1/2^j) |H_j|_2^(1/2^j),    |H_j|_2 <= |H_j|_F = 1.
    """
    xp = namespace(matrices)
    largest = xp.max(xp.abs(matrices), axis=(-2, -1), keepdims=True)
    nothing = largest == 0
    unit = xp.where(nothing, xp.ones_like(largest), largest)
    # of a zero matrix the gradient is 0, not 0 / 0
    scaled = xp.where(nothing, xp.ones_like(matrices), matrices / unit)
    power = matmul(xp.matrix_transpose(scaled), scaled)
    squared = xp.ones_like(largest)
    for i in range(_SQUARINGS + 1):
        norm = xp.sqrt(xp.sum(power * power, axis=(-2, -1), keepdims=True))
        squared = squared * norm ** (0.5**i)
        power = matmul(power / norm, power / norm)
    return xp.where(nothing, xp.zeros_like(largest), unit * xp.sqrt(squared))[..., 0, 0]


def squashed(v: Array, limit: float) -> Array:
    """Return a number in (-limit, limit), close to v where that is small."""
    return limit * namespace(v).tanh(v / limit)


def shrinking(norm: Array, limit: Array) -> Array:
    """Return the factor that brings a norm below a limit, close to 1 far below it."""
    xp = namespace(norm)
    larger = xp.where(norm > limit, norm, limit)  # so that no power overflows
    return (limit / larger) / ((limit / larger) ** 4 + (norm / larger) ** 4) ** 0.25
