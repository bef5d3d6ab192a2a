"""What an argument that should be an array must be: errors say what came, and what to do."""

from __future__ import annotations

import sys
from typing import Any

import array_api_compat as compat
import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Namespace,
    dtype_name,
    is_known,
    library_name,
    namespace,
    placement,
)
from invconv.arrays.registry import backend
from invconv.arrays.tensors import is_told


def require_array(name: str, x: Any) -> Namespace:
    """Return the namespace of ``x``, or raise TypeError where it is no array of a library."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected an array without a mask, got a masked array, whose mask would be "
            "lost; say what its hidden entries are, for instance with .filled(0)"
        )
    # a class of arrays passes for one, as it has their methods
    if not is_known(x) and (isinstance(x, type) or not compat.is_array_api_obj(x)):
        raise TypeError(
            f"{name}: expected an array of a library that follows the Python array API standard, "
            f"got {type(x).__name__}; convert it first, for instance with numpy.asarray"
        )
    if library_name(x) == "torch":
        torch = sys.modules["torch"]
        if not is_told():
            backend("torch")  # without it no tensor's values are looked at
        if x.is_nested or x.layout is not torch.strided:
            kind = "a nested tensor" if x.is_nested else f"one of layout {x.layout}"
            raise TypeError(f"{name}: expected a dense tensor, got {kind}; convert it first")
    elif library_name(x) not in ("numpy", "jax"):
        _require_device(name, x)
    return namespace(x)


def _require_device(name: str, x: Any) -> None:
    """Raise TypeError where an array does not say on which device it is, as MLX's do not."""
    try:
        compat.device(x)
    except AttributeError:
        raise TypeError(
            f"{name}: expected an array with a device, as the Python array API standard asks, got "
            f"one of {library_name(x)}, which has none; convert it first, for instance with "
            "numpy.asarray"
        ) from None


def require_real(name: str, x: Any) -> None:
    """Raise TypeError unless ``x`` is an array of a supported real floating dtype."""
    xp = require_array(name, x)
    try:
        real = xp.isdtype(x.dtype, "real floating")
    except TypeError:  # NumPy's, of records
        real = False
    if not real or xp.finfo(x.dtype).bits not in (16, 32, 64):
        raise TypeError(
            f"{name}: expected a real floating dtype (float32 or float64; float16 and bfloat16 are "
            f"computed in float32), got {dtype_name(x.dtype)}; cast it first, nothing is promoted"
        )


def require_alike(name: str, x: Any, like_name: str, like: Array) -> None:
    """Raise unless ``x`` has the library, dtype and device of ``like``."""
    require_real(name, x)
    if library_name(x) != library_name(like):
        raise TypeError(
            f"{name}: expected an array of {library_name(like)} as {like_name} is, got one of "
            f"{library_name(x)}; convert {name}, or carry an operator over with "
            f"conv.asarrays(like={name})"
        )
    if x.dtype != like.dtype:
        raise TypeError(
            f"{name}: expected dtype {dtype_name(like.dtype)} as {like_name} has, got "
            f"{dtype_name(x.dtype)}; nothing is promoted silently: {_cast(name, x, like)}, or "
            f"carry an operator over with conv.asarrays(like={name})"
        )
    here, there = placement(x), placement(like)
    if here != there and here is not None and there is not None:
        raise ValueError(
            f"{name}: expected an array on device {there} as {like_name} is, got one on "
            f"{here}; move one of them, nothing is moved silently"
        )


def _cast(name: str, x: Array, like: Array) -> str:
    """Say how to give ``x`` the dtype of ``like``; of NumPy's, how to say its byte order too."""
    if not isinstance(x, np.ndarray):
        return f"cast {name}"
    code = like.dtype.str[1:] if like.dtype.isnative else like.dtype.str
    return f'cast {name} with {name}.astype("{code}")'


def require_current_device(name: str, x: Array) -> None:
    """Raise where an array of CuPy is not on the current device, on which all of its work runs."""
    if library_name(x) != "cupy":
        return
    current = sys.modules["cupy"].cuda.Device().id
    if x.device.id != current:
        raise ValueError(
            f"{name}: expected an array on CuPy's current device, {current}, got one on device "
            f"{x.device.id}; make that current: with cupy.cuda.Device({x.device.id}): ..."
        )


def explicit_spec(x: Array) -> tuple[Any, ...]:
    """Return along which explicit mesh axes of JAX each axis of an array is split, () if none is.

    Automatic mesh axes are no part of an array's type, and XLA moves the array as needed.
    """
    sharding = getattr(x.aval, "sharding", None) if library_name(x) == "jax" else None
    return () if sharding is None or not any(sharding.spec) else tuple(sharding.spec)
