"""What the core asks of an array library beyond the standard, and how an adapter answers.

An adapter is a module in the entry-point group ``invconv.backends`` under the import name of its
library (`registry` says more). Its ``ARRAY_OPS`` is a subclass of `ArrayOps`, with the methods that
its library has to answer in another way. A library without one has `ArrayOps` itself.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat as compat
import numpy as np

Array: TypeAlias = Any
Namespace: TypeAlias = Any

_backends: dict[str, ModuleType | None] = {}
_by_name: dict[str, ArrayOps] = {}
KNOWN: dict[type, ArrayOps] = {}  # by the type of an array: quick, and torch.compile reads it


class ArrayOps:
    """The answers of a library that follows the array API standard and has no adapter.

    Attributes
    ----------
    name : str
        The import name of the library.
    xp : namespace
        Of array-api-compat.
    primitives : module or None
        With native primitives.
    flushes_subnormals : bool
        Whether arithmetic takes numbers below the smallest normal one for zero.
    gathers_transforms : bool
        Whether Fourier transforms gather a batch that is split between devices.
    shared_by_threads : bool
        Whether several threads may compute with the same arrays.
    bits : dict
        The bits of the real floating dtypes that were asked for. Each library has a dictionary of
        its own, since torch.compile cannot trace one that another library's dtypes are in.
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

    def require_current_device(self, name: str, x: Array) -> None:
        """Raise ValueError where an array is not on the device on which its library works now."""

    def device(self, x: Array) -> Any:
        """Return what creation functions take as ``device`` to put an array beside ``x``."""
        return compat.device(x)

    def placement(self, x: Array) -> Any:
        """Return the device that an array is bound to, None if its library may move it."""
        return self.device(x)

    def place(self, x: Array, there: Any) -> Array:
        """Return an array on another device, given as a placement."""
        return self.xp.asarray(x, device=there)

    def spread(self, x: Array, like: Array, axes: int | None = None) -> Array:
        """Return x, split between devices along explicit mesh axes as another array is.

        Of its axes the first so many count, if ``axes`` is given.
        """
        return x

    def readable(self, x: Array) -> bool:
        """Tell whether looking at the values of ``x`` costs nothing and is possible."""
        try:
            on_host = x.__dlpack_device__()[0] == 1
        except Exception:  # an array of no memory, or of none that it tells
            return False
        return bool(on_host and x.device == self.xp.__array_namespace_info__().default_device())

    def recorded(self, x: Array) -> bool:
        """Tell whether the derivative of a readable array is recorded."""
        return False

    def same_kind(self, x: Array, like: Array) -> bool:
        """Tell at little cost that two arrays of the library have one dtype and device.

        False where that is unknown, and for half types.
        """
        return False

    def copy(self, x: Array) -> Array:
        """Return a copy that later edits of ``x`` do not reach, differentiable where ``x`` is."""
        return self.xp.asarray(x, copy=True)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Copy the values of an array to the host, in float32 where NumPy lacks the dtype."""
        return np.array(np.from_dlpack(x) if hasattr(x, "__dlpack__") else x)

    def constant(self, values: np.ndarray[Any, Any], like: Array, dtype: Any) -> Array:
        """Return a host constant on the device of ``like``, which nobody edits."""
        return self.xp.asarray(values, dtype=dtype, device=self.device(like))

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
        """See `ArrayOps.same_kind`; False for subclasses too."""
        kind = x.dtype
        return type(x) is np.ndarray and bool(kind == like.dtype and kind.itemsize != 2)

    def copy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(x)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Return a copy in the machine's byte order."""
        half = x.dtype.itemsize == 2 and x.dtype.kind not in "iu"
        return np.array(x, dtype=np.float32 if half else x.dtype.newbyteorder("="))

    def constant(self, values: np.ndarray[Any, Any], like: Array, dtype: Any) -> Array:
        return np.asarray(values, dtype=dtype)


def backend(library: str) -> ModuleType | None:
    """Return the module of native primitives registered for a library, imported on first use."""
    if library not in _backends:
        from importlib.metadata import entry_points  # here: it takes long to import

        entries = iter(entry_points(group="invconv.backends", name=library))
        entry = next(entries, None)
        _backends[library] = None if entry is None else entry.load()
    return _backends[library]


def register_backend(import_name: str, module: ModuleType) -> None:
    """Register an adapter that has no entry point.

    Parameters
    ----------
    import_name : str
        The name of its library without dots, such as "dask", of which no array may have been seen
        yet.
    module : module
        With native primitives by their names, and ``ARRAY_OPS``, a subclass of `ArrayOps`; both may
        be left out.

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


def adapters() -> set[str]:
    """Return the names of the packages of all adapters that have been imported."""
    return {module.__name__.partition(".")[0] for module in _backends.values() if module}


def callers_level() -> int:
    """Return the ``stacklevel`` with which a warning points to the line that called the library."""
    level, frame, ours = 1, sys._getframe(1), {"invconv", "dataclasses", *adapters()}
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    return level


def ops_of(x: Array) -> ArrayOps:
    """Return the answers of the library of an array, whose adapter is imported at the first."""
    kind = type(x)
    if kind not in KNOWN:
        xp = compat.array_namespace(x)
        name = xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
        if name not in _by_name:
            _by_name[name] = getattr(backend(name), "ARRAY_OPS", ArrayOps)(name, xp)
        KNOWN[kind] = _by_name[name]
    return KNOWN[kind]
