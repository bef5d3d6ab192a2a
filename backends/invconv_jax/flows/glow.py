"""Glow as a pytree with pure functions; `invconv_torch.flows.Glow` describes the model.

Actnorm and mixing are the core's operators; `invconv.flows` has the equations of the rest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
from jax import lax
from jax import numpy as jnp

import invconv as ic
from invconv.arrays.namespaces import Array
from invconv.arrays.validation import positive_int
from invconv.files.flow_files import arrays_of
from invconv.flows import density
from invconv.flows.affine import affine, beside, coupling_scale, inverse_affine, split_scale
from invconv.flows.architecture import GlowArchitecture, mixing_operator, mixing_steps
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
    weight, bias = conv
    y = lax.conv_general_dilated(x, weight, (1, 1), "SAME", precision=lax.Precision.HIGHEST)
    return y + bias[:, None, None]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["levels"],
    meta_fields=["architecture", "initialized"],
)
@dataclass(frozen=True, repr=False)
class Glow:
    """A multi-scale flow of images in [0, 1): a pytree, which `invconv_jax.load` reads.

    It is made, initialized and saved in PyTorch, as ``invconv_torch.flows.Glow((3, 32, 32))``.

    Parameters
    ----------
    levels : tuple of Level
        The levels. Their arrays are the leaves: `jax.grad`, `jit` and optimisers take the flow as
        it is.
    architecture : invconv.flows.architecture.GlowArchitecture
        Static.
    initialized : bool
        Whether the actnorms were initialized, in PyTorch, before training; files keep it. Static.

    Examples
    --------
    >>> import tempfile, jax, invconv_jax, invconv_torch
    >>> from invconv_torch.flows import Glow
    >>> module = Glow((3, 8, 8), levels=2, depth=1, width=8, mixing="qr")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     invconv_torch.save(module, f"{folder}/flow.safetensors")
    ...     flow = invconv_jax.load(f"{folder}/flow.safetensors")
    >>> key, images = jax.random.key(0), jax.numpy.zeros((2, 3, 8, 8), "uint8")
    >>> flow.bits_per_dim(images, jax.random.uniform(key, images.shape, "float32")).shape
    (2,)
    >>> zs, log_det = flow.encode(images / 256)
    >>> bool(abs(flow.decode(zs) - images / 256).max() < 1e-4)
    True
    >>> flow.log_prob(images / 256).shape, len(flow.draw_latents(key, 2))
    ((2,), 2)
    >>> flow.sample(key, 4, temperature=0.7).shape
    (4, 3, 8, 8)
    """

    levels: tuple[Level, ...]
    architecture: GlowArchitecture
    initialized: bool = True

    def __repr__(self) -> str:
        return f"Glow({self.architecture!r}, initialized={self.initialized})"

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """The shape (C, H, W) of each piece of noise, the coarsest last."""
        return self.architecture.latent_shapes

    @jax.jit  # type: ignore[untyped-decorator]
    def encode(self, x: Array, context: Array | None = None) -> tuple[tuple[Array, ...], Array]:
        """Return the noise of images (B, C, H, W), and log|det dz/dx|, shape (B,).

        Parameters
        ----------
        x : array, shape (B, C, H, W)
        context : array, shape (B, K) or (B, K, H', W'), optional
            The context of the couplings.
        """
        design = self.architecture
        density.require_images(x, design.shape)
        zs, total, x = [], jnp.zeros(x.shape[0], x.dtype), x - 0.5
        for level in self.levels:
            x = ic.squeeze(x, basis=design.squeeze)
            for step in level.steps:
                x, log_det = step.forward(x, context, design)
                total = total + log_det
            if level.prior is not None:
                x, z, log_det = level.split(x, design.scale_floor)
                total = total + log_det
                zs.append(z)
        return (*zs, x), total

    @jax.jit  # type: ignore[untyped-decorator]
    def decode(self, zs: Sequence[Array], context: Array | None = None) -> Array:
        """Return the images of noise, shape (B, C, H, W); some may be outside [0, 1)."""
        design = self.architecture
        density.require_latents(zs, design.latent_shapes)
        *left, x = zs
        for level in reversed(self.levels):
            if level.prior is not None:
                x = level.join(x, left.pop(), design.scale_floor)
            for step in reversed(level.steps):
                x = step.inverse(x, context, design)
            x = ic.unsqueeze(x, basis=design.squeeze)
        return x + 0.5

    def log_prob(self, x: Array, context: Array | None = None) -> Array:
        """Return log p(x) in nats, shape (B,), of images (B, C, H, W) in [0, 1).

        Raises
        ------
        ValueError
            If the images have another shape or, on a CPU and outside of jit, leave the range. On
            other devices and in jit, log p(x) is NaN for an image that leaves it.
        """
        density.require_in_range(x)
        return density.log_prob(x, *self.encode(x, context))

    def bits_per_dim(self, images: Array, noise: Array, context: Array | None = None) -> Array:
        """Return bits a dimension, shape (B,), of uint8 pixels and uniform noise (B, C, H, W)."""
        log_prob = self.log_prob(density.dequantized(images, noise), context)
        return density.bits_per_dim(log_prob, math.prod(self.architecture.shape))

    def draw_latents(self, key: Array, n: int) -> list[Array]:
        """Return noise for n images."""
        keys, shapes = jax.random.split(key, len(self.levels)), self.latent_shapes
        count, dtype = positive_int("n", n), self.levels[0].steps[0].network[0][0].dtype
        pairs = zip(keys, shapes, strict=True)
        return [jax.random.normal(key, (count, *shape), dtype) for key, shape in pairs]

    def sample(
        self, key: Array, n: int, temperature: float = 1.0, context: Array | None = None
    ) -> Array:
        """Return n images, shape (n, C, H, W); some numbers may be outside [0, 1)."""
        return self.decode([temperature * z for z in self.draw_latents(key, n)], context)


def from_arrays(
    architecture: GlowArchitecture, arrays: Mapping[str, Array], initialized: bool
) -> Glow:
    """Return the flow with JAX's arrays named as in ``architecture.arrays()``."""
    levels = []
    for level in range(architecture.levels):
        at, last = f"level{level}", level == architecture.levels - 1
        steps = [_step(architecture, arrays, f"{at}_step{i}") for i in range(architecture.depth)]
        levels.append(Level(tuple(steps), None if last else _conv(arrays, f"{at}_split.prior")))
    return Glow(tuple(levels), architecture, initialized)


def to_arrays(flow: Glow) -> dict[str, Array]:
    """Undo `from_arrays`."""
    arrays: dict[str, Array] = {}
    for i, level in enumerate(flow.levels):
        for j, step in enumerate(level.steps):
            at = f"level{i}_step{j}"
            prefixes = "actnorm.", *mixing_steps(str(flow.architecture.mixing))
            for prefix, conv in zip(prefixes, step.mixing.steps, strict=True):
                arrays |= {f"{at}_{prefix}{n}": a for n, a in conv._arrays().items()}
            for number, pair in zip((0, 2, 4), step.network, strict=True):
                arrays |= _named(f"{at}_coupling.net.{number}", pair)
        if level.prior is not None:
            arrays |= _named(f"level{i}_split.prior", level.prior)
    return arrays


def _step(architecture: GlowArchitecture, arrays: Mapping[str, Array], at: str) -> Step:
    actnorm = ic.ActNorm(arrays[f"{at}_actnorm.log_scale"], arrays[f"{at}_actnorm.bias"])
    mixing = mixing_operator(architecture, arrays_of(at, arrays))
    first, second, last = (_conv(arrays, f"{at}_coupling.net.{i}") for i in (0, 2, 4))
    return Step(ic.Chain([actnorm, *mixing.steps]), (first, second, last))


def _conv(arrays: Mapping[str, Array], name: str) -> Conv:
    return arrays[f"{name}.weight"], arrays[f"{name}.bias"]


def _named(name: str, conv: Conv) -> dict[str, Array]:
    return {f"{name}.weight": conv[0], f"{name}.bias": conv[1]}
