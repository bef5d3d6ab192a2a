"""Primitives that run a linear map A(w) of a family (`invconv.kernels.families`).

    apply   y = A(w) x
    gram    w_bar, the gradient of <y, A(w) x> with respect to w
    factor  a solver y -> A(w)^-1 y for one grid

Every convolution's value, inverse and derivative goes through these.
"""

from __future__ import annotations

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.registry import Primitive
from invconv.kernels.families import LinearFamily
from invconv.kernels.solver import Solver


def _apply(family: LinearFamily, w: Array, x: Array) -> Array:
    """Return A(w) x.

    Parameters
    ----------
    family : LinearFamily
    w : array
        The weights of the family, such as a kernel (C, C, *k).
    x : array, shape (B, C, *spatial)
    """
    return family.apply(w, x)


def _gram(family: LinearFamily, x: Array, y: Array) -> Array:
    """Return the gradient of <y, A(w) x> with respect to w, of w's shape.

    Parameters
    ----------
    family : LinearFamily
    x, y : array, shape (B, C, *spatial)
    """
    return family.gram(x, y)


def _factor(family: LinearFamily, w: Array, shape: Shape) -> Solver:
    """Return the map y -> x, both (B, C, *shape), that solves A(w) x = y.

    The solver has a ``plan``, a dict that says how it works, and can be pickled.
    """
    return family.factor(w, shape)


apply = Primitive(_apply, "apply", on=1)
gram = Primitive(_gram, "gram", on=1)
factor = Primitive(_factor, "factor", on=1)
