"""The CUDA driver by ctypes: attributes of a device; loading and launching of code.

PyTorch, CuPy and JAX use the same driver and the same context of a device, so their handles and
addresses are valid here. Code is loaded as a library (cuLibraryLoadData, CUDA 12), which belongs to
no context.
"""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_uint, c_void_p
from typing import Any

NAMES = ("libcuda.so.1", "nvcuda.dll")
PROCESSORS, MAJOR, MINOR, SHARED = 16, 75, 76, 97  # attributes of a device
_MAX_DYNAMIC_SHARED = 8  # attribute of a kernel
_RELAXED = 2  # mode of a capture

_HANDLE, _HANDLES = c_void_p, POINTER(c_void_p)
_ARGUMENTS = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (_HANDLES, c_int),
    "cuCtxPushCurrent_v2": (_HANDLE,),
    "cuCtxPopCurrent_v2": (_HANDLES,),
    "cuLibraryLoadData": (_HANDLES, c_char_p, *(c_void_p, c_void_p, c_uint) * 2),
    "cuLibraryGetKernel": (_HANDLES, _HANDLE, c_char_p),
    "cuKernelSetAttribute": (c_int, c_int, _HANDLE, c_int),
    "cuKernelGetFunction": (_HANDLES, _HANDLE),
    "cuThreadExchangeStreamCaptureMode": (POINTER(c_int),),
    "cuLaunchKernel": (_HANDLE, *(c_uint,) * 7, _HANDLE, _HANDLES, c_void_p),
}


class DriverError(RuntimeError):
    """The driver is missing, or refuses a call."""


@functools.cache
def library() -> Any:
    """Return the driver as a ctypes library, or raise `DriverError`."""
    for name in NAMES:
        try:
            cuda = ctypes.CDLL(name)
        except OSError:
            continue
        for function, arguments in _ARGUMENTS.items():
            _function(cuda, function).argtypes = arguments
        _check("cuInit", cuda.cuInit(0), cuda)
        return cuda
    raise DriverError("the CUDA driver was not found")


def _function(cuda: Any, name: str) -> Any:
    try:
        return getattr(cuda, name)
    except AttributeError:
        raise DriverError(f"the CUDA driver has no {name}: it is too old") from None


def call(name: str, *arguments: Any) -> None:
    """Call a function of the driver, or raise `DriverError`."""
    cuda = library()
    _check(name, getattr(cuda, name)(*arguments), cuda)


def _asked(kind: type[Any], name: str, *arguments: Any) -> int:
    """Return the number that a function of the driver puts where its first argument points."""
    value = kind()
    call(name, ctypes.byref(value), *arguments)
    number: int = value.value
    return number


def address(name: str) -> int:
    """Return the address of a function of the driver, for machine code that calls it."""
    place = ctypes.cast(_function(library(), name), c_void_p).value
    assert place is not None
    return place


def _check(name: str, code: int, cuda: Any) -> None:
    if code:
        reason = c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(reason))
        text = (reason.value or b"unknown error").decode(errors="replace")
        raise DriverError(f"{name} failed: {text} ({code})")


@functools.cache
def version() -> int:
    """Return the newest CUDA that the driver runs, such as 12080."""
    return _asked(c_int, "cuDriverGetVersion")


@functools.cache
def attribute(number: int, ordinal: int) -> int:
    """Return an attribute of a device."""
    return _asked(c_int, "cuDeviceGetAttribute", number, _device(ordinal))


@functools.cache
def _device(ordinal: int) -> int:
    return _asked(c_int, "cuDeviceGet", ordinal)


@functools.cache
def _context(ordinal: int) -> int:
    return _asked(c_void_p, "cuDevicePrimaryCtxRetain", _device(ordinal))


@contextmanager
def current(ordinal: int) -> Iterator[None]:
    """Make a device's primary context current in the calling thread: a new thread has none."""
    call("cuCtxPushCurrent_v2", _context(ordinal))
    try:
        yield
    finally:
        call("cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))


@contextmanager
def loading() -> Iterator[None]:
    """Allow the calling thread to load code while it records a graph."""
    mode = c_int(_RELAXED)
    call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
    try:
        yield
    finally:
        call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))


def load(image: bytes, names: tuple[str, ...]) -> dict[str, int]:
    """Load machine code until the process ends, and return the handles of its kernels."""
    code = _asked(c_void_p, "cuLibraryLoadData", image, None, None, 0, None, None, 0)
    return {name: _asked(c_void_p, "cuLibraryGetKernel", code, name.encode()) for name in names}


def allow_shared(kernel: int, size: int, ordinal: int) -> None:
    """Allow launches of a kernel on a device ``size`` bytes of dynamic shared memory."""
    call("cuKernelSetAttribute", _MAX_DYNAMIC_SHARED, size, kernel, _device(ordinal))


def put_on_device(kernel: int) -> None:
    """Load a kernel on the current device now: its first launch would, but may not in a graph."""
    call("cuKernelGetFunction", ctypes.byref(c_void_p()), kernel)


def launch(
    kernel: int, sizes: tuple[int, int, int], stream: int, pointers: tuple[int, ...], struct: bytes
) -> None:
    """Queue a kernel whose arguments are pointers, and then a struct by value.

    ``sizes`` are the blocks, the threads of a block and its bytes of shared memory. The driver
    copies the arguments before it returns.
    """
    addresses, last = (c_void_p * len(pointers))(*pointers), ctypes.create_string_buffer(struct)
    first, size = ctypes.addressof(addresses), ctypes.sizeof(c_void_p)
    places = [first + i * size for i in range(len(pointers))]
    arguments = (c_void_p * (len(pointers) + 1))(*places, ctypes.addressof(last))
    blocks, threads, shared = sizes
    call("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, shared, stream, arguments, None)
