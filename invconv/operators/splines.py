"""The coefficients of interpolating B-splines, on every library and differentiable.

    x[p] = sum over o of beta(o) c[p + o]

with the samples beta of a B-spline of some order, and c continued beyond its border. The inverse is
a product of first-order filters in both directions (M. Unser, A. Aldroubi & M. Eden, 1993):

    c = product over poles z of (1 - z)^2 / ((1 - z S) (1 - z S^-1)) x

with S the shift by a pixel. The first pass runs backwards. Each pass starts from the state that the
continued image gives it:

    sum over k >= 0 of z^k x~[N + k]                             at N, of 1 / (1 - z S^-1)
    (1 - z)^2 / (1 - z^2) sum over all k of z^|k| x~[k - 1]      at -1, of both
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, cast, constant, copy_of, namespace, widened
from invconv.arrays.stencil import seen
from invconv.arrays.validation import choice, integer, require_real
from invconv.operators.filters import lfilter, moved

# w = z + 1/z of the poles: the zeros of beta as a polynomial in w, such as w + 4 for order 3
_SUMS = {
    2: (-6.0,),
    3: (-4.0,),
    4: (-38 + 1216**0.5, -38 - 1216**0.5),
    5: (-13 + 105**0.5, -13 - 105**0.5),
}
_LEAST = 1e-25  # smallest z^k that counts


def _passes(w: float) -> tuple[tuple[Any, ...], ...]:
    """Return b and a of each pass, and the pixels (from N, and around -1) whose sum it starts from.

    The pixels come with their factors. These are computed here, since torch.compile mistakes (-z)^k
    for -z^k, and are lists, since a strict export mistakes global arrays for empty constants.
    """
    z = 2 / (w - math.sqrt(w * w - 4))
    k = np.arange(1, math.ceil(math.log(_LEAST) / math.log(-z)))
    around, a = np.arange(1 - len(k), len(k)), [1, -z]
    shared = (1 - z) / (1 + z) * z ** (1 + abs(around))
    passes = ([1.0], a, k - 1, z**k), ([(1 - z) ** 2], a, around - 1, shared)
    return tuple(tuple(np.asarray(v).tolist() for v in one) for one in passes)


_POLES = {order: [_passes(w) for w in sums] for order, sums in _SUMS.items()}
_BORDERS = {"mirror": "mirror", "reflect": "symmetric", "grid-wrap": "periodic"}
_BORDERS |= {"grid-mirror": "symmetric"}
_AT_ONCE = 2**17  # numbers


def spline_filter(
    x: Array, order: int = 3, mode: str = "mirror", axes: int | Sequence[int] | None = None
) -> Array:
    """Return the coefficients of the B-spline through the samples x: `scipy.ndimage`'s prefilter.

    Interpolation at a point is then a sum over the order + 1 nearest coefficients along each axis.
    It is the inverse of the `from_psf` of the B-spline's samples, [1, 4, 1] / 6 along each axis for
    cubic ones.

    Parameters
    ----------
    x : array
        Samples, real and floating.
    order : int
        2 to 5; the coefficients of the orders 0 and 1 are the samples.
    mode : {"mirror", "reflect", "grid-wrap", "grid-mirror"}
        How the image goes on at its border, in the words of `scipy.ndimage`: d c b | a b c d,
        d c b a | a b c d, or a b c d | a b c d; "grid-mirror" is "reflect".
    axes : int or sequence of int, optional
        The axes of the image, all unless given; x is batched over the others.

    Returns
    -------
    array
        Of the shape and dtype of x.

    Raises
    ------
    TypeError, ValueError
        If x is not real and floating, or an argument is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> c = spline_filter(np.asarray([[0.0, 0, 4, 0, 0], [1, 1, 1, 1, 1]]), axes=1)
    >>> np.round(c, 12) + 0.0
    array([[ 1., -2.,  7., -2.,  1.],
           [ 1.,  1.,  1.,  1.,  1.]])
    """
    require_real("x", x)
    if not isinstance(order, int | np.integer) or order not in _POLES:
        raise ValueError(f"order: expected an integer from 2 to 5, got {order!r}")
    choice("mode", mode, tuple(_BORDERS))
    if axes is None:
        axes = range(x.ndim)
    if not isinstance(axes, Sequence) or isinstance(axes, str):
        axes = [axes]
    axes = [integer("axes", n) for n in axes]
    if any(not -x.ndim <= n < x.ndim for n in axes) or len({n % x.ndim for n in axes}) < len(axes):
        raise ValueError(f"axes: expected some of the {x.ndim} axes of x, once each, got {axes}")
    if 0 in x.shape or all(x.shape[axis] == 1 for axis in axes):
        return copy_of(x)
    kind, x = x.dtype, widened(x)
    for axis in axes:
        if x.shape[axis] > 1:  # a single pixel continues as a constant, which all filters keep
            x = _along(x, axis % x.ndim, _POLES[order], _BORDERS[mode])
    return cast(x, kind)


def _along(x: Array, axis: int, poles: Any, border: str) -> Array:
    """Run the filters of all poles along an axis; NumPy's arrays by parts that fit a cache."""
    others = [1 if n == axis else length for n, length in enumerate(x.shape)]
    longest = max(others)
    if isinstance(x, np.ndarray) and x.size > _AT_ONCE and longest > 1:
        y, n = np.empty(x.shape, x.dtype), others.index(longest)
        step = max(1, _AT_ONCE * longest // x.size)
        for start in range(0, longest, step):
            some = (*[slice(None)] * n, slice(start, start + step))
            # rows of the whole image may lie pages apart, so that columns share few cache sets
            y[some] = _along(x[some].copy(), axis, poles, border)
        return y
    x = moved(x, axis, -1)
    for passes in poles:
        x = _filtered(x, passes, border)
    return moved(x, -1, axis)


def _filtered(x: Array, passes: Any, border: str) -> Array:
    """Run the filter of a pole in both directions along the last axis."""
    xp, n = namespace(x), int(x.shape[-1])

    def numbers(values: Any) -> Array:
        return constant(np.asarray(values), x, x.dtype)

    states = []
    for first, (_, _, away, factors) in zip((n, 0), passes, strict=True):
        places, pixels = seen(border, first + np.asarray(away), n)[0], x
        if n < len(away):  # a pixel may occur several times: its factors add up
            met = places[:, None] == np.arange(n)
            factors = np.sum(np.where(met, np.asarray(factors)[:, None], 0.0), axis=0)
        else:
            pixels = xp.take(x, constant(places, x), axis=-1)
        along = numbers(np.reshape(factors, (*(1,) * (x.ndim - 1), -1)))
        states.append(xp.sum(pixels * along, axis=-1, keepdims=True))
    for (b, a, _, _), state in zip(passes, states, strict=True):
        x = lfilter(numbers(b), numbers(a), xp.flip(x, axis=-1), zi=state)[0]
    return x
