"""Linear maps A(w) of a family (`invconv.families`), and their derivatives.

Three primitives, `apply`, `gram` and `factor`, run the rules of a family: the value, the inverse
and the derivative of every convolution go through them. Libraries that differentiate a primitive as
one step use these rules:

    apply   y = A(w) x           y_dot = A(w_dot) x + A(w) x_dot
                                 x_bar = A(w)^T y_bar,    w_bar = gram(x, y_bar)
    solve   x = A(w)^-1 y        x_dot = A(w)^-1 (y_dot - A(w_dot) x)
                                 y_bar = A(w)^-T x_bar,   w_bar = -gram(x, y_bar)
    gram    g = d<y, A(w) x>/dw  g_dot = gram(x_dot, y) + gram(x, y_dot)
                                 x_bar = A(g_bar)^T y,    y_bar = A(g_bar) x

The three are closed under differentiation, so derivatives of any order need no more rules. A solve
keeps only x. A tangent that is zero, or a cotangent that is not wanted, is None.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from invconv.arrays.namespaces import Array, Shape, namespace
from invconv.arrays.registry import Primitive, method
from invconv.kernels.primitives import Map, Solver, conjugate, matmul

Linear: TypeAlias = Any  # `invconv.families.family.Family`, linear in its weights

apply: Primitive[[Linear, Array, Array], Array] = method("apply", on=1)
gram: Primitive[[Linear, Array, Array], Array] = method("gram", on=1)
factor: Primitive[[Linear, Array, Shape], Solver] = method("factor", on=1)

Tangent = Array | None


def bilinear_jvp(
    f: Callable[..., Array], a: Array, b: Array, a_dot: Tangent, b_dot: Tangent
) -> Tangent:
    """Push tangents through y = f(a, b), linear in both: A(w) x, gram(x, y), or a product A B."""
    return _sum(None if a_dot is None else f(a_dot, b), None if b_dot is None else f(a, b_dot))


def apply_vjp(
    family: Linear, w: Array, x: Array, y_bar: Array, wanted: tuple[bool, bool]
) -> tuple[Tangent, Tangent]:
    """Return (w_bar, x_bar) of y = A(w) x."""
    w_bar = gram(family, x, y_bar) if wanted[0] else None
    return w_bar, apply(family.transpose(), family.adjoint(w), y_bar) if wanted[1] else None


def solve_jvp(family: Linear, solve: Map, x: Array, w_dot: Tangent, y_dot: Tangent) -> Tangent:
    """Push tangents through x = A(w)^-1 y; ``solve`` is y -> A(w)^-1 y."""
    total = _sum(y_dot, None if w_dot is None else -apply(family, w_dot, x))
    return None if total is None else solve(total)


def solve_vjp(
    family: Linear, solve_transposed: Map, x: Array, x_bar: Array, wanted: tuple[bool, bool]
) -> tuple[Tangent, Tangent]:
    """Return (w_bar, y_bar) of x = A(w)^-1 y; ``solve_transposed`` is x_bar -> A(w)^-T x_bar."""
    y_bar = solve_transposed(x_bar)
    w_bar = -gram(family, x, y_bar) if wanted[0] else None
    return w_bar, y_bar if wanted[1] else None


def gram_vjp(
    family: Linear, x: Array, y: Array, g_bar: Array, wanted: tuple[bool, bool]
) -> tuple[Tangent, Tangent]:
    """Return (x_bar, y_bar) of g = gram(x, y)."""
    x_bar = apply(family.transpose(), family.adjoint(g_bar), y) if wanted[0] else None
    return x_bar, apply(family, g_bar, x) if wanted[1] else None


def matmul_vjp(
    a: Array, b: Array, y_bar: Array, wanted: tuple[bool, bool]
) -> tuple[Tangent, Tangent]:
    """Return (a_bar, b_bar) of Y = A B: Y_bar B^H and A^H Y_bar, summed where axes broadcast."""
    a_bar = b_bar = None
    if wanted[0]:
        a_bar = _sum_to(matmul(y_bar, _adjoint(b)), tuple(a.shape))
    if wanted[1]:
        b_bar = _sum_to(matmul(_adjoint(a), y_bar), tuple(b.shape))
    return a_bar, b_bar


def _adjoint(a: Array) -> Array:
    return namespace(a).matrix_transpose(conjugate(a))


def _sum_to(a: Array, shape: Shape) -> Array:
    xp, more = namespace(a), a.ndim - len(shape)
    stretched = (more + i for i, n in enumerate(shape) if n == 1 != a.shape[more + i])
    axes = (*range(more), *stretched)
    return xp.reshape(xp.sum(a, axis=axes), shape) if axes else a


def _sum(a: Tangent, b: Tangent) -> Tangent:
    if a is None or b is None:
        return b if a is None else a
    return a + b
