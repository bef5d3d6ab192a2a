"""Loading operators and flows of JAX arrays; how `invconv.save` takes a flow apart."""

import os
from typing import Any

import jax
from jax import numpy as jnp

from invconv.files.flow_files import FLOWS, Flows
from invconv.files.saving import load_as
from invconv_jax.flows.glow import Glow, from_stored, to_stored
from invconv_jax.initialise import require_dtype

FLOWS["jax"] = Flows(Glow, to_stored, lambda stored, like: from_stored(stored))


def load(path: str | os.PathLike[str], *, dtype: Any = None) -> Any:
    """Read a flow or an operator that `invconv.save` wrote, in whatever library.

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
        require_dtype(kind, ", or pass dtype=")
        return jnp.zeros(0, kind)

    return load_as(path, like_of)
