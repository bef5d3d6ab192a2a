"""The primitive `filtered` on the CPU: sections of recursive filters in one pass of compiled code.

Derivatives are `invconv.operators.recursion`'s. Recorded, each section is an operation of its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invconv.kernels.cpu import recursive
from invconv.kernels.cpu.machine import reason
from invconv.operators import recursion
from invconv_torch.native.host import bare, exporting_to_onnx
from invconv_torch.native.nodes import Cotangents, Rule, one_by_one, run


def filtered(b: Tensor, a: Tensor, x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """See `invconv.operators.recursion.filtered`."""
    given, shape = (b, a, x) if z is None else (b, a, x, z), _shape(b, a, z)
    if x.device.type == "cpu" and shape.compiles and not exporting_to_onnx():
        if not bare(*given, unrecorded=True):
            return recursion.in_sections(_section, b, a, x, z)
        if reason(x.element_size()) is None:
            y = torch.empty_like(x, memory_format=torch.contiguous_format)
            last = None if z is None else z.new_zeros(z.shape)
            _into(shape, given, y, last, x.shape[-1])
            return y, last
    return recursion.filtered.agnostic(b, a, x, z)


def _shape(b: Tensor, a: Tensor, z: Tensor | None) -> recursive.Filter:
    order = 0 if z is None else z.shape[-1]
    return recursive.Filter(b.shape[0], b.shape[-1] - 1, a.shape[-1], order, b.shape[-2] > 1)


def _into(
    shape: recursive.Filter, given: Sequence[Tensor], y: Tensor, last: Tensor | None, step: int
) -> None:
    """Filter into y and the last states; the rows of y are ``step`` numbers apart."""
    given = [t.resolve_neg().contiguous() for t in given]
    places = [t.data_ptr() for t in given]
    places += [0] * (4 - len(given)) + [y.data_ptr(), 0 if last is None else last.data_ptr()]
    x, length, order = given[2], given[2].shape[-1], shape.order
    last_step = order if step == length else step
    steps = x.numel() // length, given[0].shape[-3], length, length, order, step, last_step
    keeps = *given, y, last
    recursive.run(shape, x.element_size(), places, steps, torch.get_num_threads(), *keeps)


def _section(*tensors: Tensor) -> Tensor:
    return run(RULE, None, *tensors)


def _filter(_: None, b: Tensor, a: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Return y with the last state behind it in every row."""
    if reason(x.element_size()) is not None:
        return recursion.by_solves(b, a, x, z)
    length, shape = x.shape[-1], _shape(b[None], a[None], z)
    v = x.new_empty((*x.shape[:2], length + shape.order))
    if shape.varying:
        v[..., length:] = 0
    _into(shape, (b, a, x, z), v, v[..., length:], v.shape[-1])
    return v


def _vjp(_: None, saved: Any, bar: Tensor, wanted: Any) -> Cotangents:
    b, a, x, v = saved

    def pull_back(_: None, bar: Tensor) -> Cotangents:
        order = v.shape[-1] - x.shape[-1]
        return recursion.cotangents(_section, b, a, x, v, bar, wanted, order)

    return (pull_back if torch.compiler.is_compiling() else one_by_one(pull_back))(None, bar)


def _jvp(_: None, saved: Any, *dots: Tensor | None) -> Tensor:
    b, a, x, v = saved
    return recursion.tangent(_section, b, a, x, v, dots)


RULE = Rule(
    "filter",
    _filter,
    lambda _, b, a, x, z: (*x.shape[:2], x.shape[2] + z.shape[2]),
    _vjp,
    _jvp,
    keeps_result=True,
)
