"""Recursions over images, with taps that change from pixel to pixel, by the compiled kernel.

    h[p] = x[p] + sum over k of taps[k, p] h[p + offsets[k]]

Rows, along the last axis, follow each other. What other rows add to a row is summed with pixels in
the lanes, which are masked at the ends of rows and where the other row lies outside. Then a chain
runs along the row, pixel after pixel: the term of the nearest pixel is added last, so that it is one
fused multiply-add a pixel. Turned recursions read taps at p + offsets[k].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from invconv.kernels.cpu import costs, machine, threads
from invconv.kernels.cpu.compiler.target import host

if TYPE_CHECKING:  # llvmlite may be missing: then nothing is compiled
    from invconv.kernels.cpu.compiler.ir import Arguments, Int, Value, Writer

_POINTERS = "x taps h"
_INTEGERS = "first stop channels of_batch of_channel"  # and the sizes of the axes
_TERM = 20  # products that take as long as a tap, which is read from memory
_PARTS = 4  # of the images of a thread, so that another one may take some


class Recursion(NamedTuple):
    """The numbers that a recursion's code depends on."""

    offsets: tuple[tuple[int, ...], ...]
    turned: bool
    order: tuple[tuple[int, int], ...]  # of the axes but the last, with directions
    along: int  # the direction along the last axis

    @property
    def compiles(self) -> bool:
        """Whether the kernel has code for it."""
        return len(self.offsets) <= costs.FILTER

    @property
    def signature(self) -> tuple[str, str]:
        """The names of the function's addresses and integers."""
        return _POINTERS, f"{_INTEGERS} {' '.join(f'n{a}' for a in range(len(self.order) + 1))}"


def steps(x: Sequence[int], taps: Sequence[int]) -> tuple[int, ...]:
    """Return the integers of `Recursion.signature` from "channels" on, from the arrays' shapes."""
    _, channels, *grid = x
    own = prod(taps[2:])  # numbers of the taps of one image
    return channels, own * taps[1] * (taps[0] > 1), own * (taps[1] > 1), *grid


def run(
    shape: Recursion,
    itemsize: int,
    arrays: Sequence[int],
    x: Sequence[int],
    taps: Sequence[int],
    workers: int,
    *keeps: object,
) -> None:
    """Run a recursion: ``arrays`` are the addresses of x, taps and h, in C order.

    ``x`` and ``taps`` are shapes; ``keeps`` holds the arrays while another thread may be at work.
    """
    code, numbers, images = compiled(shape, itemsize), steps(x, taps), x[0] * x[1]
    if workers > 1:
        taken = costs.seconds(prod(x), _TERM * len(shape.offsets), itemsize, host())
        workers = costs.threads(min(workers, images), taken)
    if workers == 1:
        code.call(*arrays, 0, images, *numbers)
        return
    many = -(-images // (workers * _PARTS))
    left = list(range(0, images, many))

    def work(keeps: object = keeps) -> None:
        while left:
            with suppress(IndexError):  # another thread may have taken the last one
                first = left.pop()
                code.call(*arrays, first, min(first + many, images), *numbers)

    threads.together(work, workers)


def compiled(shape: Recursion, itemsize: int) -> machine.Code:
    """Compile the function "propagate"."""
    return machine.compiled(host(), itemsize, write_propagation, shape, thorough=True)


def write_propagation(w: Writer, shape: Recursion) -> None:
    """Write the function "propagate": it runs the images from ``first`` to ``stop``.

    Taps of the next sample, and of the next channel, are so many numbers on; 0 if they share them.
    """
    with (
        w.function("propagate", *shape.signature, inside=False) as a,
        w.loop(a["first"], a["stop"]) as image,
    ):
        _Image(w, shape, a, image).write()


class _Image:
    """The code that runs an image."""

    def __init__(self, w: Writer, shape: Recursion, a: Arguments, image: Int) -> None:
        self.w, self.shape, last = w, shape, len(shape.order)
        self.sizes = [a[f"n{axis}"] for axis in range(last + 1)]
        self.strides = [w.integer(1)]
        for size in self.sizes[:0:-1]:
            self.strides.insert(0, self.strides[0] * size)
        self.pixels = self.strides[0] * self.sizes[0]
        start = image * self.pixels
        self.x, self.h = w.at(a["x"], start), w.at(a["h"], start)
        place = image // a["channels"] * a["of_batch"] + image % a["channels"] * a["of_channel"]
        self.taps = [w.at(a["taps"], place + self.pixels * k) for k in range(len(shape.offsets))]
        self.chain = [k for k, o in enumerate(shape.offsets) if not any(o[:-1])]
        self.chain.sort(key=lambda k: -abs(shape.offsets[k][-1]))
        self.across = [k for k in range(len(shape.offsets)) if k not in self.chain]

    def write(self) -> None:
        w, shape = self.w, self.shape
        with ExitStack() as loops:
            places = {
                axis: loops.enter_context(_turned_loop(w, self.sizes[axis], direction))
                for axis, direction in shape.order
            }
            row = w.integer(0)
            for axis, place in places.items():
                row = row + place * self.strides[axis]
            if self.across:
                self._across(row, places)
            if self.chain:
                self._along(row)

    def _moved(self, k: int) -> Int:
        """Return by how many numbers a tap's offset leads on."""
        total = self.w.integer(0)
        for stride, o in zip(self.strides, self.shape.offsets[k], strict=True):
            total = total + stride * o
        return total

    def _across(self, row: Int, places: dict[int, Int]) -> None:
        """Write the sum of x and of what other rows add to a row."""
        w, length = self.w, self.sizes[-1]
        ends, low, high = {}, w.integer(0), length
        for k in self.across:  # where a tap reads pixels of the image
            *outer, along = self.shape.offsets[k]
            first, stop = max(0, -along), length - max(0, along)
            for axis, o in enumerate(outer):
                if o:
                    there = places[axis] + o
                    stop = stop.if_(there.is_(">=", 0), 0)
                    stop = stop.if_(there.is_("<", self.sizes[axis]), 0)
            ends[k] = first, stop
            low, high = low.most(first), high.least(stop)
        with w.loop(0, length, w.lanes) as j:
            inside = w.b.and_(j.is_(">=", low), (j + w.lanes).is_("<=", high))
            with w.b.if_else(inside) as (whole, masked):
                with whole:
                    total = w.load(self.x, row + j)
                    for k in self.across:
                        total = w.fma(*self._pair(k, row + j), total)
                    w.store(total, self.h, row + j)
                with masked:
                    there = w.lanes_are("<", length - j)
                    total = w.masked_load(w.at(self.x, row + j), there)
                    for k in self.across:
                        first, stop = ends[k]
                        mask = w.b.and_(
                            w.lanes_are(">=", w.integer(first) - j), w.lanes_are("<", stop - j)
                        )
                        total = w.fma(*self._pair(k, row + j, mask), total)
                    w.masked_store(total, w.at(self.h, row + j), there)

    def _pair(self, k: int, place: Int, mask: Value = None) -> tuple[Value, Value]:
        """Return the vectors of a tap, and of the pixels that it reads."""
        w, there = self.w, place + self._moved(k)
        tap = w.at(self.taps[k], there if self.shape.turned else place)
        if mask is None:
            return w.load(tap, 0), w.load(self.h, there)
        return w.masked_load(tap, mask), w.masked_load(w.at(self.h, there), mask)

    def _along(self, row: Int) -> None:
        """Write the chain along a row."""
        w, length, along = self.w.narrowed(1), self.sizes[-1], self.shape.along
        given, before = self.h if self.across else self.x, w.new(w.zero)
        backs = [abs(self.shape.offsets[k][-1]) for k in self.chain]
        start = w.integer(backs[0]).least(length)
        for first, stop in ((w.integer(0), start), (start, length)):
            with w.loop(first, stop) as j:
                place = row + (j if along > 0 else length - 1 - j)
                total = w.new(w.load(given, place))
                for k, back in zip(self.chain, backs, strict=True):
                    there = place - back * along
                    tap = self.taps[k], there if self.shape.turned else place

                    def add(tap: tuple[Value, Int] = tap, back: int = back, there: Int = there) -> None:
                        known = before.value if back == 1 else w.load(self.h, there)
                        total.add_product(w.load(*tap), known)

                    if first is start:
                        add()
                    else:  # the first pixels have fewer ones before them
                        with w.b.if_then(j.is_(">=", back)):
                            add()
                before.set(total.value)
                w.store(total.value, self.h, place)


@contextmanager
def _turned_loop(w: Writer, count: Int, direction: int) -> Iterator[Int]:
    """Write the body of a loop over places, from the first or from the last on."""
    with w.loop(0, count) as i:
        yield i if direction > 0 else count - 1 - i
