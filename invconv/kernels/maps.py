"""What is run of a linear map A(w) (`invconv.kernels.families`): primitives of three kinds.

    apply   y = A(w) x, and beside it horner, a polynomial of such maps
    gram    w_bar, the gradient of <y, A(w) x> with respect to w
    factor  a solver y -> A(w)^-1 y for one grid

Every convolution's value, inverse and derivative goes through these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def _horner(family: LinearFamily, ws: Sequence[Array], x: Array, keep: bool) -> list[Array]:
    """Return z_m, ..., z_1 of z_n = x + A(w_n) z_(n+1), z_(m+1) = x; unless ``keep``, only z_1.

    All are new arrays.
    """
    return recursion(lambda w, z, _: x + apply(family, w, z), ws, x, keep)


def recursion(
    step: Callable[[Array, Array, Array | None], Array], ws: Sequence[Array], x: Array, keep: bool
) -> list[Array]:
    """Return z_m, ..., z_1 of z_n = step(w_n, z_(n+1), spare), z_(m+1) = x, or only z_1.

    Where they are not kept, two arrays take turns: ``spare``, if there is one, is an earlier z
    that nobody needs, in whose memory the step may put its result.
    """
    found = [x]
    for w in reversed(ws):
        spare = None if keep or len(found) < 3 else found.pop(1)
        found.append(step(w, found[-1], spare))
    return found[1:] if keep else found[-1:]


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
horner = Primitive(_horner, "horner", on=2)
gram = Primitive(_gram, "gram", on=1)
factor = Primitive(_factor, "factor", on=1)
