"""Solves with one C x C matrix W at every pixel: by a product with W^-1 if that is as accurate.

W^-1 is formed once, in float64. If W is well conditioned, the product is as accurate as a solve.
If it is not, or if its values cannot be read, each pixel is solved with factors of W.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, from_host, namespace, readable, recorded, to_numpy
from invconv.arrays.registry import Primitive
from invconv.kernels.pixel_steps import PixelSteps, Triangle, Turned
from invconv.kernels.primitives import Solver, multiply

Matrix = np.ndarray[Any, np.dtype[np.float64]]

# W^-1 is used if |W|_F |W^-1|_F is at most this number times C.
_INVERSE_LIMIT = 10.0


@dataclass(frozen=True, eq=False)
class Product:
    """x = W^-1 y at every pixel."""

    inverse: Array  # shape (C, C): W^-1
    method: str  # the factorisation that gave W^-1, for the plan

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": self.method, "at the pixel": "product with the inverse"}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return multiply(self.inverse, y)


@Primitive
def matrix_solver(matrix: Array) -> Solver:
    """Return the map y -> x, both (B, C, *spatial), with x = W^-1 y for W (C, C) at every pixel."""
    if readable(matrix) and not recorded(matrix):
        values, inverse = to_numpy(matrix).astype(np.float64, copy=False), None
        with contextlib.suppress(np.linalg.LinAlgError):
            inverse = _accurate(values, np.linalg.inv(values), matrix)
        if inverse is not None:
            return Product(inverse, "LU factorisation")
    q, r = namespace(matrix).linalg.qr(matrix)
    return PixelSteps((Turned(q), Triangle(r, False)), "QR factorisation")


def solver_of_steps(steps: PixelSteps) -> Product | PixelSteps:
    """Return a product with W^-1 if it is as accurate as the steps, else the steps."""
    if not all(map(readable, steps.arrays)) or any(map(recorded, steps.arrays)):
        return steps
    try:
        with np.errstate(all="ignore"):
            matrix, inverse = steps.on_host()
    except np.linalg.LinAlgError:  # a zero beside an inf: the log-determinant did not show it
        return steps
    accurate = _accurate(matrix, inverse, steps.arrays[0])
    return steps if accurate is None else Product(accurate, steps.method)


def _accurate(matrix: Matrix, inverse: Matrix, like: Array) -> Array | None:
    """Return an inverse as an array like the given one, or None if it is not accurate enough."""
    with np.errstate(all="ignore"):
        condition = np.linalg.norm(matrix) * np.linalg.norm(inverse)
        # beyond, x would be right, but W x further from y than rounding explains
        if not condition <= _INVERSE_LIMIT * len(matrix):
            return None
        return from_host(inverse, like)
