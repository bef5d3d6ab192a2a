"""The kernels with the derivatives of `kernels.rules`, opaque to autograd, torch.func and compile.

One autograd Function takes a rule: what runs, and its two derivatives. It comes in two classes:
torch.compile cannot trace one with a ``jvp``. To call either costs as much as a small solve, so it
is left out where nobody watches.

Called by `primitives`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.autograd import Function, forward_ad

from invconv.kernels import rules
from invconv_torch.native import kernels, ops
from invconv_torch.native.batched import one_by_one
from invconv_torch.traced import Watch, refuse_nested_forward_mode, traced, watch

Tensor: TypeAlias = torch.Tensor
Pair: TypeAlias = tuple[Tensor | None, Tensor | None]
Settings: TypeAlias = Any  # a family, with its factors where there are any


@dataclass(frozen=True)
class Rule:
    """An operation on two tensors, and its derivatives.

    Attributes
    ----------
    run : callable
        (settings, a, b) to the result, in plain PyTorch; the settings are no tensors.
    traced : callable
        The same as one node of a graph (`invconv_torch.native.ops`).
    keeps_result : bool
        Whether the derivatives need a and the result, instead of a and b.
    vjp : callable
        (settings, saved, cotangent, wanted) to the cotangents of a and b.
    jvp : callable
        (settings, saved, a_dot, b_dot) to the tangent of the result.
    """

    run: Callable[..., Tensor]
    traced: Callable[..., Tensor]
    keeps_result: bool
    vjp: Callable[[Settings, Any, Tensor, Any], Pair]
    jvp: Callable[[Settings, Any, Tensor | None, Tensor | None], Tensor | None]


Operation: TypeAlias = tuple[Rule, Settings]


class _Traced(Function):  # type: ignore[misc]
    generate_vmap_rule = True

    @staticmethod
    def forward(operation: Operation, a: Tensor, b: Tensor) -> Tensor:
        rule, settings = operation
        return (rule.traced if traced() else rule.run)(settings, a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        (ctx.rule, ctx.settings), a, b = inputs
        kept = a, output if ctx.rule.keeps_result else b
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
        pair = ctx.rule.vjp(ctx.settings, ctx.saved_tensors, bar, ctx.needs_input_grad[1:])
        return None, *pair


class _Eager(_Traced):
    @staticmethod
    def jvp(ctx: Any, _: None, a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return ctx.rule.jvp(ctx.settings, ctx.saved_tensors, a, b)


class _Plain(_Eager):
    """The same outside torch.func: for one with a setup_context PyTorch reads signatures."""

    @staticmethod
    def forward(  # type: ignore[override]  # as PyTorch calls it where there is no setup_context
        ctx: Any, operation: Operation, a: Tensor, b: Tensor
    ) -> Tensor:
        ctx.rule, ctx.settings = rule, settings = operation
        output = rule.run(settings, a, b)
        kept = a, output if rule.keeps_result else b
        ctx.save_for_backward(*kept)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(*kept)
        return output

    setup_context = Function.setup_context
    backward = staticmethod(one_by_one(_Traced.backward))


def run(rule: Rule, settings: Settings, a: Tensor, b: Tensor) -> Tensor:
    """Run an operation, and record its derivatives where anybody wants them."""
    watched = watch(a, b)
    if watched is Watch.NOBODY:
        return rule.run(settings, a, b)
    way: type[_Traced] = _Plain
    if watched is Watch.COMPILER:
        way = _Traced
    elif watched is Watch.TRANSFORMS:
        refuse_nested_forward_mode()
        way = _Eager
    result: Tensor = way.apply((rule, settings), a, b)
    return result


def _solve_vjp(settings: Settings, saved: Any, x_bar: Tensor, wanted: Any) -> Pair:
    (family, factor), (w, x) = settings, saved
    transposed = None if factor is None else factor.transpose()

    def solve_transposed(rhs: Tensor) -> Tensor:
        return run(SOLVE, (family.transpose(), transposed), family.adjoint(w), rhs)

    return rules.solve_vjp(family, solve_transposed, x, x_bar, wanted)


def _solve_jvp(settings: Settings, saved: Any, w_dot: Any, y_dot: Any) -> Tensor | None:
    (family, factor), (w, x) = settings, saved

    def again(rhs: Tensor) -> Tensor:
        return run(SOLVE, (family, factor), w, rhs)

    return rules.solve_jvp(family, again, x, w_dot, y_dot)


APPLY = Rule(
    kernels.apply,
    lambda family, w, x: ops.apply(family.text, w, x),
    False,
    lambda settings, saved, bar, wanted: rules.apply_vjp(settings, saved[0], saved[1], bar, wanted),
    lambda settings, saved, w, x: rules.apply_jvp(settings, saved[0], saved[1], w, x),
)
GRAM = Rule(
    kernels.gram,
    lambda family, x, y: ops.gram(family.text, x, y),
    False,
    lambda settings, saved, bar, wanted: rules.gram_vjp(settings, saved[0], saved[1], bar, wanted),
    lambda settings, saved, x, y: rules.gram_jvp(settings, saved[0], saved[1], x, y),
)
SOLVE = Rule(
    kernels.solve,
    lambda factored, w, y: ops.solve(factored[0].text, w, y),
    True,
    _solve_vjp,
    _solve_jvp,
)
MATMUL = Rule(
    kernels.matmul,
    lambda _, a, b: ops.matmul(a, b),
    False,
    lambda settings, saved, bar, wanted: rules.matmul_vjp(saved[0], saved[1], bar, wanted),
    lambda settings, saved, a, b: rules.matmul_jvp(saved[0], saved[1], a, b),
)
