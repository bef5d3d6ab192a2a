"""Solutions of least squares, and the damping that a noise level suggests.

Operators that have them are one C x C matrix K for each frequency, or one for all pixels, so that
the regularised inverse is exact and cheap: x = G y minimises |K x - y|^2 + d^2 |P x|^2, with P = 1
unless there is a penalty.

Without damping d, G is the pseudo-inverse K^+: of equally good x it gives the one of least norm.
With damping, G is the first C columns of the pseudo-inverse of A, which is K stacked on d P, so
that nothing is squared. Where d P exceeds K, G = A^+ (A^+)^H K^H is used: it keeps the last digit
of a G much smaller than A^+. Singular values that rounding alone may have made count as zero, on
the scale of the channels that the kernel couples: other channels are problems of their own.
"""

import math
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    ArrayOps,
    Namespace,
    callers_level,
    constant,
    identity,
    namespace,
    ops_of,
    per_channel,
    readable,
    size,
    to_float,
    zeros,
)
from invconv.arrays.validation import finite_or_nan, flag
from invconv.families import path as paths
from invconv.kernels.frequencies.waves import complex_of
from invconv.kernels.primitives import conjugate, inverse_or_nan, matmul
from invconv.operators.base.calls import Call, as_squares
from invconv.operators.base.factors import require_operator
from invconv.operators.base.judgement import warn_of_loss

# matrices (F, C, C), and for each entry the sum of the magnitudes of its terms: (C, C), or for one
# channel (F, 1, 1)
Blocks = tuple[Array, Array]
_ROUNDING = 8  # times eps and the number of channels: the error of an entry of a matrix
_STEP = 10.0  # ratio of the damps that are tried to bracket the right one
_MOST = 1e30  # largest damp that is tried, over |K y| / |y|
_WHOLE = 1e154  # damp whose square does not overflow
_FEW, _MUCH = 1000, 0.5  # one entry in so many may carry this share: noise has .013, edges .26
_CLOSE = 1e-4  # relative error of the damp; that of the misfit is at most four times as large


def least_squares(self: Any, y: Array, damp: float | Array = 0.0, penalty: Any = None) -> Array:
    """Return the x that minimises |K x + b - y|^2 + damp^2 |P x|^2, exactly, in one solve.

    Parameters
    ----------
    y : array, shape (*batch, C, *spatial)
    damp : float, 0-d array, or array of shape (*batch,)
        At least 0, as in `scipy.sparse.linalg.lsqr`; an array has one for each image. With 0 and a
        singular K, such as the Laplacian of a Poisson problem, x is the solution of least norm.
        Singular values that cannot be told from rounding count as zero.
    penalty : operator or several of them, optional
        P, such as a Laplacian, or several, such as derivatives along each axis: |P x|^2 is then the
        sum over them. Their borders have the same waves as K's, or they are 1x1 for a 1x1; biases
        do not count. The identity unless given.

    Warns
    -----
    IllConditionedWarning
        Without a damp, as `inverse` does, but for the components that a singular K keeps.

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
    call, damp, penalties = as_squares(self, y, damp, penalty)
    images, conv, shape = _without_bias(call), call.conv, call.spatial_shape
    number = isinstance(damp, int | float)
    if isinstance(damp, int | float) or not damp.ndim or not images.shape[0]:
        # nobody edits the arrays of a prepared operator
        kept: Any = vars(self).get("_conditions") if number and not penalties else None
        keeps, kind = kept is not None and kept.fixed, (f"squares, {images.dtype}", shape)
        last: Any = kept.get(kind) if keeps else None
        if last is not None and last[0] == damp:
            solve = last[1]
        elif keeps and _is_constant(conv):
            with ops_of(images).at_once():
                solve = conv._regularised(shape, damp)
            kept[kind] = damp, solve
        else:
            solve = conv._regularised(shape, damp, penalties)
        x = solve(images)
    else:
        each = [
            conv._regularised(shape, damp[i, ...], penalties)(images[i : i + 1, ...])
            for i in range(int(images.shape[0]))
        ]
        x = namespace(images).concat(each)
    if number and damp == 0:
        warn_of_loss(self, call.spatial_shape, x, squares=True)
    return call.restore_shape(x)


def _is_constant(conv: Any) -> bool:
    """Tell whether no value of an operator is traced or recorded."""
    return all(readable(a) and not ops_of(a).recorded(a) for a in conv._arrays().values())


def regularised(
    blocks: Blocks, damp: float | Array, name: str, penalties: Sequence[Blocks] = ()
) -> Array:
    """Return G (F, C, C); in errors the parameter of K is called ``name``."""
    matrices, sizes = blocks
    ops, channels = ops_of(matrices), int(matrices.shape[-1])
    xp = ops.xp
    _require_finite(xp, name, sizes)
    rounding = _ROUNDING * channels * float(xp.finfo(matrices.dtype).eps)
    if isinstance(damp, int | float) and damp == 0:
        penalties = ()
    if penalties:
        parts, added = zip(*penalties, strict=True)
        rows, added = damp * xp.concat(parts, axis=-2), damp * sum(added[1:], added[0])
        _require_finite(xp, "penalty", added)
    else:
        added = damp * (identity(channels, sizes) if channels > 1 else xp.ones_like(sizes[:1, ...]))
        rows = added if channels == 1 else xp.zeros_like(matrices) + added
    if channels == 1:
        return _of_numbers(ops, matrices, rows, rounding * sizes)
    coupled = _coupled(sizes + added)
    own, other = (
        xp.max(coupled * xp.sum(ops.without_derivative(s), axis=1), axis=1, keepdims=True)
        for s in (sizes, added)
    )
    own = xp.where(own > 0, own, xp.where(other > 0, other, xp.ones_like(other)))
    inside = None
    if not penalties:
        scaled = matrices / own[:, 0]
        inverses = _pseudo_inverse(scaled, rounding)
        inverses = xp.where(coupled > 0, inverses, _derivative(ops, inverses))
        if isinstance(damp, int | float) and damp == 0:
            return _of_least_norm(ops, inverses / own, matrices, identity(channels, sizes))
        inside = matmul(inverses, scaled)  # the projector to the row space: else noise / damp^2
    scale = own + other  # scaled by it, K or d P or both are of the order of 1
    scaled, below = matrices / scale[:, 0], rows / scale[:, 0]
    both = _pseudo_inverse(xp.concat([scaled, below], axis=-2), rounding)
    turned = matmul(conjugate(xp.matrix_transpose(both)), conjugate(xp.matrix_transpose(scaled)))
    found = xp.where(other > own, matmul(both, turned), both[..., :channels])
    found = found / scale
    found = xp.where(coupled > 0, found, _derivative(ops, found))
    if inside is None:
        return found
    # G is zero where rounding hides K, but with a damp it has a derivative there
    projected = matmul(inside, found)
    smooth = ops.without_derivative(projected) + _derivative(ops, found)
    smooth = xp.where(other > rounding * own, smooth, projected)
    # for a K of full rank the projector is 1, but for errors that grow with K's condition
    rank = abs(xp.sum(inside * identity(channels, sizes), axis=(-2, -1), keepdims=True))
    return xp.where(rank > channels - 0.5, found, smooth)


def _of_numbers(ops: ArrayOps, numbers: Array, rows: Array, lost: Array) -> Array:
    """Return the regularised inverses of 1 x 1 matrices; sizes up to ``lost`` count as zero."""
    xp, size, below = ops.xp, abs(numbers), abs(rows)
    most = xp.max(below, axis=-2, keepdims=True)
    hidden = size <= lost  # not where it is NaN
    nothing = hidden & (most <= lost)  # else the damp makes it smooth
    numbers, size = (xp.where(nothing, xp.ones_like(a), a) for a in (numbers, size))
    scale = xp.maximum(size, most)
    size, below = size / scale, below / scale
    squares = size * size + xp.sum(below * below, axis=-2, keepdims=True)
    found = conjugate(numbers / scale) / squares / scale  # k* / (|k|^2 + d^2 |p|^2)
    return xp.where(hidden, _derivative(ops, found), found)


def _of_least_norm(ops: ArrayOps, found: Array, matrices: Array, one: Array) -> Array:
    """Return pseudo-inverses with the derivative of those of least norm; ``one`` is the identity.

    ``found`` is of scaled columns, which changes the norm that is least where channels of different
    scales are coupled. The orthogonal projector to the range of a projector Q is
    Q (Q + Q^H - 1)^-1.
    """
    values = ops.without_derivative(found)
    if values is found:  # the library records no derivative
        return found
    lost = one - matmul(found, matrices)  # the projector to the null space of K
    both = lost + conjugate(ops.xp.matrix_transpose(lost)) - one
    return values + _derivative(ops, found - matmul(lost, matmul(inverse_or_nan(both), found)))


def _derivative(ops: ArrayOps, x: Array) -> Array:
    """Return zeros that carry x's derivative; a single zero to broadcast if nothing is recorded."""
    values = ops.without_derivative(x)
    return ops.xp.zeros_like(x[:1, ...]) if values is x else x - values


def _require_finite(xp: Namespace, name: str, sizes: Array) -> None:
    if readable(sizes) and not bool(xp.all(xp.isfinite(sizes))):
        raise ValueError(f"{name}: expected finite numbers, got NaN or an infinite one")


def _coupled(sizes: Array) -> Array:
    """Return (C, C): 1 for channels that are coupled, directly or through others, else 0."""
    xp = namespace(sizes)
    coupled = sizes + xp.matrix_transpose(sizes) + identity(sizes.shape[0], sizes)
    for _ in range(int(sizes.shape[0]).bit_length()):
        coupled = xp.astype(coupled > 0, sizes.dtype)
        coupled = matmul(coupled, coupled)
    return xp.astype(coupled > 0, sizes.dtype)


def _pseudo_inverse(matrices: Array, rounding: float) -> Array:
    """Return pseudo-inverses; singular values up to ``rounding`` are zero.

    Libraries compare with the largest singular value of each matrix: one more row and column, with
    a 1 in their corner, make it 1.
    """
    xp, (*lead, rows, columns) = namespace(matrices), matrices.shape
    beside = xp.concat([matrices, zeros((*lead, rows, 1), matrices)], axis=-1)
    corner = zeros((*lead, 1, 1), matrices) + 1
    below = xp.concat([zeros((*lead, 1, columns), matrices), corner], axis=-1)
    whole = xp.concat([beside, below], axis=-2)
    if isinstance(whole, np.ndarray) or xp.isdtype(whole.dtype, "real floating"):
        return xp.linalg.pinv(whole, rtol=rounding)[..., :columns, :rows]
    # as real matrices of twice the size: torch's compiled pinv of complex ones is wrong
    real, imag = xp.real(whole), xp.imag(whole)
    left, right = (xp.concat(parts, axis=-2) for parts in ([real, imag], [-imag, real]))
    whole = xp.linalg.pinv(xp.concat([left, right], axis=-1), rtol=rounding)[..., :rows]
    return complex_of(whole[..., :columns, :], whole[..., columns + 1 : -1, :])


def _without_bias(call: Call) -> Array:
    bias = getattr(call.conv, "bias", None)
    return call.x if bias is None else call.x - per_channel(bias, call.x)


def damp_for_noise(
    conv: Any,
    y: Array,
    sigma: float,
    penalty: Any = None,
    mask: Array | None = None,
    *,
    each: bool = False,
) -> Any:
    r"""Return the damp by which `least_squares` leaves as much of y unexplained as there is noise.

    $$|K x + b - y|^2 = n \sigma^2$$

    holds on average at the true x, with n the number of entries of y. The damp solves it for
    x = conv.least_squares(y, damp), in about a dozen solves (the discrepancy principle of V. A.
    Morozov, 1966): the left side grows with the damp, from the part that no x explains to
    |y - b|^2. Values are read: call it outside traced code. `least_squares` draws x towards zero,
    so subtract the image's mean first and add it at the end.

    Parameters
    ----------
    conv : operator with `least_squares`
    y : array, shape (*batch, C, *spatial)
        With noise.
    sigma : float
        The standard deviation of the noise in an entry of y.
    penalty : operator or several of them, optional
        As for `least_squares`.
    mask : array, optional
        True, or 1, where an entry of y counts; False, or 0, at saturated pixels or stars. It
        broadcasts against y, which is finite everywhere: `least_squares` reads all of it.
    each : bool
        Whether each image of a batch gets a damp of its own.

    Returns
    -------
    float or array, shape (*batch,)
        One damp for all images, or with ``each`` an array of y's library and dtype.

    Warns
    -----
    UserWarning
        If one entry in a thousand carries most of the misfit (in noise it carries a hundredth):
        then the damp suits stars and saturated pixels instead of the image.

    Raises
    ------
    TypeError
        If the operator has no `least_squares`.
    ValueError
        If ``sigma`` is not positive and finite, ``mask`` does not fit y or is False throughout, or
        no damp fits: y is no larger than its noise, or K is singular and no x comes so close to y.

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
    call, _, penalties = as_squares(conv, y, 0.0, penalty)
    if flag("each", each):
        masks = None if mask is None else call.broadcast("mask", mask)
        damps = [
            damp_for_noise(
                call.conv,
                call.x[i : i + 1, ...],
                sigma,
                penalty,
                None if masks is None else masks[i : i + 1, ...],
            )
            for i in range(int(call.x.shape[0]))
        ]
        found = constant(np.asarray(damps), call.x, call.original.dtype)
        return namespace(found).reshape(found, call.batch_shape)
    count: float = size(call.x.shape)
    if not count:
        raise ValueError(f"y: expected images, got none, of the shape {tuple(y.shape)}")
    good = 1.0
    if mask is not None:
        good = call.broadcast("mask", mask)
        if not (count := to_float(namespace(good).sum(good))) > 0:
            raise ValueError("mask: expected some entries of y that count, got none")
    images, linear = _without_bias(call), paths.linear(call.conv._path())
    maps = [family.made_ready(w, call.spatial_shape) for family, w, _ in linear]

    def share(difference: Array) -> float:
        parts = good * (difference / number)
        return to_float(namespace(parts).sum(parts * parts)) / count

    def applied(x: Array) -> Array:
        for apply in maps:
            x = apply(x)
        return x

    def left(damp: float) -> Array:
        return applied(call.conv._regularised(call.spatial_shape, damp, penalties)(images)) - images

    def misfit(damp: float) -> float:
        return share(left(damp))

    _require_between(misfit(0.0), share(images), sigma)
    xp = namespace(images)
    most = to_float(xp.max(xp.abs(images)))
    scale = to_float(xp.max(xp.abs(applied(images / most)))) or 1.0  # of K, and so of damps
    high = low = scale  # the misfit grows with the damp
    while misfit(high) < 1:
        high *= _STEP
        if high > min(_MOST * scale, _WHOLE):  # without a penalty x = 0 has been tried
            raise ValueError(
                f"sigma: expected less noise than there is signal, got {sigma:g}, and an x whose "
                "penalty is zero explains y"
            )
    while misfit(low) > 1:
        low /= _STEP
        if not low:  # without a damp it is less than 1
            raise ValueError(f"sigma: expected more than the rounding of y, got {sigma:g}")
    from scipy.optimize import brentq  # here: it takes longer to import than invconv does

    logs = math.log(low), math.log(high)
    least = sys.float_info.min
    log = brentq(lambda d: math.log(max(misfit(math.exp(d)), least)), *logs, xtol=_CLOSE)
    _warn_of_few(good * left(math.exp(log)), int(count))
    return math.exp(log)


def _warn_of_few(off: Array, count: int) -> None:
    """Warn where one entry in a thousand carries most of the squares of ``off``."""
    if few := count // _FEW:
        xp = namespace(off)
        squares = xp.sort(xp.reshape(off * off, (-1,)), descending=True)
        share = to_float(xp.sum(squares[:few])) / to_float(xp.sum(squares))
        if share > _MUCH:
            warnings.warn(
                f"y: expected noise alike in all entries, got one in {_FEW} that carries "
                f"{share:.0%} of the misfit, such as stars or saturated pixels: the damp is too "
                "small for the others; pass a mask that is False there, and around",
                stacklevel=callers_level(),
            )


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
