"""Solves with one C x C matrix W at every pixel, factor by factor or by a product with W^-1.

    x = A_1^-1 ... A_n^-1 y    for W = A_n ... A_1

A step undoes one factor, for rows of pixels (C, M): a triangle by substitution, an orthogonal
matrix by its transpose, a scale by division. W^-1 is formed once, in float64. If W is well
conditioned, the product is as accurate as the steps. If it is not, or if its values cannot be read,
each pixel is solved step by step.

Householder reflections H_i = I - 2 v_i v_i^T / (v_i^T v_i) are multiplied by their compact WY form
(Schreiber & Van Loan, 1989): with the v_i, of any lengths, as the rows of V, H_1 ... H_m is

    Q = I - V^T S^-1 V,    S = striu(V V^T) + diag(V V^T) / 2.

S^-1 is applied by substitution.
"""

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    diagonal_matrix,
    from_host,
    namespace,
    readable,
    recorded,
    to_numpy,
)
from invconv.arrays.registry import Primitive
from invconv.kernels.primitives import (
    Plan,
    Solver,
    from_pixel_rows,
    matmul,
    multiply,
    pixel_rows,
    triangular_solve,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]

# W^-1 is used if |W|_F |W^-1|_F is at most this number times C.
_INVERSE_LIMIT = 10.0


@dataclass(frozen=True, eq=False)
class PixelStep:
    """The inverse of a matrix A (C, C)."""

    given: Array  # the array that determines A: A itself, unless a class says otherwise

    @property
    def matrix(self) -> Array:
        return self.given

    def on_host(self) -> Self:
        """Return the step in NumPy's float64."""
        return replace(self, given=in_float64(self.given))

    def __call__(self, rows: Array) -> Array:
        """Return A^-1 times rows (C, M)."""
        raise NotImplementedError

    def transposed(self, rows: Array) -> Array:
        """Return A^-T times rows (C, M)."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Triangle(PixelStep):
    """The inverse of a triangular matrix T."""

    lower: bool

    def __call__(self, rows: Array) -> Array:
        return triangular_solve(self.given, rows, lower=self.lower)

    def transposed(self, rows: Array) -> Array:
        turned = namespace(rows).matrix_transpose(self.given)
        return triangular_solve(turned, rows, lower=not self.lower)


class Turned(PixelStep):
    """The inverse of an orthogonal matrix, which is its transpose."""

    def __call__(self, rows: Array) -> Array:
        return matmul(namespace(rows).matrix_transpose(self.given), rows)

    def transposed(self, rows: Array) -> Array:
        return matmul(self.given, rows)


class Divided(PixelStep):
    """The inverse of a scale (C,)."""

    @property
    def matrix(self) -> Array:
        return diagonal_matrix(self.given)

    def __call__(self, rows: Array) -> Array:
        return rows / self.given[:, None]

    def transposed(self, rows: Array) -> Array:
        return self(rows)


@dataclass(frozen=True, eq=False)
class PixelSteps:
    """The solve with W, one step after the other."""

    steps: tuple[PixelStep, ...]  # the inverses of A_n, ..., A_1
    method: str = "factors"  # the method that the plan states

    @property
    def plan(self) -> Plan:
        return Plan(self.method)

    def as_numpy(self) -> Self:
        steps = []
        for step in self.steps:
            arrays = {n: to_numpy(a) for n, a in vars(step).items() if hasattr(a, "dtype")}
            steps.append(replace(step, **arrays))
        return replace(self, steps=tuple(steps))

    def on_host(self) -> tuple[Floats, Floats]:
        """Return W and W^-1 in NumPy's float64."""
        matrix = inverse = np.eye(self.steps[0].matrix.shape[0])
        for step in self.steps:
            there = step.on_host()
            matrix, inverse = matrix @ there.matrix, there(inverse)
        return matrix, inverse

    def __call__(self, y: Array) -> Array:
        rows = pixel_rows(y)
        for step in self.steps:
            rows = step(rows)
        return from_pixel_rows(rows, y.shape)


@dataclass(frozen=True, eq=False)
class Product:
    """x = W^-1 y at every pixel."""

    inverse: Array  # shape (C, C): W^-1
    method: str  # the factorisation that gave W^-1, for the plan

    @property
    def plan(self) -> Plan:
        return Plan(self.method, at_the_pixel="product with the inverse")

    def as_numpy(self) -> Self:
        return replace(self, inverse=to_numpy(self.inverse))

    def __call__(self, y: Array) -> Array:
        return multiply(self.inverse, y)


@Primitive
def matrix_solver(matrix: Array) -> Solver:
    """Return the map y -> x, both (B, C, *spatial), with x = W^-1 y for W (C, C) at every pixel."""
    if readable(matrix) and not recorded(matrix):
        values, inverse = in_float64(matrix), None
        with contextlib.suppress(np.linalg.LinAlgError):
            inverse = _accurate(values, np.linalg.inv(values), matrix)
        if inverse is not None:
            return Product(inverse, "LU factorisation")
    q, r = namespace(matrix).linalg.qr(matrix)
    return PixelSteps((Turned(q), Triangle(r, False)), "QR factorisation")


def solver_of_steps(steps: PixelSteps) -> Product | PixelSteps:
    """Return a product with W^-1 if it is as accurate as the steps, else the steps."""
    arrays = [step.given for step in steps.steps]
    if not all(map(readable, arrays)) or any(map(recorded, arrays)):
        return steps
    try:
        with np.errstate(all="ignore"):
            matrix, inverse = steps.on_host()
    except np.linalg.LinAlgError:  # a zero beside an inf: the log-determinant did not show it
        return steps
    accurate = _accurate(matrix, inverse, arrays[0])
    return steps if accurate is None else Product(accurate, steps.method)


def _accurate(matrix: Floats, inverse: np.ndarray[Any, Any], like: Array) -> Array | None:
    """Return an inverse as an array like the given one, or None if it is not accurate enough."""
    with np.errstate(all="ignore"):
        # above the limit x would be right, but W x further from y than rounding explains
        if not np.linalg.norm(matrix) * np.linalg.norm(inverse) <= _INVERSE_LIMIT * len(matrix):
            return None
        return from_host(inverse, like)


def in_float64(array: Array) -> Floats:
    """Return an array in NumPy's float64."""
    return np.asarray(to_numpy(array), np.float64)


@dataclass(frozen=True, eq=False)
class Reflections:
    """Q = H_1 ... H_m."""

    largest: Array  # shape (m, 1): the largest magnitude in each of the given vectors
    rows: Array  # shape (m, C): V, whose rows are divided by these, so that nothing overflows
    triangle: Array  # shape (m, m): S

    @staticmethod
    def of(reflectors: Array) -> "Reflections":
        """Return the product of the reflections along the rows v_1 ... v_m of an array (m, C)."""
        xp = namespace(reflectors)
        largest = xp.max(xp.abs(reflectors), axis=1, keepdims=True)
        rows = reflectors / largest
        return Reflections(largest, rows, _half(matmul(rows, xp.matrix_transpose(rows))))

    def times(self, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
        """Return Q times a matrix U (C, M), and U and X = S^-1 V U, which `vjp` needs."""
        x = triangular_solve(self.triangle, matmul(self.rows, matrix), lower=False)
        return matrix - matmul(namespace(x).matrix_transpose(self.rows), x), (matrix, x)

    def vjp(self, memo: tuple[Array, Array], bar: Array) -> tuple[Array, Array]:
        """Return the gradients of <bar, Q U> with respect to the reflectors (m, C) and to U.

        W = U - V^T X with X = S^-1 Y and Y = V U. So X_bar = -V W_bar, Y_bar = S^-T X_bar,
        S_bar = -Y_bar X^T, and V_bar has terms from X^T V, from V U and from the upper triangle of
        V V^T. Q does not depend on the lengths of the reflectors, so the gradient by the given
        reflectors is the gradient by the scaled ones divided by their scale.
        """
        xp, v, (matrix, x) = namespace(bar), self.rows, memo
        y_bar = -triangular_solve(xp.matrix_transpose(self.triangle), matmul(v, bar), lower=True)
        above = _half(-matmul(y_bar, xp.matrix_transpose(x)))
        gram_bar = above + xp.matrix_transpose(above)
        from_x = matmul(x, xp.matrix_transpose(bar))
        v_bar = matmul(y_bar, xp.matrix_transpose(matrix)) - from_x + matmul(gram_bar, v)
        return v_bar / self.largest, bar + matmul(xp.matrix_transpose(v), y_bar)


def _half(gram: Array) -> Array:
    """Return striu(A) + diag(A) / 2 of a matrix A."""
    xp = namespace(gram)
    return 0.5 * (xp.triu(gram) + xp.triu(gram, k=1))
