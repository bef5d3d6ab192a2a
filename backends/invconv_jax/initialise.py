"""Random operators from a JAX key: the core's `init`, with repeatable random numbers."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import numpy as jnp

import invconv as ic
from invconv.arrays.namespaces import Array

C = TypeVar("C", bound=ic.InvertibleConv)


def init(
    key: Array, cls: type[C], channels: int, *args: Any, dtype: Any = None, **settings: Any
) -> C:
    """Return a random operator of JAX arrays: ``cls.init(channels, ...)`` from a key.

    The numbers are drawn on the host by NumPy, seeded with the key: the same key gives the same
    operator on every platform. Inside traced code (``jit``, ``vmap`` over keys, ``eval_shape``)
    that is a host callback.

    Parameters
    ----------
    key : array
        From ``jax.random.key`` or ``jax.random.PRNGKey``.
    cls : type
        A class of `invconv` operators with an ``init``.
    channels : int
    *args, **settings
        As for ``cls.init``: kernel_size, ndim, dilation, mask, ...
    dtype : dtype, optional
        JAX's default floating dtype unless given.

    Returns
    -------
    cls

    Examples
    --------
    >>> import invconv, invconv_jax, jax
    >>> key = jax.random.key(0)
    >>> invconv_jax.init(key, invconv.PeriodicConv, 3, dilation=2, dtype="float32")
    PeriodicConv(kernel=<(3, 3, 3, 3) float32 jax>, bias=None, dilation=(2, 2))

    Layers to scan over are stacked by vmap:

    >>> make = lambda key: invconv_jax.init(key, invconv.QRConv1x1, 4)
    >>> jax.vmap(make)(jax.random.split(key, 8)).scale.shape
    (8, 4)
    """
    if not (isinstance(cls, type) and issubclass(cls, ic.InvertibleConv) and hasattr(cls, "init")):
        raise TypeError(
            f"cls: expected a class of invconv with an init, got {cls!r:.80}; the key comes first"
        )
    if "rng" in settings:
        raise TypeError("rng: expected none, since the numbers come from the key")
    if "like" in settings:
        raise TypeError("like: expected none, since JAX places the arrays; dtype= says their dtype")
    begin = functools.partial(cls.init, channels, *args, **settings)  # type: ignore[attr-defined]
    return drawn(key, begin, dtype)  # type: ignore[no-any-return]


def drawn(key: Array, draw: Callable[..., Any], dtype: Any) -> Any:
    """Return ``draw(rng=...)`` in JAX arrays; the host draws now, or when the program runs."""
    dtype = jnp.result_type(float) if dtype is None else dtype
    if not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits < 16:
        raise TypeError(f"dtype: expected a real floating dtype of 16 bits or more, got {dtype!r}")
    require_dtype(dtype)
    leaves, structure = jax.tree.flatten(draw(rng=np.random.default_rng(0)))
    kinds = [dtype if np.issubdtype(a.dtype, np.floating) else jnp.result_type(int) for a in leaves]
    types = [jax.ShapeDtypeStruct(a.shape, k) for a, k in zip(leaves, kinds, strict=True)]

    def host(seed: Any) -> list[np.ndarray[Any, Any]]:
        rng = np.random.default_rng(np.asarray(seed).ravel())
        drawn = jax.tree.leaves(draw(rng=rng))
        return [np.asarray(a, dtype=t.dtype) for a, t in zip(drawn, types, strict=True)]

    seed = _seed(key)
    if isinstance(seed, jax.core.Tracer):
        arrays = jax.pure_callback(host, types, seed, vmap_method="sequential")
    else:
        arrays = [jnp.asarray(a) for a in host(seed)]
    return jax.tree.unflatten(structure, arrays)


def require_dtype(dtype: Any, advice: str = "") -> None:
    """Raise ValueError if JAX has no such dtype here."""
    if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        raise ValueError(
            f"dtype: JAX has no {jnp.dtype(dtype)} here; "
            f'jax.config.update("jax_enable_x64", True) brings it{advice}'
        )


def is_key(value: Any) -> bool:
    """Tell whether a value is a key, of either kind."""
    if not isinstance(value, jax.Array):
        return False
    typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return bool(typed or (value.ndim == 1 and value.dtype == jnp.uint32))


def _seed(key: Array) -> Array:
    several = isinstance(key, jax.Array) and key.dtype == jnp.uint32
    if not (is_key(key) or several):
        raise TypeError(f"key: expected a key such as jax.random.key(0), got {key!r:.80}")
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    if data.ndim != 1:
        raise ValueError(
            f"key: expected one key, got an array of them of shape {tuple(key.shape)}; "
            f"use jax.vmap for several"
        )
    return data
