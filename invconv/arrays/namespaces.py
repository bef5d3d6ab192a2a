"""What the core asks of an array: its library, dtype, device, and whether its values may be read.

`namespace(x)` is the array API namespace of array-api-compat
(https://data-apis.org/array-api-compat). Every room uses it.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import array_api_compat as compat
import numpy as np

from invconv.arrays.array_ops import KNOWN, ops_of

Array: TypeAlias = Any
Namespace: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]


def namespace(*arrays: Array) -> Namespace:
    """Return the array-API namespace that all arrays (None is passed over) belong to."""
    if len(arrays) == 1 and type(arrays[0]) in KNOWN:
        return KNOWN[type(arrays[0])].xp
    found = {type(a): a for a in arrays if a is not None}
    if len(found) != 1:
        return compat.array_namespace(*found.values())
    return ops_of(next(iter(found.values()))).xp


def library_name(x: Array) -> str:
    """Return the import name of the library of an array, such as "numpy"."""
    return ops_of(x).name


def device(x: Array) -> Any:
    """Return what creation functions take as ``device`` to put an array beside ``x``.

    None where constants move to their operands by themselves.
    """
    return ops_of(x).device(x)


def copy_of(x: Array) -> Array:
    """Return a copy that later edits of ``x`` do not reach, differentiable where ``x`` is."""
    return ops_of(x).copy(x)


def constant(values: np.ndarray[Any, Any], like: Array, dtype: Any = None) -> Array:
    """Return a host constant in the library and on the device of ``like``."""
    return ops_of(like).constant(values, like, dtype)


def zeros(shape: Shape, like: Array) -> Array:
    """Return zeros in the library, dtype and device of ``like``."""
    return namespace(like).zeros(shape, dtype=like.dtype, device=device(like))


def identity(size: int, like: Array) -> Array:
    """Return the identity matrix in the library, dtype and device of ``like``."""
    return namespace(like).astype(on_diagonal(size, like), like.dtype)


def on_diagonal(size: int, like: Array) -> Array:
    """Return the mask of a diagonal, a constant: PyTorch's tracers lose what `eye` writes."""
    return constant(np.eye(size, dtype=bool), like)


def triangle(x: Array, *, lower: bool) -> Array:
    """Return one triangle of a matrix, with its diagonal."""
    xp = namespace(x)
    if isinstance(x, np.ndarray):  # its own makes the mask each time
        below = _below(x.shape[0])
        return np.where(below if lower else below.T, x, x.dtype.type(0))
    return xp.tril(x) if lower else xp.triu(x)


@functools.lru_cache(maxsize=64)
def _below(size: int) -> np.ndarray[Any, Any]:
    return np.tri(size, dtype=bool)


def diagonal_matrix(v: Array) -> Array:
    """Return diag(v). A non-finite entry stays where it is (0 x inf would spread NaN)."""
    return namespace(v).where(on_diagonal(v.shape[0], v), v[:, None], zeros((1, 1), v))


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


def native_dtype(dtype: Any) -> Any:
    """Return a dtype in the machine's byte order, in which all work is done."""
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def log_abs(x: Array) -> Array:
    """Return log|x|, -inf at zero and without NumPy's warning there."""
    if isinstance(x, np.ndarray) and x.all():  # to change errstate takes as long
        return np.log(np.abs(x))
    return ops_of(x).log_abs(x)


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
    return bits(dtype, like) == 16


def bits(dtype: Any, like: Array) -> int:
    """Return the number of bits of a real floating dtype of the library of ``like``."""
    known = (KNOWN.get(type(like)) or ops_of(like)).bits
    if dtype not in known:
        known[dtype] = int(namespace(like).finfo(dtype).bits)
    return known[dtype]


def readable(x: Array) -> bool:
    """Tell whether looking at the values of ``x`` costs nothing and is possible.

    True in host memory and outside traced code; never on an accelerator (the host would wait),
    under ``jax.jit``, ``torch.compile``, ``vmap`` or with fake tensors.
    """
    return (KNOWN.get(type(x)) or ops_of(x)).readable(x)  # one call less, since it is asked often


def recorded(x: Array) -> bool:
    """Tell whether the derivative of a readable array is recorded."""
    return ops_of(x).recorded(x)


def to_numpy(x: Array) -> np.ndarray[Any, Any]:
    """Copy the values of an array to the host, the only place where the core does so."""
    return ops_of(x).to_numpy(x)


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
    there = ops_of(like).placement(like)
    if there is None or ops_of(array).placement(array) == there:
        return array
    return ops_of(array).place(array, there)


def describe(x: Array) -> str:
    """Say an array's shape, dtype and library, for messages and reprs."""
    return f"{tuple(x.shape)} {dtype_name(x.dtype)} {library_name(x)}"


def dtype_name(dtype: Any) -> str:
    """Return "float32" for every library's way to write it."""
    return str(dtype.name) if hasattr(dtype, "name") else str(dtype).rpartition(".")[2]


def size(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape, 1 for ()."""
    total = 1
    for n in shape:
        total *= n
    return total


def grid_text(shape: Sequence[int]) -> str:
    """Return "3 x 5" for (3, 5)."""
    return " x ".join(map(str, shape)) or "1"
