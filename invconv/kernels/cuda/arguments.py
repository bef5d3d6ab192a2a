"""The launches of the kernels of `common.cuh`, `weights.cu`, `solve.cu`, and their arguments.

`launch` does this for any library, on the library's current stream, and nothing on the host waits.
The two kernels of ``plan.weigh()`` factor an operator. Their arguments, in this order:

   =============  ==================================================================
   matrices       pointer: D, with zeros in its other triangle, then the taps of the
                  stencil in its own order, (1 + T, C, C), contiguous
   weights        pointer: ``plan.weights`` numbers of memory; they need not be zeroed
   grid           the launch's ``integers``, by value: one struct of 18 ints
   =============  ==================================================================

"decide" decides on the device whether D^-1 is folded in, and "solve" reads the decision there: the
host never knows. The arguments of ``plan.solve(batch)``, in this order:

   =============  ==================================================================
   y              pointer: (batch, C, *shape), contiguous
   x              pointer: likewise, other memory than y
   weights        pointer: as above; read only
   counters       pointer: ``counters`` ints of 32 bits, set to zero in the same stream before
                  every launch, used by no other launch meanwhile; null if there are none
   grid           the launch's ``integers``, by value
   =============  ==================================================================

A grid of blocks is ``(blocks, 1, 1)``, a block ``(threads, 1, 1)``. The numbers are float32 or
float64, y, x, matrices and weights of one dtype; half types are cast by the caller. Launches of a
batch of 0 are left out. `Launch.struct` has the integers as bytes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

GRID = (
    *(f"{name}_{axis}" for name in ("extent", "step", "dilation") for axis in range(4)),
    *("pitch", "rows", "bands", "images", "chunk", "lower"),
)
STRUCT = np.dtype([(name, np.int32) for name in GRID])  # `Grid` in `common.cuh`
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
    integers: tuple[int, ...]  # the struct `Grid`, in the order of `GRID`

    @functools.cached_property
    def struct(self) -> np.void:
        """The integers as one scalar of `STRUCT`."""
        scalar: np.void = np.array([self.integers], STRUCT)[0]
        return scalar
