"""An operator's call as one node of autograd, with the core's derivative.

Recorded step by step, a call would be a dozen nodes or more, and each takes as long as a small
convolution. `torch.func`, forward mode and torch.compile see the single steps instead
(`invconv_torch.native.kernels`).
"""

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

from invconv.families.path import Memo, State
from invconv.operators.base import operator as core
from invconv.operators.base.calls import for_each
from invconv_torch.native.batched import one_by_one
from invconv_torch.native.host import in_host_memory, laid_out, owned
from invconv_torch.private import (
    apply_of,
    forward_level,
    is_functorch_wrapped_tensor,
    saved_tensors_hooks,
)
from invconv_torch.traced import traced

Pair: TypeAlias = tuple[Tensor, Tensor]


def evaluate(x: Tensor, conv: Any) -> Pair:
    """See `invconv.operators.base.operator.evaluate`."""
    tensors: list[Tensor] = []
    conv._trained(tensors)
    if records(x, tensors):
        recorded: Pair = _forward(conv, x, *tensors)
        return recorded
    result: Pair = core.evaluate.agnostic(x, conv)
    return result


def invert(y: Tensor, conv: Any, state: State | None) -> Pair:
    """Return x = K^-1 (y - b) and log|det K^-1| for y (B, C, *spatial).

    The state is the factored operator, from detached tensors; if None, the operator is factored.
    """
    tensors: list[Tensor] = []
    conv._trained(tensors)
    shape = tuple(y.shape[2:])
    if records(y, tensors):
        return _inverse((conv, state), y, *tensors), -conv._log_det(shape)
    state = state or conv._factor(shape)
    return laid_out(state.solve(y), y), -state.log_det


def records(x: Tensor, tensors: list[Tensor]) -> bool:
    """Tell whether autograd, and nothing else, records operations on these tensors."""
    if not torch.is_grad_enabled() or traced() or forward_level() >= 0:
        return False
    required = x.requires_grad
    if is_functorch_wrapped_tensor(x):
        return False
    for tensor in tensors:
        required = required or tensor.requires_grad
        if is_functorch_wrapped_tensor(tensor):
            return False
    return bool(required)


class _Forward(Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, conv: Any, x: Tensor, *tensors: Tensor) -> Pair:
        y, log_det, (route, kept, memos) = conv._route(x).saving(x)
        y = owned(y)
        points = [x, *(end if start is None else start for (_, end), (start, _) in pairwise(kept))]
        points.append(y if kept[-1][1] is not None else None)
        ctx.conv, ctx.count = conv, len(points)
        # images and spectra; what is as small as the parameters is made anew if a hook wants those
        ctx.route = None if saved_tensors_hooks(False) else route
        held = [memo if isinstance(memo, Tensor) else None for memo in memos]
        # autograd raises in backward if a saved tensor was edited meanwhile
        ctx.save_for_backward(*points, *held, *tensors)
        ctx.set_materialize_grads(False)
        if in_host_memory(log_det):  # `for_each` in one operation
            return y, log_det.new_full(x.shape[:1], log_det.item())
        return y, for_each(x.shape[:1], log_det)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, y_bar: Tensor | None, log_det_bar: Tensor | None) -> tuple[Any, ...]:
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad
        count = len(saved) - len(needed) + 2
        points, memos = saved[: ctx.count], saved[ctx.count : count]
        x, conv = points[0], _with(ctx.conv, saved[count:])
        if torch.is_grad_enabled():  # for a second derivative: everything runs again, recorded
            memo = conv._route(x).saving(x)[2]
        else:
            route = ctx.route if conv is ctx.conv and ctx.route else conv._route(x)
            memo = Memo(route, list(pairwise(points)), memos)
        y_bar = None if y_bar is None else like(y_bar, x)
        log_det_bar = None if log_det_bar is None else log_det_bar.sum()
        wanted = any(needed[2:]), needed[1]
        gradients, x_bar = conv._pull_back(memo, y_bar, log_det_bar, wanted)
        return None, x_bar if needed[1] else None, *map(gradients.get, conv._parameter_names)


class _Inverse(Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, operator: Any, y: Tensor, *tensors: Tensor) -> Tensor:
        conv, state = operator
        ctx.conv = conv
        x = owned(laid_out((state or conv._factor(tuple(y.shape[2:]))).solve(y), y))
        ctx.save_for_backward(y if conv._needs_y else None, x, *tensors)
        return x

    @staticmethod
    @one_by_one
    def backward(ctx: Any, x_bar: Tensor) -> tuple[Any, ...]:
        y, x, *tensors = ctx.saved_tensors
        conv = _with(ctx.conv, tensors)
        gradients, y_bar = conv._inverse_vjp(y, x, like(x_bar, x))
        return None, y_bar, *map(gradients.get, conv._parameter_names)


_forward, _inverse = apply_of(_Forward), apply_of(_Inverse)


def _with(conv: Any, tensors: Sequence[Tensor]) -> Any:
    """Return an operator with its saved tensors: the operator itself, if no hook changed one."""
    own: list[Tensor] = []
    conv._trained(own)
    return conv if all(map(operator.is_, own, tensors)) else conv._retrained(iter(tensors))


def like(bar: Tensor, x: Tensor) -> Tensor:
    """Return a cotangent in the layout of x: a sum's cotangent is an expanded number."""
    return bar.contiguous() if x.is_contiguous() else bar
