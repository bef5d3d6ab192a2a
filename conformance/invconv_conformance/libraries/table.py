"""The capability table: which array libraries there are, and what each can do.

Tests, benchmarks, the demo and ``invconv info`` all read it from here.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array
from invconv_conformance.libraries.library import (
    Column,
    Function,
    Library,
    Run,
    as_it_is,
    unadapted,
)

_lazy: Callable[[str], Any] = importlib.import_module  # when a library is first asked for something


def _torch_compile(backend: str) -> Callable[[Function], Function]:
    def compile(function: Function) -> Function:  # noqa: A001
        torch = _lazy("torch")
        torch.compiler.reset()  # what was compiled for other operators counts against a limit
        compiled: Function = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)
        return compiled

    return compile


def _torch_pullback(function: Any, parameters: Any, x: Array, cotangents: Any) -> tuple[Any, Array]:
    leaves = [array.detach().clone().requires_grad_() for array in (*parameters.values(), x)]
    results = function(dict(zip(parameters, leaves, strict=False)), leaves[-1])
    grad = _lazy("torch").autograd.grad  # an array of no entries is not used
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
        layer = _layer(conv).eval()  # which keeps the factors of its inverse
        with _lazy("torch").no_grad():
            layer.inverse(images)
            change(layer, factor)
            found, _ = layer.inverse(images)
            yield how, found.reshape(y.shape), layer.operator()


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


def _torch_recomputing(chain: Any, x: Array) -> Run:
    torch = _lazy("torch")
    layers = _lazy("invconv_torch").ReversibleChain([_layer(step) for step in chain.steps])
    with torch.no_grad():
        layers(x)  # which judges it on the grid
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
        return ["cuda:0"][: runtime.getDeviceCount()]  # the current one: it works on no other
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
        modes={"eager": as_it_is} | {n: _torch_compile(n) for n in ("aot_eager", "inductor")},
        slow_modes=("aot_eager", "inductor"),
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
        modes={"eager": as_it_is, "jit": lambda function: _lazy("jax").jit(function)},
        compiles_eagerly=True,
        forget=lambda: _lazy("jax").clear_caches(),
        views=False,
        pullback=_jax_pullback,
        native=True,
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
        """The library's title, with the device where that is not its first."""
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
        return self.library.modes[self.mode](function)


def targets() -> list[Target]:
    """Return every library that can run here, on every device that it finds, eagerly."""
    return [Target(one, d) for one in LIBRARIES if one.absent() is None for d in one.devices()]


def target_of(column: Column) -> Target:
    """Return the library, device and mode that a column names."""
    library = KNOWN.get(column.library) or unadapted(column.library)
    library.devices()  # also prepares the library: JAX's float64 is switched on there
    return Target(library, column.device, column.mode)
