"""Fourier transforms of one axis, the last one, that leave a batch where it is.

`lax.fft` would gather a batch that is spread over devices, hence `SplitByBatch`.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays import Array
from invconv_jax.partition import SplitByBatch


def _transform(x: Array, *, kind: str, length: int) -> Array:
    return lax.fft(x, kind, (length,))


def _transpose(bar: Array, like: Any, *, kind: str, length: int) -> Array:
    """Transpose a transform: a complex one is symmetric, a real one a part of a complex one."""
    if kind in ("fft", "ifft"):
        return _fft(bar, kind=kind, length=length)

    def through_complex(x: Array) -> Array:
        return _complex(x)[..., : length // 2 + 1] if kind == "rfft" else _real(x, length)

    result: Array = jax.linear_transpose(through_complex, like)(bar)[0]
    return result


def _complex(x: Array) -> Array:
    """Return the whole spectrum of real x."""
    x = lax.complex(x, jnp.zeros_like(x))
    return _fft(x, kind="fft", length=x.shape[-1])


def _real(x: Array, length: int) -> Array:
    """Return what `irfft` returns, through the whole spectrum: x and its mirror image."""
    mirrored = jnp.conj(x[..., 1 : (length + 1) // 2][..., ::-1])
    whole = jnp.concatenate([x, mirrored], axis=-1)
    return jnp.real(_fft(whole, kind="ifft", length=length))


_fft = SplitByBatch("invconv_fft", _transform, (-1,), _transpose)


def rfftn(x: Array, ndim: int) -> Array:
    """Return half the spectrum of real x along its last ``ndim`` axes."""
    x = _fft(x, kind="rfft", length=x.shape[-1])
    for axis in range(x.ndim - ndim, x.ndim - 1):
        x = _along(x, axis, "fft")
    return x


def irfftn(x: Array, ndim: int, length: int) -> Array:
    """Undo `rfftn`, to ``length`` points along the last axis."""
    for axis in range(x.ndim - ndim, x.ndim - 1):
        x = _along(x, axis, "ifft")
    return _fft(x, kind="irfft", length=length)


def _along(x: Array, axis: int, kind: str) -> Array:
    x = jnp.moveaxis(x, axis, -1)
    return jnp.moveaxis(_fft(x, kind=kind, length=x.shape[-1]), -1, axis)
