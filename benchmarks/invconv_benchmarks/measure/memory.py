"""Peak memory of calls: of the process as Linux counts it, of a device as its library does."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invconv_benchmarks.measure.contender import Call, Contender, wait
from invconv_conformance.libraries.table import Target

# large arrays that are freed go back at once, so that the next call's are seen again; it makes
# calls slower, so memory is measured in a process of its own
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "524288", "MALLOC_TRIM_THRESHOLD_": "524288"}


@dataclass(frozen=True)
class Peak:
    """Bytes beyond those in use before the call, its result included; None where unknown.

    Attributes
    ----------
    first : int or None
        Of planning and the first call; None for a peer, and for compiled code, as the compiler's
        own memory is not ours.
    second : int or None
        Of a second call.
    """

    first: int | None
    second: int | None


def measure(contender: Contender) -> tuple[Peak, Any]:
    """Return the peak memory of a contender's calls, and what the last one returned."""
    target, kept = contender.target, list[Call]()

    def first() -> Any:
        kept.append(contender.build())
        return kept[0]()

    start = None
    if contender.role == "peer":  # peers can be slow, so one call is measured
        kept.append(contender.build())
    else:
        start, _ = _peak(target, first)
    second, result = _peak(target, lambda: kept[0]())
    return Peak(None if target.mode == "jit" else start, second), result


def _peak(target: Target, call: Call) -> tuple[int | None, Any]:
    def run() -> Any:
        result = call()
        wait(target, result)
        return result

    return _device_peak(target, run) if target.on_cuda else peak_of(run)


def peak_of(call: Call) -> tuple[int | None, Any]:
    """Return the peak of the process's memory during a call beyond what it had, and the result."""
    gc.collect()
    before = _reset()
    result = call()
    after = _status("VmHWM")
    return (None if before is None or after is None else max(0, after - before)), result


def _reset() -> int | None:
    """Reset the peak of the resident set, and return its present size."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _device_peak(target: Target, call: Call) -> tuple[int | None, Any]:
    """Return the peak on a CUDA device, and the result. Not yet run on a GPU."""
    gc.collect()
    if target.library.name == "torch":
        import torch

        before = torch.cuda.memory_allocated(target.device)
        torch.cuda.reset_peak_memory_stats(target.device)
        result = call()
        return int(torch.cuda.max_memory_allocated(target.device) - before), result
    if target.library.name == "cupy":
        import cupy

        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        result = call()
        return int(pool.total_bytes() - before), result
    return None, call()  # JAX's own peak cannot be reset
