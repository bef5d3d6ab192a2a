"""The capability table: which array libraries there are, and what each can do.

Tests, benchmarks, the demo and ``invconv info`` all read it from here.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

import invconv
from invconv.arrays.errors import CommandError
from invconv.arrays.namespaces import Array, device, namespace, ops_of, readable, to_numpy
from invconv.arrays.registry import PRIMITIVES
from invconv.arrays.validation import require_array

_EXTENSIONS = ("fft", "linalg")
# environment variables that libraries read
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC")
_NATIVE = {"numpy_primitives.py", "cpu"}  # file names, for libraries that are known
Function = Callable[..., Any]
Parameters = dict[str, Array]
Run = Callable[[Parameters, Array], tuple[Array, ...]]
Pullback = Callable[[Run, Parameters, Array, tuple[Array, ...]], tuple[Parameters, Array]]


class Column(NamedTuple):
    """A column of results, in words: a library, one of its devices, a mode, a dtype."""

    library: str
    device: str
    mode: str
    dtype: str


@dataclass(frozen=True)
class Library:
    """An array library: a row of the capability table."""

    name: str  # to import
    title: str
    distribution: str  # to install
    extra: str | None  # of invconv, that installs it
    dtypes: tuple[str, ...]  # the real floating dtypes that are tested
    devices: Callable[[], list[str]]  # the names of the devices that are here
    device: Callable[[str], Any]  # of a name -> `device` of the library's creation functions
    synchronise: Callable[[Array], object] = lambda x: None  # waits until an array is computed
    # the ways to run a function of arrays, besides "eager"; slow ones run only when asked for
    modes: Mapping[str, Callable[[Function], Function]] = field(default_factory=dict)
    slow_modes: bool = False
    host: tuple[str, ...] = ("cpu",)  # devices in host memory: the core looks at values there
    compiles_eagerly: bool = False  # compiles each operation, which takes most of the time
    forget: Callable[[], None] = lambda: None  # frees the memory of all compiled programs
    views: bool = True  # an array may be a strided or read-only view of another one's memory
    # a device -> another one, to put a misplaced array on
    stranger: Callable[[str], str | None] = lambda device: None
    # differentiates a function of (parameters, x) automatically, given both and cotangents
    pullback: Pullback | None = None
    native: bool = False  # has native primitives
    # of an operator, an image and a factor: ways to train a layer that keeps an inverse's factors,
    # or a tree, each with its inverse after all parameters were multiplied, and its operator then
    layers: Callable[[Any, Array, float], Iterator[tuple[str, Array, Any]]] | None = None
    # of a chain and images: a function that recomputes activations for gradients
    recomputing: Callable[[Any, Array], Run] | None = None
    # of an operator: the inverse of a layer in eval mode, which keeps factors
    layer: Callable[[Any], Callable[[Array], tuple[Array, Array]]] | None = None
    adapted: bool = True  # False: there is no adapter, it is found by its import name

    def columns(self, *, every_dtype: bool = False, every_mode: bool = False) -> list[Column]:
        """Return all columns of the library; compiled in float32 alone: compilers are slow."""
        return [
            Column(self.name, device, mode, dtype)
            for device in self.devices()
            for mode in ("eager", *self.modes)
            for dtype in self.dtypes
            if mode == "eager" or every_dtype or dtype == "float32"
            if mode == "eager" or every_mode or not self.slow_modes
        ]

    @property
    def usual_mode(self) -> str:
        """The mode in which the library's users run a function that they call in a loop."""
        return "jit" if "jit" in self.modes else "eager"

    def absent(self) -> str | None:
        """Return why the library cannot run here, or None if it can."""
        if self.adapted and importlib.util.find_spec(self.name) is None:
            return f"{self.title}: not installed"
        if self.adapted:
            return None if self.devices() else f"{self.title}: not executed, no GPU"
        x = self.asarray(np.zeros(1), self.dtypes[0], self.devices()[0])
        lacks = [what for what, probe in _PROBES.items() if _fails(probe, x)]
        if not lacks:
            return None
        functions = ", ".join(lacking(self.namespace())) or "none"
        arrays = f"no law can run, since its arrays lack {' and '.join(lacks)}"
        return f"{self.name}: {arrays}; functions that the core needs and it has not: {functions}"

    @property
    def installed_as(self) -> str | None:
        """The installed distribution (for CuPy it depends on the version of CUDA), or None."""
        try:
            importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return next(iter(_distributions().get(self.name.partition(".")[0], ())), None)
        return self.distribution

    @property
    def version(self) -> str:
        """The installed version, by the distribution or else by the library."""
        if (distribution := self.installed_as) is not None:
            return importlib.metadata.version(distribution)
        top = importlib.import_module(self.name.partition(".")[0])
        return str(getattr(top, "__version__", "unknown"))

    def asarray(self, values: np.ndarray[Any, Any], dtype: str, device: str) -> Array:
        """Copy NumPy values into the library; if it is unknown, onto its default device."""
        xp = self.namespace()
        where = {"device": self.device(device)} if self.adapted else {}
        copied = np.array(values)  # the library may use its memory
        return xp.asarray(copied, dtype=getattr(xp, dtype), **where)

    def namespace(self) -> Any:
        """Return the library's array-API namespace."""
        return _namespace(self.name)


_distributions = cache(importlib.metadata.packages_distributions)  # reads all of them


@cache
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
    except Exception:  # arrays of unknown libraries may raise anything
        return True
    return False


@cache
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
    known = [name for name in ("float64", "float32") if hasattr(xp, name)]
    ones = {name: xp.asarray([1.0], dtype=getattr(xp, name)) for name in known}
    # an adapter may refuse a dtype, as MLX's refuses float64
    dtypes = tuple(
        n
        for n, x in ones.items()
        if _fails(device, x) or not _fails(partial(require_array, "x"), x)
    )
    if not dtypes:
        raise CommandError(f"--namespace: {name} has neither float64 nor float32")
    x = ones[dtypes[0]]
    if (own := ops_of(x).name) not in KNOWN:
        own = xp.__name__.removeprefix("array_api_compat.")
    if own not in (name, f"{name}.numpy"):
        raise CommandError(f"--namespace: arrays of {name} are of {own}; name that one")
    native = any(primitive.native(ops_of(x).name) for primitive in PRIMITIVES.values())
    given = name, name, name, None, dtypes, lambda: ["default"], lambda device: None
    return Library(*given, host=("default",) * readable(x), native=native, adapted=False)


@cache
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


class _Recorded:
    """A namespace that notes which functions are called, and which of them over several axes."""

    def __init__(self, xp: Any, called: set[str], extension: str = "") -> None:
        self._xp, self._called, self._extension = xp, called, extension

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._xp, name)
        if not self._extension and name in _EXTENSIONS:
            return _Recorded(value, self._called, name)
        if name not in required_functions()[self._extension] or isinstance(value, type):
            return value

        def function(*given: Any, **options: Any) -> Any:
            axes = options.get("axis")
            several = " over several axes" * (isinstance(axes, tuple) and len(axes) > 1)
            self._called.add(f"{self._extension}.{name}{several}".removeprefix("."))
            return value(*given, **options)

        return function


@contextmanager
def calls_recorded(library: Library) -> Iterator[set[str]]:
    """Return a set that takes the names of the array functions that the core calls meanwhile."""
    ops, called = ops_of(library.namespace().asarray([1.0])), set[str]()
    xp, ops.xp = ops.xp, _Recorded(ops.xp, called)
    try:
        yield called
    finally:
        ops.xp = xp


def lacking(xp: Any) -> list[str]:
    """Return the functions that the core needs and a namespace lacks, such as "linalg.qr"."""
    return [
        f"{extension}.{name}".removeprefix(".")
        for extension, names in required_functions().items()
        for name in names
        if not hasattr(getattr(xp, extension, None) if extension else xp, name)
    ]


_lazy: Callable[[str], Any] = importlib.import_module  # imports at the first use


def _torch_compile(backend: str, function: Function) -> Function:
    torch = _lazy("torch")
    torch.compiler.reset()  # code compiled for other operators counts against a limit
    compiled: Function = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)
    return compiled


def _torch_pullback(function: Any, parameters: Any, x: Array, cotangents: Any) -> tuple[Any, Array]:
    leaves = [array.detach().clone().requires_grad_() for array in (*parameters.values(), x)]
    results = function(dict(zip(parameters, leaves, strict=False)), leaves[-1])
    grad = _lazy("torch").autograd.grad  # an array of no entries has no gradient
    *gradients, x_bar = grad(results, leaves, cotangents, materialize_grads=True)
    return dict(zip(parameters, gradients, strict=True)), x_bar


def _jax_pullback(function: Any, parameters: Any, x: Array, cotangents: Any) -> tuple[Any, Array]:
    jax = _lazy("jax")
    # one program takes less time to compile than all of its steps
    run: Any = jax.jit(lambda p, x, cotangents: jax.vjp(function, p, x)[1](cotangents))
    return run(parameters, x, cotangents)  # type: ignore[no-any-return]


def _torch_layers(conv: Any, y: Array, factor: float) -> Iterator[tuple[str, Array, Any]]:
    images = y if conv.ndim is None else y.reshape(-1, *y.shape[y.ndim - 1 - conv.ndim :])
    for how, change in _CHANGES.items():
        layer = _layer(conv).eval()  # in eval mode it keeps the factors of its inverse
        with _lazy("torch").no_grad():
            layer.inverse(images)
            change(layer, factor)
            found, _ = layer.inverse(images)
            yield f"a layer, {how}", found.reshape(y.shape), layer.operator()


def _layer(conv: Any) -> Any:
    return _lazy("invconv_torch").InvertibleModule(conv)


def _loaded(layer: Any, factor: float) -> None:
    trained = dict(layer.named_parameters())
    state = {n: factor * t if n in trained else t for n, t in layer.state_dict().items()}
    layer.load_state_dict(state)


_CHANGES: dict[str, Callable[[Any, float], object]] = {
    "in place": lambda layer, factor: [p.mul_(factor) for p in layer.parameters()],
    "through .data": lambda layer, factor: [p.data.mul_(factor) for p in layer.parameters()],
    "load_state_dict": _loaded,
    "all at once, as optimisers do": lambda layer, factor: _lazy("torch")._foreach_mul_(
        list(layer.parameters()), factor
    ),
}


def _jax_layers(conv: Any, y: Array, factor: float) -> Iterator[tuple[str, Array, Any]]:
    told_apart = _lazy("invconv_jax.pytrees").told_apart
    trained = conv.replace(**{n: factor * a for n, a in conv.parameters().items()})
    yield "a pytree", told_apart(conv, lambda a: factor * a, lambda a: a).inverse(y), trained


def _torch_recomputing(chain: Any, x: Array) -> Run:
    torch = _lazy("torch")
    layers = _lazy("invconv_torch").ReversibleChain([_layer(step) for step in chain.steps])
    with torch.no_grad():
        layers(x)  # the call judges the chain on the grid
    return lambda parameters, x: torch.func.functional_call(layers, parameters, (x,))


def _jax_recomputing(chain: Any, x: Array) -> Run:
    flow: Any = _lazy("invconv_jax").reversible(chain, x.shape[2:])  # judged on the grid

    def run(parameters: Any, x: Array) -> Any:
        return replace(flow, chain=chain.replace(**parameters)).forward_and_log_det(x)

    return run


def _jax_devices() -> list[str]:
    jax = _lazy("jax")
    jax.config.update("jax_enable_x64", True)  # without it JAX has no float64 to compare
    names = (f"{d.platform}:{d.id}".replace("gpu", "cuda") for d in jax.devices())
    return ["cpu", *(name for name in names if not name.startswith("cpu"))]


def _jax_device(name: str) -> Any:
    platform, _, index = name.partition(":")
    return next(d for d in _lazy("jax").devices(platform) if d.id == int(index or 0))


def _cupy_devices() -> list[str]:
    runtime = _lazy("cupy").cuda.runtime
    try:
        return ["cuda:0"][: runtime.getDeviceCount()]  # it works on the current device alone
    except runtime.CUDARuntimeError:
        return []


LIBRARIES = (
    Library(
        *("numpy", "NumPy", "numpy", None, ("float64", "float32", "float16")),
        devices=lambda: ["cpu"],
        device=lambda name: "cpu",
        native=True,
    ),
    Library(
        *("array_api_strict", "array-api-strict", "array-api-strict", "conformance"),
        dtypes=("float64", "float32"),
        devices=lambda: ["CPU_DEVICE", "device1"],
        device=lambda name: _lazy("array_api_strict").Device(name),
        host=("CPU_DEVICE",),
        stranger=lambda device: "device1" if device == "CPU_DEVICE" else "CPU_DEVICE",
    ),
    Library(
        *("torch", "PyTorch", "torch", "torch", ("float64", "float32", "float16", "bfloat16")),
        devices=lambda: ["cpu", *(f"cuda:{i}" for i in range(_lazy("torch").cuda.device_count()))],
        device=lambda name: name,
        synchronise=lambda x: x.is_cuda and _lazy("torch").cuda.synchronize(x.device),
        modes={n: partial(_torch_compile, n) for n in ("aot_eager", "inductor")},
        slow_modes=True,
        stranger=lambda device: "meta",
        pullback=_torch_pullback,
        native=True,
        layers=_torch_layers,
        recomputing=_torch_recomputing,
        layer=lambda conv: _layer(conv).eval().inverse,
    ),
    Library(
        *("jax", "JAX", "jax", "jax", ("float64", "float32", "float16", "bfloat16")),
        devices=_jax_devices,
        device=_jax_device,
        synchronise=lambda x: x.block_until_ready(),
        modes={"jit": lambda function: _lazy("jax").jit(function)},
        compiles_eagerly=True,
        forget=lambda: _lazy("jax").clear_caches(),
        views=False,
        pullback=_jax_pullback,
        native=True,
        layers=_jax_layers,
        recomputing=_jax_recomputing,
    ),
    Library(
        *("cupy", "CuPy", "cupy-cuda12x", "cupy", ("float64", "float32", "float16")),
        devices=_cupy_devices,
        device=lambda name: _lazy("cupy").cuda.Device(int(name.partition(":")[2])),
        synchronise=lambda x: x.device.synchronize(),
        host=(),
        native=True,
    ),
)

KNOWN = {library.name: library for library in LIBRARIES}
NEEDS_CUDA = "needs an NVIDIA GPU with its driver, and PyTorch, JAX or CuPy built for CUDA"
COMPILING_EAGERLY = {library.name for library in LIBRARIES if library.compiles_eagerly}


def chosen(
    named: Sequence[str] | None, every: Sequence[str] = (), hint: str = ""
) -> tuple[list[Library], list[str]]:
    """Return the libraries of ``--library``, else ``every`` one here; and why others are absent."""
    asked, found, absent = None if named == ("all",) else named, list[Library](), list[str]()
    for name in asked or every or KNOWN:
        if (library := KNOWN.get(name)) is None:
            expected = f"expected all, or some of {', '.join(KNOWN)}, got {name!r}"
            raise CommandError(f"--library: {expected}{hint}")
        if (reason := library.absent()) is None:
            found.append(library)
            if library.extra in ("torch", "jax") and len(library.devices()) == 1:
                absent.append(f"{library.title} on CUDA: not yet run on a GPU, there is none here")
        elif asked:
            raise CommandError(f"--library: {reason}")
        else:
            absent.append(reason)
    return found, absent


@dataclass(frozen=True)
class Target:
    """A library on one of its devices, run in one of its modes."""

    library: Library
    device: str
    mode: str = "eager"

    def __str__(self) -> str:
        """Return "torch-cpu"."""
        return f"{self.library.name}-{self.device}" + f"-{self.mode}" * (self.mode != "eager")

    @property
    def title(self) -> str:
        """The library's title, with the device unless it is the library's first one."""
        first = self.device == self.library.devices()[0]
        return self.library.title if first else f"  on {self.device}"

    @property
    def on_cuda(self) -> bool:
        """Whether it is a CUDA device."""
        return self.device.partition(":")[0] == "cuda"

    @property
    def looks(self) -> bool:
        """Whether the core may look at values here, and so raise or warn because of them."""
        return self.mode == "eager" and self.device in self.library.host

    def asarray(self, values: np.ndarray[Any, Any], dtype: str) -> Array:
        """Copy NumPy values onto the device."""
        return self.library.asarray(values, dtype, self.device)

    def compile(self, function: Function) -> Function:
        """Return a function of arrays as the mode runs it."""
        return function if self.mode == "eager" else self.library.modes[self.mode](function)


def targets() -> list[Target]:
    """Return every library that can run here, on every device that it finds, eagerly."""
    return [Target(one, d) for one in LIBRARIES if one.absent() is None for d in one.devices()]


def target_of(column: Column) -> Target:
    """Return the library, device and mode that a column names."""
    library = KNOWN.get(column.library) or unadapted(column.library)
    library.devices()  # also prepares the library: JAX's float64 is switched on there
    return Target(library, column.device, column.mode)


def settings(threads: int, cache: str) -> dict[str, str]:
    """Return environment variables: the number of threads, and a folder of shared programs."""
    found = dict.fromkeys(_THREADS, str(threads))
    if cache:
        found["JAX_COMPILATION_CACHE_DIR"] = cache
        found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        # JAX compiles a program anew if another worker is still writing it
        found["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry"
    return found


def share_the_card() -> None:
    """Keep JAX, here and in workers, from taking most of a GPU's memory when it is first used."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
