"""Copies between images in memory and the kernel's buffer, which holds a vector a position.

Lane l of the vector at position t is the number t - skew l of line l: lines are images, or rows of
one image that lag behind each other by the skew. A square of some lines and as many positions is
read row by row, transposed in registers, and stored vector by vector; or the other way round.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from invconv.kernels.cpu.compiler.integers import I32, VOID, Int, Value
from invconv.kernels.cpu.compiler.ir import Writer

# Lines of a square at most. Images often lie whole pages apart, so that all go to one set of the
# cache, which holds eight at least.
_SIDES = {"images": 8, "wholes": 8, "channels": 8, "rows": 64}
_AHEAD = 1  # vectors: memory this far ahead is prefetched before it is written

POINTERS = ("lines", "z", "places")
INTEGERS = (
    "lines_there",
    "line_step",
    "channel_stride",
    "skew",
    "start",
    "count",
    "width",
    "place",
    "channel_step",
    "step",
    "channels",
    "lanes",
)


def in_order(**given: Int | int) -> list[Int | int]:
    """Return the integer arguments of `write_copy` in their order; missing ones are zero."""
    return [given.get(name, 0) for name in INTEGERS]


def write_copy(w: Writer, name: str, kind: str) -> None:
    """Write a function, such as "enter_rows": "enter" copies lines into the buffer, "leave" back.

    The kind of lines is "images", "wholes" (images with adjacent pixels in the buffer, too),
    "channels", or "rows". Arguments of the written function:

    lines, z, places
        The address of position 0 of line 0; the buffer; and, for "images" and "channels", the
        distance in the buffer of each copied position from the first one.
    lines_there, line_step, channel_stride
        The number of lines, and the distance between lines and between channels, less the skew.
    skew, start, count, width
        Positions ``start`` to ``start + count`` are copied. A line has the numbers 0 to width - 1;
        positions outside get zeros.
    place, channel_step, step
        Position ``start`` is at ``place`` in the buffer; the next channel is ``channel_step``
        further, and the next position ``step``, unless ``places`` are given.
    channels
        The number of channels; of images, if the lines are "channels".
    lanes
        The number of channels in the buffer, if the lines are "channels".
    """
    with w.function(f"{name}_{kind}", POINTERS, INTEGERS, inside=True) as a:
        side = min(w.lanes, _SIDES[kind])
        narrow, lanes = w.narrowed(side), a["lanes"] if kind == "channels" else w.lanes
        with w.loop(0, a["channels"]) as c, w.loop(0, lanes, side) as lane:
            lines = w.at(a["lines"], c * a["channel_stride"] + lane * a["line_step"])
            start = a["place"] + c * a["channel_step"] + lane
            there = a["lines_there"] - lane
            part = a | {"safe": a["lines"], "lines": lines, "lines_there": there}
            _copy_lines(narrow, part, start, lane, into=name == "enter", kind=kind)


def _copy_lines(
    w: Writer, a: dict[str, Any], start: Int, lane: Int, *, into: bool, kind: str
) -> None:
    """Write the copy of a square's lines, from line ``lane`` on, of one channel."""
    with w.loop(0, a["count"], w.lanes) as j:
        t = a["start"] + j
        if kind in ("images", "channels"):
            places = [start + w.entry(a["places"], j + i) for i in range(w.lanes)]
        else:
            places = [start + j * a["step"]]
            for _ in range(1, w.lanes):
                places.append(places[-1] + a["step"])
        rows = [w.at(a["lines"], t)]
        for _ in range(1, w.lanes):
            rows.append(w.at(rows[-1], a["line_step"]))
        a = a | {"first": t - a["skew"] * lane}
        lines = _Lines(w, a, j, rows)
        positions = _Positions(w, a, j, places)
        source, target = (lines, positions) if into else (positions, lines)
        whole, square = _all_there(w, a, j), [w.variable(w.vector) for _ in rows]
        with w.b.if_else(whole, likely=True) as (then, otherwise):
            with then:
                _keep(w, source.load(), square)
            with otherwise:
                _keep(w, source.load_edge(), square)
        columns = w.transposed([w.b.load(vector, typ=w.vector) for vector in square])
        with w.b.if_else(whole, likely=True) as (then, otherwise):
            with then:
                target.store(columns)
            with otherwise:
                target.store_edge(columns)


def _keep(w: Writer, vectors: list[Value], variables: list[Value]) -> None:
    """Store vectors in variables, since values of a branch are not seen outside it."""
    for vector, variable in zip(vectors, variables, strict=True):
        w.b.store(vector, variable)


def _all_there(w: Writer, a: dict[str, Any], j: Int) -> Value:
    """Return the condition that every line has all positions of the square, and all are copied."""
    t = a["first"]
    last = t - a["skew"] * (w.lanes - 1)
    conditions = (
        a["lines_there"].is_(">=", w.lanes),
        (j + w.lanes).is_("<=", a["count"]),
        t.least(last).is_(">=", 0),
        (t.most(last) + w.lanes).is_("<=", a["width"]),
    )
    return functools.reduce(w.b.and_, conditions)


def _masks(
    w: Writer, a: dict[str, Any], j: Int, rows: list[Value]
) -> tuple[list[Value], list[Value]]:
    """Return, for each line, the mask of the positions that exist and are copied; and addresses.

    A line without such positions gets the address of line 0: a masked load of unmapped memory is
    slow, even if nothing is read.
    """
    kind = ir.VectorType(I32, w.lanes)
    iota = w.indices(range(w.lanes))
    masks, places = [], []
    for line, row in enumerate(rows):
        first = a["first"] - a["skew"] * line
        width = a["width"].if_(w.integer(line).is_("<", a["lines_there"]), 0)
        start, end = -first, (width - first).least(a["count"] - j)
        low, high = (w.splat(w.b.trunc(n.value, I32), kind) for n in (start, end))
        inside = w.b.icmp_signed(">=", iota, low), w.b.icmp_signed("<", iota, high)
        masks.append(w.b.and_(*inside))
        some = w.b.and_(start.is_("<", w.lanes), end.is_(">", start.most(0)))
        places.append(w.b.select(some, row, a["safe"]))
    return masks, places


@dataclass(frozen=True)
class _Lines:
    """One vector of each line in memory; at an edge, only positions that exist and are copied."""

    w: Writer
    # pointers and integers of `write_copy`, and ``first``, the position of line 0 at which these
    # vectors start
    a: dict[str, Any]
    j: Int  # number of positions that were copied before
    rows: list[Value]  # addresses of the vectors

    def load(self) -> list[Value]:
        vectors = [self.w.b.load(row, typ=self.w.vector) for row in self.rows]
        for vector in vectors:
            vector.align = self.w.itemsize
        return vectors

    def load_edge(self) -> list[Value]:
        pairs = zip(*_masks(self.w, self.a, self.j, self.rows), strict=True)
        return [self.w.masked_load(row, mask) for mask, row in pairs]

    def store(self, vectors: list[Value]) -> None:
        w = self.w
        for row in self.rows:
            ahead = w.b.gep(row, [I32(_AHEAD * w.lanes)], source_etype=w.number)
            w.call("llvm.prefetch.p0", VOID, ahead, I32(1), I32(3), I32(1))
        for vector, row in zip(vectors, self.rows, strict=True):
            w.b.store(vector, row, align=w.itemsize)

    def store_edge(self, vectors: list[Value]) -> None:
        masks, rows = _masks(self.w, self.a, self.j, self.rows)
        for vector, row, mask in zip(vectors, rows, masks, strict=True):
            self.w.masked_store(vector, row, mask)


@dataclass(frozen=True)
class _Positions:
    """One vector of each position in the buffer; at an edge, only positions that are copied."""

    # as in `_Lines`
    w: Writer
    a: dict[str, Any]
    j: Int
    places: list[Int]  # positions of the vectors in the buffer

    def load(self) -> list[Value]:
        return [self.w.load(self.a["z"], place) for place in self.places]

    def load_edge(self) -> list[Value]:
        """Load the vectors; a position that is not copied loads the first one, which exists."""
        pairs = zip(self.places, self._here(), strict=True)
        return [self.w.load(self.a["z"], p.if_(here, self.places[0])) for p, here in pairs]

    def store(self, vectors: list[Value]) -> None:
        for vector, place in zip(vectors, self.places, strict=True):
            self.w.store(vector, self.a["z"], place)

    def store_edge(self, vectors: list[Value]) -> None:
        w, z = self.w, self.a["z"]
        for vector, place, here in zip(vectors, self.places, self._here(), strict=True):
            with w.b.if_then(here):
                w.store(vector, z, place)

    def _here(self) -> list[Value]:
        """Return whether each position is to be copied."""
        return [(self.j + i).is_("<", self.a["count"]) for i in range(self.w.lanes)]
