"""The operator of a centred point-spread function.

    y[p] = sum over offsets o of h[o] x[p - o],    h[0] in the middle of the array h

so that `forward` is `scipy.ndimage.convolve` with the border of the operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    constant,
    identity,
    namespace,
    readable,
    to_numpy,
)
from invconv.arrays.settings import choice
from invconv.arrays.validation import require_real
from invconv.operators.periodic import PeriodicConv
from invconv.operators.symmetric import SymmetricConv

_BORDERS = ("symmetric", "periodic")
_EVEN = 1e-6  # of the largest number: how far a measured function may be from even
_LOST = 8  # units of rounding: a sum of fewer, of the numbers' magnitudes, counts as zero
_OFF = 1 / 4  # of the size, or a pixel: so far from the middle its centre of mass is a mistake


def from_psf(
    psf: Any, *, boundary: str | tuple[str, ...] = "symmetric", like: Array | None = None
) -> PeriodicConv | SymmetricConv:
    """Return the convolution with a centred point-spread function, whose inverse undoes the blur.

    Parameters
    ----------
    psf : array or sequence of numbers
        h, of odd sizes, its centre in the middle. If ``boundary`` is a word, all axes are spatial,
        and images have one channel; if it is a tuple, one word an axis, an axis before these has a
        function for each channel.
    boundary : {"symmetric", "periodic"} or tuple of these, all alike
        How images go on at their border. "symmetric", d c b a | a b c d, is the mode "reflect" of
        `scipy.ndimage`; h must be even along every axis, and is made so where it is even to
        a millionth of its largest number. "periodic" is the mode "wrap", for any h.
    like : array, optional
        An array of the library, dtype and device of the result; else those of ``psf``, float64
        for integers.

    Returns
    -------
    PeriodicConv or SymmetricConv
        For images (*batch, C, *spatial): pass ``image[None]`` if an image has no axis of channels.

    Raises
    ------
    TypeError, ValueError
        If a size is even, h is not centred, not even where it has to be, or not finite, or its sum
        is zero: the mean of an image would be lost.

    Examples
    --------
    >>> import numpy as np
    >>> blur = from_psf([[0.0, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.0]])
    >>> image = np.arange(12.0).reshape(1, 3, 4)
    >>> np.allclose(blur.inverse(blur.forward(image)), image)
    True
    """
    words = boundary if isinstance(boundary, tuple) else (boundary,)
    for word in words:
        choice("boundary", word, _BORDERS)
    if len(set(words)) != 1:
        raise ValueError(f"boundary: expected the same word for every axis, got {boundary!r}")
    if isinstance(psf, np.ndarray | Sequence):
        psf = np.asarray(psf)
        psf = psf.astype(np.float64) if psf.dtype.kind in "iu" else psf
    require_real("psf", psf)
    ndim = len(words) if isinstance(boundary, tuple) else psf.ndim
    if ndim < 1 or psf.ndim not in (ndim, ndim + 1):
        raise ValueError(
            f"psf: expected {ndim} axes, or one more for the channels, got shape {tuple(psf.shape)}"
        )
    psf = psf if psf.ndim == ndim + 1 else psf[None]
    if readable(psf):
        _require_centred(to_numpy(psf), even=words[0] == "symmetric")
    xp, axes = namespace(psf), tuple(range(1, ndim + 1))
    # a convolution as a correlation
    taps = xp.flip(psf, axis=axes) if words[0] == "periodic" else _half(psf)
    channels = int(taps.shape[0])
    kernel = taps[:, None, ...]
    if channels > 1:
        one = xp.reshape(identity(channels, psf), (channels, channels, *[1] * ndim))
        kernel = kernel * one
    if like is not None:
        kernel = constant(to_numpy(kernel), like, like.dtype)
    return (PeriodicConv if words[0] == "periodic" else SymmetricConv)(kernel)


def _half(psf: Array) -> Array:
    """Return a function from its centre on along all axes but the first, made even along them."""
    xp = namespace(psf)
    for axis in range(1, psf.ndim):
        psf = (psf + xp.flip(psf, axis=axis)) / 2
        psf = psf[(*[slice(None)] * axis, slice(psf.shape[axis] // 2, None), ...)]
    return psf


def _require_centred(psf: np.ndarray[Any, Any], *, even: bool) -> None:
    """Raise ValueError unless the functions (C, *k) are finite, centred, and even if they must."""
    sizes = psf.shape[1:]
    if not np.isfinite(psf).all():
        raise ValueError("psf: expected finite numbers, got NaN or an infinite one")
    if any(n % 2 == 0 for n in sizes):
        raise ValueError(
            f"psf: expected odd sizes, so that a pixel is in the middle, got {sizes}; crop a row, "
            "or pad one of zeros, on the side that is farther from the centre"
        )
    axes, largest = tuple(range(1, psf.ndim)), np.abs(psf).max()
    sums, scale = psf.sum(axes), np.abs(psf).sum(axes)
    if (np.abs(sums) <= _LOST * np.finfo(psf.dtype).eps * scale).any():
        raise ValueError(
            "psf: expected a sum other than zero, got one of rounding at most: frequency 0, the "
            "mean of an image, would be lost"
        )
    for axis, n in enumerate(sizes):
        middle = n // 2
        profile = np.abs(psf).sum(tuple(a for a in axes if a != axis + 1))
        centre = (profile * np.arange(n)).sum(1) / profile.sum(1)
        if (np.abs(centre - middle) >= max(1.0, _OFF * n)).any():
            raise ValueError(
                f"psf: expected its centre in the middle, at {middle} along axis {axis}, got its "
                f"centre of mass at {centre[np.abs(centre - middle).argmax()]:.2f}: shift, crop or "
                "pad it"
            )
        off = np.abs(psf - np.flip(psf, axis + 1)).max() / largest
        if even and off > _EVEN:
            raise ValueError(
                f"psf: expected a function that is even along axis {axis}, as symmetric borders "
                f"need, got one that differs from its flip by {off:.1e} of its largest number; use "
                'boundary="periodic", or the mean of the function and its flip'
            )
