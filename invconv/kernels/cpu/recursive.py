"""Recursive filters by the compiled kernel: numerator, recursion and state in one pass.

    y[n] = z[n] + sum over j of b[j] x[n - j] - sum over k > 0 of a[k] y[n - k]

z is zero from n = K on. The sections of a cascade follow each other at every sample, so nothing
lies in memory between them: their recursions do not wait for each other. Lanes hold signals, each
with the coefficients of its own filter. The term of y[n - 1] is added last, so that a recursion is
one fused multiply-add a sample. Signals lie one after the other in memory, or beside each other,
time first; time may go backwards.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from invconv.kernels.cpu import costs, machine, threads
from invconv.kernels.cpu.compiler.target import Target, host

if TYPE_CHECKING:  # llvmlite may be missing: then nothing is compiled
    from invconv.kernels.cpu.compiler.ir import Arguments, Int, Value, Variable, Writer

    Histories = list[list[Value]]  # of the signal, and of each section's output: the newest first


SIGNATURE = (
    "b a x y z last",
    "first stop rows filters length beside x_block x_step x_time y_block y_step y_time"
    " z_step last_step",
)
LAGGED = "g x sums", "rows length count"
Layout = tuple[int, ...]  # the integers of `SIGNATURE` from "beside" to "y_time"


class Filter(NamedTuple):
    """The numbers that a filter's code depends on."""

    sections: int
    zeros: int  # coefficients of b, less one
    poles: int  # coefficients of a after the first
    order: int  # numbers of a state, at least as many
    across: bool = False  # whether signals lie beside each other, time first

    @property
    def at_once(self) -> int:
        """How many sections of a cascade one function filters; none if there is no code."""
        return min(costs.SECTIONS, costs.FILTER // (self.zeros + self.poles + 1))


def apart(numbers: int) -> Layout:
    """Return the layout of signals one after the other, of results too, so many numbers apart."""
    return 1, *(numbers, 0, 1) * 2


@functools.lru_cache(maxsize=256)
def laid_out(
    code: Filter, shape: tuple[int, ...], x: tuple[int, ...], y: tuple[int, ...], unit: int = 1
) -> tuple[Filter, Layout] | None:
    """Return the code for signals x and results y (..., time), and their layout, None without one.

    Strides of x and y are in numbers, or so many ``unit``s. Blocks of ``beside`` rows are so many
    numbers apart, and so are their rows, and the samples of a row.
    """
    if any(s % unit for s in (*x, *y)):
        return None
    x, y = (tuple(s // unit for s in strides) for strides in (x, y))
    levels: list[tuple[int, ...]] = []
    for n, *steps in zip(shape[:-1], x, y, strict=False):
        if levels and all(s == n * t for s, t in zip(levels[-1][1:], steps, strict=True)):
            n *= levels.pop()[0]
        if n > 1:
            levels.append((n, *steps))
    (_, *blocks), (beside, *steps) = [(1, 0, 0), (1, 0, 0), *levels][-2:]
    times = [x[-1], y[-1]]
    across = {*map(abs, times)} != {1}
    if len(levels) > 2 or (across and steps != [1, 1]):
        return None
    layout = beside, *itertools.chain(*zip(blocks, steps, times, strict=True))
    return code._replace(across=across), layout


def run(
    shape: Filter,
    itemsize: int,
    arrays: Sequence[int],
    steps: Sequence[int],
    workers: int,
    *keeps: object,
) -> None:
    """Filter signals: ``arrays`` are addresses, ``steps`` the integers of `SIGNATURE` from "rows".

    ``keeps`` holds the arrays while another thread may still be at work. At most so many
    ``workers`` filter: one thread filters a few signals.
    """
    rows, filters, length, beside, *strides, z_step, last_step = steps
    if shape.sections > shape.at_once:  # the rest filters y in place
        n = -(-shape.sections // -(-shape.sections // shape.at_once))
        run(shape._replace(sections=n), itemsize, arrays, steps, workers, *keeps)
        b, a, _, y, z, last = arrays
        b += n * filters * (shape.zeros + 1) * itemsize
        a += n * filters * shape.poles * itemsize
        z, last = (p + n * rows * k * itemsize for p, k in ((z, z_step), (last, last_step)))
        steps = rows, filters, length, beside, *strides[3:] * 2, z_step, last_step
        rest = shape._replace(sections=shape.sections - n)
        run(rest, itemsize, (b, a, y, y, z, last), steps, workers, *keeps)
        return
    if workers > 1:
        products = shape.sections * (shape.zeros + shape.poles + 1)
        taken = costs.seconds(rows * length, products, itemsize, host())
        workers = costs.threads(workers, taken)
    parts = _parts(shape, itemsize, rows, workers, beside if shape.across else 1)
    if workers == 1:
        for code, first, stop in parts:
            code.call(*arrays, first, stop, *steps)
        return
    left = list(parts)

    def work(keeps: object = keeps) -> None:
        while left:
            with suppress(IndexError):  # another thread may have taken the last one
                code, first, stop = left.pop()
                code.call(*arrays, first, stop, *steps)

    threads.together(work, workers)


@functools.lru_cache(maxsize=256)
def _parts(
    shape: Filter, itemsize: int, rows: int, workers: int, beside: int = 1
) -> list[tuple[machine.Code, int, int]]:
    """Return functions with the rows that each filters, from the first to the last one's next."""
    target, step = host(), -(-rows // (workers * costs.TILE)) * costs.TILE
    return [
        (compiled(shape, target, itemsize, width), start, min(start + step, stop))
        for width, first, stop in groups(shape, target, itemsize, rows, beside)
        for start in range(first, stop, step)
    ]


def groups(
    shape: Filter, target: Target, itemsize: int, rows: int, beside: int = 1
) -> list[tuple[int, int, int]]:
    """Return how many signals the lanes hold, from which row on, and up to which.

    Rows across count by whole vectors: lanes behind the last one of a block count too.
    """
    lanes = min(target.lanes(itemsize), costs.TILE)
    if shape.across:
        return [(lanes, 0, rows // beside * -(-beside // lanes) * lanes)]
    # three signals in the lanes take no longer than one after the other
    wide = rows - rows % lanes if rows % lanes < 3 else rows
    parts = (lanes, 0, wide), (1, wide, rows)
    return [part for part in parts if part[1] < part[2]]


def compiled(shape: Filter, target: Target, itemsize: int, width: int) -> machine.Code:
    """Compile the function "filter" for so many signals at a time."""
    return machine.compiled(target, itemsize, write_filter, shape, width, thorough=True)


def write_filter(w: Writer, shape: Filter, lanes: int) -> None:
    """Write the function "filter" of `SIGNATURE`: it filters the rows from ``first`` to ``stop``.

    A row is a signal of ``length`` samples. Rows of x and y are laid out as `laid_out` says, those
    of z and of the last states are so many numbers apart. ``filters`` of the rows have coefficients
    of their own, as many rows after each other the same ones. Arrays of coefficients are (sections,
    filters, k), of states (sections, rows, K). Lanes behind the last row, of rows
    across the last one of a block, repeat it.
    """
    w = w.narrowed(lanes)
    with (
        w.function("filter", *SIGNATURE, inside=False) as a,
        w.loop(a["first"], a["stop"], lanes) as first,
    ):
        stop, there = a["stop"], None
        if shape.across:
            whole = a["beside"].over(lanes) * lanes
            place, first = first % whole, first // whole * a["beside"] + first % whole
            there = w.lanes_are("<", (a["beside"] - place).least(lanes))
            stop = first - place + a["beside"]
        rows = [(first + i).least(stop - 1) for i in range(lanes)]
        _Group(w, shape, a, rows, there).write()


def sum_lagged(itemsize: int, arrays: Sequence[int], steps: Sequence[int]) -> None:
    """Sum products of signals by the function that `write_lagged` writes."""
    machine.compiled(host(), itemsize, write_lagged, thorough=True).call(*arrays, *steps)


def write_lagged(w: Writer) -> None:
    """Write the function "lagged" of `LAGGED`: sums[j] = sum over n of g[n] x[n - j] in every row.

    It reads g once for `costs.TILE` lags j. Sums of some hundred products are added up.
    """
    with (
        w.function("lagged", *LAGGED, inside=False) as a,
        w.loop(0, a["rows"]) as row,
        w.loop(0, a["count"], costs.TILE) as lag,
    ):
        length, lags = a["length"], range(costs.TILE)
        g, x = (w.at(a[n], row * length) for n in "gx")
        totals, sums = ([w.new(w.zero) for _ in lags] for _ in range(2))

        def add(n: Int, inside: bool) -> None:
            for j in lags:
                past = n - lag - j
                if inside:
                    sums[j].add_product(w.load(g, n), w.load(x, past))
                    continue
                there = w.lanes_are("<", (length - n).least(w.lanes))
                there = w.b.and_(there, w.lanes_are(">=", (-past).most(0)))
                both = (w.masked_load(w.at(v, i), there) for v, i in ((g, n), (x, past)))
                sums[j].add_product(*both)

        head = (lag + costs.TILE).over(w.lanes) * w.lanes
        head, block = head.least(length), costs.TILE * w.lanes
        tail = head + (length - head) // w.lanes * w.lanes
        for start, stop in ((w.integer(0), head), (tail, length)):
            with w.loop(start, stop, w.lanes) as n:
                add(n, inside=False)
        with w.loop(head, tail, block * costs.TILE) as start:
            with w.loop(start, (start + block * costs.TILE).least(tail), w.lanes) as n:
                add(n, inside=True)
            for total, some in zip(totals, sums, strict=True):
                total.set(w.b.fadd(total.value, some.value))
                some.set(w.zero)
        for j, total in enumerate(totals):
            with w.b.if_then((lag + j).is_("<", a["count"])):
                found = w.sum(w.b.fadd(total.value, sums[j].value))
                w.store(found, a["sums"], row * a["count"] + lag + j)


class _Group:
    """The code that filters the signals in the lanes of a vector."""

    def __init__(
        self, w: Writer, shape: Filter, a: Arguments, rows: list[Int], there: Value | None
    ) -> None:
        """``there`` is the mask of the lanes that hold rows across, None if rows do not lie so."""
        self.w, self.shape, self.a, self.rows, self.there = w, shape, a, rows, there
        self.x, self.y = ([self._row(n, row) for row in rows] for n in "xy")
        inner = max(shape.zeros, shape.poles)
        depths = (shape.zeros, *[inner] * (shape.sections - 1), shape.poles)
        self.history = [[w.new(w.zero) for _ in range(depth)] for depth in depths]
        self.coefficients = self._coefficients()

    def write(self) -> None:
        w, length, order = self.w, self.a["length"], self.shape.order
        states = [
            [w.new(self._gathered(self._state("z", s, i))) for i in range(order)]
            for s in range(self.shape.sections)
        ]
        head = w.integer(order).least(length)
        with w.loop(0, head) as n:
            self._samples(n, 1, states)
        # of signals in the lanes as many samples as lanes, which are transposed
        step = w.lanes if self.there is None and w.lanes > 1 else costs.TILE
        tiles = (length - head) // step
        with w.loop(0, tiles) as tile:
            self._samples(head + tile * step, step, [])
        with w.loop(head + tiles * step, length) as n:
            self._samples(n, 1, [])
        self._keep(states)

    def _row(self, name: str, row: Int) -> Value:
        a, beside = self.a, self.a["beside"]
        place = row // beside * a[f"{name}_block"] + row % beside * a[f"{name}_step"]
        return self.w.at(a[name], place)

    def _coefficients(self) -> list[tuple[list[Value], list[Value]]]:
        """Return b and -a of each section."""
        w, a, shape, found = self.w, self.a, self.shape, []
        numbers = [row * a["filters"] // a["rows"] for row in self.rows]
        for s in range(shape.sections):
            starts = [a["filters"] * s + f for f in numbers]
            pair = []
            for name, count in (("b", shape.zeros + 1), ("a", shape.poles)):
                places = [w.at(a[name], start * count) for start in starts]
                pair.append([self._gathered(places, j) for j in range(count)])
            found.append((pair[0], [w.b.fneg(c) for c in pair[1]]))
        return found

    def _state(self, name: str, section: int, i: int) -> list[Value]:
        w, a, step = self.w, self.a, "z_step" if name == "z" else "last_step"
        return [w.at(a[name], (a["rows"] * section + row) * a[step] + i) for row in self.rows]

    def _gathered(self, addresses: list[Value], place: int | Int = 0) -> Value:
        """Return the numbers at a place from these addresses as a vector."""
        w, vector = self.w, self.w.zero
        for lane, address in enumerate(addresses):
            number = w.load(address, place, w.number)
            vector = w.b.insert_element(vector, number, w.integer(lane).value)
        return vector

    def _scatter(self, vector: Value, addresses: list[Value], place: int | Int = 0) -> None:
        w = self.w
        for lane, address in reversed([*enumerate(addresses)]):  # the row itself behind its copies
            w.store(w.b.extract_element(vector, w.integer(lane).value), address, place)

    def _samples(self, n: Int, count: int, states: list[list[Variable]]) -> None:
        """Write the filter at ``count`` samples, at first, at one, with the states."""
        history = self._loaded()
        columns = [self._step(x, history, states) for x in self._read(n, count)]
        self._write(columns, n)
        self._stored(history)

    def _read(self, n: Int, count: int) -> list[Value]:
        """Return the signals at ``count`` samples; vectors of samples are transposed."""
        w, time = self.w, self.a["x_time"]
        if self.there is not None:
            places = (w.at(self.x[0], (n + i) * time) for i in range(count))
            return [w.masked_load(place, self.there) for place in places]
        if count == 1 or w.lanes == 1:
            return [self._gathered(self.x, (n + i) * time) for i in range(count)]
        start = self._tile(n, time)
        return self._in_time(w.transposed([w.load(row, start) for row in self.x]), time)

    def _write(self, columns: list[Value], n: Int) -> None:
        w, time = self.w, self.a["y_time"]
        if self.there is not None:
            for i, y in enumerate(columns):
                w.masked_store(y, w.at(self.y[0], (n + i) * time), self.there)
        elif len(columns) == 1 or w.lanes == 1:
            for i, y in enumerate(columns):
                self._scatter(y, self.y, (n + i) * time)
        else:
            start = self._tile(n, time)
            for row, y in zip(self.y, w.transposed(self._in_time(columns, time)), strict=True):
                w.store(y, row, start)

    def _tile(self, n: Int, time: Int) -> Int:
        """Return the place of the first number of a vector of samples from n on."""
        return n.if_(time.is_(">", 0), -n - (self.w.lanes - 1))

    def _in_time(self, columns: list[Value], time: Int) -> list[Value]:
        """Return samples in the order of time from that in memory, or the reverse."""
        pairs, onwards = zip(columns, columns[::-1], strict=True), time.is_(">", 0)
        return [self.w.b.select(onwards, *pair) for pair in pairs]

    def _loaded(self) -> Histories:
        return [[variable.value for variable in one] for one in self.history]

    def _stored(self, history: Histories) -> None:
        for variables, values in zip(self.history, history, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.set(value)

    def _step(self, x: Value, history: Histories, states: list[list[Variable]]) -> Value:
        """Return y[n] of all sections, and put the newest numbers into the histories."""
        w = self.w
        for s, (b, a) in enumerate(self.coefficients):
            state = states[s] if states else []
            total = w.fma(b[0], x, state[0].value) if state else w.b.fmul(b[0], x)
            following = [*(z.value for z in state[1:]), w.zero]
            for variable, value in zip(state, following, strict=False):
                variable.set(value)
            terms = [*zip(b[1:], history[s], strict=False)]
            terms += [*zip(a, history[s + 1], strict=False)][::-1]
            for coefficient, before in terms:
                total = w.fma(coefficient, before, total)
            history[s] = [x, *history[s]][: len(history[s])]
            x = total
        history[-1] = [x, *history[-1]][: len(history[-1])]
        return x

    def _keep(self, states: list[list[Variable]]) -> None:
        """Write the last states: what the past adds to the next outputs."""
        w, history = self.w, self._loaded()
        for s, (b, a) in enumerate(self.coefficients):
            for i in range(self.shape.order):
                total = states[s][i].value
                terms = [*zip(b[i + 1 :], history[s], strict=False)]
                terms += zip(a[i:], history[s + 1], strict=False)
                for coefficient, before in terms:
                    total = w.fma(coefficient, before, total)
                self._scatter(total, self._state("last", s, i))
