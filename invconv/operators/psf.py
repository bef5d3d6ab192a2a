"""The operator of a point-spread function, whose inverse undoes the blur."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, identity, namespace, readable, to_numpy
from invconv.arrays.validation import require_real, table
from invconv.operators.periodic import PeriodicConv
from invconv.operators.symmetric import SymmetricConv, borders_of

_EVEN = 1e-6  # of the largest number: how far a measured function may be from even
_LOST = 8  # a sum below _LOST * eps * sum(abs(h)) counts as zero
_OFF = 1 / 4  # of the size, or a pixel: so far from the middle its centre of mass is a mistake


def from_psf(
    psf: Any, *, boundary: str | Sequence[str] = "symmetric", like: Array | None = None
) -> PeriodicConv | SymmetricConv:
    r"""Return the convolution with a centred point-spread function, whose inverse undoes the blur.

    $$y[p] = \sum_o h[o]\, x[p - o]$$

    with h[0] in the middle of the array h: its `forward` is `scipy.ndimage.convolve` with the
    border of the operator.

    Parameters
    ----------
    psf : array or sequence of numbers
        h, of odd sizes, its centre in the middle, for images of one channel. For one function per
        channel, stack them on a first axis and give a ``boundary`` for each spatial axis. Its sum
        multiplies the flux of an image: ``psf / psf.sum()`` keeps it.
    boundary : {"symmetric", "mirror", "odd", "zero", "periodic"} or sequence, one per axis
        How images go on at their border, as in `SymmetricConv`. "symmetric", d c b a | a b c d, is
        the mode "reflect" of `scipy.ndimage`; "mirror", d c b | a b c d, has its name; "zero" is
        the mode "constant", for three taps at most; "odd" is a wall at zero. Along these axes h
        must be even, and is made so where it is even to a millionth of its largest number.
        "periodic" is the mode "wrap", for any h.
    like : array, optional
        An array of the library, dtype and device of the result; else those of ``psf``, float64
        for integers of NumPy or in a list.

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
    psf = table("psf", psf) if isinstance(psf, Sequence) else psf
    if isinstance(psf, np.ndarray) and psf.dtype.kind in "iu":
        psf = psf.astype(np.float64)
    require_real("psf", psf)
    several = isinstance(boundary, Sequence) and not isinstance(boundary, str)
    ndim = len(boundary) if several else psf.ndim
    borders = borders_of(boundary, ndim)
    if ndim < 1 or psf.ndim not in (ndim, ndim + 1) or 0 in psf.shape:
        raise ValueError(
            f"psf: expected {ndim} axes, or one more for the channels, got shape {tuple(psf.shape)}"
        )
    psf = psf if psf.ndim == ndim + 1 else psf[None, ...]
    if readable(psf):
        _require_centred(to_numpy(psf), borders)
    for axis, border in enumerate(borders, 1):
        flipped = namespace(psf).flip(psf, axis=axis)  # a convolution as a correlation
        if border == "periodic":
            psf = flipped
        else:  # from its centre on
            start = (*[slice(None)] * axis, slice(psf.shape[axis] // 2, None), ...)
            psf = ((psf + flipped) / 2)[start]
    channels, kernel = int(psf.shape[0]), psf[:, None, ...]
    if channels > 1:
        one = namespace(psf).reshape(identity(channels, psf), (channels, channels, *[1] * ndim))
        kernel = kernel * one
    conv: PeriodicConv | SymmetricConv
    if set(borders) == {"periodic"}:
        conv = PeriodicConv(kernel)
    else:
        # not by a call, which warns, since the part of a ring looks like a whole kernel
        conv = SymmetricConv._of(kernel=kernel, boundary=borders)
    return conv if like is None else conv.asarrays(like)


def _require_centred(psf: np.ndarray[Any, Any], borders: tuple[str, ...]) -> None:
    """Raise ValueError unless functions (C, *k) are finite, centred, and even where they must."""
    sizes = psf.shape[1:]
    if not np.isfinite(psf).all():
        raise ValueError("psf: expected finite numbers, got NaN or an infinite one")
    if any(n % 2 == 0 for n in sizes):
        raise ValueError(
            f"psf: expected odd sizes, so that a pixel is in the middle, got {sizes}; crop a row, "
            "or pad one of zeros, on the side that is farther from the centre"
        )
    axes = tuple(range(1, psf.ndim))
    sums, scale = psf.sum(axes), np.abs(psf).sum(axes)
    walls = {"odd", "zero"} & set(borders)  # between which no image is constant
    rounding = _LOST * np.finfo(psf.dtype).eps * scale
    if ((scale if walls else np.abs(sums)) <= (0 if walls else rounding)).any():
        raise ValueError(
            "psf: expected a sum other than zero, got one of rounding at most: frequency 0, the "
            'mean of an image, would be lost; boundary="odd" has no such frequency (an even psf), '
            "and PeriodicConv(kernel).least_squares(y) solves for the rest"
        )
    for axis, (n, border) in enumerate(zip(sizes, borders, strict=True)):
        middle = n // 2
        profile = np.abs(psf).sum(tuple(a for a in axes if a != axis + 1))
        centre = (profile * np.arange(n)).sum(1) / profile.sum(1)
        if (np.abs(centre - middle) >= max(1.0, _OFF * n)).any():
            raise ValueError(
                f"psf: expected its centre in the middle, at {middle} along axis {axis}, got its "
                f"centre of mass at {centre[np.abs(centre - middle).argmax()]:.2f}: shift, crop or "
                "pad it"
            )
        off = (np.abs(psf - np.flip(psf, axis + 1)).max(axes) / np.abs(psf).max(axes)).max()
        if border != "periodic" and off > _EVEN:
            raise ValueError(
                f"psf: expected a function that is even along axis {axis}, as {border!r} borders "
                f"need, got one that differs from its flip by {off:.1e} of its largest number; use "
                'boundary="periodic", or the mean of the function and its flip'
            )
