"""The operations on a family of matrices at full precision, and their derivatives (`kernels.maps`).

An operation is opaque to autograd, torch.func and compile: an autograd Function takes its *rule*,
the operation and its two derivatives. A call of it costs as much as a small solve, so it is left
out if nothing observes the operation. In traced code, and on tensors that are not their memory, an
operation is one node, a custom operator (`ops`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from invconv.families.family import Family
from invconv.kernels import maps, primitives
from invconv_torch.native.correlation import (
    compiled_vjp,
    convolve,
    convolve_vjp,
    correlate_compiled,
    prefers_kernel,
)
from invconv_torch.native.host import laid_out, owned
from invconv_torch.native.ops import MOST, Cotangents, Rule, Settings, as_node, kept, pulled_back
from invconv_torch.native.solvers import CausalFactor, Factor, SpectralFactor
from invconv_torch.precision import full_precision, nothing_reduces
from invconv_torch.private import peek_interpreter_stack
from invconv_torch.traced import (
    bare,
    differentiated,
    exporting_to_onnx,
    refuse_compiled_transforms,
    refuse_nested_forward_mode,
)


def apply(family: Family, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x; correlations run by the compiled kernel, or by PyTorch's convolution."""
    if family.lowers != "taps":
        with full_precision(x):
            return laid_out(torch.as_tensor(family.apply(w, x)), x)
    taps: Any = family
    if taps.wide and taps.by_frequencies(x):
        with full_precision(x):
            return laid_out(torch.as_tensor(family.apply(w, x)).contiguous(), x)
    whole = taps
    if taps.halved:
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


def gram(family: Family, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    taps: Any = family
    if family.lowers != "taps" or (taps.wide and taps.by_frequencies(x)):
        with full_precision(x):
            return torch.as_tensor(family.gram(x, y)).contiguous()
    whole = taps.whole if taps.halved else taps
    if _continues(whole, x):
        bar = gram(whole.inside, whole.continued(x), whole.in_zeros(y))
    elif prefers_kernel(x):
        bar = compiled_vjp(whole, x, y)
    else:
        bar = whole.kernel(convolve_vjp(whole.offsets, whole.wrap, x, y))
    return torch.as_tensor(taps.folded(bar)) if taps.halved else bar


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


class _Step(Function):  # type: ignore[misc]
    """A recorded operation on five tensors at most, for torch.compile: others are None."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operation: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Tensor:
        rule, settings = operation
        return _leaf(rule, settings, *[t for t in (a, b, c, d, e) if t is not None])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.rule, ctx.settings = inputs[0]
        ctx.save_for_backward(*kept(ctx.rule, inputs[1:], output))

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
        return None, *pulled_back(ctx, bar, ctx.needs_input_grad[1:])


class _Eager(_Step):
    """The same with forward mode, which torch.compile cannot trace."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _Step.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*kept(ctx.rule, inputs[1:], output))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor | None:
        saved = ctx.saved_tensors
        return ctx.rule.jvp(ctx.settings, saved, *tangents[: len(saved)])


def _leaf(rule: Rule, settings: Settings, *tensors: Tensor) -> Tensor:
    """Run an operation: on memory, or through PyTorch's dispatcher where tensors are stand-ins."""
    if bare(*tensors):
        return owned(rule.run(settings, *tensors))
    run = rule.run if exporting_to_onnx() else partial(as_node, rule)
    return run(settings, *tensors)


def run(rule: Rule, settings: Settings, *tensors: Tensor) -> Tensor:
    """Run an operation, and record it for derivatives if it is observed."""
    node: Any = _Eager
    if torch.compiler.is_compiling():
        refuse_compiled_transforms()
        # views: only for these the compiler knows which ones `torch.func.grad` differentiates by
        node, tensors = _Step, tuple(tensor.view_as(tensor) for tensor in tensors)
    elif peek_interpreter_stack() is None and not differentiated(*tensors):
        return _leaf(rule, settings, *tensors)
    else:
        refuse_nested_forward_mode()
    blank = [None] * (MOST - len(tensors))
    result: Tensor = node.apply(Operation(rule, settings), *tensors, *blank)
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
