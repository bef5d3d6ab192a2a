"""Diagnosis of an inverse: whether it can be trusted, and why not.

The digits that are lost are determined in two ways. The error is measured on the inverse as it runs
(`base.judgement`):

    error       the largest error of an entry of x, over the largest entry, on round trips

And it is bounded along the path, in float64 on the host:

    condition   |K| |K^-1|: the relative error of x = K^-1 y over the relative error of y, at most
    loss        likewise for the rounding errors of each step and factor. With P_i = K_i ... K_1,
                the solve of step i makes an error of eps |K_i| times its result P_(i-1) x, and
                P_i^-1 carries it on:
                max over i of |P_i^-1| |K_i| |P_(i-1)|, in the 1-norm or the infinity norm
    growth      g_a = (|K^-1| / |K^-1| on a grid with m pixels fewer along axis a)^(1/m), m half of
                the pixels: the factor of the loss for one more pixel along the axis

The measured error decides how many digits are left, -log10(error). The bound holds for the worst
image and the worst rounding, -log10(loss eps); it would condemn many random operators that keep
three digits (``python -m invconv benchmark silent_error`` counts them). Every pixel along
axis a costs log10 g_a digits.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Shape, dtype_name, to_float
from invconv.families import path as paths
from invconv.families.path import Path
from invconv.operators.base import judgement
from invconv.operators.base.calls import require_spatial_shape
from invconv.operators.base.factors import Layer, as_operator
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.inverse import Inverse
from invconv.stability import advice
from invconv.stability.report import UNRESOLVED, Diagnosis
from invconv.trust import condition, limits
from invconv.trust.condition import EPS
from invconv.trust.limits import NEAR, TOLERATED


def diagnose(conv: InvertibleConv | Layer, spatial_shape: Shape, dtype: Any = None) -> Diagnosis:
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
      digits left  0... of 6.9 in float32,  8... of 15.7 in float64, measured
                   0.0 of 6.9 in float32,  6.8 of 15.7 in float64, at worst
      measured     on round trips of random images
      growth       1.63 per pixel on axis 0 (0.21 digits), 1.63 per pixel on axis 1 (0.21 digits)
      worst        errors in channel 0 at pixel (0, 0)
      to do        make the other taps smaller against those of the pixel itself: |D^-1| sum |taps|
                   is 1.5, and below 1 the inverse is safe on every grid
                   or solve in float64, where 8... digits are left
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


def _diagnose(host: InvertibleConv, shape: Shape, precision: str, times: float = 1) -> Diagnosis:
    """Return the diagnosis of an operator; ``times`` operators share the work."""
    if isinstance(host, Inverse):  # its forward map loses as many digits as the other's inverse
        inner = _diagnose(host.conv, shape, precision, times)
        return replace(inner, name=f"Inverse of {inner.name}", log_det=-inner.log_det)
    steps = host._parts()
    named = {n: _diagnose(s, shape, precision, times * len(steps)) for n, s in steps.items()}
    path = paths.linear(host._path())
    grid = judgement.estimable(host, shape, times * (1 + len(path)) / 2)
    more = 1.0 if host._spectral else judgement.carried_on(host, grid, shape, precision)
    number = _condition(host, grid, shape, more)
    loss, cancelled = _carried_on(path, host.channels, number, grid)
    loss = max(number.condition, loss * more)
    resolved = number.resolved and all(step.resolved for step in named.values())
    resolved = resolved and not min(loss, cancelled) * EPS["float64"] > limits.UNRESOLVED
    if not resolved:
        loss = max(loss, 1 / EPS["float64"])
        trouble = number.trouble or UNRESOLVED
        number = replace(number, exact=False, resolved=False, trouble=trouble)
    judgements = {name: judgement.judge(host, shape, name, times=times / 2) for name in EPS}
    with np.errstate(all="ignore"):
        log_det = to_float(host.log_det(shape))
    lossy = judgements[precision].error > NEAR * TOLERATED
    blamed = judgement.blame(host, shape, precision) if lossy else None
    diagnosis = Diagnosis(
        **vars(number),
        name=type(host).__name__,
        spatial_shape=shape,
        precision=precision,
        log_det=log_det,
        loss=loss,
        judgements=judgements,
        blame=blamed.name if blamed and blamed.bad else "",
        growth=_growth(host, path, grid) if math.isfinite(number.condition) else None,
        steps=tuple(named.items()),
    )
    if number.trouble == condition.OVERFLOW and max(shape) > 1:
        smaller = tuple(max(1, n // 2) for n in shape)
        return advice.beyond_range(host, diagnosis, _diagnose(host, smaller, precision))
    return replace(diagnosis, advice=advice.what_to_do(host, diagnosis, times))


def _condition(host: InvertibleConv, grid: Shape, shape: Shape, more: float) -> condition.Condition:
    """Return the condition, exactly if spectral, else ``more`` times the condition on a grid."""
    if host._spectral or grid == shape:
        return judgement.condition(host, shape)
    part = judgement.condition(host, grid)
    value = part.condition * more
    trouble = part.trouble or ("" if math.isfinite(value) else condition.OVERFLOW)
    pixel = part.pixel
    if pixel is not None:  # at the same distance from the nearest border, per axis
        places = zip(pixel, grid, shape)
        pixel = tuple(p if 2 * p < m else p + n - m for p, m, n in places)
    return replace(part, condition=value, exact=False, trouble=trouble, pixel=pixel)


def _carried_on(
    path: Path, channels: int, number: condition.Condition, shape: Shape
) -> tuple[float, float]:
    """Return the loss of factors one after the other, and the cancellation between them.

    The loss is max over i of |P_i^-1| |K_i| |P_(i-1)|. The inverse of a factor that is solved
    forwards is a product: its result has an error of eps |K_i^-1| |P_i x|, and P_(i-1)^-1 carries
    it on. The cancellation is the larger of prod |K_i| / |K| and prod |K_i^-1| / |K^-1|.
    Rounding makes |K| and |K^-1| uncertain by no more than eps times the smaller of the two; the
    inverse of matrices is right at any condition, since it is computed from the factors.
    """
    if not math.isfinite(number.condition):
        return number.condition, 1.0
    pixelwise = all(factor.family.pixelwise for factor in path)
    dense = judgement.matrices(path, channels) if pixelwise else None
    legs = [_along(path, channels, shape, norm, dense) for norm in (1, math.inf)]
    matrices = len(path) > 1 and pixelwise
    return max(loss for loss, _ in legs), 1.0 if matrices else legs[0][1]


def _along(path: Path, channels: int, shape: Shape, norm: float, dense: Any) -> tuple[float, float]:
    loss, gain_before, back_before = 0.0, 1.0, 1.0
    gains, backs = 1.0, 1.0

    def norms(first: int, end: int) -> tuple[float, float]:
        if dense is None:
            return judgement.norms_of_path(path[first:end], channels, shape, norm)
        pair = dense[end - 1][0 if first or end == 1 else 1]
        return float(np.linalg.norm(pair[0], norm)), float(np.linalg.norm(pair[1], norm))

    for i, factor in enumerate(path):
        own_gain, own_back = norms(i, i + 1)
        gain, back = norms(0, i + 1) if i else (own_gain, own_back)
        if factor.inverted:
            loss = max(loss, back_before * own_back * gain)
        else:
            loss = max(loss, back * own_gain * gain_before)
        gain_before, back_before = gain, back
        gains, backs = gains * own_gain, backs * own_back
    return loss, max(gains / gain, backs / back)


def _growth(conv: InvertibleConv, path: Path, shape: Shape) -> tuple[float, ...] | None:
    """Return the factor of |K^-1|_1 for one more pixel along each axis; None if it is infinite."""
    if conv._closed:
        return None
    if conv._pixelwise:
        return tuple(1.0 for _ in shape)
    norm = judgement.norms_of_path(path, conv.channels, shape, 1)[1]
    if not math.isfinite(norm):
        return None
    factors = []
    for axis, n in enumerate(shape):
        if n <= max(family.reaches_back(axis) for family in conv._families):
            factors.append(math.nan)
            continue
        part = (*shape[:axis], n - n // 2, *shape[axis + 1 :])
        smaller = judgement.norms_of_path(path, conv.channels, part, 1)[1]
        factors.append((norm / smaller) ** (1 / max(1, n // 2)))
    return tuple(factors)
