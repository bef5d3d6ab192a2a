"""Products of Householder reflections: Q = H_1 ... H_m, H_i = I - 2 v_i v_i^T / (v_i^T v_i).

The product is formed by its compact WY form (Schreiber & Van Loan, 1989): with the unit vectors v_i
as the columns of V,

    Q = I - V T V^T,    T^-1 = S = striu(V^T V) + I / 2,

for a block of reflections at a time, since S costs the square of their number.

Called by `qr` and `orthogonal`.
"""

from __future__ import annotations

from dataclasses import dataclass

from invconv.arrays.namespaces import Array, identity, namespace, readable, to_numpy, zeros
from invconv.kernels.primitives import matmul, triangular_solve
from invconv.operators.base.parameters import require_shape

_BLOCK = 96  # reflections that one T joins


@dataclass(frozen=True, eq=False)
class Reflections:
    """Q = H_1 ... H_m.

    Attributes
    ----------
    v : array, shape (C, m)
        V, of unit columns.
    lengths : array, shape (m,)
        Of the vectors that were given, which cannot overflow.
    blocks : list of (array, array)
        A block of V's columns and its T, for each block of reflections.
    """

    v: Array
    lengths: Array
    blocks: list[tuple[Array, Array]]

    @staticmethod
    def of(reflectors: Array) -> Reflections:
        """Return the product of the reflections along the rows v_1 ... v_m of an array (m, C)."""
        v, lengths = unit_columns(reflectors)
        count = v.shape[1]
        parts = [v[:, i : min(i + _BLOCK, count)] for i in range(0, count, _BLOCK)]
        return Reflections(v, lengths, [(part, _triangle(part)) for part in parts])

    def matrix(self) -> Array:
        """Return Q."""
        return self.times(identity(self.v.shape[0], self.v))

    def times(self, matrix: Array) -> Array:
        """Return Q times a matrix (C, M)."""
        for v, t in reversed(self.blocks):
            inner = matmul(namespace(v).matrix_transpose(v), matrix)
            matrix = matrix - matmul(v, matmul(t, inner))
        return matrix

    def transposed_times(self, matrix: Array) -> Array:
        """Return Q^T times a matrix (C, M)."""
        for v, t in self.blocks:
            xp = namespace(v)
            inner = matmul(xp.matrix_transpose(v), matrix)
            matrix = matrix - matmul(v, matmul(xp.matrix_transpose(t), inner))
        return matrix

    def vjp(self, q_bar: Array) -> Array:
        """Return the gradient of <q_bar, Q> with respect to the reflectors, shape (m, C).

        It goes back through Q = I - V T V^T, T = S^-1, S = striu(V^T V) + I/2, V = v / |v|.
        """
        xp, v = namespace(q_bar), self.v
        if v.shape[1] == 0:
            return zeros((0, v.shape[0]), v)
        t = self.blocks[0][1] if len(self.blocks) == 1 else _triangle(v)
        t_t, right = xp.matrix_transpose(t), matmul(q_bar, v)
        v_bar = -matmul(right, t_t) - matmul(matmul(xp.matrix_transpose(q_bar), v), t)
        t_bar = -matmul(xp.matrix_transpose(v), right)
        s_bar = xp.triu(-matmul(t_t, matmul(t_bar, t_t)), k=1)
        v_bar = v_bar + matmul(v, s_bar + xp.matrix_transpose(s_bar))
        radial = xp.sum(v * v_bar, axis=0, keepdims=True)
        return xp.matrix_transpose(v_bar - v * radial) / self.lengths[:, None]


def unit_columns(reflectors: Array) -> tuple[Array, Array]:
    """Return V (C, m) of unit columns, and the lengths (m,), which cannot overflow."""
    xp = namespace(reflectors)
    if reflectors.shape[0] == 0:
        return xp.matrix_transpose(reflectors), zeros((0,), reflectors)
    largest = xp.max(xp.abs(reflectors), axis=1, keepdims=True)
    scaled = reflectors / largest
    lengths = xp.sqrt(xp.sum(scaled * scaled, axis=1, keepdims=True))
    return xp.matrix_transpose(scaled / lengths), (largest * lengths)[:, 0]


def require_reflectors(reflectors: Array, channels: int) -> None:
    """Raise ValueError unless an array (m, C) holds vectors of which none is zero."""
    count = reflectors.shape[0] if reflectors.ndim else 0
    require_shape("reflectors", reflectors, (count, channels), "m vectors of C numbers")
    if readable(reflectors):
        zero = ~to_numpy(reflectors).any(axis=1)
        if zero.any():
            raise ValueError(
                f"reflectors: expected no zero vector, got one in row {int(zero.argmax())}"
            )


def _triangle(v: Array) -> Array:
    """Return T = S^-1, shape (m, m)."""
    if v.shape[1] == 0:
        return zeros((0, 0), v)
    xp = namespace(v)
    gram = matmul(xp.matrix_transpose(v), v)
    s = xp.triu(gram, k=1) + 0.5 * identity(v.shape[1], v)
    return triangular_solve(s, identity(s.shape[0], s), lower=False)
