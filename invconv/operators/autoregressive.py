"""Autoregressive convolutions: a masked kernel makes the matrix triangular (the paper's 3.1).

With every offset o(t) on one side of the pixel, K is block triangular in the order of the
pixels, and at o = 0 the C x C matrix itself is triangular. So the inverse is a substitution, pixel
after pixel (`kernels.wavefront` does whole wavefronts).
"""

import math
from dataclasses import KW_ONLY, replace
from typing import Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, namespace
from invconv.arrays.stencil import Offset, kernel_of
from invconv.arrays.validation import choice, directions, generator, positive_int, sizes
from invconv.families.convolutions import Causal
from invconv.kernels.convolutions import CausalFamily
from invconv.kernels.wavefront import CausalStencil
from invconv.operators.blocks import InBlocks
from invconv.trust.bound import neumann_ratio
from invconv.trust.gains import convolution_within, triangular_within


class AutoregressiveConv(InBlocks):
    """A convolution with a kernel that sees only pixels on one side of each pixel.

        y[p] = sum over t of K[..., t] x[p - direction dilation o(t)] + b
        log det = N sum over c of log|K[c, c, at o = 0]|

    x is zero outside the grid of N pixels. The pixels o that the pixel # sees, with kernels of
    2 x 2 and a raster of 2 x 3:

        direction  +1       -1     (1, -1)  raster +1  raster -1
                  o o .    . . .    . o o     o o o      . . .
                  o # .    . # o    . # o     o # .      . # o
                  . . .    . o o    . . .     . . .      o o o

    With direction -1 entry t of the kernel multiplies x[p + t]: the image is *correlated* with the
    kernel, as torch and JAX do it. With +1 it multiplies x[p - t]: a convolution, as NumPy's and
    SciPy's. So a point-spread function h that is zero before its first entry, y[p] = sum of h[t]
    x[p - t], needs no flip: with direction +1 it is the kernel, ``h[None, None]`` for one channel.
    For a centred one see `from_psf`.

    Parameters
    ----------
    kernel : array, shape (C, C, *k)
        Masked entries are ignored.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    mask : {"corner", "raster"}
        "corner": o(t) = t, so that all offsets are >= 0 along every axis.
        "raster": o(t) = (t_0, t_1 - (k_1 - 1)/2, ...), and offsets with a negative first non-zero
        entry are masked (PixelCNN's half-plane); all sizes but the first are odd. In one dimension
        it is a corner.
    direction : int or tuple of int
        +1 or -1, per axis for corners, one for all axes for a raster.
    channel_order : {"lower", "upper"}
        The triangle of the C x C matrix at o = 0; the other triangle is masked.
    dilation : int or tuple of int
        Per axis.

    Examples
    --------
    A difference, whose inverse is a running sum:

    >>> import numpy as np
    >>> conv = AutoregressiveConv(np.asarray([[[1.0, -1.0]]]))
    >>> conv.inverse(np.ones((1, 4)))
    array([[1., 2., 3., 4.]])
    >>> AutoregressiveConv.init(5, kernel_size=2, mask="raster").kernel.shape
    (5, 5, 2, 3)
    """

    _: KW_ONLY
    mask: str = "corner"
    direction: int | tuple[int, ...] = 1
    channel_order: str = "lower"
    dilation: int | tuple[int, ...] = 1

    def validate(self) -> None:
        choice("mask", self.mask, ("corner", "raster"))
        choice("channel_order", self.channel_order, ("lower", "upper"))
        direction = directions("direction", self.direction, len(self._kernel_size))
        object.__setattr__(self, "direction", direction)
        if self.mask == "raster":
            if any(k % 2 == 0 for k in self._kernel_size[1:]):
                raise ValueError(
                    "kernel: a raster mask needs an odd size along every axis but the first, "
                    f"got {self._kernel_size}"
                )
            if len(set(direction)) > 1:
                raise ValueError(
                    f"direction: a raster mask has one direction for all axes, got {direction}"
                )
        super().validate()

    @classmethod
    def init(
        cls,
        channels: int,
        kernel_size: int | tuple[int, ...] = 2,
        ndim: int = 2,
        *,
        mask: str = "corner",
        direction: int | tuple[int, ...] = 1,
        channel_order: str = "lower",
        dilation: int | tuple[int, ...] = 1,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return the identity + N(0, 0.02^2), as in the paper.

        Parameters
        ----------
        channels, ndim : int
            The number of channels, and of spatial axes.
        kernel_size : int or tuple of int
            Taps along each axis, the pixel itself included; a raster of 2 has a kernel (2, 3, ...).
        mask, direction, channel_order, dilation
            As for the class.
        rng, like
            As for `Conv1x1.init`.
        """
        channels, ndim = positive_int("channels", channels), positive_int("ndim", ndim)
        choice("mask", mask, ("corner", "raster"))
        taps = sizes("kernel_size", kernel_size, ndim)
        if mask == "raster":
            taps = (taps[0], *(2 * k - 1 for k in taps[1:]))
        conv = cls(
            0.02 * generator(rng).standard_normal((channels, channels, *taps)),
            mask=mask,
            direction=direction,
            channel_order=channel_order,
            dilation=dilation,
        )
        conv.kernel[(..., *conv._centre)] += np.eye(channels)
        linear = conv._family.linear
        conv = conv.replace(kernel=linear.kernel(linear.taps(conv.kernel)))
        return conv if like is None else conv.asarrays(like)

    @property
    def _centre(self) -> Offset:
        """The index of the tap with o = 0."""
        if self.mask == "corner":
            return (0,) * len(self._kernel_size)
        return (0, *((k - 1) // 2 for k in self._kernel_size[1:]))

    @derived
    def _family(self) -> Causal:
        assert isinstance(self.direction, tuple)
        assert isinstance(self.dilation, tuple)
        lower = self.channel_order == "lower"
        size, centre = self._kernel_size, self._centre
        return Causal(CausalFamily.of(size, centre, self.direction, self.dilation, lower))

    def _causal(self) -> CausalStencil:
        return self._family.linear.stencil(self.kernel)

    def transpose(self) -> Self:
        """Return the operator of K^T: flipped direction and channel order, transposed matrices."""
        turned = self._family.linear.transpose()
        return replace(
            self,
            kernel=self._family.linear.adjoint(self.kernel),
            bias=None,
            direction=turned.direction,
            channel_order="lower" if turned.lower else "upper",
        )

    def within(self, gain: float) -> Self:
        causal = self._causal()
        block, others = convolution_within(triangular_within, causal.diagonal, causal.taps, gain)
        taps = namespace(others).concat([block[None, ...], others], axis=0)
        return self.replace(kernel=kernel_of(taps, self._kernel_size))

    def advice(self, channel: int | None) -> str:
        causal = self._causal()
        rho = neumann_ratio(causal.diagonal, causal.taps)
        if not math.isfinite(rho):
            return "bring D, the matrix of the pixel itself, closer to 1: D^-1 overflows"
        return (
            f"make the other taps smaller against those of the pixel itself: |D^-1| sum |taps| is "
            f"{rho:.3g}, and below 1 the inverse is safe on every grid"
        )
