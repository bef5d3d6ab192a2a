"""LU factors of many small matrices, compiled: each lane has a matrix, such as one frequency's.

    P A = L U

The elimination runs column after column. The pivot is the entry with the largest |Re| + |Im| in the
rest of the column, as in LAPACK's getrf, which takes one call a matrix.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from invconv.kernels.cpu import machine
from invconv.kernels.cpu.compiled import BUFFERS, address_of
from invconv.kernels.cpu.compiler.target import Target, host

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from invconv.kernels.cpu.compiler.ir import Int, Value, Writer

    Parts = Sequence[Value]  # vectors of real parts, or of real and imaginary parts

_POINTERS = ("matrices", "rows", "places", "z")
_INTEGERS = ("count", "channels")
_MOST = 192  # bytes of a row's real numbers: LAPACK is quicker with longer rows
_LEAST = 12  # matrices: LAPACK is as quick with fewer
_KIND = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 2)


def prefers_lanes(count: int, channels: int, itemsize: int) -> bool:
    """Tell whether the compiled function runs here and is faster than LAPACK.

    Parameters
    ----------
    count, channels : int
        Numbers of matrices, and of rows of each.
    itemsize : int
        4 or 8 bytes a real number.
    """
    suits = channels * itemsize <= _MOST and count >= _LEAST
    return suits and machine.reason(itemsize) is None


def factor(
    matrices: int,
    rows: int,
    sizes: tuple[int, int],
    parts: int,
    itemsize: int,
    target: Target | None = None,
) -> None:
    """Overwrite matrices (count, C, C) with their factors, L below the diagonal of U.

    Parameters
    ----------
    matrices : int
        The address of contiguous numbers.
    rows : int
        The address of floats (count, C) of the same precision, for the result: the row, counted
        from 0, that was swapped with row k.
    sizes : (count, C)
    parts : int
        1 for real numbers, 2 for complex ones.
    itemsize : int
        4 or 8 bytes a real number.
    target : Target, optional
        This processor unless given.
    """
    target, channels = target or host(), sizes[1]
    lanes = target.bits // 8 // itemsize
    numbers = channels * channels * parts
    buffer = BUFFERS.take((numbers + channels + 2 * lanes) * lanes * itemsize)
    places = _places(numbers + channels, lanes)
    function, _ = _function(target, itemsize, parts)
    function(matrices, rows, address_of(places), buffer[0], *sizes)
    BUFFERS.keep(buffer)


@functools.lru_cache(maxsize=16)
def _places(numbers: int, lanes: int) -> Any:
    """Return the places of numbers in the buffer; a square of the copy may read beyond the last."""
    return np.arange(numbers + lanes) * lanes


@functools.lru_cache(maxsize=8)
def _function(target: Target, itemsize: int, parts: int) -> tuple[Any, machine.Code]:
    from invconv.kernels.cpu import copies
    from invconv.kernels.cpu.compiler.ir import Writer

    w = Writer(target, itemsize)
    for way in ("enter", "leave"):
        copies.write_copy(w, way, "images")
    with w.function("factor", _POINTERS, _INTEGERS, inside=False) as a:
        e = _Elimination(w, a, parts)
        with w.loop(0, a["count"], w.lanes) as first:
            e.copy("enter", a["matrices"], first, w.integer(0), e.numbers)
            with w.loop(0, a["channels"]) as k:
                e.swap(k, e.find_pivot(k))
                e.eliminate(k)
            e.copy("leave", a["matrices"], first, w.integer(0), e.numbers)
            e.copy("leave", a["rows"], first, e.numbers, a["channels"])
    code = machine.compiled(str(w.module), target, ("factor",), thorough=False)
    return _KIND(code.addresses["factor"]), code


class _Elimination:
    """Code of the elimination; a[i, j] is a vector, or two: a real and an imaginary part.

    The rows of the pivots follow the matrices in the buffer.
    """

    def __init__(self, w: Writer, a: dict[str, Any], parts: int) -> None:
        self.w, self.a, self.parts = w, a, parts
        self.n: Int = a["channels"]
        self.numbers = self.n * self.n * parts

    def copy(self, way: str, matrices: Value, first: Int, place: Int, numbers: Int) -> None:
        """Write the copy of numbers from ``place`` in the buffer on, one matrix a lane."""
        from invconv.kernels.cpu import copies

        w = self.w
        pointers = w.at(matrices, first * numbers), w.at(self.a["z"], place * w.lanes)
        integers = copies.in_order(
            lines_there=(self.a["count"] - first).least(w.lanes),
            line_step=numbers,
            count=numbers,
            width=numbers,
            step=w.lanes,
            channels=1,
        )
        w.call_inside(f"{way}_images", (*pointers, self.a["places"]), integers)

    def place(self, i: Int, j: Int) -> Int:
        """Return the place of a[i, j]."""
        return (self.n * i + j) * (self.parts * self.w.lanes)

    def read(self, i: Int, j: Int) -> list[Value]:
        """Return a[i, j]."""
        place, lanes = self.place(i, j), self.w.lanes
        return [self.w.load(self.a["z"], place + p * lanes) for p in range(self.parts)]

    def write(self, values: Parts, i: Int, j: Int) -> None:
        """Set a[i, j]."""
        place, lanes = self.place(i, j), self.w.lanes
        for p, value in enumerate(values):
            self.w.store(value, self.a["z"], place + p * lanes)

    def absolute(self, value: Value) -> Value:
        """Return the magnitudes of real parts, or of imaginary ones."""
        w = self.w
        return w.call(f"llvm.fabs.v{w.lanes}{w.suffix}", w.vector, value)

    def number(self, i: Int) -> Value:
        """Return an integer as a floating-point number in every lane."""
        return self.w.splat(self.w.b.sitofp(i.value, self.w.number))

    def find_pivot(self, k: Int) -> Value:
        """Return the row of the largest number of column k from row k on."""
        w, b = self.w, self.w.b
        most, row = w.variable(w.vector), w.variable(w.vector)
        b.store(w.zero, most)  # a column of zeros or NaN keeps row k
        b.store(self.number(k), row)
        with w.loop(k, self.n) as i:
            size = functools.reduce(b.fadd, map(self.absolute, self.read(i, k)))
            known = b.load(most, typ=w.vector)
            larger = b.fcmp_ordered(">", size, known)
            b.store(b.select(larger, size, known), most)
            here = b.select(larger, self.number(i), b.load(row, typ=w.vector))
            b.store(here, row)
        pivots = b.load(row, typ=w.vector)
        w.store(pivots, self.a["z"], (self.numbers + k) * w.lanes)
        return pivots

    def swap(self, k: Int, pivots: Value) -> None:
        """Swap row k with the pivot's row, which differs from lane to lane."""
        w, b = self.w, self.w.b
        with w.loop(k + 1, self.n) as i:
            here = b.fcmp_ordered("==", pivots, self.number(i))
            with w.loop(0, self.n) as j:
                above, below = self.read(k, j), self.read(i, j)
                pairs = list(zip(above, below, strict=True))
                self.write([b.select(here, v, u) for u, v in pairs], k, j)
                self.write([b.select(here, u, v) for u, v in pairs], i, j)

    def eliminate(self, k: Int) -> None:
        """Subtract multiples of row k from the rows below, and store the multiples in column k."""
        w, b = self.w, self.w.b
        divide = self._divider(self.read(k, k))
        with w.loop(k + 1, self.n) as i:
            by = divide(self.read(i, k))
            self.write(by, i, k)
            minus = [b.fneg(part) for part in by]
            with w.loop(k + 1, self.n) as j:
                self.write(self._plus(self.read(i, j), minus, self.read(k, j)), i, j)

    def _plus(self, a: Parts, m: Parts, u: Parts) -> list[Value]:
        """Return a + m u."""
        w, fma = self.w, self.w.fma
        if self.parts == 1:
            return [fma(m[0], u[0], a[0])]
        real = fma(w.b.fneg(m[1]), u[1], fma(m[0], u[0], a[0]))
        return [real, fma(m[1], u[0], fma(m[0], u[1], a[1]))]

    def _divider(self, pivot: Parts) -> Callable[[Parts], list[Value]]:
        """Return a function that divides by the pivots; a zero pivot leaves zeros and NaN as is.

        A complex pivot is scaled first, so that its square neither overflows nor underflows.
        """
        w, b = self.w, self.w.b
        one = w.splat(w.number(1.0))

        def or_one(value: Value) -> Value:
            return b.select(b.fcmp_ordered("==", value, w.zero), one, value)

        if self.parts == 1:
            by = or_one(pivot[0])
            return lambda a: [b.fdiv(a[0], by)]
        re, im = map(self.absolute, pivot)
        scale = or_one(b.select(b.fcmp_ordered(">", re, im), re, im))
        c, s = (b.fdiv(part, scale) for part in pivot)
        by = or_one(w.fma(pivot[0], c, b.fmul(pivot[1], s)))

        def divided(a: Parts) -> list[Value]:
            real = w.fma(a[0], c, b.fmul(a[1], s))
            imag = w.fma(a[1], c, b.fneg(b.fmul(a[0], s)))
            return [b.fdiv(real, by), b.fdiv(imag, by)]

        return divided
