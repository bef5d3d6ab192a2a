"""The primitive `filtered` on the CPU: sections of recursive filters in one pass of compiled code.

Derivatives are `invconv.operators.recursion`'s. Recorded, each section is an operation of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from invconv.kernels.cpu import recursive
from invconv.kernels.cpu.machine import reason
from invconv.operators import recursion
from invconv_torch.native.host import bare, differentiated, exporting_to_onnx
from invconv_torch.native.nodes import Cotangents, Rule, one_by_one, run


def filtered(b: Tensor, a: Tensor, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """See `invconv.operators.recursion.filtered`."""
    shape = _shape(b, a, z)
    if x.device.type == "cpu" and shape.compiles and not exporting_to_onnx():
        if not bare(b, a, x, z) or differentiated(b, a, x, z):
            return recursion.in_sections(_section, b, a, x, z)
        if reason(x.element_size()) is None:
            y, last = x.new_empty(x.shape), z.new_zeros(z.shape)
            _into(shape, (b, a, x, z), y, last, (x.shape[2], z.shape[3]))
            return y, last
    pair: tuple[Tensor, Tensor] = recursion.filtered.agnostic(b, a, x, z)
    return pair


def _shape(b: Tensor, a: Tensor, z: Tensor, backwards: bool = False) -> recursive.Shape:
    varying = b.shape[2] > 1
    return recursive.Shape(len(b), b.shape[3] - 1, a.shape[3], z.shape[3], varying, backwards)


def _into(
    shape: recursive.Shape,
    arrays: tuple[Tensor, ...],
    y: Tensor,
    last: Tensor,
    steps: tuple[int, int],
) -> None:
    """Filter into y and the last states, whose rows are so many numbers apart."""
    b, a, x, z = (t.resolve_neg().contiguous() for t in arrays)
    filters, signals, length = x.shape
    rows = filters * signals, filters, length, length, shape.order, *steps
    places = [t.data_ptr() for t in (b, a, x, z, y, last)]
    recursive.run(shape, x.element_size(), places, rows, torch.get_num_threads())


def _section(b: Tensor, a: Tensor, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    v, length = _packed(False, b, a, x, z), x.shape[-1]
    return (v[..., :length], v[..., length:]) if z.shape[-1] else (v, z)


def _packed(backwards: bool, *tensors: Tensor) -> Tensor:
    return run(RULES[backwards], None, *tensors)


def _filter(backwards: bool, _: None, b: Tensor, a: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Return y with the last state behind it in every row."""
    parts = b[None], a[None], x, z[None]
    shape = _shape(*parts[:2], parts[3], backwards)
    if reason(x.element_size()) is not None:
        by_solves: Tensor = recursion.packed(backwards, b, a, x, z)
        return by_solves
    length, order = x.shape[-1], z.shape[-1]
    v = x.new_empty((*x.shape[:2], length + order))
    if shape.varying:
        v[..., length:] = 0
    _into(shape, parts, v, v[..., length:], (length + order,) * 2)
    return v


def _pull_back(backwards: bool, saved: Any, wanted: Any, bar: Tensor) -> Cotangents:
    b, a, x, v = saved
    order = v.shape[-1] - x.shape[-1]
    return recursion.cotangents(_packed, backwards, b, a, x, v, bar, wanted, order)


def _vjp(backwards: bool, _: None, saved: Any, bar: Tensor, wanted: Any) -> Cotangents:
    if torch.compiler.is_compiling():
        return _pull_back(backwards, saved, wanted, bar)
    pull_back = one_by_one(lambda _, bar: _pull_back(backwards, saved, wanted, bar))
    return pull_back(None, bar)


def _jvp(backwards: bool, _: None, saved: Any, *dots: Tensor | None) -> Tensor:
    b, a, x, v = saved
    tangent: Tensor = recursion.tangent(_packed, backwards, b, a, x, v, dots)
    return tangent


RULES = [
    Rule(
        name,
        partial(_filter, backwards),
        lambda _, b, a, x, z: (*x.shape[:2], x.shape[2] + z.shape[2]),
        True,
        partial(_vjp, backwards),
        partial(_jvp, backwards),
    )
    for name, backwards in (("filter", False), ("filter_backwards", True))
]
