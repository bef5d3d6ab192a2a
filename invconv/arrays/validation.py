"""What an argument that should be an array must be: errors say what came, and what to do."""

from __future__ import annotations

from typing import Any

import array_api_compat as compat
import numpy as np

from invconv.arrays.array_ops import KNOWN, ops_of
from invconv.arrays.namespaces import Array, Namespace, dtype_name, library_name, placement


def require_array(name: str, x: Any) -> Namespace:
    """Return the namespace of ``x``, or raise TypeError where it is no array of a library."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected an array without a mask, got a masked array, whose mask would be "
            "lost; say what its hidden entries are, for instance with .filled(0)"
        )
    # a class of arrays passes for one, as it has their methods
    if type(x) not in KNOWN and (isinstance(x, type) or not compat.is_array_api_obj(x)):
        raise TypeError(
            f"{name}: expected an array of a library that follows the Python array API standard, "
            f"got {type(x).__name__}; convert it first, for instance with numpy.asarray"
        )
    ops = ops_of(x)
    ops.require(name, x)
    return ops.xp


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
    """Raise unless ``x`` has the library, device and dtype of ``like``, a real one."""
    require_real(name, x)
    require_beside(name, x, like_name, like)
    if x.dtype != like.dtype:
        raise TypeError(
            f"{name}: expected dtype {dtype_name(like.dtype)} as {like_name} has, got "
            f"{dtype_name(x.dtype)}; nothing is promoted silently: {_cast(name, x, like)}, or "
            f"carry an operator over with conv.asarrays(like={name})"
        )


def require_beside(name: str, x: Array, like_name: str, like: Array) -> None:
    """Raise unless ``x`` has the library and device of ``like``."""
    if library_name(x) != library_name(like):
        raise TypeError(
            f"{name}: expected an array of {library_name(like)} as {like_name} is, got one of "
            f"{library_name(x)}; convert {name}, or carry an operator over with "
            f"conv.asarrays(like={name})"
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
