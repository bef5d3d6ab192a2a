"""Primitives that run a linear map A(w) of a family (`invconv.kernels.families`).

    apply(family, w, x)        y = A(w) x for x (B, C, *spatial)
    gram(family, x, y)         the gradient of <y, A(w) x> by w, of w's shape
    factor(family, w, shape)   a solver y -> A(w)^-1 y for one grid

Every convolution's value, inverse and derivative goes through these.
"""

from __future__ import annotations

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.registry import Primitive, method
from invconv.kernels.families import LinearFamily
from invconv.kernels.solver import Solver

apply: Primitive[[LinearFamily, Array, Array], Array] = method("apply", on=1)
gram: Primitive[[LinearFamily, Array, Array], Array] = method("gram", on=1)
factor: Primitive[[LinearFamily, Array, Shape], Solver] = method("factor", on=1)
