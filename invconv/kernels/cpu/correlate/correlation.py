"""Correlations by the compiled kernel, on arrays in host memory.

    y[b, :, p] = sum over t of taps[t] x[b, :, p + offset_t]

The matrices of the taps are read where they are, such as in a kernel (C, C, *k).

Called by NumPy's primitives and `invconv_torch.native.correlation`.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

from invconv.arrays.stencil import Offset
from invconv.kernels.cpu import machine, threads
from invconv.kernels.cpu.compiled import BUFFERS, address_of
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.correlate.plan import (
    Border,
    CorrelationProgram,
    Places,
    correlation_program,
)
from invconv.kernels.cpu.plan import Shape

_CORRELATE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 8, *[ctypes.c_int64] * 5)
_COPY, _MULTIPLY, _SHARED = 2e-10, 1.25e-11, 5e-4  # seconds, as in `invconv.kernels.cpu.compiled`


@dataclass(frozen=True, eq=False)
class CompiledCorrelation:
    """A correlation on a grid, for any taps and images.

    Attributes
    ----------
    target : Target
    program : CorrelationProgram
    call : object
        The compiled function.
    sums, numbers : int
        Addresses: of the function that adds, and of the program.
    code : tuple
        What keeps the functions.
    """

    target: Target
    program: CorrelationProgram
    itemsize: int
    call: Any
    sums: int
    numbers: int
    code: tuple[machine.Code, ...]

    def run(
        self,
        taps: int,
        places: Places,
        x: int,
        y: int,
        batch: int,
        workers: int,
        *keeps: object,
        plus: int = 0,
    ) -> None:
        """Correlate images at the address ``x``, and put the results at ``y``.

        Parameters
        ----------
        taps : int
            The address of the first tap's matrix.
        places : Places
        x, y : int
            Addresses of contiguous arrays (batch, C, *shape).
        batch, workers, *keeps
            As for `invconv.kernels.cpu.compiled.CompiledSolve.solve`.
        plus : int
            The address of an array that is added to the results, as large as they are, or 0.
        """
        h = self.program.header
        if workers > 1:
            numbers = batch * h.channels * h.pixels
            seconds = numbers * (_COPY + _MULTIPLY * h.channels * h.taps) * self.itemsize / 4
            units = -(-batch // h.images) * h.bands
            workers = min(workers, units) if seconds * 512 / self.target.bits >= _SHARED else 1
        shared = ctypes.c_int64()  # the ticket
        given = x, y, plus, taps, self.numbers, ctypes.addressof(shared)

        def work(*_: object) -> None:
            buffer = BUFFERS.take(h.size * self.itemsize)
            self.call(*given, buffer[0], self.sums, batch, *places)
            BUFFERS.keep(buffer)

        if workers == 1:
            work()
        else:
            threads.together(functools.partial(work, self, shared, keeps), workers)


@functools.lru_cache(maxsize=256)
def compiled_correlation(
    channels: int,
    shape: Shape,
    offsets: tuple[Offset, ...],
    wrap: Border,
    itemsize: int,
    target: Target | None = None,
) -> CompiledCorrelation | None:
    """Return the correlation with taps at some offsets; None where no tap reaches a pixel."""
    target = target or host()
    lanes = target.bits // 8 // itemsize
    settings = channels, shape, offsets, wrap, lanes, target.most_channels, itemsize
    program = correlation_program(*settings)
    if program is None:
        return None
    h = program.header
    shared = code(target, itemsize)
    sums = machine.sums(target, itemsize, h.block, h.blocks == 1)
    call = _CORRELATE(shared.addresses["correlate"])
    addresses = sums.addresses["sums"], address_of(program.numbers)
    return CompiledCorrelation(target, program, itemsize, call, *addresses, (shared, sums))


@functools.lru_cache(maxsize=64)
def code(target: Target, itemsize: int) -> machine.Code:
    """Compile what does not depend on the number of channels: "correlate"."""
    from invconv.kernels.cpu.compiler.ir import Writer
    from invconv.kernels.cpu.correlate.driver import write_correlation

    writer = Writer(target, itemsize)
    write_correlation(writer)
    return machine.compiled(str(writer.module), target, ("correlate",), thorough=False)
