"""Splines at points between the pixels, on every library and differentiable.

    f(c) = sum over k of beta(c - k) x[k],    beta a B-spline, x its coefficients

Within a pixel the order + 1 weights depend on the offset t in [0, 1) alone, by sums and products of
positive numbers, so that none loses digits far from the first pixel (C. de Boor, 1972):

    N_j = ((t + j) N'_j + (order + 1 - t - j) N'_(j - 1)) / order

with N' the weights of the order below, and N = 1 of order 0.
"""

import math
from typing import Any

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    cast,
    constant,
    namespace,
    native_dtype,
    ops_of,
    size,
    widened,
    zeros,
)
from invconv.arrays.validation import (
    choice,
    finite_or_nan,
    flag,
    require_beside,
    require_real,
    table,
)
from invconv.operators.splines import spline_filter

_MODES = ("mirror", "reflect", "grid-wrap", "grid-mirror", "nearest", "constant")
_ELSEWHERE = '; "wrap" and "grid-constant" are scipy.ndimage\'s alone'
_EDGE = 12  # pixels that SciPy repeats at a border of "nearest" before it filters
_AT_ONCE = 2**15  # numbers that NumPy gathers


def map_coordinates(
    x: Array,
    coordinates: Any,
    order: int = 3,
    mode: str = "mirror",
    cval: float = 0.0,
    prefilter: bool = True,
) -> Array:
    """Return an image at points between its pixels, by B-splines: `scipy.ndimage`'s function.

    It is differentiable in the image and, from order 1 on, in the coordinates. JAX's ``jit``
    compiles it with ``order``, ``mode`` and ``prefilter`` static.

    Parameters
    ----------
    x : array, shape (n_1, ..., n_m)
        The image, real and floating; all its axes are spatial.
    coordinates : array or sequence of numbers, shape (m, ...)
        Where to look: a row of numbers for each axis of x, in pixels. They may have another
        floating dtype than x, such as float64 for half types.
    order : int
        0 to 5: the nearest pixel, linear interpolation, splines.
    mode : {"mirror", "reflect", "grid-wrap", "nearest", "constant", "grid-mirror"}
        How the image goes on at its border: d c b | a b c d, d c b a | a b c d, a b c d | a b c d,
        a a a | a b c d, or ``cval`` at each point that is not between the first and the last pixel.
        "grid-mirror" is "reflect".
    cval : float
        The value outside, for "constant".
    prefilter : bool
        Whether x holds samples, which `spline_filter` turns into coefficients from order 2 on. For
        many calls on an image, pass its coefficients and False.

    Returns
    -------
    array
        Of the dtype of x and the shape of the coordinates without their first axis. A coordinate of
        NaN, or an infinite one that the border does not stop, gives NaN.

    Raises
    ------
    TypeError, ValueError
        If an array is not real and floating, or of another library, or an argument is none of
        these.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[0.0, 1.0, 4.0], [1.0, 2.0, 5.0]])
    >>> map_coordinates(x, [[0.5, 1.0], [1.0, 1.5]], order=1)
    array([1.5, 3.5])
    >>> map_coordinates(x, [[0.0, 9.0], [2.0, 2.0]], mode="constant", cval=-1.0).round(12)
    array([ 4., -1.])
    """
    require_real("x", x)
    if not isinstance(order, int | np.integer) or isinstance(order, bool) or not 0 <= order <= 5:
        raise ValueError(f"order: expected an integer from 0 to 5, got {order!r}")
    choice("mode", mode, _MODES, _ELSEWHERE)
    if math.isnan(number := finite_or_nan(cval)) and not cval != cval:
        raise ValueError(f"cval: expected a number, got {cval!r:.80}")
    prefilter, kind, x = flag("prefilter", prefilter), x.dtype, widened(x)
    points = _points(coordinates, x)
    if not x.ndim or 0 in x.shape:
        raise ValueError(f"x: expected at least one pixel along some axis, got {tuple(x.shape)}")
    xp, shape = namespace(x), tuple(points.shape[1:])
    points = xp.reshape(points, (x.ndim, size(shape)))
    border = {"constant": "mirror", "grid-mirror": "reflect"}.get(mode, mode)
    outside, shift = None, 0
    if mode == "constant":
        last = constant(np.asarray(x.shape)[:, None] - 1.0, points, points.dtype)
        beyond = (points < 0) | (points > last)
        outside = xp.any(beyond, axis=0)
        points = xp.where(beyond, zeros((1, 1), points), points)
    if prefilter and order > 1:
        if mode == "nearest":
            for axis, n in enumerate(x.shape):
                places = np.clip(np.arange(-_EDGE, n + _EDGE), 0, n - 1)
                x = xp.take(x, constant(places, x), axis=axis)
            shift = _EDGE
        x = spline_filter(x, order, "reflect" if mode == "nearest" else border)
    if isinstance(x, np.ndarray):  # by parts that fit a cache
        step, y = max(1, _AT_ONCE // (order + 1) ** x.ndim), np.empty(points.shape[1], x.dtype)
        for start in range(0, len(y), step):
            some = slice(start, start + step)
            y[some] = _between(x, points[:, some], order, border, shift)
    else:
        y = _between(x, points, order, border, shift)
    if outside is not None:
        y = xp.where(outside, xp.full_like(y[:1], number), y)
    return cast(xp.reshape(y, shape), kind)


def _points(coordinates: Any, x: Array) -> Array:
    """Return coordinates (m, ...) as an array of x's library, of a dtype of their own."""
    if isinstance(coordinates, list | tuple):
        coordinates = table("coordinates", coordinates)
    if isinstance(coordinates, np.ndarray):
        if coordinates.dtype.kind in "iu":
            coordinates = coordinates.astype(float)
        require_real("coordinates", coordinates)
        if not isinstance(x, np.ndarray):
            coordinates = constant(coordinates, x, x.dtype)
    require_real("coordinates", coordinates)
    require_beside("coordinates", coordinates, "x", x)
    if coordinates.ndim < 1 or coordinates.shape[0] != x.ndim:
        raise ValueError(
            f"coordinates: expected the shape ({x.ndim}, ...), a row for each axis of x, got "
            f"{tuple(coordinates.shape)}"
        )
    return widened(cast(coordinates, native_dtype(coordinates.dtype)))


def _between(x: Array, points: Array, order: int, border: str, shift: int) -> Array:
    """Return the spline at points (m, N), each from (order + 1)^m of its coefficients x.

    Points are counted from pixel ``shift`` along each axis: adding it to them would lose digits.
    """
    xp, sides = namespace(x), []
    places: Any = None
    for axis, n in enumerate(x.shape):
        point = points[axis, :]
        if border == "nearest":  # farther away all taps read the last pixel
            low, high = (xp.full_like(point, end - shift) for end in (-order - 1, n + order))
            point = xp.where(point < low, low, xp.where(point > high, high, point))
        elif not order and border != "grid-wrap":  # of two equally near pixels, take SciPy's
            period = float(2 * n - 2 * (border == "mirror") or 1)
            near = (turned := point % period) < n
            if border == "mirror":
                near = near & ((point >= 0) | (turned <= n - 1))
            point = xp.where(near, turned, period - (border == "reflect") - turned)
        known = xp.isfinite(point)
        point = xp.where(known, point, xp.full_like(point, math.nan))
        middle = xp.floor(point if order % 2 else point + 0.5)
        middle = xp.where(known, middle, xp.zeros_like(middle))
        sides.append(_weights(cast(point - middle, x.dtype), order))
        along = _pixels(middle + shift, order, int(n), border, x)
        lead = () if places is None else (None,) * (places.ndim - 1)
        places = along if places is None else places[..., None, :] * n + along[(*lead, ...)]
    y = xp.reshape(xp.take(xp.reshape(x, (-1,)), xp.reshape(places, (-1,))), places.shape)
    for weights in reversed(sides):
        y = xp.sum(y * weights[(*(None,) * (y.ndim - 2), ...)], axis=-2)
    return y


def _weights(t: Array, order: int) -> Array:
    """Return the weights (order + 1, N) at offsets in [0, 1), or [-1/2, 1/2) if order is even."""
    before, behind = (t, 1 - t) if order % 2 else (t + 0.5, 0.5 - t)
    weights = [0 * t + 1]
    for p in range(1, order + 1):
        parts = [(before + j) * w / p for j, w in enumerate(weights)] + [0 * t]
        for j, w in enumerate(weights, 1):
            parts[j] = parts[j] + (behind + (p - j)) * w / p
        weights = parts
    return namespace(t).stack(weights[::-1])


def _pixels(middle: Array, order: int, n: int, border: str, like: Array) -> Array:
    """Return the pixels (order + 1, N) that the taps around some pixels read, across borders."""
    xp, whole, middle = namespace(middle), ops_of(like).integers(like), middle[None, :]
    taps = constant(np.arange(order + 1)[:, None] - order // 2, like)
    if border == "nearest":
        return xp.clip(xp.astype(middle, whole) + taps, 0, n - 1)
    period = {"mirror": 2 * n - 2 or 1, "reflect": 2 * n, "grid-wrap": n}[border]
    # folded as floating numbers first: integers hold none beyond 2^63
    places = (xp.astype(middle % period, whole) + taps) % period
    if border == "grid-wrap":
        return places
    return xp.minimum(places, period - (border == "reflect") - places)
