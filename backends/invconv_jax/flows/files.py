"""Saving and loading operators and flows of JAX arrays."""

from __future__ import annotations

import os
from typing import Any

import jax
from jax import numpy as jnp

import invconv as ic
from invconv.files.flow_files import StoredFlow, read, write_flow
from invconv_jax.flows.glow import Glow, from_arrays, to_arrays


def save(flow: Glow | ic.InvertibleConv, path: str | os.PathLike[str]) -> None:
    """Write a flow or an operator to a file, whole or not at all; `invconv_torch.load` reads it.

    Parameters
    ----------
    flow : Glow or InvertibleConv
    path : str or path-like
        By custom ``*.safetensors``.

    Raises
    ------
    TypeError, ValueError, OSError
        As `invconv.save`.

    Examples
    --------
    >>> import tempfile, jax, invconv, invconv_jax
    >>> conv = invconv_jax.init(jax.random.key(0), invconv.PeriodicConv, 3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     invconv_jax.save(conv, f"{folder}/conv.safetensors")
    ...     same = invconv_jax.load(f"{folder}/conv.safetensors")
    >>> bool((same.kernel == conv.kernel).all())
    True
    """
    if isinstance(flow, Glow):
        write_flow(path, flow.architecture, to_arrays(flow), flow.initialized)
    else:
        ic.save(flow, path)


def load(path: str | os.PathLike[str], *, dtype: Any = None) -> Glow | ic.InvertibleConv:
    """Read a flow or an operator that `save`, `invconv.save` or `invconv_torch.save` wrote.

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
        As `invconv.load`; ValueError if JAX has no such dtype here, too.

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
        if jax.dtypes.canonicalize_dtype(kind) != kind:
            raise ValueError(
                f"dtype: JAX has no {kind} here; "
                'jax.config.update("jax_enable_x64", True) brings it, or pass dtype='
            )
        return jnp.zeros(0, kind)

    stored = read(path, like_of)
    if not isinstance(stored, StoredFlow):
        return stored
    return from_arrays(stored.architecture, stored.arrays, stored.initialized)
