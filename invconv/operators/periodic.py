"""Periodic convolutions (the paper's section 3.2): one C x C matrix a frequency of the grid."""

from dataclasses import KW_ONLY
from typing import Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array
from invconv.arrays.validation import positive_int, sizes
from invconv.families.convolutions import Spectral
from invconv.operators.convolution import SpectralConv, drawn_kernel


class PeriodicConv(SpectralConv, mixing="periodic"):
    r"""A standard convolution with circular padding, with its exact inverse.

    $$y[p] = \sum_t K[\dots, t]\, x[(p + d\, (t - \lfloor (k - 1)/2 \rfloor)) \bmod n] + b$$

    $$\log|\det K| = \sum_f \log|\det \hat K(f)|$$

    with d the dilation: in the frequency domain one C x C matrix $\hat K(f)$ a frequency f of the
    grid. As in torch and JAX, it is a cross-correlation. To undo a blur by a point-spread function
    h, a convolution in the sense of scipy.ndimage.convolve, flip it: for one channel and odd sizes
    the kernel is ``h[::-1, ::-1][None, None]``.

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
