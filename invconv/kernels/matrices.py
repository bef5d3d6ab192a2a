"""Solves with one C x C matrix W at every pixel: a product with W^-1 where that is as accurate.

W^-1 is formed once, in float64. Where W is well conditioned, the product is as accurate as a solve.
Elsewhere, and where the values cannot be looked at, each pixel is solved with factors of W.

Called by `MatrixFamily.factor`; torch takes `accurate_inverse`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, from_host, library_name, namespace, readable, to_numpy
from invconv.arrays.registry import Primitive
from invconv.kernels.primitives import multiply
from invconv.kernels.solver import Solver
from invconv.kernels.triangular_steps import TriangularSteps

Matrix = np.ndarray[Any, np.dtype[np.float64]]

# The largest |W|_F |W^-1|_F, a channel, up to which W^-1 is used.
_INVERSE_LIMIT = 10.0


@dataclass(frozen=True, eq=False)
class Product:
    """x = W^-1 y at every pixel.

    Attributes
    ----------
    inverse : array, shape (C, C)
        W^-1.
    method : str
        What W^-1 was made of, for the plan.
    """

    inverse: Array
    method: str

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": self.method, "at the pixel": "product with the inverse"}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return multiply(self.inverse, y)


@Primitive
def matrix_solver(matrix: Array) -> Solver:
    """Return the map y -> x, both (B, C, *spatial), with x = W^-1 y at every pixel.

    Parameters
    ----------
    matrix : array, shape (C, C)

    Returns
    -------
    callable
        With a ``plan``, a dict that says how it works; it can be pickled.
    """
    if readable(matrix):
        inverse = accurate_inverse(matrix)
        if inverse is not None:
            return Product(inverse, "LU factorisation")
    xp = namespace(matrix)
    q, r = xp.linalg.qr(matrix)
    return TriangularSteps(xp.matrix_transpose(q), ((r, False),), "QR factorisation")


def accurate_inverse(matrix: Array) -> Array | None:
    """Return W^-1 where a product with it is as accurate as a solve, else None."""
    values = to_numpy(matrix).astype(np.float64, copy=False)
    try:
        inverse = np.linalg.inv(values)
    except np.linalg.LinAlgError:
        return None
    return _accurate(values, inverse, matrix)


def solver_of_steps(steps: TriangularSteps) -> Product | TriangularSteps:
    """Return the fastest solver that is as accurate as substitution in the given factors."""
    arrays = [steps.first, *(matrix for matrix, _ in steps.triangles)]
    if not all(map(readable, arrays)) or any(map(_recorded, arrays)):
        return steps
    inverse = to_numpy(steps.first).astype(np.float64, copy=False)
    product = inverse.T  # of an orthogonal matrix or a permutation
    for matrix, lower in steps.triangles:
        values = to_numpy(matrix).astype(np.float64, copy=False)
        try:
            inverse = solved(values, inverse, lower=lower)
        except np.linalg.LinAlgError:  # a zero beside an inf, so that no log-determinant says so
            return steps
        product = product @ values
    found = _accurate(product, inverse, steps.first)
    return steps if found is None else Product(found, steps.method)


def solved(triangle: Matrix, rhs: Matrix, *, lower: bool) -> Matrix:
    """Return T^-1 B of NumPy's arrays, by substitution."""
    from scipy.linalg import solve_triangular  # here: it takes as long to import as invconv does

    found: Matrix = solve_triangular(triangle, rhs, lower=lower, check_finite=False)
    return found


def _accurate(matrix: Matrix, inverse: Matrix, like: Array) -> Array | None:
    """Return an inverse as an array like the given one, or None where it is not good enough."""
    with np.errstate(all="ignore"):
        condition = np.linalg.norm(matrix) * np.linalg.norm(inverse)
        # beyond, x would be right, but W x further from y than rounding explains
        if not condition <= _INVERSE_LIMIT * len(matrix):
            return None
        return from_host(inverse, like)


def _recorded(x: Array) -> bool:
    """Tell whether the derivative of a readable array is recorded."""
    if library_name(x) != "torch":
        return False
    torch = sys.modules["torch"]
    forward = torch.autograd.forward_ad
    if forward._current_level >= 0 and forward.unpack_dual(x).tangent is not None:
        return True
    return bool(x.requires_grad and torch.is_grad_enabled())
