"""Operators on channels-last data: move the channel axis, call the operator, move it back."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp

import invconv as ic
from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.validation import require_alike
from invconv.operators.base.calls import require_one
from invconv.operators.base.factors import Gradients


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class channels_last:  # named as a function, since it is called as one
    """The operator for arrays (*batch, *spatial, C): a pytree, as ``conv`` is.

    Kernels keep their layout. The axes are moved on the way in and out; if possible, XLA does so by
    choosing the layout of the arrays in between.

    Examples
    --------
    >>> import invconv, invconv_jax, jax
    >>> conv = invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 3)
    >>> last = invconv_jax.channels_last(conv)
    >>> x = jax.numpy.ones((2, 8, 8, 3))
    >>> z, log_det = last.forward_and_log_det(x)
    >>> z.shape, log_det.shape
    ((2, 8, 8, 3), (2,))
    >>> bool(jax.numpy.allclose(last.inverse(last.forward(x)), x, atol=1e-5))
    True
    """

    conv: ic.InvertibleConv

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return self.conv.channels

    @property
    def ndim(self) -> int | None:
        """The number of spatial axes, or None for one batch axis and any number of spatial ones."""
        return self.conv.ndim

    def log_det(self, spatial_shape: Shape) -> Array:
        """See `InvertibleConv.log_det`."""
        return self.conv.log_det(spatial_shape)

    def forward(self, x: Array, before: Array | None = None) -> Array:
        """See `InvertibleConv.forward`."""
        return self._out(self.conv.forward(self._in("x", x), **self._before(before)))

    def inverse(self, y: Array, before: Array | None = None) -> Array:
        """See `InvertibleConv.inverse`."""
        return self._out(self.conv.inverse(self._in("y", y), **self._before(before)))

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """See `InvertibleConv.forward_and_log_det`."""
        z, log_det = self.conv.forward_and_log_det(self._in("x", x))
        return self._out(z), log_det

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """See `InvertibleConv.inverse_and_log_det`."""
        x, log_det = self.conv.inverse_and_log_det(self._in("y", y))
        return self._out(x), log_det

    def transpose(self) -> "channels_last":
        """See `InvertibleConv.transpose`."""
        return channels_last(self.conv.transpose())

    def parameters(self) -> Gradients:
        """See `InvertibleConv.parameters`; these are the arrays of ``conv``."""
        return self.conv.parameters()

    def replace(self, **arrays: Any) -> "channels_last":
        """See `InvertibleConv.replace`."""
        return channels_last(self.conv.replace(**arrays))

    def _before(self, before: Array | None) -> Gradients:
        return {} if before is None else {"before": self._in("before", before)}

    def _in(self, name: str, x: Array) -> Array:
        conv = getattr(self.conv, "chain", self.conv)  # a reversible one has a chain
        require_one(conv)
        require_alike(name, x, *conv._reference(), movable=True)
        spatial = x.ndim - 2 if self.ndim is None else self.ndim
        if x.ndim < spatial + 1 or spatial < 0 or x.shape[-1] != self.channels:
            batch, axes = ("batch", "any number of") if self.ndim is None else ("*batch", spatial)
            raise ValueError(
                f"{name}: expected shape ({batch}, *spatial, {self.channels}) with {axes} "
                f"spatial axes, got {tuple(x.shape)}"
            )
        return jnp.moveaxis(x, -1, x.ndim - 1 - spatial)

    def _out(self, y: Array) -> Array:
        spatial = y.ndim - 2 if self.ndim is None else self.ndim
        return jnp.moveaxis(y, y.ndim - 1 - spatial, -1)
