"""Flows of images as pytrees, with the architectures and the files of invconv_torch's.

Actnorm and mixing are the core's operators; `invconv.flows` has the equations of the rest.
"""

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import jax
from jax import lax
from jax import numpy as jnp

import invconv as ic
from invconv.arrays.namespaces import Array, to_numpy
from invconv.arrays.validation import positive_int
from invconv.files.saving import FLOWS, Flows, StoredFlow, arrays_of, load_as
from invconv.flows import architecture as designs
from invconv.flows import density
from invconv.flows.architecture import GlowArchitecture
from invconv.flows.density import affine, beside, coupling_scale, inverse_affine, split_scale
from invconv.operators.chain import Chain
from invconv_jax.initialise import drawn, is_key, require_dtype

__all__ = ["Glow"]

Conv: TypeAlias = tuple[Array, Array]  # weight (C_out, C_in, k, k) and bias (C_out,)
Context: TypeAlias = Array | None
Design: TypeAlias = GlowArchitecture


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Step:
    """Actnorm and mixing as one operator, and the convolutions of the coupling's network."""

    mixing: Chain
    network: tuple[Conv, ...]

    def forward(self, x: Array, context: Context, design: Design) -> tuple[Array, Array]:
        """Return z and the log-determinants, shape (B,)."""
        x, log_det = self.mixing.forward_and_log_det(x)
        kept, changed = jnp.split(x, 2, axis=1)
        z, more = affine(changed, *self._shift_and_scale(kept, context, design))
        return jnp.concatenate([kept, z], axis=1), log_det + more

    def inverse(self, z: Array, context: Context, design: Design) -> Array:
        """Return x."""
        kept, changed = jnp.split(z, 2, axis=1)
        changed, _ = inverse_affine(changed, *self._shift_and_scale(kept, context, design))
        x = jnp.concatenate([kept, changed], axis=1)
        return self.mixing.prepare(x.shape[2:], check=False).inverse(x)

    def _shift_and_scale(
        self, kept: Array, context: Context, design: Design
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
    """The steps of a level, and the convolution of its split's prior; the last has no split."""

    steps: tuple[Step, ...]
    prior: Conv | None

    def forward(
        self, x: Array, total: Array, context: Context, design: Design
    ) -> tuple[tuple[Array, ...], Array]:
        """Return the noise that is split off, if any, and the rest; log-dets are added to total."""
        x = ic.squeeze(x, basis=design.squeeze)
        for step in self.steps:
            x, log_det = step.forward(x, context, design)
            total = total + log_det
        if self.prior is None:
            return (x,), total
        kept, left = jnp.split(x, 2, axis=1)
        z, log_det = affine(left, *_shift_and_scale(self.prior, kept, design.scale_floor))
        return (z, kept), total + log_det

    def inverse(self, x: Array, zs: list[Array], context: Context, design: Design) -> Array:
        """Undo `forward`; the noise that it split off is popped from the end of ``zs``."""
        if self.prior is not None:
            left, _ = inverse_affine(zs.pop(), *_shift_and_scale(self.prior, x, design.scale_floor))
            x = jnp.concatenate([x, left], axis=1)
        for step in reversed(self.steps):
            x = step.inverse(x, context, design)
        return ic.unsqueeze(x, basis=design.squeeze)

    def initialize(self, x: Array, context: Context, design: Design) -> "Level":
        """Return the level with actnorms that normalise the images that reach them."""
        x, steps = ic.squeeze(x, basis=design.squeeze), []
        for step in self.steps:
            actnorm, *mixing = step.mixing.steps
            assert isinstance(actnorm, ic.ActNorm)
            steps.append(replace(step, mixing=Chain([actnorm.initialize(x), *mixing])))
            x, _ = steps[-1].forward(x, context, design)
        return replace(self, steps=tuple(steps))


def _shift_and_scale(prior: Conv, x: Array, floor: float) -> tuple[Array, Array]:
    mean, h = jnp.split(_convolve(prior, x), 2, axis=1)
    return -mean, split_scale(h, floor)


def _convolve(conv: Conv, x: Array) -> Array:
    weight, bias = conv
    y = lax.conv_general_dilated(x, weight, (1, 1), "SAME", precision=lax.Precision.HIGHEST)
    return y + bias[:, None, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Glow:
    """A multi-scale flow of images in [0, 1): a pytree; `invconv_torch.flows.Glow` describes it.

    `init` makes one, and `invconv_jax.load` reads one that PyTorch or JAX has saved.

    Parameters
    ----------
    levels : tuple of Level
        Their arrays are the leaves: `jax.grad`, `jit` and optimisers take the flow as it is.
    architecture : invconv.flows.architecture.GlowArchitecture
        Static.
    initialized : array, shape ()
        1 if the actnorms were initialized before training, else 0. It is a leaf, to be restored
        with the others, and has the flow's dtype, so that gradients by it exist: they are 0.

    Examples
    --------
    >>> import jax
    >>> from invconv_jax.flows import Glow
    >>> key = jax.random.key(0)
    >>> flow = Glow.init(key, (3, 8, 8), 2, depth=1, width=8, mixing="qr", dtype="float32")
    >>> images = jax.random.randint(key, (2, 3, 8, 8), 0, 256).astype("uint8")
    >>> flow = flow.initialize(x := images.astype("float32") / 256)
    >>> flow.bits_per_dim(images, key).shape
    (2,)
    >>> zs, log_det = flow.encode(x)
    >>> bool(abs(flow.decode(zs) - x).max() < 1e-4)
    True
    >>> flow.log_prob(x).shape, len(flow.draw_latents(key, 2))
    ((2,), 2)
    >>> flow.sample(key, 4, temperature=0.7).shape
    (4, 3, 8, 8)
    """

    levels: tuple[Level, ...]
    architecture: GlowArchitecture = field(metadata={"static": True})
    initialized: Array

    def __repr__(self) -> str:
        return f"Glow({self.architecture!r}, initialized={self.initialized})"

    @classmethod
    def init(cls, key: Array, *sizes: Any, dtype: Any = None, **settings: Any) -> "Glow":
        """Return a flow to train, with numbers from a key, drawn as by `invconv_jax.init`.

        Parameters
        ----------
        key : array
            From ``jax.random.key`` or ``jax.random.PRNGKey``.
        *sizes, **settings
            shape, levels, depth, width; mixing, ...: as for `invconv_torch.flows.Glow`.
        dtype : dtype, optional
            JAX's default floating dtype unless given.
        """
        design = GlowArchitecture(*sizes, **settings)
        arrays = drawn(key, functools.partial(designs.initial_arrays, design), dtype)
        return _from_stored(StoredFlow(design, arrays, initialized=False))

    def initialize(self, x: Array, context: Array | None = None) -> "Glow":
        """Return a flow whose actnorms give these images (B, C, H, W) mean 0 and variance 1.

        Raises
        ------
        RuntimeError, ValueError
            If the flow is initialized already; if a channel is constant or not finite. Traced code
            cannot raise: there an initialized flow is returned as it is.
        """
        flag = self.initialized
        if not isinstance(flag, jax.core.Tracer) and to_numpy(flag).any():
            raise RuntimeError("initialize: the flow is initialized already")
        density.require_images(x, self.architecture.shape)
        density.require_in_range(x)
        context = None if context is None else jnp.asarray(context)
        x, levels = jnp.asarray(x) - 0.5, []
        for level in self.levels:
            levels.append(level.initialize(x, context, self.architecture))
            (*_, x), _ = levels[-1].forward(x, jnp.zeros(len(x)), context, self.architecture)
        made = replace(self, levels=tuple(levels), initialized=jnp.ones_like(flag))
        return jax.tree.map(lambda new, old: jnp.where(flag, old, new), made, self)  # type: ignore[no-any-return]

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
            (*left, x), total = level.forward(x, total, context, design)
            zs += left
        return (*zs, x), total

    @jax.jit  # type: ignore[untyped-decorator]
    def decode(self, zs: Sequence[Array], context: Array | None = None) -> Array:
        """Return the images of noise, shape (B, C, H, W); some numbers may be outside [0, 1)."""
        design = self.architecture
        density.require_latents(zs, design.latent_shapes)
        *left, x = zs
        for level in reversed(self.levels):
            x = level.inverse(x, left, context, design)
        return x + 0.5

    def log_prob(self, x: Array, context: Array | None = None) -> Array:
        """Return log p(x) in nats, shape (B,), of images (B, C, H, W) in [0, 1).

        Raises
        ------
        ValueError
            If the images have another shape or, on a CPU and outside of jit, numbers out of range.
            On other devices and in jit, log p(x) is NaN for an image with such numbers.
        """
        density.require_in_range(x)
        return density.log_prob(x, *self.encode(x, context))

    def bits_per_dim(self, images: Array, noise: Array, context: Array | None = None) -> Array:
        """Return bits per dimension, shape (B,), of uint8 pixels (B, C, H, W).

        ``noise`` is uniform in [0, 1), (B, C, H, W), or a key from which it is drawn.
        """
        if is_key(noise):
            images = jnp.asarray(images)
            noise = jax.random.uniform(noise, jnp.shape(images), self._dtype)
        log_prob = self.log_prob(density.dequantized(images, noise), context)
        return density.bits_per_dim(log_prob, math.prod(self.architecture.shape))

    def draw_latents(self, key: Array, n: int) -> list[Array]:
        """Return noise for n images."""
        keys, shapes = jax.random.split(key, len(self.levels)), self.latent_shapes
        drawn = zip(keys, shapes, strict=True)
        return [jax.random.normal(k, (positive_int("n", n), *s), self._dtype) for k, s in drawn]

    @property
    def _dtype(self) -> Any:
        return self.levels[0].steps[0].network[0][0].dtype

    def sample(
        self, key: Array, n: int, temperature: float = 1.0, context: Array | None = None
    ) -> Array:
        """Return n images, shape (n, C, H, W); some numbers may be outside [0, 1)."""
        zs = self.draw_latents(key, n)
        return self.decode([jnp.asarray(temperature, z.dtype) * z for z in zs], context)


def _from_stored(stored: StoredFlow) -> Glow:
    design, arrays, levels = stored.architecture, stored.arrays, []
    for level in range(design.levels):
        at, last = f"level{level}", level == design.levels - 1
        steps = [_step(design, arrays, f"{at}_step{i}") for i in range(design.depth)]
        levels.append(Level(tuple(steps), None if last else _conv(arrays, f"{at}_split.prior")))
    like = arrays["level0_step0_actnorm.bias"]
    return Glow(tuple(levels), design, jnp.full_like(like, stored.initialized, shape=()))


def _to_stored(flow: Glow) -> StoredFlow:
    """Undo `_from_stored`, or raise if no file describes the flow."""
    arrays: dict[str, Array] = {}
    prefixes = "actnorm.", *designs.mixing_steps(str(flow.architecture.mixing))
    for i, level in enumerate(flow.levels):
        for j, step in enumerate(level.steps):
            at = f"level{i}_step{j}"
            for prefix, conv in zip(prefixes, step.mixing.steps, strict=False):
                arrays |= {f"{at}_{prefix}{n}": a for n, a in conv._arrays().items()}
            for number, pair in zip((0, 2, 4), step.network, strict=False):
                arrays |= _named(f"{at}_coupling.net.{number}", pair)
        if level.prior is not None:
            arrays |= _named(f"level{i}_split.prior", level.prior)
    stored = StoredFlow(flow.architecture, arrays, bool(to_numpy(flow.initialized).all()))
    same = arrays.keys() == flow.architecture.arrays().keys()
    if not same or jax.tree.structure(_from_stored(stored)) != jax.tree.structure(flow):
        raise ValueError(
            "model: cannot be saved, since no file describes it: expected the layers of its "
            "architecture, got others; make a Glow with the settings that you want"
        )
    return stored


def _step(design: Design, arrays: Mapping[str, Array], at: str) -> Step:
    actnorm = ic.ActNorm(arrays[f"{at}_actnorm.log_scale"], arrays[f"{at}_actnorm.bias"])
    mixing = designs.mixing_operator(design, arrays_of(at, arrays))
    network = tuple(_conv(arrays, f"{at}_coupling.net.{i}") for i in (0, 2, 4))
    return Step(ic.Chain([actnorm, *mixing.steps]), network)


def _conv(arrays: Mapping[str, Array], name: str) -> Conv:
    return arrays[f"{name}.weight"], arrays[f"{name}.bias"]


def _named(name: str, conv: Conv) -> dict[str, Array]:
    return {f"{name}.weight": conv[0], f"{name}.bias": conv[1]}


FLOWS["jax"] = Flows(Glow, _to_stored, lambda stored, like: _from_stored(stored))


def load(path: str | os.PathLike[str], *, dtype: Any = None) -> Any:
    """Read a flow or an operator that `invconv.save` wrote, from any library.

    Everything is checked before it is used, and no code is run from a file.

    Parameters
    ----------
    path : str or path-like
    dtype : dtype, optional
        The dtype of the file unless given.

    Returns
    -------
    Glow or InvertibleConv
        With JAX arrays on JAX's default device.

    Raises
    ------
    InvalidFileError, ValueError, OSError
        As `invconv.load`; also ValueError if JAX has no such dtype here.

    Examples
    --------
    >>> import tempfile, jax, invconv_jax, invconv_torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     invconv_torch.save(invconv_torch.ActNorm(3), f"{folder}/layer.safetensors")
    ...     invconv_jax.load(f"{folder}/layer.safetensors", dtype="float32")
    ActNorm(log_scale=<(3,) float32 jax>, bias=<(3,) float32 jax>, ndim=None)
    """

    def like_of(name: str) -> jax.Array:
        kind = jnp.dtype(name if dtype is None else dtype)
        require_dtype(kind, ", or pass dtype=")
        return jnp.zeros(0, kind)

    return load_as(path, like_of)
