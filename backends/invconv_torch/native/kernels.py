"""The operations on a family of matrices at full precision, and their derivatives (`kernels.maps`).

An operation is opaque to autograd, torch.func and compile: an autograd Function takes its *rule*,
the operation and its two derivatives. torch.compile cannot trace a Function with a ``jvp``, so
there are two classes. A call of either costs as much as a small solve, so it is left out if nothing
observes the operation. In traced code an operation is one node, a custom operator (`ops`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from invconv.kernels import maps, primitives
from invconv.kernels.families import LinearFamily
from invconv_torch.native.batched import one_by_one
from invconv_torch.native.correlation import (
    compiled_vjp,
    convolve,
    convolve_vjp,
    correlate_compiled,
    prefers_kernel,
)
from invconv_torch.native.host import laid_out, owned
from invconv_torch.native.ops import Cotangents, Rule, Settings, as_node
from invconv_torch.native.solvers import CausalFactor, Factor, SpectralFactor
from invconv_torch.precision import full_precision, nothing_reduces
from invconv_torch.traced import (
    Watch,
    as_nodes,
    refuse_compiled_transforms,
    refuse_nested_forward_mode,
    watch,
)


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x; correlations run by the compiled kernel, or by PyTorch's convolution."""
    if family.lowers != "taps":
        with full_precision(x):
            return laid_out(torch.as_tensor(family.apply(w, x)), x)
    taps: Any = family
    if taps.by_frequencies(x):
        with full_precision(x):
            return laid_out(torch.as_tensor(family.apply(w, x)).contiguous(), x)
    whole, w = taps.whole, taps.unfolded(w)
    if _continues(whole, x):
        y = apply(whole.inside, w, whole.continued(x))
        return laid_out(whole.cropped(y).contiguous(), x)
    if prefers_kernel(x):
        return correlate_compiled(whole, w, x)
    return convolve(whole.offsets, whole.wrap, whole.taps(w), x)


def _continues(whole: Any, x: Tensor) -> bool:
    """Tell whether images are copied with their margins: correlations do not know the border."""
    return not (isinstance(whole.wrap, bool) or (whole.wrap == "symmetric" and prefers_kernel(x)))


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    taps: Any = family
    if family.lowers != "taps" or taps.by_frequencies(x):
        with full_precision(x):
            return torch.as_tensor(family.gram(x, y)).contiguous()
    whole = taps.whole
    if _continues(whole, x):
        bar = gram(whole.inside, whole.continued(x), whole.in_zeros(y))
    elif prefers_kernel(x):
        bar = compiled_vjp(whole, x, y)
    else:
        bar = whole.kernel(convolve_vjp(whole.offsets, whole.wrap, x, y))
    return torch.as_tensor(taps.folded(bar))


def factor(family: Any, w: Tensor, shape: tuple[int, ...], quiet: bool) -> Factor | None:
    """Factor A(w) for a grid; ``quiet``, without errors, if it was not tested for singularity."""
    with full_precision(w):
        if family.solved == "causal":
            return CausalFactor.of(family, w, shape)
        if family.solved == "spectral":
            return SpectralFactor.of(family.basis, w, shape, quiet)
        return None


def solve(settings: Settings, w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y for a family, with the factors of A(w) if they are given."""
    family, factors = settings
    if y.numel() == 0:
        return torch.empty_like(y)
    if isinstance(factors, CausalFactor):  # it sets the precision itself
        return laid_out(factors.solve(y), y)
    with full_precision(y):
        if family.solved == "triangle":
            return torch.linalg.solve_triangular(w, y, upper=not family.lower)
        if factors is None:
            factors = factor(family, w, tuple(y.shape[2:]), quiet=True)
        assert factors is not None
        return laid_out(factors.solve(y), y)


def matmul(_: None, a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    if b.ndim > 2 and b.stride(0) == 1:  # PyTorch multiplies the batch one by one, from all over
        b = b.contiguous()
    if a.device.type == "cpu" and nothing_reduces("cpu"):
        return torch.matmul(a, b)
    with full_precision(a):
        return torch.matmul(a, b)


@dataclass(frozen=True)
class Operation:
    """A rule with its settings: one leaf for torch.func; a tuple would be two."""

    rule: Rule
    settings: Settings

    def __iter__(self) -> Iterator[Any]:
        return iter((self.rule, self.settings))


_MOST = 5  # tensors of a traced operation at most: the compiler needs a fixed number of arguments


class _Eager(Function):  # type: ignore[misc]
    generate_vmap_rule = True

    @staticmethod
    def forward(operation: Any, *tensors: Tensor) -> Tensor:
        rule, settings = operation
        return owned(_run(rule, settings, *tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        (ctx.rule, ctx.settings), *kept = inputs
        if ctx.rule.keeps_result:
            kept[-1] = output
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
        wanted = ctx.needs_input_grad[1:]
        return None, *ctx.rule.vjp(ctx.settings, ctx.saved_tensors, bar, wanted)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor | None:
        return ctx.rule.jvp(ctx.settings, ctx.saved_tensors, *tangents)


class _Traced(Function):  # type: ignore[misc]
    """The Function for torch.compile: without ``jvp``, and with `_MOST` tensors, some None."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operation: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Tensor:
        rule, settings = operation
        tensors = [t for t in (a, b, c, d, e) if t is not None]
        return _run(rule, settings, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.rule, ctx.settings = inputs[0]
        kept = [t for t in inputs[1:] if t is not None]
        if ctx.rule.keeps_result:
            kept[-1] = output
        ctx.save_for_backward(*kept)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1 : 1 + len(saved)]
        bars = ctx.rule.vjp(ctx.settings, saved, bar, wanted)
        return None, *bars, *[None] * (_MOST - len(saved))


def _run(rule: Rule, settings: Settings, *tensors: Tensor) -> Tensor:
    return as_node(rule, settings, *tensors) if as_nodes() else rule.run(settings, *tensors)


def run(rule: Rule, settings: Settings, *tensors: Tensor) -> Tensor:
    """Run an operation, and record it for derivatives if it is observed."""
    watched = watch(*tensors)
    if watched is Watch.NOBODY:
        return rule.run(settings, *tensors)
    result: Tensor
    if watched is Watch.COMPILER:
        refuse_compiled_transforms()
        # views: only for these the compiler knows which ones `torch.func.grad` differentiates by
        views = [tensor.view_as(tensor) for tensor in tensors]
        result = _Traced.apply((rule, settings), *views, *[None] * (_MOST - len(views)))
    else:
        if watched is Watch.TRANSFORMS:
            refuse_nested_forward_mode()
        result = _Eager.apply(Operation(rule, settings), *tensors)
    return result


def _solve_vjp(settings: Settings, saved: Any, x_bar: Tensor, wanted: Any) -> Cotangents:
    (family, factor), (w, x) = settings, saved
    transposed = None if factor is None else factor.transpose()

    def solve_transposed(rhs: Tensor) -> Tensor:
        return run(SOLVE, (family.transpose(), transposed), family.adjoint(w), rhs)

    return maps.solve_vjp(family, solve_transposed, x, x_bar, wanted)


def _solve_jvp(settings: Settings, saved: Any, w_dot: Any, y_dot: Any) -> Tensor | None:
    (family, factor), (w, x) = settings, saved

    def again(rhs: Tensor) -> Tensor:
        return run(SOLVE, (family, factor), w, rhs)

    return maps.solve_jvp(family, again, x, w_dot, y_dot)


APPLY = Rule(
    "apply",
    apply,
    lambda family, w, x: x.shape,
    False,
    lambda family, saved, bar, wanted: maps.apply_vjp(family, saved[0], saved[1], bar, wanted),
    lambda family, saved, w, x: maps.bilinear_jvp(
        partial(maps.apply, family), saved[0], saved[1], w, x
    ),
)
GRAM = Rule(
    "gram",
    gram,
    lambda family, x, y: family.shape_of(x),
    False,
    lambda family, saved, bar, wanted: maps.gram_vjp(family, saved[0], saved[1], bar, wanted),
    lambda family, saved, x, y: maps.bilinear_jvp(
        partial(maps.gram, family), saved[0], saved[1], x, y
    ),
)
SOLVE = Rule("solve", solve, lambda family, w, y: y.shape, True, _solve_vjp, _solve_jvp)
MATMUL = Rule(
    "matmul",
    matmul,
    lambda _, a, b: torch.matmul(a, b).shape,
    False,
    lambda _, saved, bar, wanted: maps.matmul_vjp(saved[0], saved[1], bar, wanted),
    lambda _, saved, a, b: maps.bilinear_jvp(primitives.matmul, saved[0], saved[1], a, b),
)
