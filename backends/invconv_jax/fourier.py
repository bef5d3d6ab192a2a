"""Fourier transforms of the last axes that leave a batch where it is.

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


def _rfft_by_axes(x: Array, ndim: int) -> Array:
    x = _fft(x, kind="rfft", length=x.shape[-1])
    for axis in range(x.ndim - ndim, x.ndim - 1):
        x = _along(x, axis, "fft")
    return x


def _irfft_by_axes(x: Array, ndim: int, length: int) -> Array:
    for axis in range(x.ndim - ndim, x.ndim - 1):
        x = _along(x, axis, "ifft")
    return _fft(x, kind="irfft", length=length)


def _along(x: Array, axis: int, kind: str) -> Array:
    x = jnp.moveaxis(x, axis, -1)
    return jnp.moveaxis(_fft(x, kind=kind, length=x.shape[-1]), -1, axis)


def _transform_together(x: Array, *, kind: str, lengths: tuple[int, ...]) -> Array:
    return lax.fft(x, kind, lengths)


def _transpose_together(bar: Array, like: Any, *, kind: str, lengths: tuple[int, ...]) -> Array:
    def by_axes(x: Array) -> Array:
        if kind == "rfft":
            return _rfft_by_axes(x, len(lengths))
        return _irfft_by_axes(x, len(lengths), lengths[-1])

    result: Array = jax.linear_transpose(by_axes, like)(bar)[0]
    return result


# axes that XLA transforms at once, which is faster than one after the other
_MOST = 3
_together = {
    n: SplitByBatch(
        f"invconv_fft_of_{n}_axes",
        _transform_together,
        tuple(range(-n, 0)),
        _transpose_together,
    )
    for n in range(1, _MOST + 1)
}


def rfftn(x: Array, ndim: int) -> Array:
    """Return half the spectrum of real x along its last ``ndim`` axes."""
    last = min(ndim, _MOST)
    lengths = tuple(x.shape[x.ndim - last :])
    x = _together[last](x, kind="rfft", lengths=lengths)
    for axis in range(x.ndim - ndim, x.ndim - last):
        x = _along(x, axis, "fft")
    return x


def irfftn(x: Array, ndim: int, length: int) -> Array:
    """Undo `rfftn`, to ``length`` points along the last axis."""
    last = min(ndim, _MOST)
    for axis in range(x.ndim - ndim, x.ndim - last):
        x = _along(x, axis, "ifft")
    lengths = (*x.shape[x.ndim - last : -1], length)
    return _together[last](x, kind="irfft", lengths=lengths)
