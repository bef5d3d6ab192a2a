"""Solutions of least squares, and the damping that a noise level suggests.

The operators that have them are one C x C matrix a frequency, or one at every pixel: there the
regularised inverse is exact and cheap.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from invconv.arrays.namespaces import Array, Shape, cast, namespace, readable, size, to_float
from invconv.arrays.validation import finite_or_nan, require_alike
from invconv.families import path as paths
from invconv.kernels.frequencies.least_squares import damped_inverses, penalised_inverses
from invconv.kernels.primitives import per_channel
from invconv.operators.base.calls import Call, as_batch
from invconv.operators.base.factors import require_operator
from invconv.operators.base.judgement import warn_of_loss

_STEP = 10.0  # between the damps that are tried to bracket the right one
_MOST = 1e30  # damp that is tried
_CLOSE = 1e-4  # of the damp, relative: the misfit is then right to four times as much


def least_squares(self: Any, y: Array, damp: float | Array = 0.0, penalty: Any = None) -> Array:
    """Return the x that minimises |K x + b - y|^2 + damp^2 |P x|^2, exactly, in one solve.

    Parameters
    ----------
    y : array, shape (*batch, C, *spatial)
    damp : float or 0-d array
        At least 0, as in `scipy.sparse.linalg.lsqr`. With 0 and a singular K, such as the
        Laplacian of a Poisson problem, the solution of least norm. Singular values that cannot
        be told from rounding count as zero.
    penalty : operator or sequence of operators, optional
        P, such as a Laplacian, or the derivatives along each axis: |P x|^2 is then the sum of
        theirs. Of borders with the same waves as K's, or 1x1 for a 1x1; their biases do not count.
        The identity unless given.

    Warns
    -----
    IllConditionedWarning
        Without a damp, as `inverse` does: of what a singular K does not lose.

    Raises
    ------
    TypeError, ValueError
        As `inverse`, or if K is not finite, or ``damp`` is negative or not finite, or ``penalty``
        is no operator of the same waves.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import Conv1x1, PeriodicConv
    >>> laplacian = PeriodicConv(np.asarray([[[1.0, -2.0, 1.0]]]))
    >>> x = laplacian.least_squares(np.asarray([[1.0, 0.0, -1.0, 0.0]]))
    >>> np.round(laplacian.forward(x), 12) + 0.0
    array([[ 1.,  0., -1.,  0.]])
    >>> Conv1x1(np.diag([2.0, 0.0])).least_squares(np.ones((1, 2, 1)), damp=1.0)[0, :, 0]
    array([0.4, 0. ])
    """
    call = as_batch(self, "y", y)
    number, limit = damp, float(namespace(call.x).finfo(call.x.dtype).max)
    if not isinstance(damp, int | float):
        require_alike("damp", damp, "y", y)
        if damp.ndim:
            shape = tuple(damp.shape)
            raise ValueError(f"damp: expected a number or a 0-d array, got the shape {shape}")
        damp = cast(damp, call.x.dtype)
        number = to_float(damp) if readable(damp) else 0.0
    if not 0 <= number <= limit:
        raise ValueError(f"damp: expected a finite number of at least 0, got {damp!r:.80}")
    x = call.conv._least_squares(_without_bias(call), damp, penalties_of(self, y, penalty))
    if isinstance(damp, int | float) and damp == 0:
        warn_of_loss(self, call.spatial_shape, x, squares=True)
    return call.restore_shape(x)


def penalties_of(conv: Any, y: Array, penalty: Any) -> list[Any]:
    """Return the operators of a penalty in the precision that runs, or raise."""
    given = penalty if isinstance(penalty, Sequence) else [] if penalty is None else [penalty]
    for one in given:
        require_operator("penalty", one)
        if getattr(one, "_decoupled_by", ()) != conv._decoupled_by:
            raise ValueError(
                "penalty: expected an operator that the waves of this one's borders decouple, or a "
                f"1x1 for a 1x1, since others have no solution in one solve, got {one!r:.200}"
            )
    return [as_batch(one, "y", y).conv for one in given]


def regularised(
    conv: Any, shape: Shape, damp: float | Array, penalties: Sequence[Any], name: str
) -> Array:
    """Return the regularised inverses of an operator's matrices, whose parameter is ``name``."""
    matrices, sizes = conv._blocks(shape)
    if not penalties or (isinstance(damp, int | float) and damp == 0):
        return damped_inverses(matrices, sizes, damp, name)
    rows, parts = zip(*(one._blocks(shape) for one in penalties), strict=True)
    rows = namespace(matrices).concat(rows, axis=-2)
    return penalised_inverses(matrices, sizes, rows, sum(parts[1:], parts[0]), damp, name)


def _without_bias(call: Call) -> Array:
    bias = getattr(call.conv, "bias", None)
    return call.x if bias is None else call.x - per_channel(bias, call.x)


def damp_for_noise(conv: Any, y: Array, sigma: float, penalty: Any = None) -> float:
    """Return the damp with which `least_squares` leaves as much of y unexplained as noise is in it.

        |K x + b - y|^2 = n sigma^2

    is what noise leaves at the true x, n the number of entries of y. This solves the equation for
    x = conv.least_squares(y, damp), in about a dozen solves (the discrepancy principle of V. A.
    Morozov, 1966): its left side grows with the damp, from what no x can explain to |y - b|^2.
    Values are looked at: call it outside traced code. `least_squares` draws x towards zero, so
    subtract the image's mean first and add it at the end.

    Parameters
    ----------
    conv : operator with `least_squares`
    y : array, shape (*batch, C, *spatial)
        With noise; one damp is found for all images.
    sigma : float
        The standard deviation of the noise in an entry of y.
    penalty : operator or sequence of operators, optional
        As for `least_squares`.

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
    if not hasattr(conv, "least_squares"):
        raise TypeError(
            "conv: expected an operator with least_squares, a periodic, symmetric or 1x1 "
            f"convolution or an ActNorm, got {type(conv).__name__}"
        )
    if not (number := finite_or_nan(sigma)) > 0:
        hint = "; without noise the inverse needs no damp" if number == 0 else ""
        raise ValueError(f"sigma: expected a finite number above 0, got {sigma!r:.80}{hint}")
    call = as_batch(conv, "y", y)
    if not (count := size(call.x.shape)):
        raise ValueError(f"y: expected images, got none, of the shape {tuple(y.shape)}")
    images, penalties = _without_bias(call), penalties_of(conv, y, penalty)
    linear = paths.linear(call.conv._path())
    maps = [family.made_ready(w, call.spatial_shape) for family, w, _ in linear]

    def share(difference: Array) -> float:
        parts = difference / number
        return to_float(namespace(parts).sum(parts * parts)) / count

    def misfit(damp: float) -> float:
        x = call.conv._least_squares(images, damp, penalties)
        for apply in maps:
            x = apply(x)
        return share(x - images)

    _require_between(misfit(0.0), share(images), sigma)
    high = low = 1.0  # the misfit grows with the damp
    while misfit(high) < 1:
        high *= _STEP
        if high > _MOST:  # without a penalty x = 0 has been tried
            raise ValueError(
                f"sigma: expected less noise than there is signal, got {sigma:g}, and an x whose "
                "penalty is zero explains y"
            )
    while misfit(low) > 1:
        low /= _STEP
        if not low:  # without a damp it is less than 1
            raise ValueError(f"sigma: expected more than the rounding of y, got {sigma:g}")
    from scipy.optimize import brentq  # here: it takes longer to import than invconv does

    def log_misfit(log_damp: float) -> float:
        return math.log(max(misfit(math.exp(log_damp)), sys.float_info.min))

    return math.exp(brentq(log_misfit, math.log(low), math.log(high), xtol=_CLOSE))


def _require_between(least: float, most: float, sigma: float) -> None:
    """Raise unless some damp fits: the misfit is below 1 without one, and above 1 for x = 0."""
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
            f"explains, by a singular operator or by rounding, got {sigma:g}"
        )
