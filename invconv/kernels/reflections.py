"""Products of Householder reflections: Q = H_1 ... H_m, H_i = I - 2 v_i v_i^T / (v_i^T v_i).

The product is formed by its compact WY form (Schreiber & Van Loan, 1989): with the v_i, of any
lengths, as the rows of V,

    Q = I - V^T S^-1 V,    S = striu(V V^T) + diag(V V^T) / 2,

for a block of reflections at a time, since S costs the square of their number. S^-1 is applied by
substitution.
"""

from __future__ import annotations

from dataclasses import dataclass

from invconv.arrays.namespaces import (
    Array,
    namespace,
    zeros,
)
from invconv.kernels.primitives import matmul, triangular_solve

_BLOCK = 96  # reflections of one S


@dataclass(frozen=True, eq=False)
class Reflections:
    """Q = H_1 ... H_m."""

    largest: Array  # shape (m, 1): the largest magnitude in each of the given vectors
    # V and S for each block of reflections; V's rows are divided by their largest magnitude, so
    # that nothing overflows
    blocks: list[tuple[Array, Array]]
    channels: int  # C

    @staticmethod
    def of(reflectors: Array) -> Reflections:
        """Return the product of the reflections along the rows v_1 ... v_m of an array (m, C)."""
        count, channels = reflectors.shape
        rows, largest = scaled_rows(reflectors)
        parts = [rows[i : min(i + _BLOCK, count), :] for i in range(0, count, _BLOCK)]
        parts = [rows] if len(parts) == 1 else parts
        return Reflections(largest, [(part, _triangle(part)) for part in parts], channels)

    def times(self, matrix: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        """Return Q times a matrix U (C, M), and for each block U and X, which `vjp` needs."""
        memo = []
        for v, s in reversed(self.blocks):
            x = triangular_solve(s, matmul(v, matrix), lower=False)
            memo.append((matrix, x))
            matrix = matrix - matmul(namespace(v).matrix_transpose(v), x)
        return matrix, memo

    def vjp(self, memo: list[tuple[Array, Array]], bar: Array) -> tuple[Array, Array]:
        """Return the gradients of <bar, Q U> with respect to the reflectors (m, C) and to U.

        A block computes W = U - V^T X with X = S^-1 Y and Y = V U. So X_bar = -V W_bar,
        Y_bar = S^-T X_bar, S_bar = -Y_bar X^T, and V_bar has terms from X^T V, from V U and from
        the upper triangle of V V^T. Q does not depend on the lengths of the reflectors, so the
        gradient by the given reflectors is the gradient by the scaled ones over their scale.
        """
        xp, v_bars = namespace(bar), []
        for (v, s), (matrix, x) in zip(self.blocks, reversed(memo), strict=True):
            v_t, s_t = xp.matrix_transpose(v), xp.matrix_transpose(s)
            y_bar = -triangular_solve(s_t, matmul(v, bar), lower=True)
            above = _half(-matmul(y_bar, xp.matrix_transpose(x)))
            gram_bar = above + xp.matrix_transpose(above)
            from_x = matmul(x, xp.matrix_transpose(bar))
            from_y = matmul(y_bar, xp.matrix_transpose(matrix))
            v_bars.append(from_y - from_x + matmul(gram_bar, v))
            bar = bar + matmul(v_t, y_bar)
        if not v_bars:
            return zeros((0, self.channels), bar), bar
        every = v_bars[0] if len(v_bars) == 1 else xp.concat(v_bars, axis=0)
        return every / self.largest, bar


def scaled_rows(reflectors: Array) -> tuple[Array, Array]:
    """Return vectors (m, C) divided by their largest magnitudes, and the magnitudes (m, 1)."""
    xp = namespace(reflectors)
    if reflectors.shape[0] == 0:
        return reflectors, zeros((0, 1), reflectors)
    largest = xp.max(xp.abs(reflectors), axis=1, keepdims=True)
    return reflectors / largest, largest


def _triangle(v: Array) -> Array:
    """Return S, shape (m, m)."""
    return _half(matmul(v, namespace(v).matrix_transpose(v)))


def _half(gram: Array) -> Array:
    """Return striu(A) + diag(A) / 2 of a matrix A."""
    xp = namespace(gram)
    return 0.5 * (xp.triu(gram) + xp.triu(gram, k=1))
