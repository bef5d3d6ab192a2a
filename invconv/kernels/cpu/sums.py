"""The arithmetic of the kernel: sums over taps and channels, pixel after pixel.

`invconv.kernels.order` has the equation and the order of the sums. Where the lanes are output
channels, a weight is a vector, and an input channel is broadcast. Some pixels share each load of a
weight: pixels of one level, and images.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from llvmlite import ir

from invconv.kernels.cpu import costs
from invconv.kernels.cpu.compiler.ir import I8, Arguments, Int, Value, Variable, Writer
from invconv.kernels.cpu.lanes.images import Vectors
from invconv.kernels.order import accumulators, unrolled

SIGNATURE = (
    "z out w diagonal spare lists keep",
    "at rows row_step columns column_step taps channels channel_step top last_row last_column "
    "substitute first order masked images lag",
    # of solves alone, and the steps of several rows and columns
    "diagonal keep row_step column_step top last_row last_column substitute first order masked "
    "images lag",
)


def write_sums(w: Writer, block: int, single: bool) -> None:
    """Write the function "sums": it solves some pixels, ``block`` output channels at a time.

    The pixels are ``rows`` rows of ``columns``, in this order; every number of a pixel is a vector
    in z, ``channel_step`` apart from channel to channel. The results replace it, or go to the same
    place of ``out``. The first row is row ``top`` of the grid. A list has the taps that read inside
    the grid: their number, and for each tap the place of its weights in a block and the distance of
    the pixel that it reads. Rows and columns up to ``last_row`` and ``last_column`` have lists of
    their own; all others share the last list.

    The sums of ``block`` output channels are in registers at once; the block is ``single`` if it
    has all channels.
    """
    with (
        w.function("sums", *SIGNATURE, inside=False) as a,
        w.loop(0, a["rows"]) as row,
        w.loop(0, a["columns"]) as column,
    ):
        here = a["at"] + row * a["row_step"] + column * a["column_step"]
        number = (a["top"] + row).least(a["last_row"]) * (a["last_column"] + 1)
        number = number + column.least(a["last_column"])
        taps = w.entries(a["lists"], number * (a["taps"] * 2 + 1))
        _sum(w, a, taps, here, block, single)
        with w.b.if_then(a["substitute"].is_("!=", 0), likely=False):
            _substitute(w, a, here)
        with w.b.if_then(a["masked"].is_("!=", 0), likely=False):
            _mask(w, a, here, row * a["columns"] + column)


def _sum(w: Writer, a: Arguments, taps: Value, here: Int, block: int, single: bool) -> None:
    """Write steps 1 to 3 of `invconv.kernels.order`."""
    at_once, count = unrolled(block, single), accumulators(block, single)
    with w.loop(0, 1 if single else a["channels"], block) as channel:
        before = channel * (a["taps"] * a["channels"])  # weights of the blocks before this one
        weight = w.new(before)
        some_missing = w.entry(taps, 0).is_("<", a["taps"])
        sums = [[w.new(w.zero) for _ in range(block)] for _ in range(count)]
        with w.loop(0, w.entry(taps, 0)) as i:
            with w.b.if_then(some_missing):  # else weights follow each other: no load to wait for
                weight.set(before + w.entry(taps, i * 2 + 1))
            place = w.new(here + w.entry(taps, i * 2 + 2))
            with w.loop(0, a["channels"], at_once):
                k, z_place = weight.number, place.number
                for u in range(at_once):
                    z = w.load(a["z"], z_place + a["channel_step"] * u)
                    for o, total in enumerate(sums[u % count]):
                        number = w.load(a["w"], k + (u * block + o), w.number)
                        total.add_product(w.splat(number), z)
                weight.set(k + at_once * block)
                place.set(z_place + a["channel_step"] * at_once)
        for o in range(block):
            parts = (totals[o].value for totals in sums)
            total = functools.reduce(w.b.fadd, parts)
            if single:
                w.store(total, a["out"], here + a["channel_step"] * o)
            else:  # other blocks still read this pixel
                w.store(total, a["spare"], (channel + o) * w.lanes)
    if not single:
        with w.loop(0, a["channels"]) as c:
            total = w.load(a["spare"], c * w.lanes)
            w.store(total, a["out"], here + c * a["channel_step"])


def _substitute(w: Writer, a: Arguments, here: Int) -> None:
    """Write step 4 of `invconv.kernels.order`."""
    with w.loop(0, a["channels"]) as i:
        c = a["first"] + i * a["order"]
        place = here + c * a["channel_step"]
        pivot = w.load(a["diagonal"], c * a["channels"] + c, w.number)
        x = w.b.fdiv(w.load(a["out"], place), w.splat(pivot))
        w.store(x, a["out"], place)
        with w.loop(i + 1, a["channels"]) as j:
            m = a["first"] + j * a["order"]
            there = here + m * a["channel_step"]
            entry = w.load(a["diagonal"], c * a["channels"] + m, w.number)
            s = w.fma(w.splat(w.b.fneg(entry)), x, w.load(a["out"], there))
            w.store(s, a["out"], there)


def _mask(w: Writer, a: Arguments, here: Int, step: Int) -> None:
    """Write zeros into the lanes outside the grid, since some taps read ahead in a row."""
    bytes_ = ir.VectorType(I8, w.lanes)
    address = w.b.gep(a["keep"], [(step * w.lanes).value], source_etype=I8)
    kept = w.b.load(address, typ=bytes_)
    kept.align = 1
    mask = w.b.icmp_signed("!=", kept, ir.Constant(bytes_, None))
    with w.loop(0, a["channels"]) as c:
        place = here + c * a["channel_step"]
        w.store(w.b.select(mask, w.load(a["out"], place), w.zero), a["out"], place)


def write_recursion(w: Writer, near: int) -> None:
    """Write the function "sums" for signals of one channel, from memory to memory.

    The numbers solved last stay in registers, zeros at first, so that a number waits for one
    product alone: the nearest tap is the last. The function solves a signal in ``z`` and puts the
    result in ``out``. The last ``near`` taps read the numbers solved last. The signal has ``rows``
    numbers, a ``row_step`` apart from ``at`` on; taps read back ``last_row`` numbers at most.
    """
    w = w.narrowed(1)
    with w.function("sums", *SIGNATURE, inside=False) as a:
        step, far, pivot = a["row_step"], a["taps"] - near, w.load(a["diagonal"], 0)
        weights = [w.load(a["w"], far + i) for i in range(near)]
        solved = [w.new(w.zero) for _ in range(near)]  # the last one first
        first = a["last_row"].least(a["rows"])

        def solve(t: Int, inside: bool) -> None:
            here, total = a["at"] + t * step, w.new(w.zero)
            total.add_product(w.load(a["w"], 0), w.load(a["z"], here))
            with w.loop(1, far) as tap:
                back = w.entry(a["lists"], tap * 2 + 2)
                with nullcontext() if inside else w.b.if_then(back.is_("<=", t)):
                    total.add_product(w.load(a["w"], tap), w.load(a["out"], here - back * step))
            known = [variable.value for variable in solved]
            for weight, x in zip(weights, reversed(known), strict=True):
                total.add_product(weight, x)
            with w.b.if_then(a["substitute"].is_("!=", 0), likely=False):
                total.set(w.b.fdiv(total.value, pivot))
            w.store(total.value, a["out"], here)
            for variable, x in zip(solved, [total.value, *known], strict=False):
                variable.set(x)

        with w.loop(0, first) as t:  # some taps read before the first number
            solve(t, inside=False)
        with w.loop(first, a["rows"]) as t:
            solve(t, inside=True)


def write_channel_sums(w: Writer, width: int, count: int, unrolled: int) -> None:
    """Write the function "sums" for the vectors of a pixel (`lanes.images.Vectors`).

    The arguments are those of `write_sums`, but all pixels share the first list of taps,
    and ``images`` images lie ``channel_step`` apart. With one accumulator the products with y come
    first, for all pixels: they wait for nothing.
    """
    w = w.narrowed(width)
    vectors = Vectors(width, count, unrolled)
    with w.function("sums", *SIGNATURE, inside=False) as a:
        sums = _Sums(w, a, vectors)
        if not unrolled:
            with w.loop(0, a["columns"]) as column:
                first = a["at"] + column * a["column_step"]
                _each(w, a, first, a["rows"], a["row_step"], sums.product_with_y)
        with _levels(w, a) as (first, rows, step):
            _each(w, a, first, rows, step, sums.solve)


@contextmanager
def _levels(w: Writer, a: Arguments) -> Iterator[tuple[Int, Int, Int]]:
    """Write the loop over levels: the place of the first pixel, the number of pixels, the step."""
    lag, last_row = a["lag"], a["rows"] - 1
    divisor = lag.most(1)
    step = a["row_step"] - lag * a["column_step"]
    with w.loop(0, a["columns"] + lag * last_row) as level:
        behind = (level - a["columns"] + divisor).most(0)
        start = (behind // divisor).if_(lag.is_(">", 0), 0)
        end = (level // divisor).least(last_row).if_(lag.is_(">", 0), last_row)
        first = a["at"] + level * a["column_step"] + start * step
        yield first, end - start + 1, step


def _each(
    w: Writer, a: Arguments, first: Int, rows: Int, step: Int, together: Callable[[list[Int]], None]
) -> None:
    """Write the work ``together`` on pixels, a step apart, of all images: on some at a time."""
    place, image, left = w.new(first), w.new(0), w.new(rows * a["images"])
    most = costs.SHARING[w.target.registers]
    while most:
        now = left.number
        with w.loop(0, now // most):
            places = []
            for _ in range(most):
                here, number = place.number, image.number
                places.append(here)
                last = (number + 1).is_("==", a["images"])
                next_row = here + step - number * a["channel_step"]
                place.set(next_row.if_(last, here + a["channel_step"]))
                image.set(w.integer(0).if_(last, number + 1))
            together(places)
        left.set(now % most)
        most //= 2


@dataclass(frozen=True)
class _Sums:
    """Sums of some pixels at once."""

    w: Writer
    a: Arguments
    vectors: Vectors

    def product_with_y(self, places: list[Int]) -> None:
        """Write the products of W_0 with y in the place of y."""
        w, a, padded = self.w, self.a, self.vectors.padded
        copies = [w.integer(p * padded) for p in range(len(places))]
        for copied, place in zip(copies, places, strict=True):
            with w.loop(0, padded, w.lanes) as c:
                w.store(w.load(a["z"], place + c), a["spare"], copied + c)
        with self._some_vectors(len(places)) as (o, count):
            sums = [[w.new(w.zero) for _ in range(count)] for _ in places]
            with w.loop(0, a["channels"]) as c:
                self.add(a["spare"], copies, w.integer(0), c, o, sums)
            self._store(sums, places, o)

    def solve(self, places: list[Int]) -> None:
        """Write the solution of pixels whose taps read solved ones."""
        w, a = self.w, self.a
        if self.vectors.unrolled:
            _solve_unrolled(self, places)
        else:
            with self._some_vectors(len(places)) as (o, count):
                at = [[p + o + j * w.lanes for j in range(count)] for p in places]
                sums = [[w.new(w.load(a["z"], place)) for place in row] for row in at]
                with w.loop(1, a["taps"]) as tap:
                    weight, distance = self.tap(tap)
                    read = [p + distance for p in places]
                    with w.loop(0, a["channels"]) as c:
                        self.add(a["z"], read, weight, c, o, sums)
                self._store(sums, places, o)
        with w.b.if_then(a["substitute"].is_("!=", 0), likely=False):
            for place in places:
                _substitute_channels(w, a, self.vectors.padded, place)

    def tap(self, tap: Int) -> tuple[Int, Int]:
        """Return the place of a tap's weights, and the distance of the pixel that it reads."""
        lists = self.a["lists"]
        return self.w.entry(lists, tap * 2 + 1), self.w.entry(lists, tap * 2 + 2)

    @contextmanager
    def _some_vectors(self, pixels: int) -> Iterator[tuple[Int, int]]:
        """Write the loop over the vectors of a pixel: so many that all sums are in registers."""
        w, vectors = self.w, self.vectors
        most = costs.TOGETHER // pixels
        count = max(n for n in range(1, most + 1) if vectors.count % n == 0)
        with w.loop(0, vectors.padded, count * w.lanes) as o:
            yield o, count

    def add(
        self, z: Value, places: list[Int], weight: Int, c: Int, o: Int, sums: list[list[Variable]]
    ) -> None:
        """Write the products of one channel of a tap, for the vectors from place ``o`` on."""
        w = self.w
        row = weight + c * self.vectors.padded + o
        weights = [w.load(self.a["w"], row + j * w.lanes) for j in range(len(sums[0]))]
        for place, of_pixel in zip(places, sums, strict=True):
            x = w.splat(w.load(z, place + c, w.number))
            for vector, total in zip(weights, of_pixel, strict=True):
                total.add_product(vector, x)

    def _store(self, sums: list[list[Variable]], places: list[Int], o: Int) -> None:
        for place, of_pixel in zip(places, sums, strict=True):
            for j, total in enumerate(of_pixel):
                self.w.store(total.value, self.a["z"], place + o + j * self.w.lanes)


def _solve_unrolled(s: _Sums, places: list[Int]) -> None:
    """Write all sums of few channels; channel k belongs to the sum k mod accumulators."""
    w, v = s.w, s.vectors
    parts = [
        [[w.new(w.zero) for _ in range(v.count)] for _ in places]
        for _ in range(accumulators(v.unrolled, True))
    ]
    with w.loop(0, s.a["taps"]) as tap:
        weight, distance = s.tap(tap)
        read = [p + distance for p in places]
        for c in range(v.unrolled):
            s.add(s.a["z"], read, weight, w.integer(c), w.integer(0), parts[c % len(parts)])
    for i, pixels in enumerate(zip(*parts, strict=True)):
        for j, sums in enumerate(zip(*pixels, strict=True)):
            total = functools.reduce(w.b.fadd, (part.value for part in sums))
            w.store(total, s.a["z"], places[i] + j * w.lanes)


def _substitute_channels(w: Writer, a: Arguments, padded: int, place: Int) -> None:
    """Write step 4 of `invconv.kernels.order`; the other channels keep their bits."""
    with w.loop(0, a["channels"]) as i:
        c = a["first"] + i * a["order"]
        column = c * a["channels"]
        pivot = w.load(a["diagonal"], column + c, w.number)
        x = w.b.fdiv(w.load(a["z"], place + c, w.number), pivot)
        w.store(x, a["z"], place + c)
        lower = a["order"].is_(">", 0)
        start = (c // w.lanes * w.lanes).if_(lower, 0)
        with w.loop(start, w.integer(padded).if_(lower, c + 1), w.lanes) as m:
            entries = w.load(a["diagonal"], column + m)
            s = w.load(a["z"], place + m)
            solved = w.fma(w.b.fneg(entries), w.splat(x), s)
            after, before = (w.lanes_are(relation, c - m) for relation in "><")
            w.store(w.b.select(w.b.select(lower, after, before), solved, s), a["z"], place + m)
