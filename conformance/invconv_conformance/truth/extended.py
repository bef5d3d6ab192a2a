"""Dense linear algebra in extended precision, which LAPACK does not have."""

import functools
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]

# On x86 it has 64 bits of mantissa; where it is a float64 in disguise, float64 is judged by itself.
EXTENDED = np.longdouble


class ExtendedLU:
    """P A = L U by Gaussian elimination with partial pivoting."""

    def __init__(self, matrix: Matrix) -> None:
        lu = np.array(matrix, dtype=EXTENDED)
        n = len(lu)
        self.order = np.arange(n)
        for k in range(n):
            pivot = k + int(np.abs(lu[k:, k]).argmax())
            if pivot != k:
                lu[[k, pivot]] = lu[[pivot, k]]
                self.order[[k, pivot]] = self.order[[pivot, k]]
            if lu[k, k]:
                lu[k + 1 :, k] /= lu[k, k]
                lu[k + 1 :, k + 1 :] -= np.outer(lu[k + 1 :, k], lu[k, k + 1 :])
        self.lu = lu

    @functools.cached_property
    def inverse(self) -> Matrix:
        """A^-1."""
        return self.solve(np.eye(len(self.lu), dtype=EXTENDED))

    def log_det(self) -> Any:
        """Return log|det A|, -inf if a pivot is zero."""
        with np.errstate(divide="ignore"):
            return np.log(np.abs(np.diagonal(self.lu))).sum()

    def solve(self, rhs: Matrix, *, transposed: bool = False) -> Matrix:
        """Return A^-1 B, or A^-T B, for B of shape (n, m)."""
        n, x = len(self.lu), np.array(rhs, dtype=EXTENDED)
        diagonals: list[Any] = [np.ones(n), np.diagonal(self.lu)]  # of L and U
        first, second = diagonals[::-1] if transposed else diagonals
        triangles = self.lu.T if transposed else self.lu  # U^T L^T P^-T x = B
        x = x if transposed else x[self.order]
        for k in range(n):
            x[k] = (x[k] - triangles[k, :k] @ x[:k]) / first[k]
        for k in reversed(range(n)):
            x[k] = (x[k] - triangles[k, k + 1 :] @ x[k + 1 :]) / second[k]
        return x[np.argsort(self.order)] if transposed else x
