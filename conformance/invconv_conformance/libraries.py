"""The capability table: which array libraries there are, and what each can do.

Tests, benchmarks, the demo and ``invconv info`` all read it from here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
Function = Callable[[Array], Array]


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
    compile : callable
        Turns a function of arrays into the one that its users would call in a loop.
    """

    name: str
    title: str
    distribution: str
    extra: str | None
    dtypes: tuple[str, ...]
    devices: Callable[[], list[str]]
    device: Callable[[str], Any]
    synchronise: Callable[[Array], None] = lambda x: None
    compile: Callable[[Function], Function] = lambda function: function

    def absent(self) -> str | None:
        """Return why the library cannot run here, or None if it can."""
        if importlib.util.find_spec(self.name) is None:
            return f"{self.title}: not installed"
        if not self.devices():
            return f"{self.title}: not executed, no GPU"
        return None

    @property
    def version(self) -> str:
        """The installed version."""
        return importlib.metadata.version(self.distribution)

    def asarray(self, values: np.ndarray[Any, Any], dtype: str, device: str) -> Array:
        """Copy NumPy values into the library."""
        xp = self._namespace()
        return xp.asarray(values, dtype=getattr(xp, dtype), device=self.device(device))

    def _namespace(self) -> Any:
        name = {"jax": "jax.numpy", "array_api_strict": "array_api_strict"}.get(
            self.name, f"array_api_compat.{self.name}"
        )
        return importlib.import_module(name)


def _torch_devices() -> list[str]:
    import torch

    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def _torch_synchronise(x: Array) -> None:
    if x.is_cuda:
        import torch

        torch.cuda.synchronize(x.device)


def _jax_devices() -> list[str]:
    import jax

    jax.config.update("jax_enable_x64", True)  # without it JAX has no float64 to compare
    gpus = [d for d in jax.devices() if d.platform != "cpu"]
    return ["cpu", *(f"{d.platform}:{d.id}" for d in gpus)]


def _jax_device(name: str) -> Any:
    import jax

    platform, _, index = name.partition(":")
    return jax.devices(platform)[int(index or 0)]


def _jax_jit(function: Function) -> Function:
    import jax

    compiled: Function = jax.jit(function)
    return compiled


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
    ),
    Library(
        "array_api_strict",
        "array-api-strict",
        "array-api-strict",
        "conformance",
        ("float64", "float32"),
        lambda: ["CPU_DEVICE", "device1"],
        _strict_device,
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
        _jax_jit,
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
    ),
)


@dataclass(frozen=True)
class Target:
    """A library on one of its devices."""

    library: Library
    device: str

    def __str__(self) -> str:
        """Return "torch-cpu"."""
        return f"{self.library.name}-{self.device}"

    @property
    def title(self) -> str:
        """The library's title, with the device where that is not its first."""
        first = self.device == self.library.devices()[0]
        return self.library.title if first else f"  on {self.device}"

    def asarray(self, values: np.ndarray[Any, Any], dtype: str) -> Array:
        """Copy NumPy values onto the device."""
        return self.library.asarray(values, dtype, self.device)


def targets() -> list[Target]:
    """Return every library that can run here, on every device that it finds."""
    return [
        Target(library, device)
        for library in LIBRARIES
        if library.absent() is None
        for device in library.devices()
    ]
