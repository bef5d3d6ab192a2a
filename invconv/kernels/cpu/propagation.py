"""Recursions over images, with taps that change from pixel to pixel, by the compiled kernel.

    h[p] = sum over j of gains[j, p] x[p + inputs[j]] + sum over k of taps[k, p] h[p + offsets[k]]

Without inputs the first sum is x[p]. Rows, along the last axis, follow each other. Terms of other
rows are summed with pixels in the lanes, which are masked at the ends of rows and where the other
row lies outside. Then a chain runs along the row, pixel after pixel: the term of the nearest pixel
is added last, so that it is one fused multiply-add a pixel. Turned recursions read the taps at
p + offsets[k].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from invconv.kernels.cpu import costs, machine, threads
from invconv.kernels.cpu.compiler.target import host

if TYPE_CHECKING:  # llvmlite may be missing: then nothing is compiled
    from invconv.kernels.cpu.compiler.ir import Arguments, Int, Value, Writer

_POINTERS = "x taps h gains"
# and the sizes of the axes
_INTEGERS = "first stop channels taps_batch taps_channel gains_batch gains_channel"
_TERM = 20  # time to read a tap from memory, in products
_TOGETHER = 4  # images whose chains run side by side
_PARTS = 4  # of the images of a thread, so that another one may take some


class Recursion(NamedTuple):
    """The numbers that a recursion's code depends on."""

    offsets: tuple[tuple[int, ...], ...]
    turned: bool
    order: tuple[tuple[int, int], ...]  # of the axes but the last, with directions
    along: int  # the direction along the last axis
    inputs: tuple[tuple[int, ...], ...] = ()

    @property
    def compiles(self) -> bool:
        """Whether the kernel has code for it."""
        return len(self.offsets) + len(self.inputs) <= costs.FILTER

    @property
    def signature(self) -> tuple[str, str]:
        """The names of the function's addresses and integers."""
        return _POINTERS, f"{_INTEGERS} {' '.join(f'n{a}' for a in range(len(self.order) + 1))}"


def steps(x: Sequence[int], *weights: Sequence[int]) -> tuple[int, ...]:
    """Return the integers of `Recursion.signature` from "channels" on.

    Of the shapes of x, of the taps and, if there are any, of the gains.
    """
    _, channels, *grid = x
    numbers = [0, 0, 0, 0]
    for n, (batch, own, *rest) in enumerate(weights):
        image = prod(rest)
        numbers[2 * n : 2 * n + 2] = image * own * (batch > 1), image * (own > 1)
    return channels, *numbers, *grid


def run(
    shape: Recursion,
    itemsize: int,
    arrays: Sequence[int],
    x: Sequence[int],
    *weights: Sequence[int],
    workers: int,
    keeps: object,
    way: str = "propagate",
) -> None:
    """Run a recursion, or the ``way`` of `write_products`.

    ``arrays`` are the addresses of x, taps, h and gains, in C order, the last one 0 without inputs;
    then come the shapes of x, of the taps and of the gains. ``keeps`` holds the arrays while
    another thread may still be at work.
    """
    code, numbers, images = compiled(shape, itemsize, way), steps(x, *weights), x[0] * x[1]
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


def compiled(shape: Recursion, itemsize: int, way: str = "propagate") -> machine.Code:
    """Compile the function "propagate", or "products"."""
    writers = {"propagate": write_propagation, "products": write_products}
    return machine.compiled(host(), itemsize, writers[way], shape, thorough=True)


def write_propagation(w: Writer, shape: Recursion) -> None:
    """Write the function "propagate": it runs the images from ``first`` to ``stop``.

    Taps of the next sample, and of the next channel, are so many numbers on; 0 if they share them.
    Chains of a few images run side by side: none waits for another.
    """
    with w.function("propagate", *shape.signature, inside=False) as a:
        together = 1 if all(any(o[:-1]) for o in shape.offsets) else _TOGETHER
        groups = (a["stop"] - a["first"]) // together * together + a["first"]
        parts = [(together, a["first"], groups), (1, groups, a["stop"])]
        for count, first, stop in parts[:together]:
            with w.loop(first, stop, count) as image:
                images = [_Image(w, shape, a, image + n) for n in range(count)]
                with images[0].rows() as (row, places):
                    if images[0].across:
                        ends = images[0].ends(images[0].across, places)
                        for one in images:
                            _write_across(one, row, *ends)
                    if images[0].chain:
                        _write_chains(images, row)


def write_products(w: Writer, shape: Recursion) -> None:
    """Write the function "products": taps[k, p] = x[p] h[p + offsets[k]], zero outside.

    It is the gradient by taps, if no images share them.
    """
    with (
        w.function("products", *shape.signature, inside=False) as a,
        w.loop(a["first"], a["stop"]) as number,
    ):
        image = _Image(w, shape, a, number)
        with image.rows() as (row, places), w.loop(0, image.sizes[-1], w.lanes) as j:
            whole, place = w.lanes_are("<", image.sizes[-1] - j), row + j
            ends, *_ = image.ends(image.taps, places)
            x = w.masked_load(w.at(image.x, place), whole)
            for term, between in zip(image.taps, ends, strict=True):
                mask = image.mask(between, j)
                read = w.masked_load(w.at(term.numbers, place + image.moved(term)), mask)
                product = w.b.select(mask, w.b.fmul(x, read), w.zero)
                w.masked_store(product, w.at(term.taps, place), whole)


class _Term(NamedTuple):
    """A tap, and the numbers that it multiplies, by their addresses in an image."""

    offset: tuple[int, ...]
    taps: Value
    numbers: Value
    turned: bool  # whether the tap is read where the number is


class _Image:
    """The places of an image's numbers, for the code that runs it."""

    def __init__(self, w: Writer, shape: Recursion, a: Arguments, image: Int) -> None:
        self.w, self.shape = w, shape
        self.sizes = [a[f"n{axis}"] for axis in range(len(shape.order) + 1)]
        self.strides = [w.integer(1)]
        for size in self.sizes[:0:-1]:
            self.strides.insert(0, self.strides[0] * size)
        pixels = self.strides[0] * self.sizes[0]
        self.x, self.h = (w.at(a[name], image * pixels) for name in "xh")
        whole = {"taps": (shape.offsets, self.h), "gains": (shape.inputs, self.x)}
        sample, channel, found = image // a["channels"], image % a["channels"], []
        for name, (offsets, numbers) in whole.items():
            first = sample * a[f"{name}_batch"] + channel * a[f"{name}_channel"]
            turned = shape.turned and name == "taps"
            places = [w.at(a[name], first + pixels * k) for k in range(len(offsets))]
            found.append(
                [_Term(o, v, numbers, turned) for o, v in zip(offsets, places, strict=True)]
            )
        self.taps, gains = found
        # those that read the same row, the farthest pixel first; and the others
        chain = [term for term in self.taps if not any(term.offset[:-1])]
        self.chain = sorted(chain, key=lambda term: -abs(term.offset[-1]))
        self.across = gains + [term for term in self.taps if any(term.offset[:-1])]

    @contextmanager
    def rows(self) -> Iterator[tuple[Int, dict[int, Int]]]:
        """Write loops over rows; yield the place of the row, and its places along the axes."""
        with ExitStack() as loops:
            places, row = dict[int, "Int"](), self.w.integer(0)
            for axis, direction in self.shape.order:
                i = loops.enter_context(self.w.loop(0, self.sizes[axis]))
                places[axis] = i if direction > 0 else self.sizes[axis] - 1 - i
                row = row + places[axis] * self.strides[axis]
            yield row, places

    def ends(
        self, terms: Sequence[_Term], places: dict[int, Int]
    ) -> tuple[list[tuple[int, Int]], Int, Int]:
        """Return between which pixels of a row each term reads others of the image, and all do."""
        length, found = self.sizes[-1], []
        low, high = self.w.integer(0), length
        for *outer, along in (term.offset for term in terms):
            first, stop = max(0, -along), length - max(0, along)
            for axis, o in enumerate(outer):
                if o:
                    there = places[axis] + o
                    stop = stop.if_(there.is_(">=", 0), 0)
                    stop = stop.if_(there.is_("<", self.sizes[axis]), 0)
            found.append((first, stop))
            low, high = low.most(first), high.least(stop)
        return found, low, high

    def mask(self, ends: tuple[int, Int], j: Int) -> Value:
        """Return the mask of lanes, from pixel j of a row on, between these ends."""
        w, (first, stop) = self.w, ends
        from_first = w.lanes_are(">=", w.integer(first) - j)
        return w.b.and_(from_first, w.lanes_are("<", stop - j))

    def moved(self, term: _Term) -> Int:
        """Return by how many numbers an offset leads on."""
        total = self.w.integer(0)
        for stride, o in zip(self.strides, term.offset, strict=True):
            total = total + stride * o
        return total

    def pair(self, term: _Term, place: Int) -> tuple[Value, Value]:
        """Return the addresses of a tap, and of the number that it multiplies."""
        there = place + self.moved(term)
        tap = there if term.turned else place
        return self.w.at(term.taps, tap), self.w.at(term.numbers, there)


def _write_across(
    image: _Image, row: Int, ends: list[tuple[int, Int]], low: Int, high: Int
) -> None:
    """Write the sum of x, or of the inputs, and of what other rows add to a row."""
    w, length, inputs = image.w, image.sizes[-1], image.shape.inputs
    with w.loop(0, length, w.lanes) as j:
        inside, place = w.b.and_(j.is_(">=", low), (j + w.lanes).is_("<=", high)), row + j
        with w.b.if_else(inside) as (all_read, some_read):
            with all_read:
                total = w.zero if inputs else w.load(image.x, place)
                for term in image.across:
                    tap, number = (w.load(address, 0) for address in image.pair(term, place))
                    total = w.fma(tap, number, total)
                w.store(total, image.h, place)
            with some_read:
                there = w.lanes_are("<", length - j)
                total = w.zero if inputs else w.masked_load(w.at(image.x, place), there)
                for term, between in zip(image.across, ends, strict=True):
                    mask = image.mask(between, j)
                    tap, number = (w.masked_load(v, mask) for v in image.pair(term, place))
                    total = w.fma(tap, number, total)
                w.masked_store(total, w.at(image.h, place), there)


def _write_chains(images: Sequence[_Image], row: Int) -> None:
    """Write the chains along a row of some images, one pixel of each at a time."""
    first, along = images[0], images[0].shape.along
    w, length, backs = (
        first.w.narrowed(1),
        first.sizes[-1],
        [abs(t.offset[-1]) for t in first.chain],
    )
    start = w.integer(backs[0]).least(length)
    before = [w.new(w.zero) for _ in images]
    for few in (True, False):  # the first pixels have fewer ones before them
        with w.loop(*((0, start) if few else (start, length))) as j:
            place = row + (j if along > 0 else length - 1 - j)
            for image, last in zip(images, before, strict=True):
                total = w.new(w.load(image.h if image.across else image.x, place))
                for term, back in zip(image.chain, backs, strict=True):
                    with w.b.if_then(j.is_(">=", back)) if few else nullcontext():
                        tap, number = image.pair(term, place)
                        known = last.value if back == 1 else w.load(number, 0)
                        total.add_product(w.load(tap, 0), known)
                last.set(total.value)
                w.store(total.value, image.h, place)
