"""The primitive `filtered` on the CPU: sections of recursive filters in one pass of compiled code.

Derivatives are `invconv.operators.recursion`'s. Recorded, each section is an operation of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invconv.kernels.cpu import recursive
from invconv.kernels.cpu.machine import reason
from invconv.operators import recursion
from invconv_torch.native.batched import one_by_one
from invconv_torch.native.kernels import run
from invconv_torch.native.ops import Cotangents, Rule
from invconv_torch.traced import bare, differentiated, exporting_to_onnx


def filtered(b: Tensor, a: Tensor, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """See `invconv.operators.recursion.filtered`."""
    shape = _shape(b, a, z)
    if x.device.type == "cpu" and shape.compiles and not exporting_to_onnx():
        if not bare(b, a, x, z) or differentiated(b, a, x, z):
            return recursion.in_sections(_section, b, a, x, z)
        if reason(x.element_size()) is None:
            y, last = (
                torch.empty_like(x, memory_format=torch.contiguous_format),
                torch.zeros_like(z),
            )
            _into(shape, (b, a, x, z), y, last, (x.shape[2], z.shape[3]))
            return y, last
    pair: tuple[Tensor, Tensor] = recursion.filtered.agnostic(b, a, x, z)
    return pair


def _shape(b: Tensor, a: Tensor, z: Tensor) -> recursive.Shape:
    return recursive.Shape(len(b), b.shape[3] - 1, a.shape[3], z.shape[3], b.shape[2] > 1)


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
    v = _run(b, a, x, z)
    return v[..., : x.shape[-1]], v[..., x.shape[-1] :]


def _filter(_: None, b: Tensor, a: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Return y with the last state behind it in every row."""
    if reason(x.element_size()) is not None:
        y, last = recursion.filtered.agnostic(b[None], a[None], x, z[None])
        return torch.cat([y, last[0]], -1)
    length, order = x.shape[-1], z.shape[-1]
    v = x.new_empty((*x.shape[:2], length + order))
    parts = b[None], a[None], x, z[None]
    shape = _shape(*parts[:2], parts[3])
    if shape.varying:
        v[..., length:] = 0
    _into(shape, parts, v, v[..., length:], (length + order,) * 2)
    return v


def _run(*tensors: Tensor) -> Tensor:
    return run(FILTER, None, *tensors)


def _pull_back(kept: Any, bar: Tensor) -> Cotangents:
    (b, a, x, v), wanted = kept
    return recursion.cotangents(_run, b, a, x, v, bar, wanted, v.shape[-1] - x.shape[-1])


def _vjp(_: None, saved: Any, bar: Tensor, wanted: Any) -> Cotangents:
    pull_back = _pull_back if torch.compiler.is_compiling() else one_by_one(_pull_back)
    return pull_back((saved, wanted), bar)


def _jvp(_: None, saved: Any, *dots: Tensor | None) -> Tensor:
    b, a, x, v = saved
    tangent: Tensor = recursion.tangent(_run, b, a, x, v, dots)
    return tangent


FILTER = Rule(
    "filter",
    _filter,
    lambda _, b, a, x, z: (*x.shape[:2], x.shape[2] + z.shape[2]),
    True,
    _vjp,
    _jvp,
)
