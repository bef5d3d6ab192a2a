"""Solves that the kernel is run on: an operator, a grid, images, a plan and a launch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.kernels.cuda.arguments import Launch
from invconv.kernels.cuda.plan import Device, Plan, plan_of

Floats = np.ndarray[Any, Any]
LARGE = Device(90, 227 * 1024, 132)


@dataclass(frozen=True, eq=False)
class Job:
    """A solve.

    Attributes
    ----------
    name : str
    conv : AutoregressiveConv
        Of NumPy arrays of the precision that is solved in.
    y : array, shape (B, C, *spatial)
    plan : Plan
    launch : Launch
        Of "solve".
    resident : int
        How many blocks run at a time.
    """

    name: str
    conv: ic.AutoregressiveConv
    y: Floats
    plan: Plan
    launch: Launch
    resident: int = 1

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
        structs = folds[0].struct.tobytes() + self.launch.struct.tobytes()
        return (
            np.array(numbers, "int64").tobytes() + structs + matrices.tobytes() + self.y.tobytes()
        )

    def unpack(self, written: bytes) -> tuple[Result, bytes]:
        """Return the result, and the rest of what was written."""
        rounds, written = np.frombuffer(written[:8], "int64"), written[8:]
        size, dtype = self.plan.weights * self.y.itemsize, self.y.dtype
        weights, x = written[:size], written[size : size + self.y.nbytes]
        found = Result(
            np.frombuffer(weights, dtype),
            np.frombuffer(x, dtype).reshape(self.y.shape),
            int(rounds[0]),
        )
        return found, written[size + self.y.nbytes :]


@dataclass(frozen=True, eq=False)
class Result:
    """What a job gives.

    Attributes
    ----------
    weights : array
        As `invconv.kernels.cuda.arguments` lays them out, the norms of columns at the end.
    x : array, shape (B, C, *spatial)
    rounds : int
        How many steps it took with fibers, all of them going on at the same time.
    """

    weights: Floats
    x: Floats
    rounds: int


def plan_for(
    conv: ic.AutoregressiveConv, shape: Shape, itemsize: int, device: Device
) -> Plan | None:
    """Return the plan of an operator's solve."""
    c = conv._causal()
    settings = c.reach, c.direction, c.dilation, c.lower
    return plan_of(conv.channels, shape, *settings, itemsize, device)


def in_precision(conv: ic.AutoregressiveConv, dtype: str) -> ic.AutoregressiveConv:
    """Return the operator without its bias, in float32 or float64."""
    found: ic.AutoregressiveConv = ic.AutoregressiveConv(
        conv.kernel.astype(dtype),
        mask=conv.mask,
        direction=conv.direction,
        channel_order=conv.channel_order,
        dilation=conv.dilation,
    )
    return found
