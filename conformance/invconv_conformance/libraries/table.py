"""The capability table: which array libraries there are, and what each can do.

Tests, benchmarks, the demo and ``invconv info`` all read it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv_conformance.libraries.layers import (
    jax_recomputing,
    torch_layer,
    torch_layers,
    torch_recomputing,
)
from invconv_conformance.libraries.library import (
    Array,
    Column,
    Function,
    Library,
    Parameters,
    as_it_is,
    unadapted,
)


def _torch_devices() -> list[str]:
    import torch

    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def _torch_synchronise(x: Array) -> None:
    if x.is_cuda:
        import torch

        torch.cuda.synchronize(x.device)


def _torch_compile(backend: str) -> Callable[[Function], Function]:
    def compile(function: Function) -> Function:  # noqa: A001
        import torch

        torch.compiler.reset()  # what was compiled for other operators counts against a limit
        compiled: Function = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)
        return compiled

    return compile


def _torch_pullback(
    function: Callable[[Parameters, Array], tuple[Array, ...]],
    parameters: Parameters,
    x: Array,
    cotangents: tuple[Array, ...],
) -> tuple[Parameters, Array]:
    import torch

    leaves = [array.detach().clone().requires_grad_() for array in (*parameters.values(), x)]
    results = function(dict(zip(parameters, leaves, strict=False)), leaves[-1])
    *gradients, x_bar = torch.autograd.grad(
        results,
        leaves,
        cotangents,
        materialize_grads=True,  # an array of no entries is not used
    )
    return dict(zip(parameters, gradients, strict=True)), x_bar


def _jax_pullback(
    function: Callable[[Parameters, Array], tuple[Array, ...]],
    parameters: Parameters,
    x: Array,
    cotangents: tuple[Array, ...],
) -> tuple[Parameters, Array]:
    import jax

    # one program takes less time to compile than all of its steps
    run = jax.jit(lambda p, x, cotangents: jax.vjp(function, p, x)[1](cotangents))
    gradients, x_bar = run(parameters, x, cotangents)
    return gradients, x_bar


_JAX_PLATFORMS = {"gpu": "cuda"}  # as the other libraries call it, and JAX where it is asked for


def _jax_devices() -> list[str]:
    import jax

    jax.config.update("jax_enable_x64", True)  # without it JAX has no float64 to compare
    names = ((_JAX_PLATFORMS.get(d.platform, d.platform), d.id) for d in jax.devices())
    return ["cpu", *(f"{platform}:{index}" for platform, index in names if platform != "cpu")]


def _jax_device(name: str) -> Any:
    import jax

    platform, _, index = name.partition(":")
    return next(d for d in jax.devices(platform) if d.id == int(index or 0))


def _jax_jit(function: Function) -> Function:
    import jax

    compiled: Function = jax.jit(function)
    return compiled


def _jax_forget() -> None:
    import jax

    jax.clear_caches()


def _cupy_devices() -> list[str]:
    import cupy

    try:
        return [f"cuda:{i}" for i in range(cupy.cuda.runtime.getDeviceCount())]
    except cupy.cuda.runtime.CUDARuntimeError:
        return []


def _cupy_device(name: str) -> Any:
    import cupy

    return cupy.cuda.Device(int(name.partition(":")[2]))


def _cupy_synchronise(x: Array) -> None:
    x.device.synchronize()


def _strict_device(name: str) -> Any:
    import array_api_strict

    return array_api_strict.Device(name)


LIBRARIES = (
    Library(
        "numpy",
        "NumPy",
        "numpy",
        None,
        ("float64", "float32", "float16"),
        lambda: ["cpu"],
        lambda name: "cpu",
        native=True,
    ),
    Library(
        "array_api_strict",
        "array-api-strict",
        "array-api-strict",
        "conformance",
        ("float64", "float32"),
        lambda: ["CPU_DEVICE", "device1"],
        _strict_device,
        host=("CPU_DEVICE",),
        stranger=lambda device: "device1" if device == "CPU_DEVICE" else "CPU_DEVICE",
    ),
    Library(
        "torch",
        "PyTorch",
        "torch",
        "torch",
        ("float64", "float32", "float16", "bfloat16"),
        _torch_devices,
        lambda name: name,
        _torch_synchronise,
        {
            "eager": as_it_is,
            "aot_eager": _torch_compile("aot_eager"),
            "inductor": _torch_compile("inductor"),
        },
        slow_modes=("aot_eager", "inductor"),
        stranger=lambda device: "meta",
        pullback=_torch_pullback,
        native=True,
        layers=torch_layers,
        recomputing=torch_recomputing,
        layer=torch_layer,
    ),
    Library(
        "jax",
        "JAX",
        "jax",
        "jax",
        ("float64", "float32", "float16", "bfloat16"),
        _jax_devices,
        _jax_device,
        lambda x: x.block_until_ready(),
        {"eager": as_it_is, "jit": _jax_jit},
        compiles_eagerly=True,
        forget=_jax_forget,
        views=False,
        pullback=_jax_pullback,
        native=True,
        recomputing=jax_recomputing,
    ),
    Library(
        "cupy",
        "CuPy",
        "cupy-cuda12x",
        "cupy",
        ("float64", "float32", "float16"),
        _cupy_devices,
        _cupy_device,
        _cupy_synchronise,
        host=(),
        native=True,
    ),
)

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
    return [
        Target(library, device)
        for library in LIBRARIES
        if library.absent() is None
        for device in library.devices()
    ]


def target_of(column: Column) -> Target:
    """Return what a column's words stand for."""
    known = {library.name: library for library in LIBRARIES}
    library = known.get(column.library) or unadapted(column.library)
    library.devices()  # also prepares the library: JAX's float64 is switched on there
    return Target(library, column.device, column.mode)
