"""The flow of `invconv_benchmarks.density.models.flow` in JAX: trained in PyTorch, run here.

The equations are those of `coupling`, `multiscale` and `dequantise`; the mixing layers are the
core's operators, the same ones that PyTorch's layers hold.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import safetensors
from jax import lax
from jax import numpy as jnp

import invconv as ic
import invconv_jax  # noqa: F401 - registers the operators as pytrees
from invconv.arrays.namespaces import Array
from invconv_benchmarks.density.models.architecture import EMERGING, FLOWS, Architecture
from invconv_benchmarks.density.models.jax_arrays import Arrays, Conv, Given

_POINTWISE: dict[str, Any] = {
    "plain": ic.Conv1x1,
    "plu": ic.PLUConv1x1,
    "qr": ic.QRConv1x1,
    "orthogonal": ic.OrthogonalConv1x1,
    "circulant": ic.CirculantConv1x1,
}
_CONVOLUTIONS: dict[str, Any] = {
    "periodic": ic.PeriodicConv,
    "symmetric": ic.SymmetricConv,
    "exponential": ic.ExponentialConv,
}

_register = jax.tree_util.register_dataclass


@_register
@dataclass(frozen=True)
class Step:
    """Actnorm and mixing, one operator; and the convolutions of the coupling's network."""

    mixing: ic.Chain
    network: tuple[Conv, ...]


@_register
@dataclass(frozen=True)
class Level:
    """The steps, and the convolution of the prior; the last level has none."""

    steps: tuple[Step, ...]
    prior: Conv | None


@functools.partial(_register, data_fields=["levels"], meta_fields=["image_shape", "floor"])
@dataclass(frozen=True)
class Flow:
    """A density model, a pytree; `from_arrays` makes it of a PyTorch model's arrays.

    Attributes
    ----------
    levels : tuple of Level
    image_shape : tuple of int
        (C, H, W).
    floor : float
        The least scale of a coupling or a prior.
    """

    levels: tuple[Level, ...]
    image_shape: tuple[int, int, int]
    floor: float

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """The shape (C, H, W) of each piece of noise."""
        channels, height, width = self.image_shape
        shapes = []
        for level in self.levels:
            kept = 4 * channels if level.prior is None else 2 * channels
            channels, height, width = kept, height // 2, width // 2
            shapes.append((channels, height, width))
        return shapes

    @jax.jit  # type: ignore[untyped-decorator]
    def encode(self, x: Array) -> tuple[list[Array], Array]:
        """Return the noise of images (B, C, H, W), and log|det dz/dx|, shape (B,)."""
        zs, total = [], jnp.zeros(x.shape[0], x.dtype)
        for level in self.levels:
            x = ic.squeeze(x)
            for step in level.steps:
                x, log_det = step.mixing.forward_and_log_det(x)
                kept, changed = jnp.split(x, 2, axis=1)
                shift, scale = _shift_and_scale(step.network, kept, self.floor)
                x = jnp.concatenate([kept, (changed + shift) * scale], axis=1)
                total = total + log_det + jnp.log(scale).sum(axis=(1, 2, 3))
            if level.prior is not None:
                x, left = jnp.split(x, 2, axis=1)
                mean, scale = _mean_and_scale(level.prior, x, self.floor)
                zs.append((left - mean) * scale)
                total = total + jnp.log(scale).sum(axis=(1, 2, 3))
        return [*zs, x], total

    @jax.jit  # type: ignore[untyped-decorator]
    def decode(self, zs: Sequence[Array]) -> Array:
        """Return the images of noise, shape (B, C, H, W)."""
        *left, x = zs
        for level in reversed(self.levels):
            if level.prior is not None:
                mean, scale = _mean_and_scale(level.prior, x, self.floor)
                x = jnp.concatenate([x, left.pop() / scale + mean], axis=1)
            for step in reversed(level.steps):
                kept, changed = jnp.split(x, 2, axis=1)
                shift, scale = _shift_and_scale(step.network, kept, self.floor)
                x = jnp.concatenate([kept, changed / scale - shift], axis=1)
                x = step.mixing.prepare(x.shape[2:], check=False).inverse(x)
            x = ic.unsqueeze(x)
        return x

    def log_prob(self, x: Array) -> Array:
        """Return log p(x) in nats, shape (B,), of images (B, C, H, W) in [-1/2, 1/2)."""
        zs, log_det = self.encode(x)
        normal = sum((z**2 + math.log(2 * math.pi)).sum(axis=(1, 2, 3)) for z in zs)
        return log_det - 0.5 * normal

    def bits_per_dim(self, images: Array, noise: Array) -> Array:
        """Return bits a dimension, shape (B,), of uint8 pixels and uniform noise (B, C, H, W)."""
        log_prob = self.log_prob((images + noise) / 256 - 0.5)
        return (math.log(256) - log_prob / math.prod(self.image_shape)) / math.log(2)


def load(
    path: str | os.PathLike[str],
    architecture: Architecture,
    image_shape: tuple[int, int, int],
    prefixes: Sequence[str] = ("",),
) -> Flow:
    """Return the flow of a safetensors file with the arrays of a PyTorch model.

    Parameters
    ----------
    path : str or path-like
    architecture, image_shape
        As for `from_arrays`.
    prefixes : sequence of str
        Of the model's names in the file; where two have one of a name, the later one counts.

    Raises
    ------
    ValueError
        If the file is damaged, or its arrays are not those of the architecture.
    OSError
        If it cannot be read.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for prefix in prefixes:
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
                arrays |= {name[len(prefix) :]: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{os.fspath(path)}: no whole safetensors file: {error!s:.300}") from None
    return from_arrays(architecture, image_shape, arrays)


def from_arrays(
    architecture: Architecture, image_shape: tuple[int, int, int], arrays: Arrays
) -> Flow:
    """Return the flow with the arrays of a PyTorch model's ``state_dict``.

    Parameters
    ----------
    architecture : Architecture
        One with a mixing layer: neither Real NVP nor a masked autoregressive flow.
    image_shape : tuple of int
        (C, H, W).
    arrays : mapping of str to NumPy array
        By the names that PyTorch gives them.

    Raises
    ------
    ValueError
        If it is another architecture, or an array is missing, left over, of another shape, or not
        finite.
    """
    if architecture.mixing not in FLOWS:
        raise ValueError(
            f"architecture: expected one with a mixing layer, got mixing={architecture.mixing!r}, "
            "which runs in PyTorch only"
        )
    channels, height, width = architecture.require_fits(image_shape)
    given = Given(arrays)
    levels = [  # each has twice the channels of the one before
        _level(architecture, 4 * channels * 2**level, given, level)
        for level in range(architecture.levels)
    ]
    given.require_none_left()
    return Flow(tuple(levels), (channels, height, width), architecture.scale_floor)


def _level(architecture: Architecture, channels: int, given: Given, level: int) -> Level:
    at, half = f"layers.level{level}", channels // 2
    steps = [
        _step(architecture, channels, given, f"{at}_step{step}")
        for step in range(architecture.depth)
    ]
    last = level == architecture.levels - 1
    return Level(tuple(steps), None if last else given.conv(f"{at}_split.prior", channels, half, 3))


def _step(architecture: Architecture, channels: int, given: Given, at: str) -> Step:
    width, half = architecture.width, channels // 2
    network = (
        given.conv(f"{at}_coupling.net.0", width, half, 3),
        given.conv(f"{at}_coupling.net.2", width, width, 1),
        given.conv(f"{at}_coupling.net.4", channels, width, 3),
    )
    actnorm = given.fill(ic.ActNorm.init(channels), f"{at}_actnorm")
    return Step(ic.Chain([actnorm, *_mixing(architecture, channels, given, at)]), network)


def _mixing(
    architecture: Architecture, channels: int, given: Given, at: str
) -> list[ic.InvertibleConv]:
    """Return the mixing layer's operators, with the arrays of PyTorch's."""
    rng, size, name = np.random.default_rng(0), architecture.kernel_size, f"{at}_mixing"

    def pointwise(parametrization: str, name: str) -> ic.InvertibleConv:
        return given.fill(_POINTWISE[parametrization].init(channels, rng=rng), name)

    match architecture.mixing:
        case kind if kind in _POINTWISE:
            return [pointwise(kind, name)]
        case kind if kind in EMERGING:
            first = [pointwise(EMERGING[kind], f"{name}.mixing")]
        case "exponential":
            first = [pointwise("plain", f"{at}_conv1x1")]
        case _:
            first = []
    conv = _CONVOLUTIONS.get(architecture.mixing, ic.EmergingConv)
    return [*first, given.fill(conv.init(channels, size, rng=rng), name)]


def _convolve(conv: Conv, x: Array) -> Array:
    """Return a zero-padded convolution of x (B, C, H, W), at full precision."""
    weight, bias = conv
    y = lax.conv_general_dilated(x, weight, (1, 1), "SAME", precision=lax.Precision.HIGHEST)
    return y + bias[:, None, None]


def _shift_and_scale(network: Sequence[Conv], x: Array, floor: float) -> tuple[Array, Array]:
    *hidden, last = network
    for conv in hidden:
        x = jax.nn.relu(_convolve(conv, x))
    shift, h = jnp.split(_convolve(last, x), 2, axis=1)
    return shift, floor + (1 - floor) * jax.nn.sigmoid(h + 2)


def _mean_and_scale(prior: Conv, x: Array, floor: float) -> tuple[Array, Array]:
    mean, h = jnp.split(_convolve(prior, x), 2, axis=1)
    return mean, floor + (1 - floor) * jnp.exp(-h)
