"""Pivots of many small matrices, compiled: each lane has a matrix, such as one frequency's.

The elimination P A = L U runs column after column, in double precision. The pivot is the entry with
the largest |Re| + |Im| in the rest of the column, as in LAPACK's getrf, which takes one call a
matrix.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.compiled import in_buffers
from invconv.kernels.cpu.compiler.target import Target, host

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from invconv.kernels.cpu.compiler.ir import Int, Value, Writer

    Parts = Sequence[Value]  # vectors of real parts, or of real and imaginary parts


def prefers_lanes(count: int, channels: int) -> bool:
    """Tell whether the compiled function runs here and is faster than LAPACK on matrices."""
    return channels <= costs.PIVOT_ROWS and machine.reason(8) is None and count >= host().lanes(8)


def eliminate(
    matrices: int, count: int, channels: int, parts: int, target: Target | None = None
) -> None:
    """Replace matrices (count, C, C) by matrices with the pivots on their diagonals.

    ``matrices`` is the address of contiguous numbers, of two ``parts`` if they are complex128.
    """
    target = target or host()
    lanes, numbers = target.lanes(8), channels * channels * parts
    code = machine.compiled(target, 8, _write, parts)
    in_buffers((numbers + 2 * lanes) * lanes * 8, 1, code.call, (matrices,), (count, channels))


def _write(w: Writer, parts: int) -> None:
    """Write the function "eliminate" of matrices, a buffer, and two sizes."""
    from invconv.kernels.cpu.copies import write_copies

    write_copies(w, "wholes")
    with w.function("eliminate", "matrices z", "count channels", inside=False) as a:
        m = _Matrix(w, a["z"], a["channels"], parts)
        numbers = a["channels"] * a["channels"] * parts
        with w.loop(0, a["count"], w.lanes) as first:
            copied = {
                "z": a["z"],
                "lines": w.at(a["matrices"], first * numbers),
                "lines_there": (a["count"] - first).least(w.lanes),
                "line_step": numbers,
                "count": numbers,
                "width": numbers,
                "step": w.lanes,
                "channels": 1,
            }
            w.call_inside("enter", **copied)
            with w.loop(0, a["channels"]) as k:
                _swap(m, k, _find_pivot(m, k))
                _eliminate(m, k)
            w.call_inside("leave", **copied)


@dataclass(frozen=True)
class _Matrix:
    """The matrices in the buffer; a[i, j] is a vector, or two: a real and an imaginary part."""

    w: Writer
    z: Value
    n: Int
    parts: int

    def place(self, i: Int, j: Int, part: int) -> Int:
        """Return the place of a part of a[i, j]."""
        return ((self.n * i + j) * self.parts + part) * self.w.lanes

    def read(self, i: Int, j: Int) -> list[Value]:
        return [self.w.load(self.z, self.place(i, j, part)) for part in range(self.parts)]

    def write(self, values: Parts, i: Int, j: Int) -> None:
        for part, value in enumerate(values):
            self.w.store(value, self.z, self.place(i, j, part))


def _number(w: Writer, i: Int) -> Value:
    """Return an integer as a floating-point number in every lane."""
    return w.splat(w.b.sitofp(i.value, w.number))


def _find_pivot(m: _Matrix, k: Int) -> Value:
    """Return the row of the largest number of column k from row k on."""
    w, b = m.w, m.w.b
    most, row = w.new(w.zero), w.new(_number(w, k))  # a column of zeros or NaN keeps row k
    with w.loop(k, m.n) as i:
        size = functools.reduce(b.fadd, map(w.absolute, m.read(i, k)))
        larger = b.fcmp_ordered(">", size, most.value)
        most.set(b.select(larger, size, most.value))
        row.set(b.select(larger, _number(w, i), row.value))
    return row.value


def _swap(m: _Matrix, k: Int, pivots: Value) -> None:
    """Swap row k with the pivot's row, which differs from lane to lane."""
    w, b = m.w, m.w.b
    with w.loop(k + 1, m.n) as i:
        here = b.fcmp_ordered("==", pivots, _number(w, i))
        with w.loop(k, m.n) as j:
            above, below = m.read(k, j), m.read(i, j)
            pairs = list(zip(above, below, strict=True))
            m.write([b.select(here, v, u) for u, v in pairs], k, j)
            m.write([b.select(here, u, v) for u, v in pairs], i, j)


def _eliminate(m: _Matrix, k: Int) -> None:
    """Subtract multiples of row k from the rows below."""
    w = m.w
    divide = _divider(w, m.read(k, k))
    with w.loop(k + 1, m.n) as i:
        minus = [w.b.fneg(part) for part in divide(m.read(i, k))]
        with w.loop(k + 1, m.n) as j:
            m.write(_plus(w, m.read(i, j), minus, m.read(k, j)), i, j)


def _plus(w: Writer, a: Parts, m: Parts, u: Parts) -> list[Value]:
    """Return a + m u."""
    if len(a) == 1:
        return [w.fma(m[0], u[0], a[0])]
    real = w.fma(w.b.fneg(m[1]), u[1], w.fma(m[0], u[0], a[0]))
    return [real, w.fma(m[1], u[0], w.fma(m[0], u[1], a[1]))]


def _divider(w: Writer, pivot: Parts) -> Callable[[Parts], list[Value]]:
    """Return a function that divides by the pivots; a zero pivot leaves zeros and NaN as is.

    A complex pivot is scaled first, so that its square neither overflows nor underflows.
    """
    b, one = w.b, w.splat(w.number(1.0))

    def or_one(value: Value) -> Value:
        return b.select(b.fcmp_ordered("==", value, w.zero), one, value)

    if len(pivot) == 1:
        by = or_one(pivot[0])
        return lambda a: [b.fdiv(a[0], by)]
    re, im = map(w.absolute, pivot)
    scale = or_one(b.select(b.fcmp_ordered(">", re, im), re, im))
    c, s = (b.fdiv(part, scale) for part in pivot)
    by = or_one(w.fma(pivot[0], c, b.fmul(pivot[1], s)))

    def divided(a: Parts) -> list[Value]:
        real = w.fma(a[0], c, b.fmul(a[1], s))
        imag = w.fma(a[1], c, b.fneg(b.fmul(a[0], s)))
        return [b.fdiv(real, by), b.fdiv(imag, by)]

    return divided
