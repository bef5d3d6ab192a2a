"""Fourier transforms of the last axes that keep a batch on its devices.

`lax.fft` would gather a batch that is spread over devices, hence `SplitByBatch`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv_jax.native.partition import SplitByBatch

_MOST = 3  # axes that XLA transforms together, at most


def _transform(x: Array, *, kind: str, lengths: tuple[int, ...]) -> Array:
    return lax.fft(x, kind, lengths)


def _transposed(bar: Array, *, kind: str, lengths: tuple[int, ...]) -> Array:
    """Return the transpose of `_transform` of a cotangent."""
    *others, last = lengths
    into = (*others, last // 2 + 1) if kind == "irfft" else lengths
    dtype = jnp.finfo(bar.dtype).dtype if kind == "rfft" else jnp.result_type(bar, jnp.complex64)
    like = jax.ShapeDtypeStruct((*bar.shape[: bar.ndim - len(into)], *into), dtype)
    transpose = jax.linear_transpose(lambda x: lax.fft(x, kind, lengths), like)
    return transpose(bar)[0]


@functools.cache
def _run(ndim: int, back: bool) -> SplitByBatch:
    """Return the transform of the last axes, or its transpose: each is the other's transpose."""
    name = f"invconv_fft_of_{ndim}" + "_transposed" * back

    def transpose(bar: Array, _: Any, **settings: Any) -> Array:
        return _run(ndim, not back)(bar, **settings)

    return SplitByBatch(
        name, _transposed if back else _transform, tuple(range(-ndim, 0)), transpose
    )


def _fft(x: Array, kind: str, *lengths: int) -> Array:
    """Transform the last axes, one for each length."""
    return _run(len(lengths), False)(x, kind=kind, lengths=lengths)


def rfftn(x: Array, ndim: int) -> Array:
    """Return half the spectrum of real x along its last ``ndim`` axes."""
    last = min(ndim, _MOST)
    x = _fft(x, "rfft", *x.shape[x.ndim - last :])
    for axis in range(x.ndim - ndim, x.ndim - last):
        x = _along(x, axis, "fft")
    return x


def irfftn(x: Array, ndim: int, length: int) -> Array:
    """Undo `rfftn`, to ``length`` points along the last axis."""
    last = min(ndim, _MOST)
    for axis in range(x.ndim - ndim, x.ndim - last):
        x = _along(x, axis, "ifft")
    return _fft(x, "irfft", *x.shape[x.ndim - last : -1], length)


def _along(x: Array, axis: int, kind: str) -> Array:
    x = jnp.moveaxis(x, axis, -1)
    return jnp.moveaxis(_fft(x, kind, x.shape[-1]), -1, axis)
