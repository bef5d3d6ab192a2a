"""The core's questions about arrays and libraries, beyond the standard, and an adapter's answers.

`namespace(x)` is the array API namespace of array-api-compat
(https://data-apis.org/array-api-compat). Every room uses it.

An adapter's ``ARRAY_OPS`` (`registry`) is a subclass of `ArrayOps`, with the methods that differ.
"""

import functools
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat as compat
import numpy as np

Array: TypeAlias = Any
Namespace: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
size: Callable[[Sequence[int]], int] = math.prod  # the number of elements of a shape

_backends: dict[str, ModuleType | None] = {}
_by_name: "dict[str, ArrayOps]" = {}
KNOWN: "dict[type, ArrayOps]" = {}  # by the type of an array: quick, and torch.compile reads it


class ArrayOps:
    """The answers of a library that follows the array API standard and has no adapter.

    Attributes
    ----------
    name : str
        The import name of the library.
    xp : namespace
        The library's namespace of array-api-compat.
    primitives : module or None
        The adapter's native primitives.
    flushes_subnormals : bool
        Whether arithmetic replaces numbers below the smallest normal one by zero.
    gathers_transforms : bool
        Whether Fourier transforms gather a batch that is split between devices.
    shared_by_threads : bool
        Whether several threads may compute with the same arrays.
    bits : dict
        The bits of the real floating dtypes that were asked for. Each library has a dictionary of
        its own, since torch.compile cannot trace one that holds another library's dtypes.
    """

    flushes_subnormals = False
    gathers_transforms = False
    shared_by_threads = True

    def __init__(self, name: str, xp: Namespace) -> None:
        self.name, self.xp = name, xp
        self.primitives = backend(name)
        self.bits: dict[Any, int] = {}

    def require(self, name: str, x: Array) -> None:
        """Raise TypeError where an array is of a kind that no operator takes."""
        try:
            compat.device(x)
        except AttributeError:
            raise TypeError(
                f"{name}: expected an array with a device, as the Python array API standard asks, "
                f"got one of {self.name}, which has none; convert it first, for instance with "
                "numpy.asarray"
            ) from None

    def require_usable(self, name: str, x: Array) -> None:
        """Raise if an operator's array is on a device, or of a dtype, that cannot be used now."""

    def device(self, x: Array) -> Any:
        """Return the ``device`` argument that creates an array beside ``x``."""
        return compat.device(x)

    def placement(self, x: Array) -> Any:
        """Return the device that an array is bound to, None if its library may move it."""
        return self.device(x)

    def place(self, x: Array, there: Any) -> Array:
        """Return an array on another device, given as a placement."""
        return self.xp.asarray(x, device=there)

    def spread(self, x: Array, like: Array, axes: int | None = None) -> Array:
        """Return x, split along mesh axes as ``like`` is, or as its first ``axes`` axes are."""
        return x

    def readable(self, x: Array) -> bool:
        """Tell whether looking at the values of ``x`` costs nothing and is possible."""
        try:
            on_host = x.__dlpack_device__()[0] == 1
        except Exception:  # an array that has, or tells, no device of its memory
            return False
        return bool(on_host and x.device == self.xp.__array_namespace_info__().default_device())

    def recorded(self, x: Array) -> bool:
        """Tell whether the derivative of a readable array is recorded."""
        return False

    def at_once(self) -> AbstractContextManager[Any]:
        """Return a context where operations on readable arrays run now, even in traced code."""
        return nullcontext()

    def same_kind(self, x: Array, like: Array) -> bool:
        """Tell cheaply if two arrays share device and dtype, not a half one; False if unknown."""
        return False

    def copy(self, x: Array) -> Array:
        """Return a copy that later edits of ``x`` do not reach, differentiable where ``x`` is."""
        return self.xp.asarray(x, copy=True)

    def without_derivative(self, x: Array) -> Array:
        """Return the same numbers, whose derivative is zero."""
        return x

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Copy the values of an array to the host, in float32 where NumPy lacks the dtype."""
        return np.array(np.from_dlpack(x) if hasattr(x, "__dlpack__") else x)

    def constant(self, values: np.ndarray[Any, Any], like: Array, dtype: Any) -> Array:
        """Return a host constant on the device of ``like``; nobody edits the result."""
        if dtype is None and values.dtype.kind in "iu":
            dtype = self.integers(like)
        return self.xp.asarray(values, dtype=dtype, device=self.device(like))

    def integers(self, like: Array) -> Any:
        """Return the dtype of the library's integers on the device of ``like``."""
        there = {} if (device := self.device(like)) is None else {"device": device}
        return self.xp.__array_namespace_info__().default_dtypes(**there)["integral"]

    def nan_where(self, mask: Array, x: Array) -> Array:
        """Return x, with NaN where a mask is true; the mask broadcasts with x."""
        return self.xp.where(mask, self.xp.full_like(x, math.nan), x)

    def log_abs(self, x: Array) -> Array:
        """Return log|x|, -inf at zero and without NumPy's warning there."""
        with np.errstate(divide="ignore"):
            return self.xp.log(self.xp.abs(x))


class NumpyOps(ArrayOps):
    """NumPy's answers."""

    def require(self, name: str, x: Array) -> None:
        pass

    def device(self, x: Array) -> str:
        return "cpu"

    def readable(self, x: Array) -> bool:
        return True

    def same_kind(self, x: Array, like: Array) -> bool:
        """See `ArrayOps.same_kind`; also False for subclasses."""
        kind = x.dtype
        return type(x) is np.ndarray and bool(kind == like.dtype and kind.itemsize != 2)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        half = x.dtype.itemsize == 2 and x.dtype.kind not in "iu"
        return np.array(x, dtype=np.float32 if half else None)

    def constant(self, values: np.ndarray[Any, Any], like: Array, dtype: Any) -> Array:
        return np.asarray(values, dtype=dtype)


def backend(library: str) -> ModuleType | None:
    """Return the module of native primitives of a library, imported on first use.

    Frozen and vendored code has no entry points: NumPy's module is the core's own, and an adapter
    is found there in a package that is named as ours are.
    """
    if library not in _backends:
        _backends[library] = _adapter(library)
    return _backends[library]


def _adapter(library: str) -> ModuleType | None:
    if library == "numpy":
        return import_module("invconv.kernels.numpy_primitives")
    from importlib.metadata import entry_points  # here: it takes long to import

    for entry in entry_points(group="invconv.backends", name=library):
        module: ModuleType = entry.load()
        return module
    package = f"invconv_{library}"
    return import_module(f"{package}.primitives") if find_spec(package) else None


def register_backend(import_name: str, module: ModuleType) -> None:
    """Register an adapter that has no entry point.

    Parameters
    ----------
    import_name : str
        The library's name without dots, such as "dask". No array of the library may have been used
        before.
    module : module
        A module with native primitives by their names, and ``ARRAY_OPS``, a subclass of `ArrayOps`;
        both may be left out.

    Examples
    --------
    >>> from types import ModuleType
    >>> from invconv.extend import register_backend
    >>> register_backend("my_arrays", ModuleType("my_primitives"))
    """
    if not isinstance(import_name, str) or not import_name.isidentifier():
        raise ValueError(
            f"import_name: expected one without dots, 'dask' of dask.array, got {import_name!r:.80}"
        )
    if not isinstance(module, ModuleType):
        raise TypeError(f"module: expected a module, got {module!r:.80}")
    ops = getattr(module, "ARRAY_OPS", ArrayOps)
    if not isinstance(ops, type) or not issubclass(ops, ArrayOps):
        raise TypeError(f"module: expected ARRAY_OPS to be a subclass of ArrayOps, got {ops!r:.80}")
    if import_name in _by_name:
        raise ValueError(
            f"import_name: expected a library that was not used before, got {import_name!r}"
        )
    _backends[import_name] = module


def callers_level() -> int:
    """Return the ``stacklevel`` with which a warning points to the line that called the library."""
    level, frame = 1, sys._getframe(1)
    names = {module.__name__.partition(".")[0] for module in _backends.values() if module}
    # a library's wrappers of our methods, such as torch.no_grad, are not the caller
    inside = {"invconv", "dataclasses", *names, *(n.removeprefix("invconv_") for n in names)}
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in inside:
        level, frame = level + 1, frame.f_back
    return level


def ops_of(x: Array) -> ArrayOps:
    """Return the `ArrayOps` of an array's library, whose adapter the first array imports.

    Another thread imports it: torch.compile would trace an import in the one that it compiles.
    Raises TypeError where x is no array of a library.
    """
    kind = type(x)
    if kind not in KNOWN:
        libraries = {base.__module__.partition(".")[0] for base in kind.__mro__}
        if libraries & {"numpy", *_by_name}:
            KNOWN[kind] = _ops_of(x)
        else:
            with ThreadPoolExecutor(1) as pool:
                KNOWN[kind] = pool.submit(_ops_of, x).result()
    return KNOWN[kind]


def _ops_of(x: Array) -> ArrayOps:
    xp = compat.array_namespace(x)
    name = xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
    if name not in _by_name:
        _by_name[name] = getattr(backend(name), "ARRAY_OPS", ArrayOps)(name, xp)
    return _by_name[name]


def namespace(x: Array, *others: Array) -> Namespace:
    """Return the array-API namespace that all arrays belong to; others may be None."""
    if others:
        found = {type(a): a for a in (x, *others) if a is not None}
        if len(found) > 1:
            return compat.array_namespace(*found.values())
    return (KNOWN.get(type(x)) or ops_of(x)).xp


def device(x: Array) -> Any:
    """Return the ``device`` argument for arrays beside ``x``; None if constants move themselves."""
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
    """Return a diagonal's mask, as a constant: PyTorch's tracers lose what `eye` writes."""
    return constant(np.eye(size, dtype=bool), like)


def triangle(x: Array, *, lower: bool) -> Array:
    """Return one triangle of a matrix, with its diagonal."""
    if isinstance(x, np.ndarray):  # NumPy's function makes the mask each time
        below = _below(x.shape[0])
        return np.where(below if lower else below.T, x, x.dtype.type(0))
    xp = namespace(x)
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


def per_channel(v: Array, x: Array) -> Array:
    """Shape a vector (C,) so that it broadcasts against (B, C, *spatial)."""
    shape = (1, -1, *(1,) * (x.ndim - 2))  # of equal rank: JAX can be set not to promote ranks
    return v.reshape(shape) if hasattr(v, "reshape") else namespace(v).reshape(v, shape)


def as_array(x: Array) -> Array:
    """Return a true 0-d array where NumPy's arithmetic made a scalar of one."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def cast(x: Array, dtype: Any) -> Array:
    """Return ``x`` in another dtype, itself where it has that dtype already."""
    return x if x.dtype == dtype else namespace(x).astype(x, dtype)


def as_float64(x: Array) -> Array:
    """Return ``x`` in float64, or raise ValueError where its library has none."""
    xp = namespace(x)
    try:
        wide = cast(x, xp.float64)
        ops_of(x).require("precision", wide)
    except TypeError:  # MLX's, which has float64 for other uses
        wide = x
    if wide.dtype != xp.float64:
        raise ValueError(
            f"precision: {ops_of(x).name} has no float64 here; for JAX, "
            'jax.config.update("jax_enable_x64", True) brings it'
        )
    return wide


def native_dtype(dtype: Any) -> Any:
    """Return a dtype in the machine's byte order, in which all work is done."""
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def log_abs(x: Array) -> Array:
    """Return log|x|, -inf at zero and without NumPy's warning there."""
    if isinstance(x, np.ndarray) and x.all():  # to change errstate takes as long
        return np.log(np.abs(x))
    return (KNOWN.get(type(x)) or ops_of(x)).log_abs(x)


def log_of_exp(log_scale: Array, scale: Array) -> Array:
    """Return log|scale| for scale = +-exp(log_scale): exactly log_scale, unless exp left the range.

    Where it underflows to zero or overflows, the map that runs has log-determinant -inf or inf.
    """
    xp = namespace(scale)
    in_range = (scale != 0) & xp.isfinite(scale)
    # written so, since XLA replaces log|exp(x)| by x, which is wrong after underflow
    beyond = xp.where(scale == 0, xp.full_like(scale, -math.inf), xp.abs(scale))
    return xp.where(in_range, log_scale, beyond)


def is_half(dtype: Any, like: Array) -> bool:
    """Tell whether ``dtype`` is a 16-bit float (float16, bfloat16), whose work runs in float32."""
    return bits(dtype, like) == 16


def widened(x: Array) -> Array:
    """Return an array of a half type in float32, others as they are."""
    return cast(x, namespace(x).float32) if is_half(x.dtype, x) else x


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
    xp, kind = namespace(like), like.dtype
    if values.dtype.kind in "iu":
        kind = ops_of(like).integers(like)
        if (values.astype(dtype_name(kind)) != values).any():
            raise ValueError(
                f"like: expected a library whose integers hold {values.min()} to {values.max()}, "
                f"got {ops_of(like).name} with {dtype_name(kind)}"
            )
    return place(xp.asarray(values, dtype=kind, device=device(like)), like)


def place(array: Array, like: Array) -> Array:
    """Return an array on the device that ``like`` is bound to."""
    there = ops_of(like).placement(like)
    if there is None or ops_of(array).placement(array) == there:
        return array
    return ops_of(array).place(array, there)


def describe(x: Array) -> str:
    """Say an array's shape, dtype and library, for messages and reprs."""
    return f"{tuple(x.shape)} {dtype_name(x.dtype)} {ops_of(x).name}"


def dtype_name(dtype: Any) -> str:
    """Return "float32" for every library's way to write it."""
    return str(dtype.name) if hasattr(dtype, "name") else str(dtype).rpartition(".")[2]


def grid_text(shape: Sequence[int]) -> str:
    """Return "3 x 5" for (3, 5)."""
    return " x ".join(map(str, shape)) or "1"
