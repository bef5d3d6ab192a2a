"""The launches of the kernels of `common.cuh`, `weights.cu`, `solve.cu`, and their arguments.

A kernel takes the addresses of its `POINTERS` and then one struct of 18 ints, by value. Arrays are
contiguous, of one dtype, float32 or float64:

    matrices   (1 + T, C, C): D, with zeros in its other triangle, then the stencil's taps
    weights    ``plan.weights`` numbers, which need not be zeroed
    y, x       (batch, C, *shape), the batch not empty; x is other memory than y
    counters   32-bit ints, set to zero in the same stream before every launch, used by no other
               launch meanwhile; null if there are none

"fold" and "decide" factor an operator: "decide" decides on the device whether D^-1 is folded in,
and "solve" reads the decision there. The host never knows, and waits for nothing.
"""

from dataclasses import dataclass

import numpy as np

GRID = (  # the struct `Grid` in `common.cuh`
    *(f"{name}_{axis}" for name in ("extent", "step", "dilation") for axis in range(4)),
    *("pitch", "rows", "bands", "images", "chunk", "lower"),
)
HEAD = 16  # bytes of shared memory before the numbers: a ticket
POINTERS = {
    "fold": ("matrices", "weights"),
    "decide": ("matrices", "weights"),
    "solve": ("y", "x", "weights", "counters"),
}


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel."""

    kernel: str  # "fold", "decide" or "solve"
    blocks: int
    threads: int
    shared: int  # bytes of dynamic shared memory
    counters: int  # number of 32-bit ints that must be set to zero before the launch
    integers: tuple[int, ...]  # of `GRID`

    @property
    def struct(self) -> bytes:
        return np.array(self.integers, np.int32).tobytes()
