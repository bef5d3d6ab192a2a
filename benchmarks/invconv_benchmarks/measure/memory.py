"""Peak memory of calls: of the process as Linux counts it, of a CUDA device as PyTorch does."""

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
    """Bytes beyond those in use before a call, its result included; None where unknown.

    The first call plans, too. It is unknown for peers, which are slow, and for compiled code, as
    the compiler's own memory is not ours.
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
    if contender.role == "peer":
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

    if not target.on_cuda:
        return peak_of(run)
    if target.library.name != "torch":
        return None, run()  # JAX's peak cannot be reset, and CuPy's pool has none
    import torch

    gc.collect()
    before = torch.cuda.memory_allocated(target.device)
    torch.cuda.reset_peak_memory_stats(target.device)
    result = run()
    return int(torch.cuda.max_memory_allocated(target.device) - before), result


def peak_of(call: Call) -> tuple[int | None, Any]:
    """Return the peak of the process's memory during a call beyond what it had, and the result."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident set
    except OSError:
        return None, call()
    before, result = _status("VmRSS"), call()
    return max(0, _status("VmHWM") - before), result


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
