"""The kernels with the derivatives of `kernels.rules`, opaque to autograd, torch.func and compile.

Each operation is two classes: one for code that torch.compile traces, which cannot take a class
with a ``jvp``, and one with it. To call either costs as much as a small solve, so it is left out
where nobody watches.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch.autograd import Function

from invconv.kernels import rules
from invconv.kernels.families import LinearFamily
from invconv_torch import kernels, ops
from invconv_torch.kernels import Factor
from invconv_torch.traced import compiling, refuse_nested_forward_mode, traced, unwatched

Tensor: TypeAlias = torch.Tensor
Pair: TypeAlias = tuple[Tensor | None, Tensor | None]


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x."""
    if unwatched(w, x):
        return kernels.apply(family, w, x)
    result: Tensor = _way(_TracedApply, _Apply).apply(family, w, x)
    return result


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    if unwatched(x, y):
        return kernels.gram(family, x, y)
    result: Tensor = _way(_TracedGram, _Gram).apply(family, x, y)
    return result


def solve(family: LinearFamily, factor: Factor | None, w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y, with the factors of A(w) if they are there."""
    if unwatched(w, y):
        return kernels.solve(family, factor, w, y)
    result: Tensor = _way(_TracedSolve, _Solve).apply(family, factor, w, y)
    return result


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    if unwatched(a, b):
        return kernels.matmul(a, b)
    result: Tensor = _way(_TracedMatmul, _Matmul).apply(a, b)
    return result


def _way(in_compiled_code: type[Function], elsewhere: type[Function]) -> type[Function]:
    if compiling():
        return in_compiled_code
    refuse_nested_forward_mode()
    return elsewhere


def _save(ctx: Any, *tensors: Tensor) -> None:
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


class _TracedApply(Function):  # type: ignore[misc]
    generate_vmap_rule = True

    @staticmethod
    def forward(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
        if traced():
            return ops.apply(ops.encode(family), w, x)
        return kernels.apply(family, w, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.family, *tensors = inputs
        _save(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        w, x = ctx.saved_tensors
        return None, *rules.apply_vjp(ctx.family, w, x, y_bar, ctx.needs_input_grad[1:])


class _Apply(_TracedApply):
    @staticmethod
    def jvp(ctx: Any, family: None, w_dot: Tensor | None, x_dot: Tensor | None) -> Tensor | None:
        w, x = ctx.saved_tensors
        return rules.apply_jvp(ctx.family, w, x, w_dot, x_dot)


class _TracedGram(Function):  # type: ignore[misc]
    generate_vmap_rule = True

    @staticmethod
    def forward(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
        if traced():
            return ops.gram(ops.encode(family), x, y)
        return kernels.gram(family, x, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.family, *tensors = inputs
        _save(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, g_bar: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        return None, *rules.gram_vjp(ctx.family, x, y, g_bar, ctx.needs_input_grad[1:])


class _Gram(_TracedGram):
    @staticmethod
    def jvp(ctx: Any, family: None, x_dot: Tensor | None, y_dot: Tensor | None) -> Tensor | None:
        x, y = ctx.saved_tensors
        return rules.gram_jvp(ctx.family, x, y, x_dot, y_dot)


class _TracedSolve(Function):  # type: ignore[misc]
    generate_vmap_rule = True

    @staticmethod
    def forward(family: LinearFamily, factor: Factor | None, w: Tensor, y: Tensor) -> Tensor:
        if traced():
            return ops.solve(ops.encode(family), w, y)
        return kernels.solve(family, factor, w, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.family, ctx.factor, w, _ = inputs
        _save(ctx, w, output)

    @staticmethod
    def backward(ctx: Any, x_bar: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        w, x = ctx.saved_tensors
        family, factor = ctx.family.transpose(), ctx.factor
        factor = None if factor is None else factor.transpose()

        def solve_transposed(rhs: Tensor) -> Tensor:
            return solve(family, factor, ctx.family.adjoint(w), rhs)

        wanted = ctx.needs_input_grad[2:]
        return None, None, *rules.solve_vjp(ctx.family, solve_transposed, x, x_bar, wanted)


class _Solve(_TracedSolve):
    @staticmethod
    def jvp(
        ctx: Any, family: None, factor: None, w_dot: Tensor | None, y_dot: Tensor | None
    ) -> Tensor | None:
        w, x = ctx.saved_tensors

        def again(rhs: Tensor) -> Tensor:
            return solve(ctx.family, ctx.factor, w, rhs)

        return rules.solve_jvp(ctx.family, again, x, w_dot, y_dot)


class _TracedMatmul(Function):  # type: ignore[misc]
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return ops.matmul(a, b) if traced() else kernels.matmul(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _save(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor) -> Pair:
        a, b = ctx.saved_tensors
        return rules.matmul_vjp(a, b, y_bar, ctx.needs_input_grad)


class _Matmul(_TracedMatmul):
    @staticmethod
    def jvp(ctx: Any, a_dot: Tensor | None, b_dot: Tensor | None) -> Tensor | None:
        a, b = ctx.saved_tensors
        return rules.matmul_jvp(a, b, a_dot, b_dot)
