"""What an array library is to the conformance suite, the demo and the benchmarks."""

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

import invconv
from invconv.arrays.errors import CommandError
from invconv.arrays.namespaces import Array, device, library_name, namespace, readable, to_numpy
from invconv.arrays.registry import PRIMITIVES
from invconv.arrays.validation import require_array

_EXTENSIONS = ("fft", "linalg")
_NATIVE = {"numpy_primitives.py", "cpu", "pitched.py"}  # of libraries that are known
Function = Callable[..., Any]
Parameters = dict[str, Array]
Run = Callable[[Parameters, Array], tuple[Array, ...]]
Pullback = Callable[[Run, Parameters, Array, tuple[Array, ...]], tuple[Parameters, Array]]


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
    """An array library: a row of the capability table."""

    name: str  # to import
    title: str
    distribution: str  # to install
    extra: str | None  # of invconv, that installs it
    dtypes: tuple[str, ...]  # the real floating ones that are tested
    devices: Callable[[], list[str]]  # those that are there
    device: Callable[[str], Any]  # of such a name: what the library's creation functions take
    synchronise: Callable[[Array], object] = lambda x: None  # waits until an array is computed
    # the ways to run a function of arrays, "eager" the first; a slow one is run when asked for
    modes: Mapping[str, Callable[[Function], Function]] = field(
        default_factory=lambda: {"eager": as_it_is}
    )
    slow_modes: tuple[str, ...] = ()
    host: tuple[str, ...] = ("cpu",)  # devices in host memory, whose values the core looks at
    compiles_eagerly: bool = False  # operation by operation, which takes most of its time
    forget: Callable[[], None] = lambda: None  # frees the memory of all compiled programs
    views: bool = True  # an array may be a strided or read-only view of another one's memory
    # of a device: another one to put a misplaced array on
    stranger: Callable[[str], str | None] = lambda device: None
    # automatic differentiation of a function of (parameters, x), given those and cotangents
    pullback: Pullback | None = None
    native: bool = False  # has native primitives
    # of an operator, an image and a factor: ways to train a layer that keeps an inverse's factors,
    # each with the layer's inverse after all parameters were multiplied, and its operator then
    layers: Callable[[Any, Array, float], Iterator[tuple[str, Array, Any]]] | None = None
    # of a chain and images: a function that recomputes activations for gradients
    recomputing: Callable[[Any, Array], Run] | None = None
    # of an operator: the inverse of a layer in eval mode, which keeps factors
    layer: Callable[[Any], Callable[[Array], tuple[Array, Array]]] | None = None
    adapted: bool = True  # else nobody here knows it, and it is found by its import name

    def columns(self, *, every_dtype: bool = False, every_mode: bool = False) -> list[Column]:
        """Return all that the library can be run as, compiled in float32: a compiler is slow."""
        return [
            Column(self.name, device, mode, dtype)
            for device in self.devices()
            for mode in self.modes
            for dtype in self.dtypes
            if mode == "eager" or every_dtype or dtype == "float32"
            if every_mode or mode not in self.slow_modes
        ]

    @property
    def compile(self) -> Callable[[Function], Function]:
        """What the library's users do to a function that they call in a loop."""
        return self.modes.get("jit", as_it_is)

    def absent(self) -> str | None:
        """Return why the library cannot run here, or None if it can."""
        if not self.adapted:
            return self._lacks()
        if importlib.util.find_spec(self.name) is None:
            return f"{self.title}: not installed"
        return None if self.devices() else f"{self.title}: not executed, no GPU"

    def _lacks(self) -> str | None:
        """Return what the arrays of an unknown library lack, without which no law can run."""
        x = self.asarray(np.zeros(1), self.dtypes[0], self.devices()[0])
        lacks = [what for what, probe in _PROBES.items() if _fails(probe, x)]
        if not lacks:
            return None
        functions = ", ".join(lacking(self.namespace())) or "none"
        arrays = f"no law can run, since its arrays lack {' and '.join(lacks)}"
        return f"{self.name}: {arrays}; functions that the core needs and it has not: {functions}"

    @property
    def installed_as(self) -> str | None:
        """The distribution that is installed, which for CuPy depends on the CUDA, or None."""
        try:
            importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return next(iter(_distributions().get(self.name.partition(".")[0], ())), None)
        return self.distribution

    @property
    def version(self) -> str:
        """The installed version, which the distribution states or else the library."""
        if (distribution := self.installed_as) is not None:
            return importlib.metadata.version(distribution)
        top = importlib.import_module(self.name.partition(".")[0])
        return str(getattr(top, "__version__", "unknown"))

    def asarray(self, values: np.ndarray[Any, Any], dtype: str, device: str) -> Array:
        """Copy NumPy values into the library, of an unknown one onto its default device."""
        xp = self.namespace()
        where = {"device": self.device(device)} if self.adapted else {}
        copied = np.array(values)  # of which a library may take the memory
        return xp.asarray(copied, dtype=getattr(xp, dtype), **where)

    def namespace(self) -> Any:
        """Return the library's array-API namespace."""
        return _namespace(self.name)


_distributions = functools.cache(importlib.metadata.packages_distributions)  # reads all of them


@functools.cache
def _namespace(name: str) -> Any:
    """Return array-api-compat's namespace of a library, else the library itself."""
    module = importlib.import_module("jax.numpy" if name == "jax" else name)
    x = module.asarray(np.zeros(1))
    return namespace(x) if array_api_compat.is_array_api_obj(x) else module


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


def _refused(xp: Any, dtype: str) -> bool:
    """Tell whether an adapter refuses a dtype, as MLX's refuses float64."""
    x = xp.asarray([0.0], dtype=getattr(xp, dtype))
    return not _fails(device, x) and _fails(lambda x: require_array("x", x), x)


@functools.cache
def unadapted(name: str) -> Library:
    """Return a library by its import name, such as "dask.array"."""
    expected = "expected an import name such as dask.array or array_api_strict"
    if not all(part.isidentifier() for part in name.split(".")):
        raise CommandError(f"--namespace: {expected}, got {name!r}")
    try:
        xp = _namespace(name)
    except ImportError as error:
        raise CommandError(f"--namespace: cannot import {name}: {error}") from None
    except AttributeError:
        raise CommandError(f"--namespace: {name} has no asarray; {expected}") from None
    dtypes = tuple(d for d in ("float64", "float32") if hasattr(xp, d) and not _refused(xp, d))
    if not dtypes:
        raise CommandError(f"--namespace: {name} has neither float64 nor float32")
    if (own := xp.__name__.removeprefix("array_api_compat.")) not in (name, f"{name}.numpy"):
        raise CommandError(f"--namespace: arrays of {name} are of {own}; name that one")
    x = xp.asarray([0.0], dtype=getattr(xp, dtypes[0]))
    native = any(primitive.native(library_name(x)) for primitive in PRIMITIVES.values())
    given = name, name, name, None, dtypes, lambda: ["default"], lambda device: None
    return Library(*given, host=("default",) * readable(x), native=native, adapted=False)


@functools.cache
def required_functions() -> dict[str, list[str]]:
    """Return the array-API functions that the core's agnostic code calls, by extension, or ""."""
    found: dict[str, set[str]] = {"": set(), **{extension: set() for extension in _EXTENSIONS}}
    core = Path(invconv.__file__).parent
    for source in core.rglob("*.py"):
        if not _NATIVE.isdisjoint(source.relative_to(core).parts):
            continue
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(ast.Call(ast.Name("_fft_of")), name):
                    found["fft"].add(name)
                case ast.Attribute(ast.Attribute(owner, extension), name) if _is_namespace(owner):
                    found.get(extension, set()).add(name)
                case ast.Attribute(owner, name) if _is_namespace(owner):
                    found[""].add(name)
    found[""] -= {*_EXTENSIONS, "__name__"}
    return {extension: sorted(names) for extension, names in found.items()}


def _is_namespace(node: ast.expr) -> bool:
    match node:
        case ast.Name("xp") | ast.Attribute(_, "xp") | ast.Call(ast.Name("namespace")):
            return True
    return False


def lacking(xp: Any) -> list[str]:
    """Return the functions that the core needs and a namespace has not, such as "linalg.qr"."""
    return [
        f"{extension}.{name}".removeprefix(".")
        for extension, names in required_functions().items()
        for name in names
        if not hasattr(getattr(xp, extension, None) if extension else xp, name)
    ]
