"""Diagnosis of an inverse: whether it can be trusted, and why not.

The error that round trips measure (`base.judgement`) says how many digits are left, and bounds in
float64 how many at worst; the bounds alone would condemn many random operators that keep three
digits (``python -m invconv benchmark silent_error`` counts them). `report` describes the numbers.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Shape, dtype_name, grid_text, to_float
from invconv.families import path as paths
from invconv.families.path import Path
from invconv.operators.base import judgement
from invconv.operators.base.calls import require_spatial_shape
from invconv.operators.base.factors import Holder, as_operator
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.inverse import Inverse
from invconv.stability.advice import what_to_do
from invconv.stability.report import UNRESOLVED, Diagnosis
from invconv.trust import condition, limits
from invconv.trust.condition import EPS
from invconv.trust.limits import NEAR, TOLERATED


def diagnose(conv: InvertibleConv | Holder, spatial_shape: Shape, dtype: Any = None) -> Diagnosis:
    """Tell whether the inverse of an operator can be trusted, and why not.

    Parameters
    ----------
    conv : InvertibleConv, or layer or chain of invconv_torch
        An operator of any library; its values are copied to host memory and judged in float64.
    spatial_shape : tuple of int
        The grid.
    dtype : dtype or str, optional
        The dtype of the inverse; the parameters' dtype unless given. float16 and bfloat16 are
        solved in float32.

    Raises
    ------
    ValueError, TypeError
        If the grid does not fit the operator, or it cannot run in the dtype.

    Examples
    --------
    A kernel that looks harmless, on a grid of 32 x 32 and in float32. Measured numbers differ a
    little from call to call, since samples are drawn anew:

    >>> import numpy as np
    >>> from invconv import AutoregressiveConv, diagnose
    >>> kernel = np.asarray([[[[1.0, -0.5], [-0.5, -0.5]]]])
    >>> diagnose(AutoregressiveConv(kernel), (32, 32), "float32")  # doctest: +ELLIPSIS
    AutoregressiveConv on a grid of 32 x 32: no digit is left in float32
      log-det      0
      condition    7.73e+08 (1-norm, exact)
      digits left  0... of 6.9 in float32,  ... of 15.7 in float64, measured
                   0.0 of 6.9 in float32,  6.8 of 15.7 in float64, at worst
      measured     on round trips of random images
      growth       1.63 per pixel on axis 0 (0.21 digits), 1.63 per pixel on axis 1 (0.21 digits)
      worst        errors in channel 0 at pixel (0, 0)
      to do        make the other taps smaller against those of the pixel itself: |D^-1| sum |taps|
                   is 1.5, and below 1 the inverse is safe on every grid
                   or solve in float64, where ... digits are left
                   two digits last for grids of about 2... x 2... in float32, 4... x 4... in float64
    """
    operator: InvertibleConv = as_operator("conv", conv)
    shape = require_spatial_shape(operator, spatial_shape)
    precision = judgement.solved_in(operator) if dtype is None else _precision(dtype)
    return _diagnose(operator.asarrays(np.empty(0)), shape, precision)


def _precision(dtype: Any) -> str:
    """Return "float32" or "float64", the precision in which arrays of a dtype are solved."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None)
    name = name or dtype_name(dtype)
    if name in ("float16", "bfloat16"):
        return "float32"
    if name not in EPS:
        raise ValueError(
            f"dtype: expected float32, float64, or a half type (solved in float32), got {name}"
        )
    return name


def _diagnose(
    host: InvertibleConv, shape: Shape, precision: str, times: float = 1, within: str = ""
) -> Diagnosis:
    """Return the diagnosis of an operator; ``times`` operators share the work.

    ``within`` begins the names of its steps: "conv." in an `Inverse`.
    """
    if isinstance(host, Inverse):  # its forward map loses as many digits as the other's inverse
        inner = _diagnose(host.conv, shape, precision, times, f"{within}conv.")
        return replace(inner, name=f"Inverse of {inner.name}", log_det=-inner.log_det)
    steps = {within + name: step for name, step in host._parts().items()}
    named = {n: _diagnose(s, shape, precision, times * len(steps)) for n, s in steps.items()}
    path = paths.linear(host._path())
    number, grid, more = judgement.condition_about(host, shape, times * (1 + len(path)) / 2)
    loss, cancelled, back = number.condition, 1.0, math.inf
    if math.isfinite(loss):
        loss, cancelled, back = _losses(path, host.channels, grid)
        loss = max(number.condition, loss * more)
    resolved = number.resolved and all(step.resolved for step in named.values())
    resolved = resolved and not min(loss, cancelled) * EPS["float64"] > limits.UNRESOLVED
    if not resolved:
        loss = max(loss, 1 / EPS["float64"])
        trouble = number.trouble or UNRESOLVED
        number = replace(number, exact=False, resolved=False, trouble=trouble)
    growth = None
    if math.isfinite(number.condition) or number.trouble == condition.OVERFLOW:
        growth, grid = _growth(host, path, grid, back)
    if growth and not math.isfinite(number.condition):
        known = judgement.condition(host, grid).condition
        pixels = zip(growth, shape, grid, strict=True)
        exponent = math.log10(known) + sum((n - m) * math.log10(g) for g, n, m in pixels if n > m)
        if math.isfinite(exponent):
            about = f"about 1e+{exponent:.0f}, by its growth on a grid of {grid_text(grid)}"
            number = replace(number, trouble=f"{number.trouble}; {about}")
    judgements = {name: judgement.judge(host, shape, name, times=times / 2) for name in EPS}
    lossy = judgements[precision].error > NEAR * TOLERATED
    blamed = judgement.blame(host, shape, precision) if lossy else None
    with np.errstate(all="ignore"):
        log_det = to_float(host.log_det(shape))
    diagnosis = Diagnosis(
        **vars(number),
        name=type(host).__name__,
        spatial_shape=shape,
        precision=precision,
        log_det=log_det,
        loss=loss,
        judgements=judgements,
        blame=within + blamed.name if blamed and blamed.bad else "",
        growth=growth,
        steps=tuple(named.items()),
    )
    return replace(diagnosis, advice=what_to_do(host, diagnosis, times))


def _losses(path: Path, channels: int, shape: Shape) -> tuple[float, float, float]:
    """Return the loss of factors one after the other, the cancellation between them, and |K^-1|_1.

    With P_i = K_i ... K_1, the solve of factor i makes an error of eps |K_i| times its result
    P_(i-1) x, and P_i^-1 carries it on. The loss is max over i of |P_i^-1| |K_i| |P_(i-1)|, in the
    1-norm and the infinity norm. If the inverse of a factor is a product, its result has an error
    of eps |K_i^-1| |P_i x|, and P_(i-1)^-1 carries it on. The cancellation is the larger of
    prod |K_i| / |K| and prod |K_i^-1| / |K^-1|. Rounding makes |K| and |K^-1| uncertain by no more
    than eps times the smaller of the two; the inverse of matrices is right at any condition, since
    it is computed from the factors.
    """
    pixelwise = all(factor.family.pixelwise for factor in path)
    losses, cancelled = [], 1.0
    alone: Any
    upto: Any
    for norm in (math.inf, 1):
        if pixelwise:
            dense = zip(*judgement.matrices(path, channels), strict=True)
            alone, upto = ([[np.linalg.norm(m, norm) for m in p] for p in some] for some in dense)
        else:
            norms = partial(judgement.norms_of_path, channels=channels, shape=shape, norm=norm)
            alone = [norms([factor]) for factor in path]
            upto = [alone[0], *(norms(path[: i + 1]) for i in range(1, len(path)))]
            cancelled = float(np.max(np.prod(alone, axis=0) / upto[-1]))
        before: Any = (1.0, 1.0)
        for factor, own, after in zip(path, alone, upto, strict=True):
            solved, applied = (before, after) if factor.inverted else (after, before)
            losses.append(solved[1] * own[factor.inverted] * applied[0])
            before = after
    return float(max(losses)), cancelled, before[1]


def _growth(
    conv: InvertibleConv, path: Path, shape: Shape, norm: float
) -> tuple[tuple[float, ...] | None, Shape]:
    """Return the factor of |K^-1|_1 for one more pixel along each axis, and a grid where it is so.

    ``norm`` is |K^-1|_1 on the grid. With m half of an axis's pixels, the factor is (norm / |K^-1|
    with m pixels fewer)^(1/m). If |K^-1| overflows, the grid is halved; on a closed grid the growth
    is None.
    """
    if conv._closed:
        return None, shape
    if conv._pixelwise:
        return tuple(1.0 for _ in shape), shape

    def on(grid: Shape) -> float:
        return judgement.norms_of_path(path, conv.channels, grid, 1)[1]

    while not math.isfinite(norm):
        if max(shape) == 1:
            return None, shape
        shape = tuple(max(1, n // 2) for n in shape)
        norm = on(shape)
    factors = []
    for axis, n in enumerate(shape):
        if n <= max(family.reaches_back(axis) for family in conv._families):
            factors.append(math.nan)
            continue
        part = (*shape[:axis], n - n // 2, *shape[axis + 1 :])
        factors.append((norm / on(part)) ** (1 / max(1, n // 2)))
    return tuple(factors), shape
