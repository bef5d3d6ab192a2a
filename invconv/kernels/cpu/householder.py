"""Products of Householder reflections and a matrix, compiled: one reflection after the other.

    W = H_1 ... H_m U,    H_i = I - s_i u_i u_i^T,    u_i = v_i / max|v_i|,    s_i = 2 / u_i^T u_i

With W_m = U and W_{i-1} = H_i W_i. A reflection undoes itself, so that the derivative needs W = W_0
only: from its cotangent B_0, with a = W_i^T u_i and b = B_{i-1}^T u_i,

    W_i = H_i W_{i-1},    B_i = H_i B_{i-1},    u_bar_i = s_i (s_i (a^T b) u_i - B_{i-1} a - W_i b)

and U_bar = B_m. H_i does not change with the length of v_i, so v_bar_i = u_bar_i / max|v_i|.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

from invconv.kernels.cpu import machine
from invconv.kernels.cpu.compiled import BUFFERS
from invconv.kernels.cpu.compiler.target import host

if TYPE_CHECKING:
    from invconv.kernels.cpu.compiler.ir import Int, Value, Writer

_ROWS = 4  # rows that a sum takes at a time, each with an accumulator of its own
_SIZES = ("m", "channels", "columns")
_FORWARD = ("v", "matrix", "product", "z")
_BACKWARD = ("v", "product", "bar", "v_bar", "matrix_bar", "z")


def reflect(address: tuple[int, int, int], sizes: tuple[int, int, int], itemsize: int) -> None:
    """Write W = H_1 ... H_m U.

    Parameters
    ----------
    address : tuple of int
        The addresses of contiguous arrays: the v_i (m, C), U (C, M), and W.
    sizes : (m, C, M)
    itemsize : int
        4 or 8 bytes a number.
    """
    _run(_functions(itemsize)[0], address, sizes, itemsize)


def reflect_vjp(
    address: tuple[int, int, int, int, int], sizes: tuple[int, int, int], itemsize: int
) -> None:
    """Write the gradients by the v_i and by U; the addresses: v_i, W, W_bar, both gradients."""
    _run(_functions(itemsize)[1], address, sizes, itemsize)


def _run(function: Any, address: tuple[int, ...], sizes: tuple[int, int, int], size: int) -> None:
    m, rows, columns = (n + 15 for n in sizes)
    buffer = BUFFERS.take((m * (rows + 2) + 2 * columns * (rows + 1)) * size)
    function(*address, buffer[0], *sizes)
    BUFFERS.keep(buffer)


@functools.lru_cache(maxsize=2)
def _functions(itemsize: int) -> tuple[Any, Any, machine.Code]:
    from invconv.kernels.cpu.compiler.ir import Writer

    w = Writer(host(), itemsize)
    with w.function("reflect", _FORWARD, _SIZES, inside=False) as a:
        _write_forward(_Reflections(w, a))
    with w.function("reflect_vjp", _BACKWARD, _SIZES, inside=False) as a:
        _write_backward(_Reflections(w, a))
    code = machine.compiled(str(w.module), host(), ("reflect", "reflect_vjp"), thorough=True)
    kinds = [
        ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(names), *[ctypes.c_int64] * 3)
        for names in (_FORWARD, _BACKWARD)
    ]
    functions = (kind(code.addresses[n]) for kind, n in zip(kinds, code.addresses, strict=True))
    return *functions, code  # type: ignore[return-value]


class _Reflections:
    """Code of one function; its buffer holds the u_i, s_i and max|v_i|, and matrices.

    The matrices are padded with zeros to rows of whole vectors, and to a multiple of `_ROWS` rows.
    """

    def __init__(self, w: Writer, a: dict[str, Any]) -> None:
        self.w, self.a, self.z = w, a, a["z"]
        self.m, self.channels, columns = (a[name] for name in _SIZES)
        step = max(w.lanes, _ROWS)
        self.rows = (self.channels + (step - 1)) // step * step
        self.columns, self.width = columns, (columns + (w.lanes - 1)) // w.lanes * w.lanes
        self.scale = self.m * self.rows
        self.largest = self.scale + self.m
        self.a_sums = self.largest + self.m
        self.b_sums = self.a_sums + self.width
        self.first = self.b_sums + self.width
        self.second = self.first + self.rows * self.width
        self._scale_reflectors()

    def every(self, place: Int) -> Value:
        """Return a vector with a number of the buffer in every lane."""
        return self.w.splat(self.w.load(self.z, place, self.w.number))

    def _some(self, left: Int) -> Value:
        """Return the mask of the lanes before ``left``."""
        from llvmlite import ir

        from invconv.kernels.cpu.compiler.ir import I32

        w, kind = self.w, ir.VectorType(I32, self.w.lanes)
        count = w.splat(w.b.trunc(left.least(w.lanes).value, I32), kind)
        return w.b.icmp_signed("<", w.indices(range(w.lanes)), count)

    def read(self, matrix: Value, rows: Int, columns: Int, to: Int, width: Int) -> None:
        """Copy a matrix into the buffer, its rows padded with zeros."""
        w = self.w
        with w.loop(0, rows) as r, w.loop(0, width, w.lanes) as j:
            mask = self._some((columns - j).most(0))
            vector = w.masked_load(w.at(matrix, r * columns + j), mask)
            w.store(vector, self.z, to + r * width + j)

    def write(self, matrix: Value, source: Int) -> None:
        """Copy a matrix out of the buffer."""
        w = self.w
        with w.loop(0, self.channels) as r, w.loop(0, self.columns, w.lanes) as j:
            vector = w.load(self.z, source + r * self.width + j)
            w.masked_store(vector, w.at(matrix, r * self.columns + j), self._some(self.columns - j))

    def take(self, matrix: Value, to: Int) -> None:
        """Copy a matrix (C, M) into the buffer, padded with rows of zeros."""
        beyond = (self.rows - self.channels) * self.width
        self.w.clear(self.w.at(self.z, to + self.channels * self.width), beyond)
        self.read(matrix, self.channels, self.columns, to, self.width)

    def _scale_reflectors(self) -> None:
        """Write the computation of the u_i, s_i and max|v_i|."""
        w, b = self.w, self.w.b
        self.read(self.a["v"], self.m, self.channels, w.integer(0), self.rows)
        with w.loop(0, self.m) as i:
            most = w.variable(w.vector)
            b.store(w.zero, most)
            with w.loop(0, self.rows, w.lanes) as j:
                size = w.call(f"llvm.fabs.v{w.lanes}{w.suffix}", w.vector, self.row(i, j))
                known = b.load(most, typ=w.vector)
                b.store(b.select(b.fcmp_unordered(">", size, known), size, known), most)
            largest = self._most(b.load(most, typ=w.vector))
            squares = w.variable(w.vector)
            b.store(w.zero, squares)
            with w.loop(0, self.rows, w.lanes) as j:
                u = b.fdiv(self.row(i, j), w.splat(largest))
                w.store(u, self.z, i * self.rows + j)
                b.store(w.fma(u, u, b.load(squares, typ=w.vector)), squares)
            total = w.sum(b.load(squares, typ=w.vector))
            w.store(b.fdiv(w.number(2.0), total), self.z, self.scale + i)
            w.store(largest, self.z, self.largest + i)

    def row(self, i: Int, j: Int) -> Value:
        """Return a vector of u_i."""
        return self.w.load(self.z, i * self.rows + j)

    def _most(self, vector: Value) -> Value:
        """Return the largest number of a vector."""
        from invconv.kernels.cpu.compiler.ir import I32

        w, b = self.w, self.w.b
        best = b.extract_element(vector, I32(0))
        for lane in range(1, w.lanes):
            other = b.extract_element(vector, I32(lane))
            best = b.select(b.fcmp_unordered(">", other, best), other, best)
        return best

    def product(self, i: Int, matrix: Int, j: Int) -> Value:
        """Return a vector of u_i^T times a matrix in the buffer."""
        w, b = self.w, self.w.b
        sums = [w.variable(w.vector) for _ in range(_ROWS)]
        for total in sums:
            b.store(w.zero, total)
        with w.loop(0, self.rows, _ROWS) as r:
            for k, total in enumerate(sums):
                vector = w.load(self.z, matrix + (r + k) * self.width + j)
                u = self.every(i * self.rows + r + k)
                b.store(w.fma(u, vector, b.load(total, typ=w.vector)), total)
        one, two, three, four = (b.load(total, typ=w.vector) for total in sums)
        return b.fadd(b.fadd(one, two), b.fadd(three, four))


def _write_forward(f: _Reflections) -> None:
    w, b = f.w, f.w.b
    f.take(f.a["matrix"], f.first)
    with w.loop(0, f.m) as turn:
        i = f.m - 1 - turn
        scale = b.fneg(f.every(f.scale + i))
        with w.loop(0, f.width, w.lanes) as j:
            by = b.fmul(scale, f.product(i, f.first, j))
            with w.loop(0, f.channels) as r:
                place = f.first + r * f.width + j
                u = f.every(i * f.rows + r)
                w.store(w.fma(u, by, w.load(f.z, place)), f.z, place)
    f.write(f.a["product"], f.first)


def _write_backward(f: _Reflections) -> None:
    w, b = f.w, f.w.b
    f.take(f.a["product"], f.first)
    f.take(f.a["bar"], f.second)
    with w.loop(0, f.m) as i:
        both = w.variable(w.vector)
        b.store(w.zero, both)
        with w.loop(0, f.width, w.lanes) as j:
            # u^T H = -u^T
            sums = b.fneg(f.product(i, f.first, j)), f.product(i, f.second, j)
            for total, place in zip(sums, (f.a_sums, f.b_sums), strict=True):
                w.store(total, f.z, place + j)
            b.store(w.fma(*sums, b.load(both, typ=w.vector)), both)
        scale = w.load(f.z, f.scale + i, w.number)
        along = b.fmul(scale, w.sum(b.load(both, typ=w.vector)))
        largest = w.load(f.z, f.largest + i, w.number)
        with w.loop(0, f.channels) as r:
            u = w.load(f.z, i * f.rows + r, w.number)
            gram = _undo(f, r, w.splat(b.fmul(scale, u)))
            u_bar = b.fmul(scale, b.fsub(b.fmul(along, u), gram))
            w.store(b.fdiv(u_bar, largest), f.a["v_bar"], i * f.channels + r)
    f.write(f.a["matrix_bar"], f.second)


def _undo(f: _Reflections, r: Int, scaled: Value) -> Value:
    """Reflect a row of both matrices; return the row of B_{i-1} a + W_i b."""
    w, b = f.w, f.w.b
    gram = w.variable(w.vector)
    b.store(w.zero, gram)
    with w.loop(0, f.width, w.lanes) as j:
        of_a, of_b = (w.load(f.z, place + j) for place in (f.a_sums, f.b_sums))
        here, bar_here = (m + r * f.width + j for m in (f.first, f.second))
        bar = w.load(f.z, bar_here)
        known = w.fma(scaled, of_a, w.load(f.z, here))
        w.store(known, f.z, here)
        w.store(w.fma(b.fneg(scaled), of_b, bar), f.z, bar_here)
        part = w.fma(known, of_b, b.load(gram, typ=w.vector))
        b.store(w.fma(bar, of_a, part), gram)
    return w.sum(b.load(gram, typ=w.vector))
