"""The steps and levels of a Glow: pytrees of arrays, and what they do with images.

The equations are those of `invconv_torch.flows`; actnorm and mixing are the core's operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv.operators.chain import Chain

Conv: TypeAlias = tuple[Array, Array]  # weight (C_out, C_in, k, k) and bias (C_out,)

_register = jax.tree_util.register_dataclass


@_register
@dataclass(frozen=True)
class Step:
    """Actnorm and mixing, one operator; and the convolutions of the coupling's network.

    Attributes
    ----------
    mixing : Chain
    network : tuple of (weight, bias)
    """

    mixing: Chain
    network: tuple[Conv, ...]

    def forward(self, x: Array, context: Array | None, floor: float) -> tuple[Array, Array]:
        """Return z and the log-determinants, shape (B,)."""
        x, log_det = self.mixing.forward_and_log_det(x)
        kept, changed = jnp.split(x, 2, axis=1)
        shift, scale = self._shift_and_scale(kept, context, floor)
        z = jnp.concatenate([kept, (changed + shift) * scale], axis=1)
        return z, log_det + _sum(jnp.log(scale))

    def inverse(self, z: Array, context: Array | None, floor: float) -> Array:
        """Return x."""
        kept, changed = jnp.split(z, 2, axis=1)
        shift, scale = self._shift_and_scale(kept, context, floor)
        x = jnp.concatenate([kept, changed / scale - shift], axis=1)
        found: Array = self.mixing.prepare(x.shape[2:], check=False).inverse(x)
        return found

    def _shift_and_scale(
        self, kept: Array, context: Array | None, floor: float
    ) -> tuple[Array, Array]:
        x = kept
        if context is not None:
            x = jnp.concatenate([kept, _on_grid(context, kept.shape[2:])], axis=1)
        *hidden, last = self.network
        for conv in hidden:
            x = jax.nn.relu(_convolve(conv, x))
        shift, h = jnp.split(_convolve(last, x), 2, axis=1)
        return shift, floor + (1 - floor) * jax.nn.sigmoid(h + 2)


@_register
@dataclass(frozen=True)
class Level:
    """The steps of a level, and the convolution of its split's prior; the last level has none.

    Attributes
    ----------
    steps : tuple of Step
    prior : (weight, bias) or None
    """

    steps: tuple[Step, ...]
    prior: Conv | None

    def split(self, x: Array, floor: float) -> tuple[Array, Array, Array]:
        """Return what stays, the noise, and the log-determinants."""
        assert self.prior is not None
        kept, left = jnp.split(x, 2, axis=1)
        mean, scale = _mean_and_scale(self.prior, kept, floor)
        return kept, (left - mean) * scale, _sum(jnp.log(scale))

    def join(self, kept: Array, z: Array, floor: float) -> Array:
        """Undo `split`."""
        assert self.prior is not None
        mean, scale = _mean_and_scale(self.prior, kept, floor)
        return jnp.concatenate([kept, z / scale + mean], axis=1)


def _sum(x: Array) -> Array:
    return x.sum(axis=(1, 2, 3))


def _mean_and_scale(prior: Conv, x: Array, floor: float) -> tuple[Array, Array]:
    mean, h = jnp.split(_convolve(prior, x), 2, axis=1)
    return mean, floor + (1 - floor) * jnp.exp(-h)


def _convolve(conv: Conv, x: Array) -> Array:
    """Return a zero-padded convolution of x (B, C, H, W), at full precision."""
    weight, bias = conv
    y = lax.conv_general_dilated(x, weight, (1, 1), "SAME", precision=lax.Precision.HIGHEST)
    return y + bias[:, None, None]


def _on_grid(context: Array, grid: Sequence[int]) -> Array:
    """Return a context as images on a grid: the same everywhere, or averaged over blocks."""
    height, width = grid
    if context.ndim == 2:
        return jnp.broadcast_to(context[:, :, None, None], (*context.shape, height, width))
    batch, channels, rows, columns = context.shape
    blocks = (batch, channels, height, rows // height, width, columns // width)
    return context.reshape(blocks).mean(axis=(3, 5))
