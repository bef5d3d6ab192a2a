"""Deconvolution with positive numbers: Richardson-Lucy's iteration, with a mask.

    x <- x . K^T (m y / (K x + background)) / (K^T m)

Each step raises the likelihood of counts y with Poisson's noise (W. H. Richardson, 1972; L. B.
Lucy, 1974); the mask m is 0 where a pixel of y is to be left out.
"""

from collections.abc import Iterable
from typing import Any

from invconv.arrays.namespaces import Array, namespace, readable
from invconv.arrays.validation import finite_or_nan, is_number, positive_int, require_alike
from invconv.operators.base.calls import Call, as_batch
from invconv.operators.base.factors import require_operator

_ROUNDING = 64  # units, of the largest weight, below which no good pixel sees a place


def richardson_lucy(
    conv: Any,
    y: Array,
    *,
    mask: Array | None = None,
    background: float | Array = 0.0,
    iterations: int | Iterable[Any] = 100,
    sigma: float | Array | None = None,
) -> Array:
    r"""Return positive x whose image K x + background explains y, by Richardson-Lucy's iteration.

    $$x \leftarrow x \cdot \frac{K^T (m\, y / (K x + background))}{K^T m}$$

    It is sharper, and noisier, with every step. It begins with an even image of the flux of y.
    Places that no good pixel sees are zero. JAX's ``jit`` and gradients unroll all steps.

    Parameters
    ----------
    conv : operator
        K, without negative numbers, such as `from_psf` of a point-spread function. A bias is part
        of the background.
    y : array, shape (*batch, C, *spatial)
        The images. Those of a batch are on their own.
    mask : array, optional
        True, or 1, where a pixel of y is good, else False: dead and saturated pixels, and the
        margin of a frame that was padded. It broadcasts against y, which may be NaN there.
    background : float or array
        What y has where x is zero; an array broadcasts against y.
    iterations : int or iterable
        The steps at most. Of an iterable there is a step for each item: ``tqdm(range(100))`` shows
        a progress bar.
    sigma : float or array, optional
        The standard deviation of the noise of a pixel of y: of its read noise, or with photons of
        both, ``(read**2 + y) ** 0.5``; an array broadcasts against y. An image whose misfit
        (y - K x - background)^2 / sigma^2 is 1 per good pixel stays as it is from then on.

    Returns
    -------
    array
        x, of the shape and dtype of y.

    Raises
    ------
    TypeError, ValueError
        As `forward`, or if ``mask``, ``background`` or ``sigma`` does not broadcast against y,
        ``background`` is negative or not finite, ``sigma`` is not positive, or ``iterations`` is
        less than 1.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import from_psf, richardson_lucy
    >>> blur, sky = from_psf([0.25, 0.5, 0.25]), np.zeros((1, 9))
    >>> sky[0, 4] = 8.0
    >>> y = blur.forward(sky) + 1
    >>> y[0, 0] = np.nan  # a dead pixel
    >>> x = richardson_lucy(blur, y, mask=np.isfinite(y), background=1.0, iterations=300)
    >>> np.allclose(x, sky, atol=0.1)
    True
    """
    require_operator("conv", conv)
    call = as_batch(conv, "y", y)
    if not isinstance(iterations, Iterable):
        iterations = range(positive_int("iterations", iterations))
    xp, y = namespace(call.x), call.x
    good = xp.ones_like(y) if mask is None else call.broadcast("mask", mask)
    behind, noise = (
        _number(call, *pair) for pair in (("background", background), ("sigma", sigma))
    )
    zero = xp.zeros_like(y)
    y, conv, axes = xp.where(good > 0, y, zero), call.conv, tuple(range(1, y.ndim))
    back = conv.transpose()
    weight, count = back.forward(good), xp.sum(good, axis=axes, keepdims=True)
    limit = _ROUNDING * float(xp.finfo(y.dtype).eps) * xp.max(weight, axis=axes, keepdims=True)
    seen = weight > limit
    weight = xp.where(seen, weight, xp.ones_like(weight))
    flux = xp.where(y > behind, good * (y - behind), zero)
    flux = xp.sum(flux, axis=axes, keepdims=True)
    total = xp.sum(xp.where(seen, weight, zero), axis=axes, keepdims=True)
    x = xp.where(seen, flux / xp.where(total > 0, total, xp.ones_like(total)), zero)
    for _ in iterations:
        found = conv.forward(x) + behind
        positive = found > 0
        ratio = xp.where(positive, good * y / xp.where(positive, found, xp.ones_like(found)), zero)
        ratio = back.forward(ratio)
        step = x * xp.where(seen & (ratio > 0), ratio / weight, zero)
        if noise is None:
            x = step
            continue
        off = xp.where(good > 0, good * ((y - found) / noise) ** 2, zero)
        noisy = xp.sum(off, axis=axes, keepdims=True) > count
        x = xp.where(noisy, step, x)
        if readable(noisy) and not xp.any(noisy):
            break
    return call.restore_shape(x)


def _number(call: Call, name: str, value: Any) -> Any:
    """Return a background or a sigma: a number, or an array that broadcasts against y."""
    if value is None and name == "sigma":
        return None
    least = "above 0" if name == "sigma" else "of at least 0"
    if is_number(value):
        number = finite_or_nan(value)
        if not (number > 0 if name == "sigma" else number >= 0):
            raise ValueError(f"{name}: expected a finite number {least}, got {value!r:.80}")
        return number
    require_alike(name, value, "y", call.original)
    return call.broadcast(name, value)
