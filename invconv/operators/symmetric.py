"""Convolutions of even kernels with borders; Karami et al. 2019 have mirrors."""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, callers_level, readable, to_numpy
from invconv.arrays.validation import positive_int, sizes
from invconv.families.convolutions import Spectral
from invconv.kernels.frequencies.waves import BORDERS
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.convolution import SpectralConv, drawn_kernel

# what the words of scipy.ndimage, numpy.pad, PyTorch and physicists are here
_ELSEWHERE = {
    **dict.fromkeys(("wrap", "grid-wrap", "circular"), "is 'periodic'"),
    **dict.fromkeys(("constant", "grid-constant", "zeros"), "is 'zero'"),
    **dict.fromkeys(("grid-mirror", "neumann"), "is 'symmetric'"),
    "dirichlet": "is 'odd'",
    "reflect": "of scipy.ndimage is 'symmetric', that of NumPy and PyTorch is 'mirror'",
}


class SymmetricConv(SpectralConv, mixing="symmetric"):
    r"""An even kernel on an image that goes on beyond its border, with its exact inverse.

    $$y[p] = \sum_o K[\dots, |o|]\, \tilde x[p + o] + b$$

    $$\log|\det K| = \sum_m \log|\det \hat K(m)|$$

    with offsets $|o| < h$ along each axis and $\tilde x$ the image, continued as ``boundary`` says;
    m are the waves of the grid.

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

    Raises
    ------
    ValueError
        If it is called with a whole kernel of odd sizes and largest in the middle but not even.

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
        _require_few_taps(self._kernel_size, borders)
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


def _require_few_taps(size: tuple[int, ...], borders: tuple[str, ...]) -> None:
    """Raise ValueError where a kernel (C, C, *h) reaches further than zeros allow."""
    for axis, (h, border) in enumerate(zip(size, borders, strict=True)):
        if border == "zero" and h > 2:
            raise ValueError(
                f'boundary: expected at most three taps along axis {axis} for "zero", got '
                f'{2 * h - 1}; use "odd", which goes on with the sign changed, or an '
                "AutoregressiveConv or EmergingConv, which see zeros with any number of taps"
            )


def _looking(init: Callable[..., None]) -> Any:
    """Return an ``__init__`` that also warns of a kernel that is probably a whole one."""

    @functools.wraps(init)
    def __init__(self: Any, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        if readable(self.kernel):
            _warn_of_whole_kernel(to_numpy(self.kernel), self.boundary)

    return __init__


def _warn_of_whole_kernel(kernel: np.ndarray[Any, Any], borders: tuple[str, ...]) -> None:
    """Warn of a whole, centred point-spread function: pass only its part from the centre on.

    One that is not even raises. An operator whose kernel is largest away from o = 0 has a spectrum
    of both signs: on large grids it is nearly singular, so hardly anyone means it.
    """
    halved = [axis for axis, border in enumerate(borders, 2) if border != "periodic"]
    sizes = [kernel.shape[axis] for axis in halved]
    if max(sizes, default=1) == 1 or any(k % 2 == 0 for k in sizes):
        return
    largest = np.abs(kernel).max(axis=(0, 1))
    middle = tuple(k // 2 for k in largest.shape)
    if not largest.flat[0] < largest[middle] == largest.max():
        return
    flips, close = (np.flip(kernel, axis) for axis in halved), 1e-8 * largest.max()
    if all(np.allclose(kernel, flip, atol=close) for flip in flips):
        parts = (f"{k // 2}:" if axis in halved else ":" for axis, k in enumerate(kernel.shape))
        warnings.warn(
            "kernel: expected the part of an even kernel from its centre on, got one that is even "
            "itself and largest in the middle; of a whole kernel pass "
            f"kernel[..., {', '.join(list(parts)[2:])}]",
            stacklevel=callers_level(),
        )
        return
    raise ValueError(
        "kernel: expected the part of an even kernel from its centre on, got what looks like a "
        "whole one, largest in the middle, and not even; pass the mean of it and its flip, from "
        "the centre on, or use PeriodicConv; if it is such a part, append a zero along an axis"
    )


SymmetricConv.__init__ = _looking(SymmetricConv.__init__)  # type: ignore[method-assign]
