"""What an array library is to the conformance suite, the demo and the benchmarks."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from invconv.arrays.errors import CommandError
from invconv.arrays.namespaces import device, library_name, namespace, to_numpy
from invconv.arrays.registry import PRIMITIVES
from invconv.arrays.validation import require_array
from invconv_conformance.libraries.requirements import lacking

Array = Any
Function = Callable[[Array], Array]
Parameters = dict[str, Array]
Pullback = Callable[
    [Callable[[Parameters, Array], tuple[Array, ...]], Parameters, Array, tuple[Array, ...]],
    tuple[Parameters, Array],
]
Layers = Callable[[Any, Array, float], Iterator[tuple[str, Array, Any]]]
Recomputing = Callable[[Any, Array], Callable[[Parameters, Array], tuple[Array, ...]]]


class Column(NamedTuple):
    """What results are listed under, in words: a library, one of its devices, a mode, a dtype."""

    library: str
    device: str
    mode: str
    dtype: str


def as_it_is(function: Function) -> Function:
    """Return a function as it is, which is eager."""
    return function


@dataclass(frozen=True)
class Library:
    """An array library.

    Attributes
    ----------
    name : str
        Its import name.
    title, distribution : str
        How it is written, and how it is installed.
    extra : str or None
        The extra of invconv that installs it.
    dtypes : tuple of str
        The real floating dtypes that are tested.
    devices : callable
        Lists the names of the devices that are there.
    device : callable
        Turns such a name into what the library's creation functions take.
    synchronise : callable
        Waits until an array has been computed.
    modes : dict of str to callable
        The ways to run a function of arrays; each turns one into another. "eager" is the first.
    slow_modes : tuple of str
        Those that are run only when they are asked for.
    host : tuple of str
        The devices in host memory, whose values the core looks at.
    compiles_eagerly : bool
        Whether eager code is compiled too, operation by operation, which takes most of its time.
    forget : callable
        Frees the memory of all programs that were compiled.
    views : bool
        Whether an array may be a strided or read-only view of another one's memory.
    stranger : callable
        Given a device, returns the name of another one to put a misplaced array on, or None.
    pullback : callable or None
        Its automatic differentiation: takes a function of (parameters, x), those, and cotangents of
        what it returns, and gives the gradients by the parameters and by x.
    native : bool
        Whether it has native primitives.
    layers : callable or None
        Of an operator, an image and a factor: for each way to train a layer, after an inverse
        whose factors may be kept, yields its name, the layer's inverse of the image after all
        parameters were multiplied by the factor, and the operator that the layer then is.
    recomputing : callable or None
        Of a chain and images: judges it on their grid, and returns the function of (parameters, x)
        that gives its output and log-determinants, and recomputes activations for gradients.
    layer : callable or None
        Of an operator: the inverse of a layer in eval mode, which keeps factors.
    """

    name: str
    title: str
    distribution: str
    extra: str | None
    dtypes: tuple[str, ...]
    devices: Callable[[], list[str]]
    device: Callable[[str], Any]
    synchronise: Callable[[Array], None] = lambda x: None
    modes: Mapping[str, Callable[[Function], Function]] = field(
        default_factory=lambda: {"eager": as_it_is}
    )
    slow_modes: tuple[str, ...] = ()
    host: tuple[str, ...] = ("cpu",)
    compiles_eagerly: bool = False
    forget: Callable[[], None] = lambda: None
    views: bool = True
    stranger: Callable[[str], str | None] = lambda device: None
    pullback: Pullback | None = None
    native: bool = False
    layers: Layers | None = None
    recomputing: Recomputing | None = None
    layer: Callable[[Any], Callable[[Array], tuple[Array, Array]]] | None = None

    def columns(self, *, every_dtype: bool = False, every_mode: bool = False) -> list[Column]:
        """Return all that the library can be run as.

        Compiled code runs in float32 unless another dtype is asked for: a compiler is slow, and
        the dtype changes little in what it makes. A mode that takes minutes an operator is run
        when it is asked for.
        """
        return [
            Column(self.name, device, mode, dtype)
            for device in self.devices()
            for mode in self.modes
            for dtype in self.dtypes
            if mode == "eager" or every_dtype or dtype == "float32"
            if every_mode or mode not in self.slow_modes
        ]

    @property
    def strange(self) -> bool:
        """Whether nobody here knows it, nor made it quick."""
        return False

    @property
    def compile(self) -> Callable[[Function], Function]:
        """What the library's users do to a function that they call in a loop."""
        return self.modes.get("jit", as_it_is)

    def absent(self) -> str | None:
        """Return why the library cannot run here, or None if it can."""
        if importlib.util.find_spec(self.name) is None:
            return f"{self.title}: not installed"
        if not self.devices():
            return f"{self.title}: not executed, no GPU"
        return None

    @property
    def installed_as(self) -> str | None:
        """The distribution that is installed, which for CuPy depends on the CUDA, or None."""
        if _is_installed(self.distribution):
            return self.distribution
        return next(iter(_distributions().get(self.name.partition(".")[0], ())), None)

    @property
    def version(self) -> str:
        """The installed version, which the distribution states or else the library."""
        if (distribution := self.installed_as) is not None:
            return importlib.metadata.version(distribution)
        top = self.name.partition(".")[0]
        return str(getattr(importlib.import_module(top), "__version__", "unknown"))

    def asarray(self, values: np.ndarray[Any, Any], dtype: str, device: str) -> Array:
        """Copy NumPy values into the library."""
        xp = self.namespace()
        return xp.asarray(values, dtype=getattr(xp, dtype), device=self.device(device))

    def namespace(self) -> Any:
        """Return the library's array-API namespace."""
        name = {"jax": "jax.numpy", "array_api_strict": "array_api_strict"}.get(
            self.name, f"array_api_compat.{self.name}"
        )
        return importlib.import_module(name)


@dataclass(frozen=True)
class Unadapted(Library):
    """An array library that nobody here knows, found by its import name."""

    @property
    def strange(self) -> bool:
        """Whether no adapter is registered for it."""
        return not self.native

    def absent(self) -> str | None:
        """Return what its arrays lack, without which no law can run, or None."""
        xp = self.namespace()
        x = xp.asarray([0.0], dtype=getattr(xp, self.dtypes[0]))
        lacks = [what for what, probe in _PROBES.items() if _fails(probe, x)]
        if not lacks:
            return None
        functions = ", ".join(lacking(xp)) or "none"
        return (
            f"{self.name}: no law can run, since its arrays lack {' and '.join(lacks)}; functions "
            f"that the core needs and it has not: {functions}"
        )

    def asarray(self, values: np.ndarray[Any, Any], dtype: str, device: str) -> Array:
        """Copy NumPy values into the library, onto its default device."""
        xp = self.namespace()
        return xp.asarray(values, dtype=getattr(xp, dtype))

    def namespace(self) -> Any:
        """Return what array-api-compat makes of the library, else the library itself."""
        return _namespace_of(importlib.import_module(self.name))


_PROBES: dict[str, Callable[[Array], Any]] = {
    "a shape": lambda x: x.shape,
    "ndim": lambda x: x.ndim,
    "a dtype": lambda x: x.dtype,
    "a device": device,
    "a way to NumPy (DLPack or __array__)": lambda x: to_numpy(x).astype(float),
}


def _fails(probe: Callable[[Array], Any], x: Array) -> bool:
    try:
        probe(x)
    except Exception:  # whatever a stranger's array raises
        return True
    return False


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


_distributions = functools.cache(importlib.metadata.packages_distributions)  # reads all of them


def _namespace_of(module: ModuleType) -> Any:
    x = module.asarray(np.zeros(1))
    return namespace(x) if array_api_compat.is_array_api_obj(x) else module


def _refused(xp: Any, dtype: str) -> bool:
    """Tell whether an adapter refuses a dtype, as MLX's refuses float64."""
    x = xp.asarray([0.0], dtype=getattr(xp, dtype))
    return not _fails(device, x) and _fails(lambda x: require_array("x", x), x)


@functools.cache
def unadapted(name: str) -> Unadapted:
    """Return a library by its import name, such as "dask.array".

    Raises
    ------
    ValueError
        If it cannot be imported, or has no ``asarray`` or no float64 and float32.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise CommandError(f"--namespace: expected an import name such as dask.array, got {name!r}")
    try:
        xp = _namespace_of(importlib.import_module(name))
    except ImportError as error:
        raise CommandError(f"--namespace: cannot import {name}: {error}") from None
    except AttributeError:
        raise CommandError(
            f"--namespace: {name} has no asarray, so it is no array-API namespace; "
            "expected an import name such as dask.array"
        ) from None
    dtypes = tuple(d for d in ("float64", "float32") if hasattr(xp, d) and not _refused(xp, d))
    if not dtypes:
        raise CommandError(f"--namespace: {name} has neither float64 nor float32")
    library = library_name(xp.asarray([0.0], dtype=getattr(xp, dtypes[0])))
    native = any(primitive.native(library) for primitive in PRIMITIVES.values())
    return Unadapted(
        *(name, name, name, None, dtypes),
        lambda: ["default"],
        lambda device: None,
        host=(),
        native=native,
    )
