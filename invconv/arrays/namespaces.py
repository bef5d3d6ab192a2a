"""What the core asks of an array: its library, dtype, device, and whether its values may be read.

`namespace(x)` is the array API namespace of array-api-compat
(https://data-apis.org/array-api-compat). Every room uses it.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import array_api_compat as compat
import numpy as np

from invconv.arrays.tensors import open_modes, plain_tensor

Array: TypeAlias = Any
Namespace: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]

_KNOWN = ("numpy", "torch", "jax")

# by the type of an array: quick, and torch.compile reads them
_namespaces: dict[type, Namespace] = {}
_library_names: dict[type, str] = {}
_halves: dict[tuple[str, Any], bool] = {}  # by a library's dtype
_in_graphs: dict[Any, Array] = {}  # constants whose memory recorded CUDA graphs read


def namespace(*arrays: Array) -> Namespace:
    """Return the array-API namespace that all arrays (None is passed over) belong to."""
    if len(arrays) == 1 and type(arrays[0]) in _namespaces:
        return _namespaces[type(arrays[0])]
    found = {type(a): a for a in arrays if a is not None}
    if len(found) != 1:
        return compat.array_namespace(*found.values())
    ((kind, array),) = found.items()
    if kind not in _namespaces:
        _namespaces[kind] = compat.array_namespace(array)
    return _namespaces[kind]


def is_known(x: Any) -> bool:
    """Tell whether the namespace of an array's type was looked up before."""
    return type(x) in _namespaces


def library_name(x: Array) -> str:
    """Return the import name of the library of an array: "numpy", "torch", "jax", ..."""
    kind = type(x)
    if kind not in _library_names:
        name: str = namespace(x).__name__
        _library_names[kind] = name.removeprefix("array_api_compat.").partition(".")[0]
    return _library_names[kind]


def device(x: Array) -> Any:
    """Return what creation functions take as ``device`` to put an array beside ``x``.

    None for JAX: it moves constants to their operands by itself, and a traced array has no device.
    """
    library = library_name(x)
    if library == "numpy":
        return "cpu"
    if library == "torch":
        return x.device
    return None if library == "jax" else compat.device(x)


def placement(x: Array) -> Any:
    """Return the device that an array is bound to, None for a JAX array that JAX may move."""
    if library_name(x) != "jax":
        return device(x)
    traced = isinstance(x, sys.modules["jax"].core.Tracer)
    return None if traced or not x.committed else frozenset(x.devices())


def copy_of(x: Array) -> Array:
    """Return a copy that later edits of ``x`` do not reach, differentiable where ``x`` is."""
    library = library_name(x)
    if library == "torch":
        return x.clone()
    if library == "numpy":
        return np.array(x)
    return x if library == "jax" else namespace(x).asarray(x, copy=True)


def constant(values: np.ndarray[Any, Any], like: Array, dtype: Any = None) -> Array:
    """Return a host constant in the library and on the device of ``like``."""
    library = library_name(like)
    if dtype is None and library == "numpy":
        return values
    if library == "torch" and like.device.type != "cpu" and plain_tensor(like):
        torch = sys.modules["torch"]
        if not open_modes():  # no mode traces
            key = values.tobytes(), values.dtype, values.shape, dtype, like.device
            if like.is_cuda and torch.cuda.is_current_stream_capturing():
                return _in_graphs.setdefault(key, _constant_on_device(*key))
            return _constant_on_device(*key)
    return namespace(like).asarray(values, dtype=dtype, device=device(like))


@functools.lru_cache(maxsize=256)
def _constant_on_device(content: bytes, kind: Any, shape: Shape, dtype: Any, place: Any) -> Array:
    """Copy a constant to a device of torch, once: it waits for all that was queued there before."""
    torch = sys.modules["torch"]
    values = np.frombuffer(content, kind).reshape(shape).copy()
    with torch.inference_mode(False):  # else it would be of no use outside that mode
        return torch.asarray(values, dtype=dtype, device=place)


def zeros(shape: Shape, like: Array) -> Array:
    """Return zeros in the library, dtype and device of ``like``."""
    return namespace(like).zeros(shape, dtype=like.dtype, device=device(like))


def identity(size: int, like: Array) -> Array:
    """Return the identity matrix in the library, dtype and device of ``like``."""
    return namespace(like).eye(size, dtype=like.dtype, device=device(like))


def triangle(x: Array, *, lower: bool) -> Array:
    """Return one triangle of a matrix, with its diagonal."""
    xp = namespace(x)
    if library_name(x) == "numpy":  # its own makes the mask each time
        below = _below(x.shape[0])
        return np.where(below if lower else below.T, x, x.dtype.type(0))
    return xp.tril(x) if lower else xp.triu(x)


@functools.lru_cache(maxsize=64)
def _below(size: int) -> np.ndarray[Any, Any]:
    return np.tri(size, dtype=bool)


def diagonal_matrix(v: Array) -> Array:
    """Return diag(v). A non-finite entry stays where it is (0 x inf would spread NaN)."""
    return namespace(v).where(identity(v.shape[0], v) != 0, v[:, None], zeros((1, 1), v))


def diagonal(matrix: Array) -> Array:
    """Return the diagonal of a matrix, by an array's own method where it has one: it is quicker."""
    if hasattr(matrix, "diagonal"):
        return matrix.diagonal()
    return namespace(matrix).linalg.diagonal(matrix)


def total(v: Array) -> Array:
    """Return the sum of a vector, by an array's own method where it has one: it is quicker."""
    return v.sum() if hasattr(v, "sum") else namespace(v).sum(v)


def as_array(x: Array) -> Array:
    """Return a true 0-d array where NumPy's arithmetic made a scalar of one."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def cast(x: Array, dtype: Any) -> Array:
    """Return ``x`` in another dtype, itself where it has that dtype already."""
    return x if x.dtype == dtype else namespace(x).astype(x, dtype)


def log_abs(x: Array) -> Array:
    """Return log|x|, -inf at zero and without NumPy's warning there."""
    if isinstance(x, np.ndarray) and x.all():  # to change errstate takes as long
        return np.log(np.abs(x))
    if _library_names.get(type(x)) == "torch":  # torch.compile has no errstate
        return x.abs().log()
    xp = namespace(x)
    with np.errstate(divide="ignore"):
        return xp.log(xp.abs(x))


def log_of_exp(log_scale: Array, scale: Array) -> Array:
    """Return log|scale| for scale = +-exp(log_scale): exactly log_scale, unless exp left the range.

    Where it underflows to zero or overflows, the map that runs has log-determinant -inf or inf.
    """
    xp = namespace(scale)
    in_range = (scale != 0) & xp.isfinite(scale)
    # written so, since XLA takes log|exp(x)| for x, which underflow makes wrong
    beyond = xp.where(scale == 0, xp.full_like(scale, -math.inf), xp.abs(scale))
    return xp.where(in_range, log_scale, beyond)


def is_half(dtype: Any, like: Array) -> bool:
    """Tell whether ``dtype`` is a 16-bit float (float16, bfloat16), whose work runs in float32."""
    key = library_name(like), dtype
    if key not in _halves:
        _halves[key] = bool(namespace(like).finfo(dtype).bits == 16)
    return _halves[key]


def readable(x: Array) -> bool:
    """Tell whether looking at the values of ``x`` costs nothing and is possible.

    True in host memory and outside traced code; never on an accelerator (the host would wait),
    under ``jax.jit``, ``torch.compile``, ``vmap`` or with fake tensors.
    """
    library = library_name(x)
    if library == "numpy":
        return True
    if library == "torch":
        return plain_tensor(x) and bool(x.device.type == "cpu")
    if library == "jax":
        traced = isinstance(x, sys.modules["jax"].core.Tracer)
        return not traced and all(d.platform == "cpu" for d in x.devices())
    on_host = hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] == 1
    return bool(on_host and x.device == namespace(x).__array_namespace_info__().default_device())


def to_numpy(x: Array) -> np.ndarray[Any, Any]:
    """Copy the values of an array to the host, the only place where the core does so."""
    library = library_name(x)
    if library == "torch":
        half = x.dtype.itemsize == 2 and x.is_floating_point()
        # a copy first: memory that NumPy has seen cannot be resized, as FSDP does with parameters
        own = (x.float() if half else x).detach().clone()
        return np.asarray(own.numpy(force=True))
    if library == "cupy":
        return np.array(x.get())
    if type(x) is np.ndarray and x.dtype.isnative and x.dtype.itemsize != 2:
        return np.array(x)
    if library in ("numpy", "jax"):
        half = x.dtype.itemsize == 2 and x.dtype.kind not in "iu"
        return np.array(x, dtype=np.float32 if half else np.dtype(x.dtype).newbyteorder("="))
    return np.array(np.from_dlpack(x) if hasattr(x, "__dlpack__") else x)


def to_float(x: Array) -> float:
    """Return the value of a 0-d array, which the caller knows to be readable."""
    return float(x) if isinstance(x, np.generic) else float(to_numpy(x))


def from_host(values: np.ndarray[Any, Any], like: Array) -> Array:
    """Return values in the library and device of ``like``, and its dtype if they are real.

    The result may share the memory of ``values``, which nobody else should hold.
    """
    xp = namespace(like)
    integral = xp.__array_namespace_info__().default_dtypes()["integral"]
    kind = integral if values.dtype.kind in "iu" else like.dtype
    return place(xp.asarray(values, dtype=kind, device=device(like)), like)


def place(array: Array, like: Array) -> Array:
    """Return an array on the device that ``like`` is bound to."""
    there = placement(like)
    if there is None or placement(array) == there:
        return array
    if isinstance(there, frozenset):  # JAX: one device can be followed, a sharding cannot
        (there,) = there if len(there) == 1 else (None,)
    return namespace(array).asarray(array, device=there)


def describe(x: Array) -> str:
    """Say an array's shape, dtype and library, for messages and reprs."""
    return f"{tuple(x.shape)} {dtype_name(x.dtype)} {library_name(x)}"


def dtype_name(dtype: Any) -> str:
    """Return "float32" for every library's way to write it."""
    name = dtype.name if hasattr(dtype, "name") else str(dtype).rpartition(".")[2]
    foreign = isinstance(dtype, np.dtype) and not dtype.isnative
    return f"{name} in foreign byte order" if foreign else name


def same_kind(x: Any, like: Array) -> bool:
    """Tell at little cost that ``x`` has the library, dtype and device of ``like``.

    False says only that `require_alike` must look more closely. Half types are False, since they
    are computed in another dtype.
    """
    library = _library_names.get(type(like))
    if library not in _KNOWN or _library_names.get(type(x)) != library:
        return False
    if x.dtype != like.dtype or x.dtype.itemsize == 2:
        return False
    if library == "torch":
        return bool(x.device == like.device and x.layout == like.layout and not x.is_nested)
    if library == "numpy":
        return type(x) is np.ndarray and bool(x.dtype.isnative)
    return bool(placement(x) == placement(like))


def size(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape, 1 for ()."""
    total = 1
    for n in shape:
        total *= n
    return total
