"""The condition of operators: |K| |K^-1| on a grid, exact or estimated.

`invconv.trust.condition` estimates the norms. The condition on a large grid is estimated on a part
of it, and bounded from below on the whole grid.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Shape, size, to_numpy
from invconv.families import path as paths
from invconv.families.path import Path
from invconv.families.pointwise import Matrix
from invconv.kernels.primitives import Map, in_turn
from invconv.operators.base.factors import Operator, require_regular
from invconv.operators.base.work import of_estimate, products
from invconv.trust import limits
from invconv.trust.condition import FAILURES, OVERFLOW, Condition, norms, of_inverse, tried


def broken(conv: Operator) -> str:
    """Return which parameters hold NaN or inf, in words, or ""."""
    names = [n for n, a in conv.parameters().items() if not np.isfinite(to_numpy(a)).all()]
    return f"{', '.join(names)} holds NaN or inf" if names else ""


def condition(conv: Operator, shape: Shape, norm: float | None = None) -> Condition:
    """Return the condition of any operator, from its values in host memory; it is remembered.

    Unless a norm is given, 1 or inf, it is the 2-norm if the families know it, else the 1-norm.
    """

    def compute() -> Condition:
        trouble = ""
        try:
            with np.errstate(all="ignore"):
                host = conv.asarrays(np.empty(0))
                require_regular(host, shape)
                require_regular(host, shape, back=True)
                found = _condition(paths.linear(host._path()), host.channels, shape, norm)
            if math.isfinite(found.condition):
                return found
        except SingularConvError as error:
            trouble = str(error)
        except FAILURES:
            pass
        return Condition(math.inf, "any norm", trouble=trouble or broken(conv) or OVERFLOW)

    return conv._conditions.find(f"condition, {norm}", shape, compute)


def _condition(path: Path, channels: int, shape: Shape, norm: float | None) -> Condition:
    if norm is None and len(path) == 1:
        known = path[0].family.condition(path[0].w, shape)
        if known is not None:
            return known
    if norm is None and all(factor.family.pixelwise for factor in path):
        given = not isinstance(path[0].family, Matrix) or len(path) > 1
        product, inverse = matrices(path, channels)[-1][1]
        return of_inverse(product, inverse, given)
    gain, back, (channel, *pixel), exact = _norms(path, channels, shape, norm or 1)
    text = f"{norm or 1:g}-norm"
    return Condition(gain * back, text, exact, channel=channel, pixel=tuple(pixel))


def matrices(path: Path, channels: int) -> list[tuple[Any, Any]]:
    """Return A and A^-1 of each pixelwise factor as matrices, and those of the path up to it."""
    unit = np.eye(channels)[None]  # (1, C, N) with N = C pixels: one unit vector a pixel
    product, found = (unit[0], unit[0]), []
    for factor in path:
        own = tuple(run(unit)[0] for run in linear_maps([factor], unit.shape[2:]))
        product = own[0] @ product[0], product[1] @ own[1]
        found.append((own, product))
    return found


def norms_of_path(path: Path, channels: int, shape: Shape, norm: float) -> tuple[float, float]:
    """Return or estimate |K| and |K^-1| of float64 factors; (inf, inf) if a norm overflows."""
    return tried(lambda: _norms(path, channels, shape, norm)[:2], (math.inf, math.inf))


def _norms(
    path: Path, channels: int, shape: Shape, norm: float
) -> tuple[float, float, Shape, bool]:
    """Return `invconv.trust.condition.norms` of K, or of K^T if the norm is inf."""
    if all(factor.family.pixelwise for factor in path):
        shape = tuple(1 for _ in shape)
    turned = paths.transposed(path)
    here, there = (path, turned) if norm == 1 else (turned, path)
    later, first = partial(linear_maps, there, shape), _longest_columns(here, shape)
    sample, count = (channels, *shape), products(path, shape)
    return norms(linear_maps(here, shape), later, sample, first, count)


def _longest_columns(path: Path, shape: Shape) -> tuple[int | None, ...]:
    """Return a pixel index per axis: every column of K is a shift of the column at that pixel."""
    if len(path) == 1:
        return path[0].family.longest_columns(shape)
    return tuple(0 if all(f.family.pixelwise for f in path) else None for _ in shape)


def linear_maps(path: Path, shape: Shape) -> tuple[Map, Map]:
    """Return x -> K x and y -> K^-1 y of factors without biases, each prepared for a grid."""
    pairs = []
    for family, w, inverted in path:
        pair = family.made_ready(w, shape), family.solver(w, shape)
        pairs.append(pair[::-1] if inverted else pair)
    return in_turn([apply for apply, _ in pairs]), in_turn([solve for _, solve in pairs[::-1]])


def condition_about(
    conv: Operator, shape: Shape, times: float = 1
) -> tuple[Condition, Shape, float]:
    """Return the condition on a grid, the part of it that is examined, and the growth from there.

    The grid is halved until compiled kernels estimate ``times`` norms quickly. A step of W. Hager's
    ascent on the whole grid bounds the condition from below. Symmetric and periodic families know
    the condition of any grid from their spectra.
    """

    def compute() -> tuple[Condition, Shape, float]:
        path = paths.linear(conv._on_host(np.float64)._path())
        alike = None not in _longest_columns(path, shape)
        quick = limits.ESTIMATE / (times * of_estimate(path, conv.channels, shape, alike))
        grid = shape if conv._pixelwise else _smaller(shape, quick, conv)
        if grid == shape:
            return condition(conv, shape), grid, 1.0
        if conv._spectral:
            waves: Any = path[0].family
            known = (
                condition(conv, shape) if waves.orthogonal else _of_waves(waves, path[0].w, shape)
            )
            return known, grid, 1.0
        known = condition(conv, grid)
        number = tried(lambda: _condition_below(path, conv.channels, shape), math.inf)
        number = max(known.condition, number) if math.isfinite(number) else math.inf
        more, pixel = number / known.condition if math.isfinite(number) else math.inf, known.pixel
        trouble = known.trouble or ("" if math.isfinite(number) else OVERFLOW)
        if pixel is not None:  # at the same distance from the nearest border, per axis
            places = zip(pixel, grid, shape, strict=True)
            pixel = tuple(p if 2 * p < m else p + n - m for p, m, n in places)
        carried = replace(known, condition=number, exact=False, trouble=trouble, pixel=pixel)
        return carried, grid, more

    return conv._conditions.find(f"about, {times}", shape, compute)


def _condition_below(path: Path, channels: int, shape: Shape) -> float:
    """Return a lower bound of |K|_1 |K^-1|_1.

    |A|_1 is at least the largest entry of A^T sign(A z), for any z.
    """
    pairs = linear_maps(path, shape), linear_maps(paths.transposed(path), shape)
    z = np.random.default_rng(0).choice([-1.0, 1.0], (1, channels, *shape))
    found = [
        np.abs(back(np.where(there(z) < 0, -1.0, 1.0))).max()
        for there, back in zip(*pairs, strict=True)
    ]
    return float(np.prod(found))


def _of_waves(family: Any, w: Any, shape: Shape) -> Condition:
    """Return the condition by waves that are not orthogonal, up to a factor sqrt(2) per axis."""
    failed = Condition(math.inf, "any norm", trouble=OVERFLOW)
    return replace(tried(lambda: family.of_waves(w, shape), failed), exact=False)


def _smaller(shape: Shape, quick: float, conv: Operator) -> Shape:
    """Return a grid, halved until at most max(1, PIXELS / channels, quick) pixels are left.

    An axis of a closed grid is divided by a divisor: the frequencies are among those of the whole.
    """
    most = max(1.0, limits.PIXELS / conv.channels, quick)
    while size(shape) > most:
        axis = int(np.argmax(shape))
        n = shape[axis]
        divisors = (d for d in range(2, math.isqrt(n) + 1) if n % d == 0)
        part = n // next(divisors, n) if conv._closed else (n + 1) // 2
        shape = (*shape[:axis], part, *shape[axis + 1 :])
    return shape
