"""The capability table: which array libraries there are, and what each can do.

Tests, benchmarks, the demo and ``invconv info`` all read it from here.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat
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
    modes : dict of str to callable
        The ways to run a function of arrays; each turns one into another. "eager" is the first.
    host : tuple of str
        The devices in host memory, whose values the core looks at.
    stranger : callable
        Given a device, returns the name of another one to put a misplaced array on, or None.
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
        default_factory=lambda: {"eager": _as_it_is}
    )
    host: tuple[str, ...] = ("cpu",)
    stranger: Callable[[str], str | None] = lambda device: None

    @property
    def compile(self) -> Callable[[Function], Function]:
        """What the library's users do to a function that they call in a loop."""
        return self.modes.get("jit", _as_it_is)

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

    def absent(self) -> str | None:
        """Return None: it has been imported."""
        return None

    @property
    def version(self) -> str:
        """The version that the library or its distribution states."""
        top = self.name.partition(".")[0]
        try:
            return importlib.metadata.version(top)
        except importlib.metadata.PackageNotFoundError:
            return str(getattr(importlib.import_module(top), "__version__", "unknown"))

    def asarray(self, values: np.ndarray[Any, Any], dtype: str, device: str) -> Array:
        """Copy NumPy values into the library, onto its default device."""
        xp = self.namespace()
        return xp.asarray(values, dtype=getattr(xp, dtype))

    def namespace(self) -> Any:
        """Return what array-api-compat makes of the library, else the library itself."""
        return _namespace_of(importlib.import_module(self.name))


def _namespace_of(module: ModuleType) -> Any:
    x = module.asarray(np.zeros(1))
    return array_api_compat.array_namespace(x) if array_api_compat.is_array_api_obj(x) else module


@functools.cache
def unadapted(name: str) -> Unadapted:
    """Return a library by its import name, such as "dask.array".

    Raises
    ------
    ValueError
        If it cannot be imported, or has no ``asarray`` or no float64 and float32.
    """
    try:
        xp = _namespace_of(importlib.import_module(name))
    except ImportError as error:
        raise ValueError(f"--namespace: cannot import {name}: {error}") from None
    except AttributeError:
        raise ValueError(
            f"--namespace: {name} has no asarray, so it is no array-API namespace; "
            "expected an import name such as dask.array"
        ) from None
    dtypes = tuple(d for d in ("float64", "float32") if hasattr(xp, d))
    if not dtypes:
        raise ValueError(f"--namespace: {name} has neither float64 nor float32")
    return Unadapted(
        name, name, name, None, dtypes, lambda: ["default"], lambda device: None, host=()
    )


def _as_it_is(function: Function) -> Function:
    return function


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
        stranger=lambda device: "meta",
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
        {"eager": _as_it_is, "jit": _jax_jit},
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
    ),
)


class Column(NamedTuple):
    """What results are listed under, in words: a library, one of its devices, a mode, a dtype."""

    library: str
    device: str
    mode: str
    dtype: str

    @property
    def target(self) -> Target:
        """The library itself."""
        known = {library.name: library for library in LIBRARIES}
        return Target(known.get(self.library) or unadapted(self.library), self.device, self.mode)


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
