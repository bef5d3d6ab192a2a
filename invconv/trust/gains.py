"""Maps from free arrays to arrays with |K^-1|_2 below a gain: the mathematics of `bounded`.

A convolution is K = D + E, with D the C x C matrix at the pixel itself and E shifts times taps, so
that |E| <= sum |taps| in the 2-norm at every image size, with zero and with circular padding. Hence

    |K^-1| <= |D^-1| / (1 - rho)            if |D^-1| sum |taps| <= rho < 1,
    |D^-1| <= exp(l) / (1 - nu)             if D = Q S (I + N) with Q orthogonal, S diagonal and
                                            at least exp(-l), and N strictly triangular, |N| <= nu.

Both follow from Neumann's series. Smooth maps, close to the identity far below the bound, enforce
the limits l, nu and rho:

    squashed  v -> l tanh(v / l)                       for log S, which stays in (-l, l)
    shrunk    A -> A / (1 + (u(A) / nu)^4)^(1/4)       for N; for the taps, with the sum of u

Here u(A) >= |A|_2 is the Schatten norm of order 64. It must be an upper bound, which power
iteration does not give, and a tight one: at the paper's initialisation with C = 48 the inf-norm is
5, while |A|_2 is 0.9.
"""

import math
from collections.abc import Callable

from invconv.arrays.namespaces import Array, diagonal_matrix, identity, namespace
from invconv.kernels.primitives import matmul

_SQUARINGS = 4  # of A^T A: a Schatten norm of order 2^(2 + 4), too large by C^(1/64) at most


def norm_bound(matrices: Array) -> Array:
    """Return u(A) with |A|_2 <= u(A) <= C^(1/64) |A|_2, for matrices (..., C, C).

    With H_0 = A^T A / n_0 and H_i = H_{i-1}^2 / n_i, n_i the Frobenius norms of the numerators,

        |A|_2^2 = n_0 n_1^(1/2) ... n_j^(1/2^j) |H_j|_2^(1/2^j),    |H_j|_2 <= |H_j|_F = 1.
    """
    xp = namespace(matrices)
    largest = xp.max(xp.abs(matrices), axis=(-2, -1), keepdims=True)
    nothing = largest == 0
    unit = xp.where(nothing, xp.ones_like(largest), largest)
    # so that the gradient at a zero matrix is 0, not 0 / 0
    scaled = xp.where(nothing, xp.ones_like(matrices), matrices / unit)
    power = matmul(xp.matrix_transpose(scaled), scaled)
    squared = xp.ones_like(largest)
    for i in range(_SQUARINGS + 1):
        norm = xp.sqrt(xp.sum(power * power, axis=(-2, -1), keepdims=True))
        squared = squared * norm ** (0.5**i)
        power = matmul(power / norm, power / norm)
    return xp.where(nothing, xp.zeros_like(largest), unit * xp.sqrt(squared))[..., 0, 0]


def squashed(v: Array, limit: float) -> Array:
    """Return a number in (-limit, limit), close to v if v is small."""
    return limit * namespace(v).tanh(v / limit)


def shrinking(norm: Array, limit: Array) -> Array:
    """Return a factor that brings a norm below a limit; it is close to 1 for a small norm."""
    larger = namespace(norm).maximum(norm, limit)  # so that no power overflows
    return (limit / larger) / ((limit / larger) ** 4 + (norm / larger) ** 4) ** 0.25


def strict_below(matrix: Array, limit: float) -> Array:
    """Return a matrix N, scaled so that its norm is below a limit."""
    norm = norm_bound(matrix)
    return matrix * shrinking(norm, limit * namespace(norm).ones_like(norm))


def triangle_within(log_scale: Array, strict: Array, gain: float) -> tuple[Array, Array, Array]:
    """Return (s, N, a bound of |D^-1|) for D = S (I + N), |D^-1| <= gain; each has gain^(1/2)."""
    half = gain**0.5
    log_scale = squashed(log_scale, math.log(half))
    xp = namespace(log_scale)
    strict = strict_below(strict, 1 - 1 / half)
    return xp.exp(log_scale), strict, xp.exp(-xp.min(log_scale)) / (1 - norm_bound(strict))


def triangular_within(matrix: Array, gain: float) -> tuple[Array, Array]:
    """Return D = S (I + N) and a bound of |D^-1|, from a triangular matrix close to I."""
    scale_less_1 = namespace(matrix).linalg.diagonal(matrix) - 1
    strict = matrix - diagonal_matrix(scale_less_1 + 1)
    scale, strict, bound = triangle_within(scale_less_1, strict, gain)
    return scale[:, None] * (identity(scale.shape[0], scale) + strict), bound


def matrix_within(matrix: Array, gain: float) -> tuple[Array, Array]:
    """Return D = Q S (I + N) and a bound of |D^-1|, from any matrix close to a rotation."""
    xp = namespace(matrix)
    q, r = xp.linalg.qr(matrix)
    diagonal = xp.linalg.diagonal(r)
    sign = xp.where(diagonal < 0, -xp.ones_like(diagonal), xp.ones_like(diagonal))
    block, bound = triangular_within(sign[:, None] * r, gain)
    return matmul(q * sign, block), bound


def convolution_within(
    block_within: Callable[[Array, float], tuple[Array, Array]],
    at_pixel: Array,
    others: Array,
    gain: float,
) -> tuple[Array, Array]:
    """Return D and the other taps (T, C, C) of a convolution with |K^-1| <= gain.

    ``block_within`` is `triangular_within` or `matrix_within`; D gets gain^(1/3), or gain if alone.
    """
    if not others.shape[0]:
        return block_within(at_pixel, gain)[0], others
    own = gain ** (1 / 3)
    block, inverse_norm = block_within(at_pixel, own)
    norm = namespace(others).sum(norm_bound(others))
    rho = 1 - 1 / (gain / own)  # bounds |D^-1| sum |taps|, so that 1 / (1 - rho) = gain / own
    return block, others * shrinking(norm, rho / inverse_norm)
