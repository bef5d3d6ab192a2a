"""Fourier transforms of the last axes that keep a batch on its devices.

`lax.fft` would gather a batch that is spread over devices, hence `SplitByBatch`.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv_jax.native.partition import SplitByBatch


def _transform(x: Array, *, kind: str, lengths: tuple[int, ...]) -> Array:
    return lax.fft(x, kind, lengths)


def _transpose(bar: Array, like: Any, *, kind: str, lengths: tuple[int, ...]) -> Array:
    """Transpose a transform: a complex one is symmetric, a real one a part of a complex one."""
    if kind in ("fft", "ifft"):
        return _fft(bar, kind, *lengths)
    length = lengths[-1]

    def part(x: Array) -> Array:
        if len(lengths) > 1:
            ndim = len(lengths)
            return rfftn(x, ndim, 1) if kind == "rfft" else irfftn(x, ndim, length, 1)
        return _complex(x)[..., : length // 2 + 1] if kind == "rfft" else _real(x, length)

    result: Array = jax.linear_transpose(part, like)(bar)[0]
    return result


def _complex(x: Array) -> Array:
    """Return the whole spectrum of real x."""
    x = lax.complex(x, jnp.zeros_like(x))
    return _fft(x, "fft", x.shape[-1])


def _real(x: Array, length: int) -> Array:
    """Return `irfft` of x, computed from the whole spectrum: x and its mirror image."""
    mirrored = jnp.conj(x[..., 1 : (length + 1) // 2][..., ::-1])
    whole = jnp.concatenate([x, mirrored], axis=-1)
    return jnp.real(_fft(whole, "ifft", length))


_MOST = 3  # axes that XLA transforms together, at most, which is faster than one by one
_transforms = {
    n: SplitByBatch(f"invconv_fft_of_{n}", _transform, tuple(range(-n, 0)), _transpose)
    for n in range(1, _MOST + 1)
}


def _fft(x: Array, kind: str, *lengths: int) -> Array:
    """Transform the last axes, one for each length."""
    return _transforms[len(lengths)](x, kind=kind, lengths=lengths)


def rfftn(x: Array, ndim: int, at_once: int = _MOST) -> Array:
    """Return half the spectrum of real x along its last ``ndim`` axes, ``at_once`` together."""
    last = min(ndim, at_once)
    x = _fft(x, "rfft", *x.shape[x.ndim - last :])
    for axis in range(x.ndim - ndim, x.ndim - last):
        x = _along(x, axis, "fft")
    return x


def irfftn(x: Array, ndim: int, length: int, at_once: int = _MOST) -> Array:
    """Undo `rfftn`, to ``length`` points along the last axis."""
    last = min(ndim, at_once)
    for axis in range(x.ndim - ndim, x.ndim - last):
        x = _along(x, axis, "ifft")
    return _fft(x, "irfft", *x.shape[x.ndim - last : -1], length)


def _along(x: Array, axis: int, kind: str) -> Array:
    x = jnp.moveaxis(x, axis, -1)
    return jnp.moveaxis(_fft(x, kind, x.shape[-1]), -1, axis)
