"""The arithmetic of the kernel with output channels in the lanes.

A weight is a vector, and an input channel is broadcast. Some pixels share each load of a weight:
pixels of one level, and images. `invconv.kernels.order` has the order of the sums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from invconv.kernels.cpu.compiler.integers import I32, I64, Int, Value
from invconv.kernels.cpu.compiler.ir import Writer
from invconv.kernels.cpu.lanes.channels import TOGETHER, Vectors
from invconv.kernels.cpu.sums import INTEGERS, POINTERS, READ
from invconv.kernels.order import accumulators

Together = Callable[[list[Int]], None]  # writes the work on pixels at some places


def write_channel_sums(w: Writer, width: int, count: int, unrolled: int) -> None:
    """Write the function "sums" for the vectors of a pixel (`lanes.channels.Vectors`).

    The arguments are those of `cpu.sums.write_sums`, but all pixels share the first list of taps,
    and ``images`` images lie ``channel_step`` apart. With one accumulator the products with y come
    first, for all pixels: they wait for nothing.
    """
    w = w.narrowed(width)
    vectors = Vectors(width, count, unrolled)
    with w.function("sums", POINTERS, INTEGERS, inside=False, constant=READ) as a:
        sums = _Sums(w, a, vectors)
        if not unrolled:
            with w.loop(0, a["columns"]) as column:
                first = a["at"] + column * a["column_step"]
                _each(w, a, first, a["rows"], a["row_step"], sums.product_with_y)
        with _levels(w, a) as (first, rows, step):
            _each(w, a, first, rows, step, sums.solve)


@contextmanager
def _levels(w: Writer, a: dict[str, Any]) -> Iterator[tuple[Int, Int, Int]]:
    """Write the loop over levels: the place of the first pixel, the number of pixels, and the step.

    Row l lags behind the row above it by the lag.
    """
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
    w: Writer, a: dict[str, Any], first: Int, rows: Int, step: Int, together: Together
) -> None:
    """Write the work on pixels, a step apart, of all images: some at a time."""
    place, image, left = (w.variable(I64) for _ in range(3))
    w.b.store(first.value, place)
    w.b.store(I64(0), image)
    w.b.store((rows * a["images"]).value, left)
    most = TOGETHER if w.target.registers == 32 else TOGETHER // 2
    while most:
        with _while_left(w, left, most):
            places = []
            for _ in range(most):
                here, number = (w.integer(w.b.load(v, typ=I64)) for v in (place, image))
                places.append(here)
                last = (number + 1).is_("==", a["images"])
                next_row = here + step - number * a["channel_step"]
                w.b.store(next_row.if_(last, here + a["channel_step"]).value, place)
                w.b.store(w.integer(0).if_(last, number + 1).value, image)
            together(places)
        most //= 2


@contextmanager
def _while_left(w: Writer, left: Value, count: int) -> Iterator[None]:
    """Write a loop that runs while so many pixels are left, and takes as many."""
    now = w.integer(w.b.load(left, typ=I64))
    with w.loop(0, now // count):
        yield
    w.b.store((now % count).value, left)


@dataclass(frozen=True)
class _Sums:
    """Sums of some pixels at once."""

    w: Writer
    a: dict[str, Any]
    vectors: Vectors

    def product_with_y(self, places: list[Int]) -> None:
        """Write the products of W_0 with y in the place of y."""
        w, a, padded = self.w, self.a, self.vectors.padded
        copies = [w.integer(p * padded) for p in range(len(places))]
        for copied, place in zip(copies, places, strict=True):
            with w.loop(0, padded, w.lanes) as c:
                w.store(w.load(a["z"], place + c), a["spare"], copied + c)
        with self._some_vectors(len(places)) as (o, count):
            sums = [[_new(w, w.zero) for _ in range(count)] for _ in places]
            self._add(a["spare"], copies, w.integer(0), o, sums)
            self._store(sums, places, o)

    def solve(self, places: list[Int]) -> None:
        """Write the solution of pixels whose taps read solved ones."""
        w, a = self.w, self.a
        if self.vectors.unrolled:
            _solve_unrolled(w, a, self.vectors, places)
        else:
            with self._some_vectors(len(places)) as (o, count):
                sums = [
                    [_new(w, w.load(a["z"], p + o + j * w.lanes)) for j in range(count)]
                    for p in places
                ]
                with w.loop(1, a["taps"]) as tap:
                    weight, distance = _tap(w, a, tap)
                    self._add(a["z"], [p + distance for p in places], weight, o, sums)
                self._store(sums, places, o)
        with w.b.if_then(a["substitute"].is_("!=", 0), likely=False):
            for place in places:
                _substitute(w, a, self.vectors.padded, place)

    @contextmanager
    def _some_vectors(self, pixels: int) -> Iterator[tuple[Int, int]]:
        """Write the loop over the vectors of a pixel: so many that all sums are in registers."""
        w, vectors = self.w, self.vectors
        most = max(1, TOGETHER // pixels)
        count = max(n for n in range(1, most + 1) if vectors.count % n == 0)
        with w.loop(0, vectors.padded, count * w.lanes) as o:
            yield o, count

    def _add(
        self, z: Value, places: list[Int], weight: Int, o: Int, sums: list[list[Value]]
    ) -> None:
        """Write the products of one tap, channel after channel."""
        w, padded = self.w, self.vectors.padded
        with w.loop(0, self.a["channels"]) as c:
            row = weight + c * padded + o
            weights = [w.load(self.a["w"], row + j * w.lanes) for j in range(len(sums[0]))]
            for place, of_pixel in zip(places, sums, strict=True):
                x = w.splat(w.load(z, place + c, w.number))
                for vector, variable in zip(weights, of_pixel, strict=True):
                    total = w.fma(vector, x, w.b.load(variable, typ=w.vector))
                    w.b.store(total, variable)

    def _store(self, sums: list[list[Value]], places: list[Int], o: Int) -> None:
        w = self.w
        for place, of_pixel in zip(places, sums, strict=True):
            for j, variable in enumerate(of_pixel):
                w.store(w.b.load(variable, typ=w.vector), self.a["z"], place + o + j * w.lanes)


def _tap(w: Writer, a: dict[str, Any], tap: Int) -> tuple[Int, Int]:
    """Return the place of a tap's weights, and the distance of the pixel that it reads."""
    return w.entry(a["lists"], tap * 2 + 1), w.entry(a["lists"], tap * 2 + 2)


def _new(w: Writer, value: Value) -> Value:
    """Return a new variable."""
    variable = w.variable(w.vector)
    w.b.store(value, variable)
    return variable


def _solve_unrolled(w: Writer, a: dict[str, Any], v: Vectors, places: list[Int]) -> None:
    """Write all sums of few channels; channel k belongs to the sum k mod accumulators."""
    number = accumulators(v.unrolled, True)
    vectors = [(p, j * w.lanes) for p in places for j in range(v.count)]
    several = [[_new(w, w.zero) for _ in range(number)] for _ in vectors]
    with w.loop(0, a["taps"]) as tap:
        weight, distance = _tap(w, a, tap)
        for c in range(v.unrolled):
            weights = [
                w.load(a["w"], weight + (c * v.padded + j * w.lanes)) for j in range(v.count)
            ]
            for i, ((place, _), sums) in enumerate(zip(vectors, several, strict=True)):
                x = w.splat(w.load(a["z"], place + distance + c, w.number))
                variable = sums[c % number]
                total = w.fma(weights[i % v.count], x, w.b.load(variable, typ=w.vector))
                w.b.store(total, variable)
    for (place, o), sums in zip(vectors, several, strict=True):
        parts = (w.b.load(variable, typ=w.vector) for variable in sums)
        w.store(functools.reduce(w.b.fadd, parts), a["z"], place + o)


def _substitute(w: Writer, a: dict[str, Any], padded: int, place: Int) -> None:
    """Write step 4 of `invconv.kernels.order`; the other channels keep their bits."""
    indices = ir.VectorType(I32, w.lanes)
    with w.loop(0, a["channels"]) as i:
        c = a["first"] + i * a["order"]
        column = c * a["channels"]
        pivot = w.load(a["diagonal"], column + c, w.number)
        x = w.b.fdiv(w.load(a["z"], place + c, w.number), pivot)
        w.store(x, a["z"], place + c)
        lower = a["order"].is_(">", 0)
        start = (c // w.lanes * w.lanes).if_(lower, 0)
        end = w.integer(padded).if_(lower, c + 1)
        with w.loop(start, end, w.lanes) as m:
            entries = w.load(a["diagonal"], column + m)
            s = w.load(a["z"], place + m)
            solved = w.fma(w.b.fneg(entries), w.splat(x), s)
            number = w.splat(w.b.trunc((c - m).value, I32), indices)
            lanes = w.indices(range(w.lanes))
            after = w.b.icmp_signed(">", lanes, number)
            before = w.b.icmp_signed("<", lanes, number)
            w.store(w.b.select(w.b.select(lower, after, before), solved, s), a["z"], place + m)
