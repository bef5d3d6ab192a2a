"""Symmetric convolutions (Karami et al., Invertible Convolutional Flow, 2019): mirrored borders.

    y[p] = sum over offsets o, |o| < h along each axis, of K[..., |o|] x[mirror(p + o)] + b

The image is continued by half-sample symmetry, d c b a | a b c d | d c b a, and the kernel is even
along every axis, so that cosines decouple it (`kernels.frequencies.cosine`):

    log|det| = sum over m of log|det K_hat(m)|
    K_hat(m) = sum over t of w_t K[..., t] prod over axes of cos(pi m t / N)

with w_t the number of offsets +-t. There is no wrap-around and no order of the pixels.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, readable, to_numpy
from invconv.arrays.settings import generator, positive_int, sizes
from invconv.families.convolutions import Spectral
from invconv.kernels.symmetric import symmetric_family
from invconv.operators.base.checks import callers_level
from invconv.operators.convolution import SpectralConv
from invconv.operators.pointwise.conv1x1 import random_orthogonal


class SymmetricConv(SpectralConv, mixing="symmetric"):
    """An even kernel on an image that is mirrored at its border, with its exact inverse.

    y[p] = sum over offsets o of K[..., |o|] x[mirror(p + o)] + b, |o| < h along each axis, where
    the image goes on as d c b a | a b c d | d c b a. log det = sum over m of log|det K_hat(m)|.

    Use it for a blur with a symmetric point-spread function on images that do not close on
    themselves: ``kernel`` is the function's part from the centre on (for an even kernel correlation
    and convolution are the same). Derivatives have odd kernels and do not fit. The grid decides
    whether the map is invertible, as for `PeriodicConv`; if rounding leaves a tiny number in the
    place of a zero, the inverse warns.

    Parameters
    ----------
    kernel : array, shape (C, C, *h)
        ``kernel[..., t]`` stands at the offsets +t and -t along each axis, t = 0 ... h - 1; it may
        be wider than the grid.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.

    Warns
    -----
    UserWarning
        If the kernel looks like a whole one: of odd sizes, equal to its own flip along every axis,
        and largest in the middle. The message has the slice to pass.

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
    """

    def validate(self) -> None:
        if readable(self.kernel):
            _warn_of_whole_kernel(to_numpy(self.kernel))
        _ = self._family  # torch.compile can look a family up, but cannot make one

    @classmethod
    def init(
        cls,
        channels: int,
        kernel_size: int | tuple[int, ...] = 3,
        ndim: int = 2,
        *,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return a random rotation at the pixel itself + N(0, 0.02^2).

        Parameters
        ----------
        channels : int
        kernel_size : int or tuple of int
            Size of the whole kernel, per axis; odd. The parameter has (kernel_size + 1)/2 taps an
            axis.
        ndim : int
            The number of spatial axes.
        rng : numpy.random.Generator
        like : array, optional
            An array of the library, dtype and device to use; NumPy float64 unless given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import SymmetricConv
        >>> SymmetricConv.init(2, kernel_size=5, rng=np.random.default_rng(0)).kernel.shape
        (2, 2, 3, 3)
        """
        channels, ndim = positive_int("channels", channels), positive_int("ndim", ndim)
        whole = sizes("kernel_size", kernel_size, ndim)
        if any(k % 2 == 0 for k in whole):
            raise ValueError(
                f"kernel_size: expected odd sizes, since an even kernel has a centre, "
                f"got {kernel_size!r}"
            )
        taps = tuple((k + 1) // 2 for k in whole)
        kernel = 0.02 * generator(rng).standard_normal((channels, channels, *taps))
        kernel.reshape(channels, channels, -1)[:, :, 0] += random_orthogonal(channels, rng)
        conv = cls(kernel)
        return conv if like is None else conv.asarrays(like)

    @derived
    def _family(self) -> Spectral:
        return Spectral(symmetric_family(self._kernel_size))

    def transpose(self) -> SymmetricConv:
        """Return the operator of K^T: transposed matrices at the same taps, without bias."""
        return SymmetricConv(self._family.linear.adjoint(self.kernel))


def _warn_of_whole_kernel(kernel: np.ndarray[Any, Any]) -> None:
    """Warn of a whole, centred point-spread function: pass only its part from the centre on."""
    taps = kernel.shape[2:]
    if max(taps) == 1 or any(k % 2 == 0 for k in taps):
        return
    largest = np.abs(kernel).max(axis=(0, 1))
    if largest[tuple(k // 2 for k in taps)] < largest.max():
        return
    if all(np.allclose(kernel, np.flip(kernel, axis)) for axis in range(2, kernel.ndim)):
        half = ", ".join(f"{k // 2}:" for k in taps)
        warnings.warn(
            "kernel: expected the part of an even kernel from its centre on, got one that is even "
            f"itself and largest in the middle; of a whole kernel pass kernel[..., {half}]",
            stacklevel=callers_level(),
        )
