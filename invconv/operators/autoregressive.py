"""Autoregressive convolutions, and emerging ones, two in a row (the paper's section 3.1).

A masked kernel makes the matrix triangular: with every offset o(t) on one side of the pixel, K is
block triangular in the order of the pixels, and at o = 0 the C x C matrix itself is triangular. So
the inverse is a substitution, pixel after pixel (`kernels.wavefront` does whole wavefronts).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, replace
from functools import partial
from typing import Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, namespace
from invconv.arrays.stencil import Offset, kernel_of
from invconv.arrays.validation import choice, directions, generator, positive_int, sizes
from invconv.families.convolutions import Causal
from invconv.kernels.convolutions import causal_family
from invconv.kernels.wavefront import CausalStencil
from invconv.operators.base.fields import array, part
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.blocks import InBlocks
from invconv.trust.gains import convolution_within, triangular_within


class AutoregressiveConv(InBlocks):
    """A convolution with a kernel that sees only pixels on one side of each pixel.

    y[p] = sum over t of K[..., t] x[p - direction dilation o(t)] + b, zero outside the grid, and
    log det = N sum over c of log|K[c, c, at o = 0]| with N pixels. The pixels o that the pixel #
    sees, with kernels of 2 x 2 and a raster of 2 x 3:

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
        return Causal(causal_family(size, centre, self.direction, self.dilation, lower))

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


class EmergingConv(InvertibleConv):
    """``second`` after ``first``, two autoregressive convolutions of opposite directions.

    y = K_2 (K_1 x) + b, log det = log|det K_1| + log|det K_2|. The pair has the receptive field of
    a standard convolution. Kernels and directions are as in `AutoregressiveConv`. A point-spread
    function is the kernel of neither.

    Parameters
    ----------
    first, second : AutoregressiveConv
        Their arrays are named "first.kernel", "second.kernel"; they may have biases of their own.
    bias : array, shape (C,), optional
        Added last.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> conv = EmergingConv.init(12, kernel_size=3, rng=rng)
    >>> conv.first.kernel.shape, conv.first.direction, conv.second.direction
    ((12, 12, 2, 2), (-1, -1), (1, 1))
    >>> x = rng.standard_normal((5, 12, 16, 16))
    >>> z, log_det = conv.forward_and_log_det(x)
    >>> bool(np.allclose(conv.inverse(z), x)), log_det.shape
    (True, (5,))
    """

    first: AutoregressiveConv = part()
    second: AutoregressiveConv = part()
    bias: Array | None = array("C", optional=True)

    def validate(self) -> None:
        for name in ("first", "second"):
            conv = getattr(self, name)
            if not isinstance(conv, AutoregressiveConv):
                raise TypeError(
                    f"{name}: expected an AutoregressiveConv, got {type(conv).__name__}"
                )
        one, two = self.first.direction, self.second.direction
        assert isinstance(one, tuple)
        assert isinstance(two, tuple)
        if any(a != -b for a, b in zip(one, two, strict=True)):
            raise ValueError(f"second: expected the direction opposite to first's {one}, got {two}")

    @classmethod
    def init(
        cls,
        channels: int,
        kernel_size: int | tuple[int, ...] = 3,
        ndim: int = 2,
        dilation: int | tuple[int, ...] = 1,
        *,
        mask: str = "corner",
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return the paper's pair: identity + N(0, 0.02^2), directions -1 then +1.

        Parameters
        ----------
        channels, ndim : int
            The number of channels, and of spatial axes.
        kernel_size : int or tuple of int
            Size of the standard convolution with the same receptive field; odd. Each part has
            (kernel_size + 1)/2 taps an axis.
        dilation, mask
            Of both parts, as for `AutoregressiveConv`.
        rng, like
            As for `Conv1x1.init`.
        """
        field = sizes("kernel_size", kernel_size, positive_int("ndim", ndim))
        if any(k % 2 == 0 for k in field):
            raise ValueError(
                f"kernel_size: expected odd sizes, since two corners of k make one of 2 k - 1, "
                f"got {kernel_size!r}"
            )
        taps = tuple((k + 1) // 2 for k in field)

        init = partial(AutoregressiveConv.init, channels, taps, ndim, mask=mask, dilation=dilation)
        first = init(direction=-1, channel_order="lower", rng=rng, like=like)
        return cls(first, init(direction=1, channel_order="upper", rng=rng, like=like))

    @derived
    def ndim(self) -> int:
        """Return the number of spatial axes."""
        return self.first.ndim

    def within(self, gain: float) -> Self:
        first, second = self.first.within(gain**0.5), self.second.within(gain**0.5)
        return replace(self, first=first, second=second)

    def transpose(self) -> EmergingConv:
        """Return the transposed parts in the opposite order, without biases."""
        return EmergingConv(self.second.transpose(), self.first.transpose())
