"""The compiled kernels as custom calls of XLA: program, working memory and handler."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Shape
from invconv.arrays.stencil import Offset, Sweep
from invconv.kernels.cpu import costs, machine, propagation, recursive
from invconv.kernels.cpu.assembly import best_program
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.correlate.correlation import compiled_correlation, way_of
from invconv.kernels.cpu.correlate.programs import of_taps
from invconv.kernels.cpu.geometry import geometry_of
from invconv.kernels.cpu.program import Ints


@dataclass(frozen=True, eq=False)
class CustomCall:
    """A custom call for a batch, on one thread; `invconv.kernels.cpu.handler` runs it."""

    # the name of the handler, the same in every process, so that XLA may cache programs on disk
    name: str
    code: machine.Code  # the handler
    plan: Any  # the program
    # of a solve: number of images; places in the working memory of the weights, of the scratch
    # memory in which they are computed, and of the units' state; and the number of words of that
    # state. Of a correlation: what `handler.write_correlation_handler` reads
    room: Ints
    memory: int  # bytes of working memory


@functools.lru_cache(maxsize=256)
def call(channels: int, sweep: Sweep, itemsize: int, batch: int) -> CustomCall:
    """Return the call that solves a batch of images."""
    target = host()
    g = geometry_of(channels, sweep, itemsize, target)
    plan = best_program(g, batch, 1)
    words = 1 + plan.units(batch)
    sizes = [*(n * g.itemsize for n in (plan.header.size, plan.weights, g.scratch)), words * 8]
    *places, memory = np.cumsum([-(-size // costs.LINE) * costs.LINE for size in sizes])
    settings = "_".join(map(str, map(int, plan.sums)))
    return CustomCall(
        f"invconv_{target.bits}_f{8 * g.itemsize}_{plan.way}_{settings}",
        _handler(target, itemsize, plan.way, plan.sums),
        plan,
        np.asarray([batch, *places, words], np.int64),
        int(memory) + costs.LINE,
    )


@functools.lru_cache(maxsize=256)
def correlation_call(
    shape: Shape, offsets: tuple[Offset, ...], wrap: bool, itemsize: int, gradient: bool
) -> CustomCall | None:
    """Return the call for images of ``shape`` (B, C, *grid), or None if no tap reaches a pixel.

    It correlates, or sums the ``gradient`` by the taps.
    """
    batch, channels, *grid = shape
    given = compiled_correlation(channels, tuple(grid), offsets, wrap, itemsize)
    if given is None:
        return None
    way = given if gradient else way_of(given, batch, 1)[0]
    h, parts = way.program.header, (way.gram,) if gradient else (way.code, way.sums)
    kind = "gram" if gradient else f"correlate_{way.lanes}"  # no name of a solve
    settings = way.block if gradient else (h.block, int(h.blocks == 1))
    room = batch, *of_taps(channels), len(offsets) * channels**2
    return CustomCall(
        f"invconv_{way.target.bits}_f{8 * itemsize}_{kind}_{'_'.join(map(str, settings))}",
        _correlation_handler(itemsize, parts),
        way.program,
        np.asarray(room, np.int64),
        2 * costs.LINE + h.size * itemsize,
    )


@functools.cache
def _correlation_handler(itemsize: int, parts: tuple[machine.Code, ...]) -> machine.Code:
    """Compile the handler of calls that run this code."""
    from invconv.kernels.cpu.handler import write_correlation_handler

    addresses = tuple(c.address for c in parts)
    code = machine.compiled(host(), itemsize, write_correlation_handler, addresses)
    return replace(code, engine=(code, parts))


@functools.cache
def _handler(target: Target, itemsize: int, way: str, sums: tuple[int, ...]) -> machine.Code:
    """Compile the handler of calls with these lanes and sums."""
    from invconv.kernels.cpu.handler import write_handler

    parts = (
        machine.prepare(target, itemsize),
        machine.solve(target, itemsize, way),
        machine.sums(target, itemsize, way, *sums),
    )
    code = machine.compiled(target, itemsize, write_handler, tuple(c.address for c in parts))
    return replace(code, engine=(code, parts))


def filter_call(
    shape: recursive.Filter, itemsize: int, filters: int, rows: int, whole: int, back: bool
) -> tuple[str, machine.Code, Ints]:
    """Return name, handler and attribute of a call that filters; rows have ``whole`` numbers."""
    groups = recursive.groups(shape, host(), itemsize, rows)
    widths = tuple(width for width, *_ in groups)
    numbers = [n for _, *ends in groups for n in ends]
    steps = whole, 0, -1 if back else 1
    numbers += [rows, filters, whole - shape.order, 1, *steps * 2, whole, whole]
    words = "_".join(map(str, map(int, (*shape, 8 * itemsize, *widths))))
    return f"invconv_filter_{words}", filter_handler(shape, itemsize, widths), np.asarray(numbers)


@functools.cache
def filter_handler(shape: recursive.Filter, itemsize: int, widths: tuple[int, ...]) -> machine.Code:
    """Compile the handler of calls that filter so many signals at a time."""
    from invconv.kernels.cpu.handler import write_filter_handler

    parts = tuple(recursive.compiled(shape, host(), itemsize, width) for width in widths)
    addresses = tuple(c.address for c in parts)
    code = machine.compiled(host(), itemsize, write_filter_handler, addresses)
    return replace(code, engine=(code, parts))


def propagation_call(
    shape: propagation.Recursion, itemsize: int, x: tuple[int, ...], taps: tuple[int, ...]
) -> tuple[str, machine.Code, Ints]:
    """Return name, handler and attribute of a call that runs a recursion over images."""
    numbers = 0, x[0] * x[1], *propagation.steps(x, taps)
    words = "_".join("".join(f"{o:+}" for o in offset) for offset in shape.offsets)
    name = f"invconv_propagate_{8 * itemsize}_{'turned' * shape.turned}{words}"
    return name, propagation_handler(shape, itemsize), np.asarray(numbers)


@functools.cache
def propagation_handler(shape: propagation.Recursion, itemsize: int) -> machine.Code:
    """Compile the handler of calls that run a recursion over images."""
    from invconv.kernels.cpu.handler import write_propagation_handler

    part = propagation.compiled(shape, itemsize)
    code = machine.compiled(host(), itemsize, write_propagation_handler, part.address, shape)
    return replace(code, engine=(code, part))
