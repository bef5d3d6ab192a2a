"""The kernel's weights W_0, W_1, ... of `invconv.kernels.order`, from D and K_1, K_2, ...

The weights of a block of output channels lie together; within it, the weights of one input channel
of one tap. After all blocks come D by columns, and one number: 1 if the kernel is to substitute,
else 0.
"""

from invconv.kernels.cpu.compiler.ir import Arguments, Int, Numbers, Value, Writer
from invconv.kernels.cpu.program import Header

POINTERS = "matrices weights program scratch"
_ROWS = 4  # rows that are solved at a time, so that they are read from the cache a quarter as often


def order_of_channels(w: Writer, h: Numbers) -> tuple[Int, Int]:
    """Return the first channel that a substitution solves, and the step to the next."""
    lower = h["lower"].is_("!=", 0)
    return w.integer(0).if_(lower, h["channels"] - 1), w.integer(1).if_(lower, -1)


def write_weights(w: Writer) -> None:
    """Write the function "prepare" of `POINTERS`.

    ``matrices`` are D and then K_t, each C x C. ``scratch`` is memory for C rows of taps C numbers,
    each padded to whole vectors.
    """
    with w.function("prepare", POINTERS, inside=False) as a:
        a |= w.record(Header, a["program"])
        a["first"], a["step"] = order_of_channels(w, a)
        a["order"] = w.entries(a["program"], a["order"])
        a["row"] = (a["taps"] * a["channels"]).over(w.lanes) * w.lanes
        _right_hand_sides(w, a)
        _substitute(w, a)
        condition = w.b.fmul(
            _norm(w, a, a["matrices"], a["channels"]), _norm(w, a, a["scratch"], a["row"])
        )
        accurate = w.b.fcmp_ordered("<=", condition, w.b.sitofp(a["limit"].value, w.number))
        with w.b.if_then(w.b.not_(accurate)):
            _right_hand_sides(w, a)
        _pack(w, a)
        flag = w.b.select(accurate, w.number(0.0), w.number(1.0))
        size = a["blocks"] * a["block"] * a["taps"] * a["channels"]
        square = a["channels"] * a["channels"]
        with w.loop(0, a["channels"]) as c, w.loop(0, a["channels"]) as m:
            entry = w.load(a["matrices"], m * a["channels"] + c, w.number)
            w.store(entry, a["weights"], size + c * a["channels"] + m)
        w.store(flag, a["weights"], size + square)


def _right_hand_sides(w: Writer, a: Arguments) -> None:
    """Write [1 | -K_1 | -K_2 ...] to the scratch."""
    channels = a["channels"]
    w.clear(a["scratch"], channels * a["row"])
    with w.loop(0, channels) as o:
        w.store(w.number(1.0), a["scratch"], o * a["row"] + o)
        with w.loop(1, a["taps"]) as t:
            matrix = w.entry(a["order"], t) * channels * channels + o * channels
            with w.loop(0, channels) as k:
                entry = w.b.fneg(w.load(a["matrices"], matrix + k, w.number))
                w.store(entry, a["scratch"], o * a["row"] + t * channels + k)


def _substitute(w: Writer, a: Arguments) -> None:
    """Write the substitution with D for all columns of the scratch, some rows at a time."""
    channels = a["channels"]
    with w.loop(0, channels, _ROWS) as i:
        end = (i + _ROWS).least(channels)
        some = [i + u for u in range(_ROWS)]
        with w.b.if_else((end - i).is_("==", _ROWS)) as (whole, rest):
            with whole, w.loop(0, i, _ROWS) as j:
                _subtract(w, a, some, [j + u for u in range(_ROWS)])
            with rest, w.loop(i, end) as o, w.loop(0, i) as j:
                _subtract(w, a, [o], [j])
        with w.loop(i, end) as o:
            with w.loop(i, o) as j:
                _subtract(w, a, [o], [j])
            row = a["first"] + o * a["step"]
            pivot = w.splat(w.load(a["matrices"], row * channels + row, w.number))
            with w.loop(0, a["row"], w.lanes) as k:
                place = row * a["row"] + k
                w.store(w.b.fdiv(w.load(a["scratch"], place), pivot), a["scratch"], place)


def _subtract(w: Writer, a: Arguments, rows: list[Int], solved: list[Int]) -> None:
    """Write the subtraction of solved rows from others, in the order of the substitution."""
    places = [a["first"] + o * a["step"] for o in rows]
    known = [a["first"] + j * a["step"] for j in solved]
    entries = [
        [w.load(a["matrices"], o * a["channels"] + m, w.number) for m in known] for o in places
    ]
    factors = [[w.splat(w.b.fneg(entry)) for entry in row] for row in entries]
    with w.loop(0, a["row"], w.lanes) as k:
        others = [w.load(a["scratch"], m * a["row"] + k) for m in known]
        for o, of_row in zip(places, factors, strict=True):
            total = w.load(a["scratch"], o * a["row"] + k)
            for factor, other in zip(of_row, others, strict=True):
                total = w.fma(factor, other, total)
            w.store(total, a["scratch"], o * a["row"] + k)


def _norm(w: Writer, a: Arguments, matrix: Value, row: Int) -> Value:
    """Return the largest sum of magnitudes in one of the first C columns."""
    largest = w.new(w.number(0.0))
    with w.loop(0, a["channels"], w.lanes) as k:
        left = (a["channels"] - k).least(w.lanes)
        there, totals = w.lanes_are("<", left), w.new(w.zero)
        with w.loop(0, a["channels"]) as o:
            column = w.masked_load(w.at(matrix, o * row + k), there)
            totals.set(w.b.fadd(totals.value, w.absolute(column)))
        with w.loop(0, left) as lane:
            total = w.b.extract_element(totals.value, lane.value)
            known = largest.value
            # keep NaN, which no comparison would
            larger = w.b.fcmp_unordered(">", total, known)
            take = w.b.and_(larger, w.b.fcmp_ordered("ord", known, known))
            largest.set(w.b.select(take, total, known))
    return largest.value


def _pack(w: Writer, a: Arguments) -> None:
    """Write the weights of each block, with zeros for channels beyond the last."""
    taps, channels, block = a["taps"], a["channels"], a["block"]
    width = taps * channels
    with (
        w.loop(0, a["blocks"]) as b,
        w.loop(0, width, w.lanes) as first,  # a line of the cache of each row
        w.loop(0, block) as o,
        w.loop(first, (first + w.lanes).least(width)) as k,
    ):
        channel = b * block + o
        there = channel.is_("<", channels)
        entry = w.load(a["scratch"], channel.if_(there, 0) * a["row"] + k, w.number)
        number = w.b.select(there, entry, w.number(0.0))
        w.store(number, a["weights"], (b * width + k) * block + o)
