"""Exponentials of convolutions: invertible with every kernel, on every grid.

E. Hoogeboom, V. G. Satorras, J. M. Tomczak, M. Welling, The Convolution Exponential and
Generalized Sylvester Flows, NeurIPS 2020, arXiv 2006.01910.
"""

import math
from dataclasses import KW_ONLY
from typing import Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, namespace, size
from invconv.arrays.stencil import taps_of
from invconv.arrays.validation import choice, generator, positive_int, sizes
from invconv.families.exponential import Exponential
from invconv.kernels.exponential import LARGEST
from invconv.operators.convolution import WithKernel
from invconv.trust.gains import norm_bound, shrinking


class ExponentialConv(WithKernel, mixing="exponential"):
    r"""The exponential of a convolution M, zero outside the grid or modulo the grid.

    $$y = e^M x + b = x + M x + \frac{M^2 x}{2!} + \dots + b$$

    $$(M x)[p] = \sum_t K[\dots, t]\, x[p + \text{dilation}\, (t - (k - 1)/2)]$$

    $$\log|\det e^M| = \text{tr}\, M = N \sum_c K[c, c, \text{centre}]$$

    M is a cross-correlation, so flip a point-spread function; N is the number of pixels. On a
    circular grid that is narrower than K, the last sum goes over all taps that land on the pixel
    itself.

    The map is invertible with every kernel on every grid: the inverse is e^-M. Its condition is at
    most e^(2 |S|), S the symmetric part of M: if K[o, i, t] = -K[i, o, -t], e^M is orthogonal.
    The determinant is positive, and for a kernel near 0 the map is near the identity, so let a 1x1
    convolution mix the channels before it.

    Parameters
    ----------
    kernel : array, shape (C, C, *k)
        Of odd size along each axis; it may be wider than the grid.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    padding : {"zeros", "circular"}
        The image beyond the border: zeros, or the periodic continuation.
    dilation : int or tuple of int
        Per axis.

    Raises
    ------
    ValueError
        If the kernel has an even size along an axis, and thus no centre.

    Notes
    -----
    The series has so many terms that its truncation is below rounding, by the kernel's 1- and
    infinity norms: 12 convolutions in float64 for a norm of 0.3, 33 for 4, and as many again for
    every further 4. Beyond 4096 the result is NaN. The host must know the number of terms, so on an
    accelerator it waits for the norm: once for a prepared inverse, and then for no solve; at every
    forward in CuPy; in PyTorch once per call, that is, per training step.
    (In PyTorch at every call if the kernel is computed in the call: compiled, with a half type, or
    with ``max_gain``.) No first derivative waits, and JAX counts on the device. In host memory the
    inverse on a circular grid is one product per frequency instead (not in JAX).

    Examples
    --------
    A difference of neighbours is skew, so its exponential is orthogonal: it moves waves.

    >>> import numpy as np
    >>> conv = ExponentialConv(np.asarray([[[-5.0, 0.0, 5.0]]]), padding="circular")
    >>> x = np.eye(1, 8)
    >>> y = conv.forward(x)
    >>> bool(np.allclose((y**2).sum(), 1)), bool(np.allclose(conv.inverse(y), x))
    (True, True)
    >>> float(conv.log_det((8,)))
    0.0

    `init` gives nearly the identity:

    >>> bool(ExponentialConv.init(3, rng=np.random.default_rng(0)).condition((8, 8)) < 2)
    True
    """

    _: KW_ONLY
    padding: str = "zeros"
    dilation: int | tuple[int, ...] = 1

    def validate(self) -> None:
        padding = choice("padding", self.padding, ("zeros", "circular"))
        object.__setattr__(self, "padding", padding)
        if any(k % 2 == 0 for k in self._kernel_size):
            raise ValueError(
                "kernel: expected an odd size along every axis, since an even one has no centre, "
                f"got {self._kernel_size}"
            )
        super().validate()

    @classmethod
    def init(
        cls,
        channels: int,
        kernel_size: int | tuple[int, ...] = 3,
        ndim: int = 2,
        *,
        padding: str = "zeros",
        dilation: int | tuple[int, ...] = 1,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return N(0, 0.02^2) over the root of the number of taps: nearly the identity.

        Parameters
        ----------
        channels, ndim : int
            The number of channels, and of spatial axes.
        kernel_size : int or tuple of int
            Per axis, odd.
        padding, dilation
            As for the class.
        rng, like
            As for `Conv1x1.init`.
        """
        channels, ndim = positive_int("channels", channels), positive_int("ndim", ndim)
        taps = sizes("kernel_size", kernel_size, ndim)
        if any(k % 2 == 0 for k in taps):
            raise ValueError(f"kernel_size: expected odd sizes, got {kernel_size!r}")
        kernel = 0.02 * generator(rng).standard_normal((channels, channels, *taps))
        conv = cls(kernel / math.sqrt(size(taps)), padding=padding, dilation=dilation)
        return conv if like is None else conv.asarrays(like)

    @derived
    def _family(self) -> Exponential:
        return Exponential.of(self._kernel_size, self.dilation, self.padding == "circular")

    def within(self, gain: float) -> Self:
        """Return e^(S + A) with |S| <= log(gain), S the symmetric part of M, and A the skew part.

        |e^-(S + A)| <= e^|S|, since the logarithmic norm of -(S + A) is the largest eigenvalue of
        -S. A is only shrunk if the series would end, beyond `LARGEST` in the 1-norm, which is at
        most C^(1/2) times the 2-norm.
        """
        symmetric, most = self._symmetric(), LARGEST / math.sqrt(self.channels)
        skew, xp = self.kernel - symmetric, namespace(symmetric)
        norm, turns = (xp.sum(norm_bound(taps_of(part))) for part in (symmetric, skew))
        symmetric = symmetric * shrinking(norm, min(math.log(gain), most / 4) * xp.ones_like(norm))
        limit = most / 2 * xp.ones_like(turns)
        return self.replace(kernel=symmetric + skew * (limit / xp.maximum(turns, limit)))

    def advice(self, channel: int | None) -> str:
        norm = float(np.linalg.norm(taps_of(self._symmetric()), 2, axis=(1, 2)).sum())
        return (
            f"make the symmetric part of the kernel smaller, S = (K[o, i, t] + K[i, o, -t]) / 2: "
            f"the condition is at most e^(2 |S|), |S| <= {norm:.3g}; the rest loses nothing"
        )

    def _symmetric(self) -> Array:
        """Return the kernel of the symmetric part of M."""
        return (self.kernel + self._family.transposed(self.kernel)[1]) / 2
