"""Condition numbers of operators, from their values in host memory, in NumPy float64.

`invconv.trust` computes the numbers of maps; this module copies an operator to the host, and
explains an infinite number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Shape, to_numpy
from invconv.operators.base.protocol import Protocol
from invconv.trust.condition import FAILURES, OVERFLOW, Condition, one_norm
from invconv.trust.norms import SolveOverflowError, norms

Result = TypeVar("Result")


def number(conv: Protocol, shape: Shape, norm: float | None = None) -> Condition:
    """Return the condition of any operator, from its values in host memory.

    Parameters
    ----------
    conv : operator
    shape : tuple of int
        The grid.
    norm : {1, inf}, optional
        The norm of the operator's class unless given.
    """

    def compute(host: Protocol) -> Condition:
        if norm is None and host._pixelwise:
            host._linear_maps(shape)  # raises if the operator is exactly singular
        if norm is None:
            condition = host._condition(shape)
        else:
            condition = replace(one_norm(*_maps(host, shape, norm)), norm=f"{norm:g}-norm")
        if not math.isfinite(condition.value):
            raise SolveOverflowError
        return condition

    try:
        return _on_host(compute, conv)
    except SingularConvError as error:
        trouble = str(error)
    except (SolveOverflowError, np.linalg.LinAlgError):
        broken = [n for n, a in conv.parameters().items() if not np.isfinite(to_numpy(a)).all()]
        trouble = f"{', '.join(broken)} holds NaN or inf" if broken else OVERFLOW
    return Condition(math.inf, "any norm", trouble=trouble)


def norm_values(conv: Protocol, shape: Shape, norm: float = 1) -> tuple[float, float]:
    """Return or estimate |K| and |K^-1|; (inf, inf) if K is singular or a norm overflows."""
    try:
        gain, back = _on_host(lambda host: norms(*_maps(host, shape, norm)), conv)
    except FAILURES:
        return math.inf, math.inf
    return gain.value, back.value


def _on_host(compute: Callable[[Protocol], Result], conv: Protocol) -> Result:
    with np.errstate(all="ignore"):
        return compute(conv.asarrays(np.empty(0)))


def in_one_norm(conv: Protocol, shape: Shape) -> Condition:
    """Return the condition in the 1-norm of an operator of NumPy float64 arrays."""
    return one_norm(*_maps(conv, shape, 1))


def _maps(conv: Protocol, shape: Shape, norm: float) -> Any:
    """Return the arguments of `invconv.trust.norms.norms`: for K, or for K^T if norm is inf."""
    if conv._pixelwise:
        shape = tuple(1 for _ in shape)
    maps = conv._linear_maps, conv._transposed_maps
    here, there = maps if norm == 1 else maps[::-1]
    first = conv._longest_columns(shape, transposed=norm != 1)
    products = conv._products(shape)
    return here(shape), lambda: there(shape), (conv.channels, *shape), first, products


def remembered(conv: Protocol, shape: Shape, norm: float | None = None) -> float:
    """Return the condition number, which is computed at the first call and remembered."""
    if norm is None:
        value = conv._conditions.find("exact", shape, lambda: number(conv, shape).value)
    else:
        value = conv._conditions.find(str(norm), shape, lambda: number(conv, shape, norm).value)
    return float(value)
