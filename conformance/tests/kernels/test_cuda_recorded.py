"""What XLA is told of a handler: that a CUDA graph may record its call."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import jaxlib
import pytest

from invconv.kernels.cpu import xla as on_cpu
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cuda import driver
from invconv.kernels.cuda import xla as on_cuda
from invconv.kernels.cuda.handler import DRIVER

HEADER = Path(jaxlib.__file__).parent / "include/xla/ffi/api/c_api.h"
VERSION = 0x0000_0003_0000_0000  # minor and major, as 32 bits each
# what puts work on a stream, or looks at contexts; CUDA lets a graph record all of it
RECORDABLE = {
    "cuStreamGetCtx",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuMemsetD32Async",
    "cuLaunchKernel",
}

Words = ctypes.c_uint64 * 16


def traits(address: int) -> int:
    """Ask a handler for its metadata, as XLA does; return its traits."""
    metadata, api, extension, frame = (Words() for _ in range(4))
    metadata[4] = 2**32 - 1
    api[4] = VERSION
    extension[1], extension[3] = 1, ctypes.addressof(metadata)
    frame[1], frame[2] = ctypes.addressof(extension), ctypes.addressof(api)
    handler = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)
    assert handler(ctypes.addressof(frame)) is None
    assert metadata[3] == VERSION
    return int(metadata[4])


def test_a_graph_may_record_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "address", lambda name: 1)  # nothing is launched
    bit = re.search(r"COMMAND_BUFFER_COMPATIBLE = 1u << (\d+)", HEADER.read_text())
    assert bit is not None
    for what in ("weigh", "solve"):
        kernels = tuple((name, 1) for name in on_cuda._KERNELS[what])
        code = on_cuda._handler.__wrapped__(what, kernels)
        assert traits(code.address) == 1 << int(bit[1])


def test_which_is_so_as_long_as_it_calls_nothing_else() -> None:
    assert set(DRIVER) <= RECORDABLE


def test_a_solve_on_the_cpu_is_in_no_graph() -> None:
    code = on_cpu.handler(host(), 4, 1, True, "rows")
    assert traits(code.address) == 0
