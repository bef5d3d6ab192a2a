"""The damping that a noise level suggests, by the discrepancy principle (V. A. Morozov, 1966)."""

from __future__ import annotations

import math
import sys
from typing import Any

from invconv.arrays.namespaces import Array, namespace, size, to_float
from invconv.arrays.settings import finite_or_nan
from invconv.families import path as paths
from invconv.kernels.primitives import per_channel
from invconv.operators.base.calls import as_batch
from invconv.operators.base.fields import require_operator
from invconv.operators.base.least_squares import LeastSquares

_STEP = 10.0  # between the damps that are tried to bracket the right one
_CLOSE = 1e-4  # of the damp, relative: the misfit is then right to four times as much


def damp_for_noise(conv: LeastSquares, y: Array, sigma: float) -> float:
    """Return the damp with which `least_squares` leaves as much of y unexplained as noise is in it.

        |K x + b - y|^2 = n sigma^2

    is what noise leaves at the true x, n the number of entries of y. This solves the equation for
    x = conv.least_squares(y, damp), in about a dozen solves (the discrepancy principle of V. A.
    Morozov, 1966): its left side grows with the damp, from what no x can explain to |y - b|^2.
    Values are looked at: call it outside traced code. `least_squares` draws x towards zero, so of
    an image take its mean off first, which would be drawn, too, and add it at the end.

    Parameters
    ----------
    conv : operator with `least_squares`
    y : array, shape (*batch, C, *spatial)
        With noise; one damp is found for all images.
    sigma : float
        The standard deviation of the noise in an entry of y.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If the operator has no `least_squares`.
    ValueError
        If ``sigma`` is not positive and finite, or no damp fits: y is no larger than its noise, or
        K is singular and no x comes so close to y.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import damp_for_noise, from_psf
    >>> rng = np.random.default_rng(0)
    >>> blur, x = from_psf([0.2, 0.6, 0.2]), rng.standard_normal((1, 1000)).cumsum(-1)
    >>> y = blur.forward(x) + 0.1 * rng.standard_normal(x.shape)
    >>> x = blur.least_squares(y, damp_for_noise(blur, y, 0.1))
    >>> round(float(np.mean((blur.forward(x) - y) ** 2)), 4)
    0.01
    """
    require_operator("conv", conv)
    if not isinstance(conv, LeastSquares):
        raise TypeError(
            "conv: expected an operator with least_squares, a periodic, symmetric or 1x1 "
            f"convolution or an ActNorm, got {type(conv).__name__}"
        )
    if not finite_or_nan(sigma) > 0:
        hint = "; without noise the inverse needs no damp" if sigma == 0 else ""
        raise ValueError(f"sigma: expected a finite number above 0, got {sigma!r:.80}{hint}")
    call = as_batch(conv, "y", y)
    misfit = _Misfit(call.conv, call.x, float(sigma))
    _require_between(misfit, sigma)
    high = low = 1.0
    while misfit(high) < 1:
        high *= _STEP
    while misfit(low) > 1:
        low /= _STEP
    from scipy.optimize import brentq  # here: it takes longer to import than invconv does

    def log_misfit(log_damp: float) -> float:
        return math.log(max(misfit(math.exp(log_damp)), sys.float_info.min))

    return math.exp(brentq(log_misfit, math.log(low), math.log(high), xtol=_CLOSE))


class _Misfit:
    """|K x - y|^2 over n sigma^2 for the x of a damp; y (B, C, *spatial) without the bias."""

    def __init__(self, conv: Any, y: Array, sigma: float) -> None:
        path, bias = conv._path(), getattr(conv, "bias", None)
        self.conv, self.y = conv, y if bias is None else y - per_channel(bias, y)
        shape = tuple(y.shape[2:])
        self.maps = [family.made_ready(w, shape) for family, w, _ in paths.linear(path)]
        self.noise = size(y.shape) * sigma**2

    def __call__(self, damp: float) -> float:
        x = self.conv._least_squares(self.y, damp)
        for apply in self.maps:
            x = apply(x)
        return self.of(x - self.y)

    def of(self, difference: Array) -> float:
        return to_float(namespace(difference).sum(difference * difference)) / self.noise


def _require_between(misfit: _Misfit, sigma: float) -> None:
    """Raise unless some damp fits: the misfit is below 1 without one, and above 1 for x = 0."""
    least, most = misfit(0.0), misfit.of(misfit.y)
    if not math.isfinite(most):
        raise ValueError("y: expected finite numbers, got NaN, or numbers whose squares overflow")
    if not most > 1:
        raise ValueError(
            f"sigma: expected less noise than there is signal, got {sigma:g}, and y - b has a "
            f"standard deviation of {math.sqrt(most) * sigma:.3g}: x = 0 explains y"
        )
    if not least < 1:
        raise ValueError(
            f"sigma: expected at least {math.sqrt(least) * sigma:.3g}, the part of y that no x "
            f"explains since the operator is singular, got {sigma:g}"
        )
