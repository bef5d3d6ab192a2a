"""JAX whose CPU devices stand in for CUDA's: programs are lowered as for CUDA, and run here.

XLA calls the handlers themselves, with its own call frames; only the stream, which a CPU has not,
is ours. The stand-in driver has the launches.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.interpreters import mlir

from invconv_jax.native import wavefront
from tests.launches.stand_in_driver import STREAM, Driver

WORDS, API_WORDS = 22, 24  # of a call frame and of XLA's functions, of 64 bits
_API, _EXTENSION, _STREAM_GET = 2, 1, 10

_kept: list[Any] = []
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


def install(folder: Path) -> Driver:
    """Let a CPU's programs be those of CUDA devices, until the process ends."""
    driver = Driver(folder).install()
    for module, name, value in (
        (wavefront, "_ordinals", lambda: (0, 1)),
        (wavefront, "register", functools.cache(_register)),
        (wavefront, "readable", lambda x: False),
    ):
        setattr(module, name, value)
    by_launches = mlir.lower_fun(wavefront._by_launches, multiple_results=False)
    mlir.register_lowering(wavefront._one_batch, by_launches, platform="cpu")
    return driver


def _register(name: str, code: Any, platform: str) -> None:
    handler = _HANDLER(_with_a_stream(code.address))
    _kept.extend([handler, code])
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")


def _with_a_stream(address: int) -> Callable[[int], int | None]:
    """Return a handler that calls another, for which XLA has a stream."""
    call = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)  # one at a time

    def handle(frame: int) -> int | None:
        words = _words(frame, WORDS)
        if not words[_EXTENSION]:
            api = _words(words[_API], API_WORDS)
            api[_STREAM_GET] = ctypes.cast(_GIVE_STREAM, ctypes.c_void_p).value
            words[_API] = ctypes.addressof(api)
        found: int | None = call(ctypes.addressof(words) if not words[_EXTENSION] else frame)
        return found

    return handle


def _words(address: int, count: int) -> Any:
    """Return a copy of words at an address."""
    kind = ctypes.c_uint64 * count
    return kind(*kind.from_address(address))


def _give_stream(record: int) -> None:
    size, extension, context, _ = words = (ctypes.c_uint64 * 4).from_address(record)
    assert (size, extension) == (32, 0)
    assert context != 0
    words[3] = STREAM


_GIVE_STREAM = _HANDLER(_give_stream)
