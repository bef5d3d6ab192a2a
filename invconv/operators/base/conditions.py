"""Condition numbers of operators, from their values in host memory, in NumPy float64.

`invconv.trust` computes the numbers of maps; this module copies an operator to the host, runs its
path there, and explains an infinite number.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Array, Shape, to_numpy
from invconv.families import path as paths
from invconv.families.path import Path
from invconv.families.pointwise import Matrix
from invconv.kernels.solver import Map
from invconv.operators.base.factored import Factored
from invconv.operators.base.factors import require_regular
from invconv.trust.condition import FAILURES, OVERFLOW, Condition, of_inverse, of_norms
from invconv.trust.norms import SolveOverflowError, norms


def number(conv: Factored, shape: Shape, norm: float | None = None) -> Condition:
    """Return the condition of any operator, from its values in host memory.

    Unless a norm is given, 1 or inf, it is the 2-norm if the families know it, else the 1-norm.
    """
    try:
        with np.errstate(all="ignore"):
            host = conv.asarrays(np.empty(0))
            require_regular(host, shape)
            require_regular(host, shape, back=True)
            condition = _condition(paths.linear(host._path()), host.channels, shape, norm)
        if math.isfinite(condition.value):
            return condition
        raise SolveOverflowError
    except SingularConvError as error:
        trouble = str(error)
    except (SolveOverflowError, np.linalg.LinAlgError):
        trouble = broken(conv) or OVERFLOW
    return Condition(math.inf, "any norm", trouble=trouble)


def broken(conv: Factored) -> str:
    """Return which parameters hold NaN or inf, in words, or ""."""
    names = [n for n, a in conv.parameters().items() if not np.isfinite(to_numpy(a)).all()]
    return f"{', '.join(names)} holds NaN or inf" if names else ""


def remembered(conv: Factored, shape: Shape, norm: float | None = None) -> float:
    """Return the condition number, which is computed at the first call and remembered."""
    kind = f"condition, {norm}"
    return conv._conditions.find(kind, shape, lambda: number(conv, shape, norm).value)


def _condition(path: Path, channels: int, shape: Shape, norm: float | None) -> Condition:
    if norm is None and len(path) == 1:
        known = path[0].family.condition(path[0].w, shape)
        if known is not None:
            return known
    if norm is None and all(factor.family.pixelwise for factor in path):
        unit = np.eye(channels)[None]  # (1, C, N) with N = C pixels: one unit vector a pixel
        apply, solve = linear_maps(path, unit.shape[2:])
        given = not isinstance(path[0].family, Matrix) or len(path) > 1
        return of_inverse(apply(unit)[0], solve(unit)[0], given)
    maps = _maps(path, channels, shape, norm or 1)
    return of_norms(*norms(*maps), maps[2], norm or 1)


def norms_of_path(path: Path, channels: int, shape: Shape, norm: float) -> tuple[float, float]:
    """Return or estimate |K| and |K^-1| of float64 factors; (inf, inf) if a norm overflows."""
    try:
        with np.errstate(all="ignore"):
            gain, back = norms(*_maps(path, channels, shape, norm))
    except FAILURES:
        return math.inf, math.inf
    return gain.value, back.value


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
