"""The arithmetic of the kernel: sums over taps and channels, pixel after pixel.

`invconv.kernels.order` has the equation and the order of the sums.
"""

import functools

from llvmlite import ir

from invconv.kernels.cpu.compiler.integers import I8, Arguments, Int, Value, Variable
from invconv.kernels.cpu.compiler.ir import Writer
from invconv.kernels.order import accumulators, unrolled

SIGNATURE = (
    "z out w diagonal spare lists keep",
    "at rows row_step columns column_step taps channels channel_step top last_row last_column "
    "substitute first order masked images lag",
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
        with w.rarely(a["substitute"].is_("!=", 0)):
            _substitute(w, a, here)
        with w.rarely(a["masked"].is_("!=", 0)):
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

    The numbers solved last stay in registers, so that a number waits for one product alone: the
    nearest tap is the last. The function solves a signal in ``z`` and puts the result in ``out``.
    The last ``near`` taps read the numbers solved last. The signal has ``rows`` numbers, a
    ``row_step`` apart from ``at`` on; ``last_row`` is the farthest that a tap reads back.
    """
    w = w.narrowed(1)
    with (
        w.function("sums", *SIGNATURE, inside=False) as a,
        w.branches(a["substitute"].is_("!=", 0)) as branches,
    ):
        for substitute in branches:
            _recur(w, a, near, substitute)


def _recur(w: Writer, a: Arguments, near: int, substitute: bool) -> None:
    step, far = a["row_step"], a["taps"] - near
    weights = [w.load(a["w"], far + i) for i in range(near)]
    first = a["last_row"].least(a["rows"])
    pivot = w.load(a["diagonal"], 0)

    def product_with_y(here: Int) -> Variable:
        total = w.new(w.zero)
        total.add_product(w.load(a["w"], 0), w.load(a["z"], here))
        return total

    def put(total: Variable, here: Int) -> Value:
        x = w.b.fdiv(total.value, pivot) if substitute else total.value
        w.store(x, a["out"], here)
        return x

    with w.loop(0, first) as t:  # some taps read before the first number
        here = a["at"] + t * step
        total = product_with_y(here)
        with w.loop(1, a["taps"]) as tap:
            back = w.entry(a["lists"], tap * 2 + 2)
            with w.b.if_then(back.is_("<=", t)):
                total.add_product(w.load(a["w"], tap), w.load(a["out"], here - back * step))
        put(total, here)
    solved = [w.new(w.zero) for _ in range(near)]  # the last one first
    with w.b.if_then(first.is_("<", a["rows"])):
        for i, variable in enumerate(solved):
            variable.set(w.load(a["out"], a["at"] + (first - i - 1) * step))
    with w.loop(first, a["rows"]) as t:
        here = a["at"] + t * step
        total = product_with_y(here)
        with w.loop(1, far) as tap:
            back = w.entry(a["lists"], tap * 2 + 2)
            total.add_product(w.load(a["w"], tap), w.load(a["out"], here - back * step))
        known = [variable.value for variable in solved]
        for weight, x in zip(weights, reversed(known), strict=True):
            total.add_product(weight, x)
        now = put(total, here)
        for variable, x in zip(solved, [now, *known], strict=False):
            variable.set(x)
