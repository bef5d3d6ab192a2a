"""Condition numbers of operators, from their values in host memory, in NumPy float64.

`invconv.trust` computes the numbers of maps; this module copies an operator to the host, runs its
path there, and explains an infinite number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Array, Shape, to_numpy
from invconv.families import path as paths
from invconv.families.path import Path
from invconv.families.pointwise import Matrix
from invconv.kernels.solver import Map
from invconv.operators.base.factored import Factored
from invconv.operators.base.factors import require_regular
from invconv.trust.condition import FAILURES, OVERFLOW, Condition, of_inverse, one_norm
from invconv.trust.norms import SolveOverflowError, norms

Result = TypeVar("Result")


def number(conv: Factored, shape: Shape, norm: float | None = None) -> Condition:
    """Return the condition of any operator, from its values in host memory.

    Parameters
    ----------
    conv : operator
    shape : tuple of int
        The grid.
    norm : {1, inf}, optional
        The 2-norm if the operator's families know it, else the 1-norm, unless given.
    """

    def compute(host: Factored) -> Condition:
        path = _regular(host, shape)
        if norm is None:
            condition = _condition(path, host.channels, shape)
        else:
            maps = _maps(path, host.channels, shape, norm)
            condition = replace(one_norm(*maps), norm=f"{norm:g}-norm")
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


def _regular(host: Factored, shape: Shape) -> Path:
    """Return the path without biases, or raise if a factor is exactly singular."""
    path = host._path()
    require_regular(host, shape)
    require_regular(host, shape, back=True)
    return paths.linear(path)


def _condition(path: Path, channels: int, shape: Shape) -> Condition:
    if len(path) == 1 and (known := path[0].family.condition(path[0].w, shape)) is not None:
        return known
    if not all(factor.family.pixelwise for factor in path):
        return one_norm(*_maps(path, channels, shape, 1))
    unit = np.eye(channels)[None]  # (1, C, N) with N = C pixels: one unit vector a pixel
    apply, solve = linear_maps(path, unit.shape[2:])
    given = not isinstance(path[0].family, Matrix) or len(path) > 1
    return of_inverse(apply(unit)[0], solve(unit)[0], given)


def norm_values(conv: Factored, shape: Shape, norm: float = 1) -> tuple[float, float]:
    """Return or estimate |K| and |K^-1|; (inf, inf) if K is singular or a norm overflows."""
    try:
        return _on_host(lambda h: _norms(_regular(h, shape), h.channels, shape, norm), conv)
    except FAILURES:
        return math.inf, math.inf


def norms_of_path(path: Path, channels: int, shape: Shape, norm: float) -> tuple[float, float]:
    """Return `norm_values` of factors of NumPy's float64 arrays."""
    try:
        with np.errstate(all="ignore"):
            return _norms(path, channels, shape, norm)
    except FAILURES:
        return math.inf, math.inf


def _norms(path: Path, channels: int, shape: Shape, norm: float) -> tuple[float, float]:
    gain, back = norms(*_maps(path, channels, shape, norm))
    return gain.value, back.value


def _on_host(compute: Callable[[Any], Result], conv: Factored) -> Result:
    with np.errstate(all="ignore"):
        return compute(conv.asarrays(np.empty(0)))


def _maps(path: Path, channels: int, shape: Shape, norm: float) -> Any:
    """Return the arguments of `invconv.trust.norms.norms`: for K, or for K^T if norm is inf."""
    if all(factor.family.pixelwise for factor in path):
        shape = tuple(1 for _ in shape)
    turned = paths.transposed(path)
    here, there = (path, turned) if norm == 1 else (turned, path)
    products = sum(factor.family.products(factor.w, shape) for factor in path)
    first = longest_columns(here, shape)
    later = partial(linear_maps, there, shape)
    return linear_maps(here, shape), later, (channels, *shape), first, products


def longest_columns(path: Path, shape: Shape) -> tuple[int | None, ...]:
    """Return a pixel index per axis: every column of K is a shift of the column at that pixel."""
    if len(path) == 1:
        return path[0].family.longest_columns(shape)
    return tuple(0 if all(f.family.pixelwise for f in path) else None for _ in shape)


def linear_maps(path: Path, shape: Shape) -> tuple[Map, Map]:
    """Return x -> K x and y -> K^-1 y of factors without biases, each prepared for a grid."""
    pairs = []
    for family, w, inverted in path:
        pair = family.made_ready(w, shape), family.factor(w, shape)
        pairs.append(pair[::-1] if inverted else pair)

    def apply(x: Array) -> Array:
        for run, _ in pairs:
            x = run(x)
        return x

    def solve(y: Array) -> Array:
        for _, run in reversed(pairs):
            y = run(y)
        return y

    return apply, solve


def remembered(conv: Factored, shape: Shape, norm: float | None = None) -> float:
    """Return the condition number, which is computed at the first call and remembered."""
    if norm is None:
        value = conv._conditions.find("exact", shape, lambda: number(conv, shape).value)
    else:
        value = conv._conditions.find(str(norm), shape, lambda: number(conv, shape, norm).value)
    return float(value)
