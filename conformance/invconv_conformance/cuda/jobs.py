"""Solves that the kernel is run on: an operator, a grid, images, a plan and a launch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.kernels.cuda.arguments import Launch
from invconv.kernels.cuda.plan import Device, Plan, plan_of

Floats = np.ndarray[Any, Any]
LARGE = Device(90, 227 * 1024, 132)


class Result(NamedTuple):
    """What a job gives."""

    weights: Floats  # as `invconv.kernels.cuda.arguments` lays them out, norms of columns last
    x: Floats
    rounds: int  # steps that it took with fibers, all of them going on at the same time


@dataclass(frozen=True, eq=False)
class Job:
    """A solve."""

    name: str
    conv: ic.AutoregressiveConv  # of NumPy arrays of the precision that is solved in
    y: Floats  # (B, C, *spatial)
    plan: Plan
    launch: Launch  # of "solve"
    resident: int = 1  # how many blocks run at a time

    @property
    def matrices(self) -> Floats:
        """D, then the taps, (1 + T, C, C)."""
        causal = self.conv._causal()
        found: Floats = np.concatenate([causal.diagonal[None], causal.taps])
        return found

    def packed(self) -> bytes:
        """Return what `on_cpu/main.cpp` reads."""
        folds, matrices = self.plan.weigh(), self.matrices
        blocks = [n for launch in (*folds, self.launch) for n in (launch.blocks, launch.threads)]
        sizes = matrices.nbytes, self.plan.weights * self.y.itemsize, self.y.nbytes
        numbers = self.resident, *sizes, *blocks, self.launch.shared, self.launch.counters
        arrays = folds[0].struct, self.launch.struct, matrices, self.y
        return b"".join(a.tobytes() for a in (np.array(numbers, "int64"), *arrays))

    def unpack(self, written: bytes) -> tuple[Result, bytes]:
        """Return the result, and the rest of what was written."""
        first, dtype = 8 + self.plan.weights * self.y.itemsize, self.y.dtype
        last = first + self.y.nbytes
        x = np.frombuffer(written[first:last], dtype).reshape(self.y.shape)
        rounds = int(np.frombuffer(written[:8], "int64")[0])
        return Result(np.frombuffer(written[8:first], dtype), x, rounds), written[last:]


def plan_for(
    conv: ic.AutoregressiveConv, shape: Shape, itemsize: int, device: Device
) -> Plan | None:
    """Return the plan of an operator's solve."""
    c = conv._causal()
    settings = c.reach, c.direction, c.dilation, c.lower
    return plan_of(conv.channels, shape, *settings, itemsize, device)


def in_precision(conv: ic.AutoregressiveConv, dtype: str) -> ic.AutoregressiveConv:
    """Return the operator without its bias, in float32 or float64."""
    return ic.AutoregressiveConv(
        conv.kernel.astype(dtype),
        mask=conv.mask,
        direction=conv.direction,
        channel_order=conv.channel_order,
        dilation=conv.dilation,
    )
