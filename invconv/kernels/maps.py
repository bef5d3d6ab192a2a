"""What is run of a linear map A(w) (`invconv.kernels.families`): primitives of three kinds.

    apply   y = A(w) x, and beside it apply_to, z + A(w) x
    gram    w_bar, the gradient of <y, A(w) x> with respect to w
    factor  a solver y -> A(w)^-1 y for one grid

Every convolution's value, inverse and derivative goes through these.

Called by `operators.base.linear` and `kernels.rules`.
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
        Its weights, such as a kernel (C, C, *k).
    x : array, shape (B, C, *spatial)
    """
    return family.apply(w, x)


def _apply_to(
    family: LinearFamily, w: Array, x: Array, z: Array, into: Array | None = None
) -> Array:
    """Return z + A(w) x for z of x's shape: a new array, or ``into``.

    That is an array which nobody else needs, of x's shape and dtype, and neither x nor z. Where its
    memory is used again, none has to be asked for.
    """
    return z + apply(family, w, x)


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

    It has a ``plan``, a dict that says how it works, and it can be pickled.
    """
    return family.factor(w, shape)


apply = Primitive(_apply, "apply", on=1)
apply_to = Primitive(_apply_to, "apply_to", on=1)
gram = Primitive(_gram, "gram", on=1)
factor = Primitive(_factor, "factor", on=1)
