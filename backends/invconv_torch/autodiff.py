"""The kernels with the derivatives of `kernels.rules`, opaque to autograd, torch.func and compile.

One autograd Function takes a rule: what runs, and its two derivatives. It comes in two classes:
torch.compile cannot trace one with a ``jvp``. To call either costs as much as a small solve, so it
is left out where nobody watches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.autograd import Function

from invconv.kernels import rules
from invconv.kernels.families import LinearFamily
from invconv_torch import kernels, ops
from invconv_torch.solvers import Factor
from invconv_torch.traced import compiling, refuse_nested_forward_mode, traced, unwatched

Tensor: TypeAlias = torch.Tensor
Pair: TypeAlias = tuple[Tensor | None, Tensor | None]
Settings: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """An operation on two tensors, and its derivatives.

    Attributes
    ----------
    run : callable
        (*settings, a, b) to the result, in plain PyTorch.
    traced : callable
        The same as one node of a graph (`invconv_torch.ops`).
    saved : tuple of int
        Which of (a, b, result) the derivatives need.
    vjp : callable
        (settings, saved, cotangent, wanted) to the cotangents of a and b.
    jvp : callable
        (settings, saved, a_dot, b_dot) to the tangent of the result.
    """

    run: Callable[..., Tensor]
    traced: Callable[..., Tensor]
    saved: tuple[int, ...]
    vjp: Callable[[Settings, Any, Tensor, Any], Pair]
    jvp: Callable[[Settings, Any, Tensor | None, Tensor | None], Tensor | None]


class _Traced(Function):  # type: ignore[misc]
    generate_vmap_rule = True

    @staticmethod
    def forward(rule: Rule, settings: Settings, a: Tensor, b: Tensor) -> Tensor:
        return (rule.traced if traced() else rule.run)(*settings, a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.rule, ctx.settings, a, b = inputs
        tensors = a, b, output
        kept = tuple(tensors[i] for i in ctx.rule.saved)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
        pair = ctx.rule.vjp(ctx.settings, ctx.saved_tensors, bar, ctx.needs_input_grad[2:])
        return None, None, *pair


class _Eager(_Traced):
    @staticmethod
    def jvp(ctx: Any, _: None, __: None, a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return ctx.rule.jvp(ctx.settings, ctx.saved_tensors, a, b)


def _record(rule: Rule, settings: Settings, a: Tensor, b: Tensor) -> Tensor:
    way = _Traced
    if not compiling():
        refuse_nested_forward_mode()
        way = _Eager
    result: Tensor = way.apply(rule, settings, a, b)
    return result


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x."""
    if unwatched(w, x):
        return kernels.apply(family, w, x)
    return _record(_APPLY, (family,), w, x)


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    if unwatched(x, y):
        return kernels.gram(family, x, y)
    return _record(_GRAM, (family,), x, y)


def solve(family: LinearFamily, factor: Factor | None, w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y, with the factors of A(w) if they are there."""
    if unwatched(w, y):
        return kernels.solve(family, factor, w, y)
    return _record(_SOLVE, (family, factor), w, y)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    if unwatched(a, b):
        return kernels.matmul(a, b)
    return _record(_MATMUL, (), a, b)


def _solve_vjp(settings: Settings, saved: Any, x_bar: Tensor, wanted: Any) -> Pair:
    (family, factor), (w, x) = settings, saved
    transposed = None if factor is None else factor.transpose()

    def solve_transposed(rhs: Tensor) -> Tensor:
        return solve(family.transpose(), transposed, family.adjoint(w), rhs)

    return rules.solve_vjp(family, solve_transposed, x, x_bar, wanted)


def _solve_jvp(settings: Settings, saved: Any, w_dot: Any, y_dot: Any) -> Tensor | None:
    (family, factor), (w, x) = settings, saved

    def again(rhs: Tensor) -> Tensor:
        return solve(family, factor, w, rhs)

    return rules.solve_jvp(family, again, x, w_dot, y_dot)


_APPLY = Rule(
    kernels.apply,
    lambda family, w, x: ops.apply(family.text, w, x),
    (0, 1),
    lambda settings, saved, bar, wanted: rules.apply_vjp(*settings, *saved, bar, wanted),
    lambda settings, saved, w, x: rules.apply_jvp(*settings, *saved, w, x),
)
_GRAM = Rule(
    kernels.gram,
    lambda family, x, y: ops.gram(family.text, x, y),
    (0, 1),
    lambda settings, saved, bar, wanted: rules.gram_vjp(*settings, *saved, bar, wanted),
    lambda settings, saved, x, y: rules.gram_jvp(*settings, *saved, x, y),
)
_SOLVE = Rule(
    kernels.solve,
    lambda family, factor, w, y: ops.solve(family.text, w, y),
    (0, 2),
    _solve_vjp,
    _solve_jvp,
)
_MATMUL = Rule(
    kernels.matmul,
    ops.matmul,
    (0, 1),
    lambda settings, saved, bar, wanted: rules.matmul_vjp(*saved, bar, wanted),
    lambda settings, saved, a, b: rules.matmul_jvp(*saved, a, b),
)
