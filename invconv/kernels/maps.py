"""Primitives that run a linear map A(w) of a family (`invconv.kernels.families`).

    apply(family, w, x)        y = A(w) x for x (B, C, *spatial)
    gram(family, x, y)         the gradient of <y, A(w) x> by w, of w's shape
    factor(family, w, shape)   a solver y -> A(w)^-1 y for one grid
    horner(family, ws, x)      a polynomial of such maps, applied to x

Every convolution's value, inverse and derivative goes through these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.registry import Primitive, method
from invconv.kernels.families import LinearFamily
from invconv.kernels.solver import Solver


def _horner(family: LinearFamily, ws: Sequence[Array], x: Array, keep: bool) -> list[Array]:
    """Return z_m, ..., z_1 of z_n = x + A(w_n) z_(n+1), z_(m+1) = x; unless ``keep``, only z_1.

    All are new arrays.
    """
    return recursion(lambda w, z, _: x + apply(family, w, z), ws, x, keep)


def recursion(
    step: Callable[[Array, Array, Array | None], Array], ws: Sequence[Array], x: Array, keep: bool
) -> list[Array]:
    """Return z_m, ..., z_1 of z_n = step(w_n, z_(n+1), spare), z_(m+1) = x, or only z_1.

    Unless all are kept, two arrays take turns: ``spare`` is None or an earlier z that is not needed
    any more, so the step may write its result into it.
    """
    points = [x]
    for w in reversed(ws):
        spare = None if keep or len(points) < 3 else points.pop(1)
        points.append(step(w, points[-1], spare))
    return points[1:] if keep else points[-1:]


apply: Primitive[[LinearFamily, Array, Array], Array] = method("apply", on=1)
horner = Primitive(_horner, "horner", on=2)
gram: Primitive[[LinearFamily, Array, Array], Array] = method("gram", on=1)
factor: Primitive[[LinearFamily, Array, Shape], Solver] = method("factor", on=1)
