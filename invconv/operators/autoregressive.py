"""Autoregressive convolutions, which the emerging ones are made of (the paper's section 3.1).

A masked kernel has every offset o(t) on one side of the pixel: K is block triangular in the order
of the pixels, and at o = 0 the C x C matrix itself is triangular. So the inverse is a substitution,
pixel after pixel (`kernels.wavefront` does whole wavefronts).

The pixels before a block along the first spatial axis, or behind it with direction -1, add to it:

    K [before, x] = [..., K x + c]

with c the sum over taps that read them: zero except in the r rows at that end, r the taps' reach.
"""

import math
import warnings
from dataclasses import KW_ONLY, replace
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.errors import IllConditionedWarning
from invconv.arrays.namespaces import (
    Array,
    Shape,
    bits,
    callers_level,
    cast,
    namespace,
    ops_of,
    readable,
)
from invconv.arrays.stencil import CausalStencil, Offset, kernel_of
from invconv.arrays.validation import (
    choice,
    directions,
    generator,
    positive_int,
    require_alike,
    sizes,
)
from invconv.families.convolutions import Causal
from invconv.families.family import BOTH
from invconv.kernels import maps
from invconv.kernels.primitives import window
from invconv.operators.base.calls import Call, as_batch
from invconv.operators.base.factors import Gradients
from invconv.operators.base.judgement import bound
from invconv.operators.convolution import WithKernel
from invconv.trust import limits
from invconv.trust.bound import neumann_ratio
from invconv.trust.condition import EPS, tried
from invconv.trust.gains import convolution_within, triangular_within


class AutoregressiveConv(WithKernel):
    r"""A convolution with a kernel that sees only pixels on one side of each pixel.

    $$y[p] = \sum_t K[\dots, t]\, x[p - \text{direction}\; \text{dilation}\; o(t)] + b$$

    $$\log|\det K| = N \sum_c \log|K[c, c, \text{at } o = 0]|$$

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
        order = choice("channel_order", self.channel_order, ("lower", "upper"))
        object.__setattr__(self, "channel_order", order)
        object.__setattr__(self, "mask", choice("mask", self.mask, ("corner", "raster")))
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
        family = conv._family
        conv.kernel[...] = family.kernel(family.taps(conv.kernel))
        return conv if like is None else conv.asarrays(like)

    @property
    def _centre(self) -> Offset:
        """The index of the tap with o = 0."""
        if self.mask == "corner":
            return (0,) * len(self._kernel_size)
        return (0, *((k - 1) // 2 for k in self._kernel_size[1:]))

    @derived
    def _family(self) -> Causal:
        lower = self.channel_order == "lower"
        size, centre = self._kernel_size, self._centre
        return Causal.of(size, centre, self.direction, self.dilation, lower)

    def _causal(self) -> CausalStencil:
        return self._family.stencil(self.kernel)

    def transpose(self) -> Self:
        """Return the operator of K^T: flipped direction and channel order, transposed matrices."""
        turned = self._family.transpose()
        return replace(
            self,
            kernel=self._family.adjoint(self.kernel),
            bias=None,
            direction=turned.direction,
            channel_order="lower" if turned.lower else "upper",
        )

    def within(self, gain: float) -> Self:
        causal = self._causal()
        block, others = convolution_within(triangular_within, causal.diagonal, causal.others, gain)
        taps = namespace(others).concat([block[None, ...], others])
        return self.replace(kernel=kernel_of(taps, self._kernel_size))

    def advice(self, channel: int | None) -> str:
        causal = self._causal()
        rho = neumann_ratio(causal.diagonal, causal.others)
        if not math.isfinite(rho):
            return "bring D, the matrix of the pixel itself, closer to 1: D^-1 overflows"
        return (
            f"make the other taps smaller against those of the pixel itself: |D^-1| sum |taps| is "
            f"{rho:.3g}, and below 1 the inverse is safe on every grid"
        )

    def forward(self, x: Array, before: Array | None = None) -> Array:
        """Return y = K x + b; see `InvertibleConv.forward`.

        Parameters
        ----------
        x : array, shape (*batch, C, *spatial)
        before : array, optional
            If x is a block of an image that is longer along the first spatial axis: its r pixels
            that precede x, shaped as x but for r = (k_0 - 1) dilation along that axis. With
            direction -1 along the axis, the r pixels that follow x. Zeros unless given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import AutoregressiveConv
        >>> conv = AutoregressiveConv(np.asarray([[[1.0, -1.0]]]))
        >>> x = np.asarray([[1.0, 3.0, 6.0, 10.0]])
        >>> y = conv.forward(x), conv.forward(x[:, 2:], before=x[:, 1:2])
        >>> y
        (array([[1., 2., 3., 4.]]), array([[3., 4.]]))
        >>> conv.inverse(y[0]), conv.inverse(y[1], before=x[:, 1:2])
        (array([[ 1.,  3.,  6., 10.]]), array([[ 6., 10.]]))
        """
        if before is None:
            return super().forward(x)
        call = as_batch(self, "x", x)
        conv: AutoregressiveConv = call.conv
        return call.restore_shape(conv._with_before(call, conv._route(call.x)(call.x), before, 1))

    def inverse(self, y: Array, before: Array | None = None) -> Array:
        """Return x with forward(x, before) = y; see `InvertibleConv.inverse` and `forward`.

        ``before`` are pixels of x, from the inverse of the preceding block. Their errors may grow
        from block to block: then each call warns after how many pixels of the image x is lost.
        """
        if before is None:
            return super().inverse(y)
        prepared = self.prepare(as_batch(self, "y", y).spatial_shape)
        vars(prepared._conv)["_conditions"] = self._conditions  # shared: the numbers are the same
        return prepared.inverse(y, before)

    def forward_vjp(
        self,
        x: Array,
        y_bar: Array,
        log_det_bar: Array | None = None,
        *,
        before: Array | None = None,
    ) -> tuple[Gradients, Array]:
        """See `InvertibleConv.forward_vjp`; the gradient by ``before`` is named "before"."""
        gradients, x_bar = super().forward_vjp(x, y_bar, log_det_bar)
        if before is None:
            return gradients, x_bar
        return self._gradients_with(gradients, as_batch(self, "y_bar", y_bar), before), x_bar

    def inverse_vjp(
        self,
        y: Array,
        x_bar: Array,
        log_det_bar: Array | None = None,
        *,
        check: bool = True,
        before: Array | None = None,
    ) -> tuple[Gradients, Array]:
        """See `InvertibleConv.inverse_vjp`; the gradient by ``before`` is named "before"."""
        if before is None:
            return super().inverse_vjp(y, x_bar, log_det_bar, check=check)
        call = as_batch(self, "y", y)
        y = call.restore_shape(call.conv._with_before(call, call.x, before, -1))
        gradients, y_bar = super().inverse_vjp(y, x_bar, log_det_bar, check=check)
        return self._gradients_with(gradients, as_batch(self, "y_bar", -y_bar), before), y_bar

    def _with_before(self, call: Call, y: Array, before: Array, sign: int) -> Array:
        """Return y + sign c, with the module's c."""
        family, rows = self._family, int(y.shape[2])
        before = cast(as_before(call, family, before), self.kernel.dtype)
        depth, ahead = int(before.shape[2]), family.direction[0] < 0
        c = maps.apply(family, self.kernel, window(before, 2, -depth * ahead, depth * (2 - ahead)))
        start = depth - rows * ahead
        return y + sign * window(c, 2, start, start + rows)

    def _warn_of_blocks(self, shape: Shape, result: Array) -> None:
        """Warn if errors that grow from block to block make the inverse wrong after some pixels."""
        unchecked = shape in self._conditions.unchecked
        if unchecked or not all(readable(a) for a in (result, *self._arrays().values())):
            return
        precision = "float64" if bits(result.dtype, result) == 64 else "float32"

        def compute() -> float:
            return tried(lambda: self._lost_after(shape, EPS[precision]), math.inf)

        pixels = self._conditions.find(f"blocks, {precision}", shape, compute)
        if pixels <= limits.ENDLESS:
            text = (
                f"inverse(y, before) of {type(self).__name__} by blocks is lost after about "
                f"{max(1, round(pixels))} pixels along the first axis in {precision}: errors of "
                f"before grow from block to block; {self.advice(None)}, or begin anew with known "
                "pixels before that (prepare(..., check=False) does not look)"
            )
            warnings.warn(text, IllConditionedWarning, stacklevel=callers_level())

    def _lost_after(self, shape: Shape, eps: float) -> float:
        """Return after how many pixels along the first axis errors of ``before`` are too large.

        The taps along this axis alone tell how errors grow in the long run, exactly in one
        dimension and for corners; solves of some blocks of zeros tell how they grow until then.
        """
        if bound(self) * eps <= limits.TOLERATED:
            return math.inf
        host = self._on_host(np.float64).replace(bias=None)
        along = host.kernel[(..., *host._centre[1:])]
        channels, count = host.channels, along.shape[2] - 1
        pixels, wide = math.inf, channels * count > limits.COMPANION
        if count and not wide:
            companion = np.eye(channels * count, k=-channels)
            taps = np.concatenate(np.moveaxis(along[..., 1:], 2, 0), axis=1)
            companion[:channels] = -np.linalg.solve(host._causal().diagonal, taps)
            largest = float(np.abs(np.linalg.eigvals(companion)).max())
            if largest > 1:
                steps = math.log(limits.TOLERATED / eps) / math.log(largest)
                pixels = steps * host._family.dilation[0]
        if len(shape) == 1 and not wide:
            return pixels
        depth, ahead = host._family.reaches_back(0), host._family.direction[0] < 0
        prepared, zeros = host.prepare(shape, check=False), np.zeros((1, channels, *shape))
        before = np.random.default_rng().standard_normal((1, channels, depth, *shape[1:]))
        first = np.abs(before).max(initial=0.0)
        for block in range(1, 1 + limits.ZEROS):
            x = prepared.inverse(zeros, before)
            both = np.concatenate([x, before] if ahead else [before, x], axis=2)
            before = both[:, :, :depth] if ahead else both[:, :, both.shape[2] - depth :]
            grown = np.abs(before).max(initial=0.0) / first
            if not grown * eps <= limits.TOLERATED:
                return min(pixels, float(block * shape[0]))
            if grown < 1:
                break
        return pixels

    def _gradients_with(self, gradients: Gradients, bar: Call, before: Array) -> Gradients:
        """Add the kernel's gradient through the pixels before a block, and that by these pixels."""
        family = self._family
        flat = as_before(bar, family, before)
        depth, ahead = int(flat.shape[2]), family.direction[0] < 0
        x = window(flat, 2, -depth * ahead, depth * (2 - ahead))
        border = int(bar.x.shape[2]) * ahead
        y_bar = window(bar.x, 2, border - depth, border + depth)
        bars = maps.apply_vjp(family, bar.conv.kernel, x, y_bar, BOTH)
        kernel_bar, before_bar = (cast(each, before.dtype) for each in bars)
        before_bar = window(before_bar, 2, depth * ahead, depth * (1 + ahead))
        before_bar = namespace(before).reshape(before_bar, tuple(before.shape))
        return gradients | {"kernel": gradients["kernel"] + kernel_bar, "before": before_bar}


def as_before(call: Call, family: Causal, before: Any) -> Array:
    """Validate and flatten the pixels that precede the block of a call."""
    require_alike("before", before, call.name, call.original)
    depth, shape = family.reaches_back(0), tuple(call.original.shape)
    axis = len(shape) - len(call.spatial_shape)
    expected = (*shape[:axis], depth, *shape[axis + 1 :])
    if tuple(before.shape) != expected:
        place = "first rows behind" if family.direction[0] < 0 else "last rows before"
        raise ValueError(
            f"before: expected the shape {expected}, since the taps reach {depth} pixels along the "
            f"first spatial axis, got {tuple(before.shape)}; give the {place} this block, "
            "zeros beyond the border"
        )
    flat = (*call.x.shape[:2], depth, *call.x.shape[3:])
    before = ops_of(before).spread(before, call.x)
    return namespace(before).reshape(cast(before, call.x.dtype), flat)
