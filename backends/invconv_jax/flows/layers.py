"""The steps and levels of a Glow: pytrees of arrays, and their maps of images.

Actnorm and mixing are the core's operators; `invconv.flows` has the equations of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv.flows.affine import affine, coupling_scale, inverse_affine, split_scale
from invconv.flows.architecture import GlowArchitecture
from invconv.flows.context import beside
from invconv.operators.chain import Chain

Conv: TypeAlias = tuple[Array, Array]  # weight (C_out, C_in, k, k) and bias (C_out,)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Step:
    """Actnorm and mixing, one operator; and the convolutions of the coupling's network."""

    mixing: Chain
    network: tuple[Conv, ...]

    def forward(
        self, x: Array, context: Array | None, design: GlowArchitecture
    ) -> tuple[Array, Array]:
        """Return z and the log-determinants, shape (B,)."""
        x, log_det = self.mixing.forward_and_log_det(x)
        kept, changed = jnp.split(x, 2, axis=1)
        z, more = affine(changed, *self._shift_and_scale(kept, context, design))
        return jnp.concatenate([kept, z], axis=1), log_det + more

    def inverse(self, z: Array, context: Array | None, design: GlowArchitecture) -> Array:
        """Return x."""
        kept, changed = jnp.split(z, 2, axis=1)
        changed, _ = inverse_affine(changed, *self._shift_and_scale(kept, context, design))
        x = jnp.concatenate([kept, changed], axis=1)
        unmixed: Array = self.mixing.prepare(x.shape[2:], check=False).inverse(x)
        return unmixed

    def _shift_and_scale(
        self, kept: Array, context: Array | None, design: GlowArchitecture
    ) -> tuple[Array, Array]:
        x = beside(kept, context, design.context)
        *hidden, last = self.network
        for conv in hidden:
            x = jax.nn.relu(_convolve(conv, x))
        shift, h = jnp.split(_convolve(last, x), 2, axis=1)
        return shift, coupling_scale(h, design.scale_floor, jax.nn.sigmoid)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Level:
    """The steps of a level, and the convolution of its split's prior; the last level has none."""

    steps: tuple[Step, ...]
    prior: Conv | None

    def split(self, x: Array, floor: float) -> tuple[Array, Array, Array]:
        """Return the remaining channels, the noise, and the log-determinants."""
        assert self.prior is not None
        kept, left = jnp.split(x, 2, axis=1)
        return kept, *affine(left, *_shift_and_scale(self.prior, kept, floor))

    def join(self, kept: Array, z: Array, floor: float) -> Array:
        """Undo `split`."""
        assert self.prior is not None
        left, _ = inverse_affine(z, *_shift_and_scale(self.prior, kept, floor))
        return jnp.concatenate([kept, left], axis=1)


def _shift_and_scale(prior: Conv, x: Array, floor: float) -> tuple[Array, Array]:
    mean, h = jnp.split(_convolve(prior, x), 2, axis=1)
    return -mean, split_scale(h, floor)


def _convolve(conv: Conv, x: Array) -> Array:
    """Return a zero-padded convolution of x (B, C, H, W), at full precision."""
    weight, bias = conv
    y = lax.conv_general_dilated(x, weight, (1, 1), "SAME", precision=lax.Precision.HIGHEST)
    return y + bias[:, None, None]
