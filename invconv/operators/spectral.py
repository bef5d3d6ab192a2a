"""Convolutions that waves decouple: periodic ones (section 3.2), and even kernels with borders.

Cosines, sines and Fourier's waves decouple them (`kernels.frequencies`); Karami et al. 2019 have
mirrors.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import (
    Array,
    Shape,
    callers_level,
    constant,
    identity,
    namespace,
    readable,
    to_numpy,
)
from invconv.arrays.stencil import kernel_of, taps_of
from invconv.arrays.validation import generator, positive_int, require_real, sizes, table
from invconv.families.convolutions import Spectral, centre_of
from invconv.kernels.frequencies.spectrum import SpectralProduct, kernel_spectrum
from invconv.kernels.frequencies.waves import BORDERS
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.convolution import WithKernel
from invconv.operators.least_squares import Blocks, least_squares, regularised
from invconv.operators.pointwise.conv1x1 import random_orthogonal
from invconv.trust.gains import convolution_within, matrix_within

# what the words of scipy.ndimage, numpy.pad, PyTorch and physicists are here
_ELSEWHERE = {
    **dict.fromkeys(("wrap", "grid-wrap", "circular"), "is 'periodic'"),
    **dict.fromkeys(("constant", "grid-constant", "zeros"), "is 'zero'"),
    **dict.fromkeys(("grid-mirror", "neumann"), "is 'symmetric'"),
    "dirichlet": "is 'odd'",
    "reflect": "of scipy.ndimage is 'symmetric', that of NumPy and PyTorch is 'mirror'",
}
# frames from the warning to who calls the class; copies, files and `from_psf` have more between
_DIRECT = 5
_EVEN = 1e-6  # of the largest number: how far a measured function may be from even
_LOST = 8  # units of rounding: a sum of fewer, of the numbers' magnitudes, counts as zero
_OFF = 1 / 4  # of the size, or a pixel: so far from the middle its centre of mass is a mistake


class SpectralConv(WithKernel, abstract=True):
    """A convolution with one C x C matrix K_hat(f) a frequency; log det = sum log|det K_hat(f)|."""

    least_squares = least_squares

    def _least_squares(self, y: Array, damp: float | Array, penalties: Sequence[Any] = ()) -> Array:
        if not self._family.orthogonal:
            raise ValueError(
                "boundary: expected borders without 'mirror' for least_squares, since its waves "
                "are not orthogonal; use 'symmetric', or scipy.sparse.linalg.lsqr with "
                "aslinearoperator"
            )
        shape = tuple(map(int, y.shape[2:]))  # torch.export may have a dynamic one
        more = [one._blocks(shape) for one in penalties]
        inverses = regularised(self._blocks(shape), damp, "kernel", more)
        return SpectralProduct(inverses, self._family.basis, shape).by_transforms(y)

    def _blocks(self, shape: Shape) -> Blocks:
        basis, xp = self._family.basis, namespace(self.kernel)
        often = constant(basis.counts(self._kernel_size), self.kernel, self.kernel.dtype)
        sizes = xp.sum(xp.reshape(abs(self.kernel), (*self.kernel.shape[:2], -1)) * often, axis=-1)
        return kernel_spectrum(self.kernel, basis, shape), sizes

    @property
    def _decoupled_by(self) -> Any:
        return self._family.basis.waves

    def within(self, gain: float) -> Self:
        size = self._kernel_size
        centre = 0
        for place, n in zip(centre_of(size, self._family.borders), size, strict=True):
            centre = centre * n + place
        # |E| <= 2^(1/2) |D^1/2 E D^-1/2| for each axis of a mirror in the last pixels
        mirrors = self._family.borders.count("mirror")
        counts = self._family.basis.counts(size) * math.sqrt(2.0) ** mirrors
        counts[centre] = 1.0
        often = constant(counts, self.kernel, self.kernel.dtype)[:, None, None]
        taps = taps_of(self.kernel) * often
        concat = namespace(taps).concat
        others = concat([taps[:centre, ...], taps[centre + 1 :, ...]])
        block, others = convolution_within(matrix_within, taps[centre, ...], others, gain)
        taps = concat([others[:centre, ...], block[None, ...], others[centre:, ...]])
        return self.replace(kernel=kernel_of(taps / often, size))

    def advice(self, channel: int | None) -> str:
        return "change the kernel or the grid, so that the spectrum stays away from zero there"


class PeriodicConv(SpectralConv, mixing="periodic"):
    """A standard convolution with circular padding, with its exact inverse.

        y[p] = sum over t of K[..., t] x[(p + dilation (t - (k - 1)//2)) mod n] + b
        log det = sum over f of log|det K_hat(f)|

    In the frequency domain this is one C x C matrix K_hat(f) a frequency f of the grid. As in torch
    and JAX, it is a cross-correlation. To undo a blur by a point-spread function h, a convolution
    in the sense of scipy.ndimage.convolve, flip it: for one channel and odd sizes the kernel is
    ``h[::-1, ::-1][None, None]``.

    For even sizes torch's padding="same" starts dilation // 2 pixels further back along an axis:
    its result is this one rolled by +dilation // 2.

    With a kernel of 600 taps or more, such as a Green's function as wide as the box, the forward
    map and its gradients are products in the frequency domain. In float32 and float64 they agree
    with the sum over taps within a few units of rounding, relative to the norm of the image. A
    pixel that is not finite makes its whole image NaN.

    The grid decides whether the map is invertible: the spectrum of a box filter of width 3 has no
    zero on 8 points, and one on 6. Rounding may leave a tiny number there, so that the
    log-determinant is large and negative instead of -inf; the inverse then warns.

    Parameters
    ----------
    kernel : array, shape (C, C, *k)
        Its size along each axis may be odd, even, or larger than the grid.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    dilation : int or tuple of int
        Pixels from one tap to the next: one number, or one for each axis.

    Examples
    --------
    >>> import numpy as np
    >>> box = PeriodicConv(np.ones((1, 1, 3)))
    >>> y = box.forward(np.arange(8.0)[None, :])
    >>> y
    array([[ 8.,  3.,  6.,  9., 12., 15., 18., 13.]])
    >>> np.round(box.inverse(y), 12) + 0.0
    array([[0., 1., 2., 3., 4., 5., 6., 7.]])
    >>> PeriodicConv.init(2, kernel_size=(3, 5)).kernel.shape
    (2, 2, 3, 5)
    """

    _: KW_ONLY
    dilation: int | tuple[int, ...] = 1

    @classmethod
    def init(
        cls,
        channels: int,
        kernel_size: int | tuple[int, ...] = 3,
        ndim: int = 2,
        *,
        dilation: int | tuple[int, ...] = 1,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return a random rotation at the centre tap + N(0, 0.02^2), as in the paper.

        Parameters
        ----------
        channels, ndim : int
            The number of channels, and of spatial axes.
        kernel_size, dilation : int or tuple of int
            Per axis.
        rng, like
            As for `Conv1x1.init`.
        """
        channels, ndim = positive_int("channels", channels), positive_int("ndim", ndim)
        taps = sizes("kernel_size", kernel_size, ndim)
        conv = cls(drawn_kernel(channels, taps, ("periodic",) * ndim, rng), dilation=dilation)
        return conv if like is None else conv.asarrays(like)

    @derived
    def _family(self) -> Spectral:
        borders = ("periodic",) * len(self._kernel_size)
        return Spectral.of(self._kernel_size, borders, self.dilation)


class SymmetricConv(SpectralConv, mixing="symmetric"):
    """An even kernel on an image that goes on beyond its border, with its exact inverse.

        y[p] = sum over o of K[..., |o|] x~[p + o] + b
        log det = sum over m of log|det K_hat(m)|

    with offsets |o| < h along each axis and x~ the image, continued as ``boundary`` says; m are the
    waves of the grid.

    Use it for a blur with a symmetric point-spread function on images that do not close on
    themselves (`from_psf`), for heat between walls, and for a convolution with zero padding and
    three taps per axis that are even. Kernels of first derivatives are antisymmetric: they do not
    fit. The grid decides whether the map is invertible, as for `PeriodicConv`; if rounding leaves a
    tiny number in the place of a zero, the inverse warns. A kernel of 600 taps or more is
    multiplied by frequencies, as there.

    Parameters
    ----------
    kernel : array, shape (C, C, *h)
        ``kernel[..., t]`` stands at the offsets +t and -t along each axis, t = 0 ... h - 1; it may
        be wider than the grid. Along a periodic axis it is whole, as in `PeriodicConv`.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    boundary : {"symmetric", "mirror", "odd", "zero", "periodic"} or tuple of these, one per axis
        "symmetric": mirrored, d c b a | a b c d | d c b a, a wall without flow (Neumann). "mirror":
        mirrored in the last pixel, d c b | a b c d | c b a; K is not symmetric then, and there is
        no ``least_squares``. "odd": -c -b -a 0 | a b c d | 0 -d -c -b, a wall at zero (Dirichlet).
        "zero": zeros, for three taps at most, h <= 2. "periodic": a b c d | a b c d | a b c d.

    Warns
    -----
    UserWarning
        If the class is called with what looks like a whole kernel: of odd sizes, equal to its own
        flip along every axis that is not periodic, and largest in the middle. The message has the
        slice to pass.

    Examples
    --------
    A box of three pixels; at the border it counts the last pixel twice:

    >>> import numpy as np
    >>> box = SymmetricConv(np.ones((1, 1, 2)))
    >>> y = box.forward(np.arange(5.0)[None, :])
    >>> y
    array([[ 1.,  3.,  6.,  9., 11.]])
    >>> np.round(box.inverse(y), 12) + 0.0
    array([[0., 1., 2., 3., 4.]])

    Between walls at zero it is the convolution with zero padding:

    >>> SymmetricConv(np.ones((1, 1, 2)), boundary="zero").forward(np.arange(5.0)[None, :])
    array([[1., 3., 6., 9., 7.]])
    >>> SymmetricConv.init(2, kernel_size=5).kernel.shape  # of a whole kernel
    (2, 2, 3, 3)
    """

    _: KW_ONLY
    boundary: str | tuple[str, ...] = "symmetric"

    def validate(self) -> None:
        borders = borders_of(self.boundary, len(self._kernel_size))
        object.__setattr__(self, "boundary", borders)
        require_few_taps(self._kernel_size, borders)
        if readable(self.kernel):
            _warn_of_whole_kernel(to_numpy(self.kernel), borders)
        super().validate()

    @classmethod
    def init(
        cls,
        channels: int,
        kernel_size: int | tuple[int, ...] = 3,
        ndim: int = 2,
        *,
        boundary: str | tuple[str, ...] = "symmetric",
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return a random rotation at the pixel itself + N(0, 0.02^2).

        Parameters
        ----------
        channels, ndim : int
            The number of channels, and of spatial axes.
        kernel_size : int or tuple of int
            Size of the whole kernel, per axis; odd, unless periodic. The parameter has
            (kernel_size + 1)/2 taps along an axis that is not periodic.
        boundary : str or tuple of str
            As for the class.
        rng, like
            As for `Conv1x1.init`.
        """
        channels, ndim = positive_int("channels", channels), positive_int("ndim", ndim)
        whole = sizes("kernel_size", kernel_size, ndim)
        borders = borders_of(boundary, ndim)
        pairs = list(zip(whole, borders, strict=True))
        if any(k % 2 == 0 and border != "periodic" for k, border in pairs):
            raise ValueError(
                f"kernel_size: expected odd sizes, since an even kernel has a centre, "
                f"got {kernel_size!r}"
            )
        taps = tuple(k if border == "periodic" else (k + 1) // 2 for k, border in pairs)
        conv = cls(drawn_kernel(channels, taps, borders, rng), boundary=borders)
        return conv if like is None else conv.asarrays(like)

    def transpose(self) -> InvertibleConv:
        """Return the operator of K^T, without bias: of this class, unless there is a "mirror"."""
        return super().transpose() if self._family.orthogonal else InvertibleConv.transpose(self)

    @derived
    def _family(self) -> Spectral:
        size = self._kernel_size
        return Spectral.of(size, self.boundary, (1,) * len(size))


def borders_of(boundary: str | Sequence[str], ndim: int) -> tuple[str, ...]:
    """Return one word per axis, from one word or a sequence of ``ndim``, or raise ValueError."""
    words = (boundary,) * ndim if isinstance(boundary, str) else boundary
    options = ", ".join(map(repr, BORDERS))
    if not isinstance(words, Sequence) or len(words) != ndim:
        raise ValueError(
            f"boundary: expected one of {options}, or {ndim} of them, one per spatial axis, got "
            f"{boundary!r}"
        )
    for word in words:
        if not isinstance(word, str) or word not in BORDERS:
            hint = f"; {word!r} {_ELSEWHERE[word]}" if str(word) in _ELSEWHERE else ""
            raise ValueError(f"boundary: expected one of {options}, got {word!r}{hint}")
    return tuple(map(str, words))  # none of NumPy's


def require_few_taps(size: tuple[int, ...], borders: tuple[str, ...]) -> None:
    """Raise ValueError where a kernel (C, C, *h) reaches further than zeros allow."""
    for axis, (h, border) in enumerate(zip(size, borders, strict=True)):
        if border == "zero" and h > 2:
            raise ValueError(
                f'boundary: expected at most three taps along axis {axis} for "zero", got '
                f'{2 * h - 1}; use "odd", which goes on with the sign changed, or an '
                "AutoregressiveConv or EmergingConv, which see zeros with any number of taps"
            )


def _warn_of_whole_kernel(kernel: np.ndarray[Any, Any], borders: tuple[str, ...]) -> None:
    """Warn of a whole, centred point-spread function: pass only its part from the centre on."""
    halved = [axis for axis, border in enumerate(borders, 2) if border != "periodic"]
    sizes = [kernel.shape[axis] for axis in halved]
    if max(sizes, default=1) == 1 or any(k % 2 == 0 for k in sizes):
        return
    largest = np.abs(kernel).max(axis=(0, 1))
    middle, level = tuple(k // 2 for k in largest.shape), callers_level()
    if level > _DIRECT or not largest.flat[0] < largest[middle] == largest.max():
        return
    flips, close = (np.flip(kernel, axis) for axis in halved), 1e-8 * largest.max()
    if all(np.allclose(kernel, flip, atol=close) for flip in flips):
        parts = (f"{k // 2}:" if axis in halved else ":" for axis, k in enumerate(kernel.shape))
        warnings.warn(
            "kernel: expected the part of an even kernel from its centre on, got one that is even "
            "itself and largest in the middle; of a whole kernel pass "
            f"kernel[..., {', '.join(list(parts)[2:])}]",
            stacklevel=level,
        )


def drawn_kernel(
    channels: int, taps: Shape, borders: tuple[str, ...], rng: np.random.Generator | None
) -> np.ndarray[Any, Any]:
    """Return a kernel of a random rotation at the pixel itself + N(0, 0.02^2)."""
    kernel = 0.02 * generator(rng).standard_normal((channels, channels, *taps))
    place = np.ravel_multi_index(centre_of(taps, borders), taps)
    kernel.reshape(channels, channels, -1)[:, :, place] += random_orthogonal(channels, rng)
    return kernel


def from_psf(
    psf: Any, *, boundary: str | Sequence[str] = "symmetric", like: Array | None = None
) -> PeriodicConv | SymmetricConv:
    """Return the convolution with a centred point-spread function, whose inverse undoes the blur.

        y[p] = sum over o of h[o] x[p - o]

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
        require_few_taps(tuple(map(int, kernel.shape[2:])), borders)
        conv = object.__new__(SymmetricConv)  # part of a ring looks like a whole kernel
        vars(conv).update(kernel=kernel, bias=None, boundary=borders)
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
            "mean of an image, would be lost"
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
