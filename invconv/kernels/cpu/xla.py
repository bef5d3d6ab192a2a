"""The compiled kernel as a custom call of XLA: the program, the room it needs, and its handler.

`handler` has the calling convention.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from invconv.kernels.cpu import machine
from invconv.kernels.cpu.assembly import Ints, best_way, program
from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.cpu.plan import Geometry


@dataclass(frozen=True, eq=False)
class Call:
    """A custom call that solves a batch on one thread; `invconv.kernels.cpu.handler` runs it.

    Attributes
    ----------
    name : str
        Of the handler: the same in every process, so that XLA may keep the program on a disk.
    lanes : {"images", "rows"}
    program : array of int64
        What the kernel goes by.
    room : array of int64
        How many images there are; where the weights, what they are made in and the state of the
        units are in the memory; and how many words that state is.
    memory : int
        Bytes.
    """

    name: str
    lanes: str
    program: Ints
    room: Ints
    memory: int


@functools.lru_cache(maxsize=256)
def call(g: Geometry, target: Target, batch: int) -> Call:
    """Return the call that solves a batch of images."""
    from invconv.kernels.cpu.handler import ALIGNED

    found = program(g, best_way(g, batch, 1), False)
    words = 1 + found.units(batch)
    numbers = found.header.size, g.weights, g.scratch
    sizes = [*(n * g.itemsize for n in numbers), words * 8]
    *places, memory = np.cumsum([-(-size // ALIGNED) * ALIGNED for size in sizes])
    blocks = "all" if g.single else "some"
    return Call(
        f"invconv_{target.bits}_f{8 * g.itemsize}_{g.block}_{blocks}_{found.lanes}",
        found.lanes,
        found.numbers,
        np.asarray([batch, *places, words], np.int64),
        int(memory) + ALIGNED,
    )


@functools.cache
def handler(target: Target, itemsize: int, block: int, single: bool, lanes: str) -> machine.Code:
    """Compile the handler of the calls with a block of output channels."""
    from invconv.kernels.cpu.compiler.ir import Writer
    from invconv.kernels.cpu.handler import write_handler

    parts = (
        machine.prepare(target, itemsize),
        machine.solve(target, itemsize, lanes),
        machine.sums(target, itemsize, block, single),
    )
    writer = Writer(target, itemsize)
    write_handler(writer, {name: a for part in parts for name, a in part.addresses.items()})
    code = machine.compiled(str(writer.module), target, ("handler",), thorough=False)
    return machine.Code(code.addresses, (code, parts))
