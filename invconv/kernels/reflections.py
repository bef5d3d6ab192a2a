"""Products of Householder reflections: Q = H_1 ... H_m, H_i = I - 2 v_i v_i^T / (v_i^T v_i).

The product is formed by its compact WY form (Schreiber & Van Loan, 1989): with the v_i, of any
lengths, as the rows of V,

    Q = I - V^T S^-1 V,    S = striu(V V^T) + diag(V V^T) / 2.

S^-1 is applied by substitution.
"""

from __future__ import annotations

from dataclasses import dataclass

from invconv.arrays.namespaces import Array, namespace, zeros
from invconv.kernels.primitives import matmul, triangular_solve


@dataclass(frozen=True, eq=False)
class Reflections:
    """Q = H_1 ... H_m."""

    largest: Array  # shape (m, 1): the largest magnitude in each of the given vectors
    rows: Array  # shape (m, C): V, whose rows are divided by these, so that nothing overflows
    triangle: Array  # shape (m, m): S

    @staticmethod
    def of(reflectors: Array) -> Reflections:
        """Return the product of the reflections along the rows v_1 ... v_m of an array (m, C)."""
        xp, rows = namespace(reflectors), reflectors
        if not rows.shape[0]:
            return Reflections(zeros((0, 1), rows), rows, zeros((0, 0), rows))
        largest = xp.max(xp.abs(reflectors), axis=1, keepdims=True)
        rows = reflectors / largest
        return Reflections(largest, rows, _half(matmul(rows, xp.matrix_transpose(rows))))

    def times(self, matrix: Array) -> tuple[Array, tuple[Array, Array] | None]:
        """Return Q times a matrix U (C, M), and U and X = S^-1 V U, which `vjp` needs."""
        if not self.rows.shape[0]:
            return matrix, None
        x = triangular_solve(self.triangle, matmul(self.rows, matrix), lower=False)
        product = matrix - matmul(namespace(x).matrix_transpose(self.rows), x)
        return product, (matrix, x)

    def vjp(self, memo: tuple[Array, Array] | None, bar: Array) -> tuple[Array, Array]:
        """Return the gradients of <bar, Q U> with respect to the reflectors (m, C) and to U.

        W = U - V^T X with X = S^-1 Y and Y = V U. So X_bar = -V W_bar, Y_bar = S^-T X_bar,
        S_bar = -Y_bar X^T, and V_bar has terms from X^T V, from V U and from the upper triangle of
        V V^T. Q does not depend on the lengths of the reflectors, so the gradient by the given
        reflectors is the gradient by the scaled ones over their scale.
        """
        if memo is None:
            return self.rows, bar
        xp, v, (matrix, x) = namespace(bar), self.rows, memo
        turned = xp.matrix_transpose(self.triangle)
        y_bar = -triangular_solve(turned, matmul(v, bar), lower=True)
        above = _half(-matmul(y_bar, xp.matrix_transpose(x)))
        gram_bar = above + xp.matrix_transpose(above)
        from_x = matmul(x, xp.matrix_transpose(bar))
        from_y = matmul(y_bar, xp.matrix_transpose(matrix))
        v_bar = from_y - from_x + matmul(gram_bar, v)
        return v_bar / self.largest, bar + matmul(xp.matrix_transpose(v), y_bar)


def _half(gram: Array) -> Array:
    """Return striu(A) + diag(A) / 2 of a matrix A."""
    xp = namespace(gram)
    return 0.5 * (xp.triu(gram) + xp.triu(gram, k=1))
