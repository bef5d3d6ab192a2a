"""Signals and images in blocks along the first spatial axis: the pixels that precede a block.

    K [before, x] = [..., K x + c]

with c what the taps read of the pixels before x. Only the first r rows of c are not zero, r the
reach of the taps, the number of rows of ``before``. With direction -1 along the first spatial axis
the taps read what follows a block: then ``before`` lies behind x, and c is not zero in its last
rows.
"""

from typing import Any

from invconv.arrays.namespaces import Array, cast, mesh_axes, namespace
from invconv.arrays.validation import require_alike
from invconv.families.convolutions import Causal
from invconv.families.family import BOTH
from invconv.kernels.primitives import pad
from invconv.operators.base.calls import Call, as_batch, spread
from invconv.operators.base.factors import Gradients
from invconv.operators.convolution import WithKernel


def resized(x: Array, length: int, *, last: bool = False) -> Array:
    """Return the first rows of x (B, C, n, ...), or the last ones, zeros where x has none."""
    missing = length - int(x.shape[2])
    if missing > 0:
        return pad(x, 2, missing * last, missing * (not last))
    return x[:, :, -missing:, ...] if last else x[:, :, :length, ...]


def carried_over(family: Causal, kernel: Array, before: Array) -> Array:
    """Return the r rows of c that are not zero, by ``before`` (B, C, r, ...)."""
    depth, ahead = int(before.shape[2]), family.linear.direction[0] < 0
    if not depth:
        return before
    y = family.apply(kernel, resized(before, 2 * depth, last=ahead))
    return resized(y, depth, last=not ahead)


def added(x: Array, c: Array, *, last: bool) -> Array:
    """Return x + c, with c in the first rows of x or in the last ones, cut off where x is short."""
    here = min(int(c.shape[2]), int(x.shape[2]))
    there = int(x.shape[2]) - here
    parts = [resized(x, here, last=last) + resized(c, here, last=last)]
    parts.insert(not last, resized(x, there, last=not last))
    return namespace(x).concat(parts, axis=2)


def carried_over_vjp(
    family: Causal, kernel: Array, before: Array, c_bar: Array
) -> tuple[Array, Array]:
    """Return the gradients of <c_bar, c> by the kernel and by ``before``."""
    depth, ahead = int(before.shape[2]), family.linear.direction[0] < 0
    if not depth:
        return namespace(kernel).zeros_like(kernel), before
    x = resized(before, 2 * depth, last=ahead)
    y_bar = resized(resized(c_bar, depth, last=ahead), 2 * depth, last=not ahead)
    kernel_bar, x_bar = family.vjp(kernel, x, y_bar, BOTH)
    return kernel_bar, resized(x_bar, depth, last=ahead)


def as_before(call: Call, family: Causal, before: Any) -> Array:
    """Validate and flatten the pixels that precede the block of a call."""
    require_alike("before", before, call.name, call.original)
    depth, shape = family.reach(0), tuple(call.original.shape)
    axis = len(shape) - len(call.spatial_shape)
    expected = (*shape[:axis], depth, *shape[axis + 1 :])
    if tuple(before.shape) != expected:
        ahead = family.linear.direction[0] < 0
        place = "first rows behind" if ahead else "last rows before"
        raise ValueError(
            f"before: expected the shape {expected}, since the taps reach {depth} pixels along the "
            f"first spatial axis, got {tuple(before.shape)}; give the {place} this block, "
            "zeros beyond the border"
        )
    flat = (*call.x.shape[:2], depth, *call.x.shape[3:])
    before = spread(before, mesh_axes(call.x))
    return namespace(before).reshape(cast(before, call.x.dtype), flat)


class InBlocks(WithKernel, abstract=True):
    """An autoregressive convolution, of the whole or of a block."""

    def forward(self, x: Array, before: Array | None = None) -> Array:
        """Return y = K x + b; see `InvertibleConv.forward`.

        Parameters
        ----------
        x : array, shape (*batch, C, *spatial)
        before : array, optional
            If x is a block of something longer along the first spatial axis: the r pixels of it
            that precede x, of the shape of x but for r = (k_0 - 1) dilation along that axis. With
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
        conv: InBlocks = call.conv
        y = conv._with_before(call, conv._route(call.x)(call.x), before, 1)
        return call.restore_shape(y)

    def inverse(self, y: Array, before: Array | None = None) -> Array:
        """Return x with forward(x, before) = y; see `InvertibleConv.inverse` and `forward`.

        ``before`` are pixels of x, which the inverse of the block before has given.
        """
        if before is None:
            return super().inverse(y)
        return self.prepare(as_batch(self, "y", y).spatial_shape).inverse(y, before)

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
        before = cast(as_before(call, self._family, before), self.kernel.dtype)
        carried = sign * carried_over(self._family, self.kernel, before)
        return added(y, carried, last=self._family.linear.direction[0] < 0)

    def _gradients_with(self, gradients: Gradients, bar: Call, before: Array) -> Gradients:
        """Add the gradients of what the pixels before a block add, and the one by these pixels."""
        flat = as_before(bar, self._family, before)
        bars = carried_over_vjp(self._family, bar.conv.kernel, flat, bar.x)
        kernel_bar, before_bar = (cast(each, before.dtype) for each in bars)
        before_bar = namespace(before).reshape(before_bar, tuple(before.shape))
        kernel_bar = gradients["kernel"] + kernel_bar
        return gradients | {"kernel": kernel_bar, "before": before_bar}
