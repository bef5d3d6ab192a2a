"""Copies between images in memory and the kernel's buffer, which holds a vector a position.

Lane l of the vector at position t is the number t - skew l of line l: lines are images, or rows of
one image that lag behind each other by the skew. A square of some lines and as many positions is
read row by row, transposed in registers, and stored vector by vector; or the other way round.
"""

import functools
from contextlib import nullcontext
from dataclasses import dataclass

from invconv.kernels.cpu import costs
from invconv.kernels.cpu.compiler.ir import I32, VOID, Arguments, Int, Value, Writer

SIGNATURE = (
    "lines z places",
    "lines_there line_step channel_stride skew start count width place channel_step step channels "
    "lanes",
    # those of lines in only some kinds, and places and steps of a buffer that has nothing else
    "places channel_stride skew start place channel_step lanes",
)


def write_copies(w: Writer, kind: str) -> None:
    """Write two functions: "enter" copies lines into the buffer, and "leave" back.

    The kind of lines is "images", "wholes" (images with adjacent pixels in the buffer, too),
    "channels", or "rows". Arguments of the functions:

    - lines, z: the addresses of position 0 of line 0, and of the buffer;
    - places: for "images" and "channels", the distance in the buffer of each copied position from
      the first one; for others it is ``step``;
    - lines_there, line_step, channel_stride: the number of lines, and the distance between lines
      and between channels, less the skew;
    - skew, start, count, width: positions ``start`` to ``start + count`` are copied. A line has the
      numbers 0 to width - 1; positions outside get zeros;
    - place, channel_step: position ``start`` is at ``place`` in the buffer, the next channel is
      ``channel_step`` further;
    - channels: their number, or that of images, if the lines are "channels"; then ``lanes`` is the
      number of channels in the buffer.
    """
    side = min(w.lanes, costs.SIDES[kind])
    for name in ("enter", "leave"):
        with w.function(name, *SIGNATURE, inside=True) as a:
            narrow, lanes = w.narrowed(side), a["lanes"] if kind == "channels" else w.lanes
            with w.loop(0, a["channels"]) as c, w.loop(0, lanes, side) as lane:
                lines = w.at(a["lines"], c * a["channel_stride"] + lane * a["line_step"])
                start = a["place"] + c * a["channel_step"] + lane
                there = a["lines_there"] - lane
                part = a | {"safe": a["lines"], "lines": lines, "lines_there": there}
                _copy_lines(narrow, part, start, lane, into=name == "enter", kind=kind)


def _copy_lines(w: Writer, a: Arguments, start: Int, lane: Int, *, into: bool, kind: str) -> None:
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
        square = _Square(w, a | {"first": t - a["skew"] * lane}, j, rows, places)
        load, store = square.load_positions, square.store_lines
        if into:
            load, store = square.load_lines, square.store_positions
        whole, vectors = square.all_there(), [w.new(w.zero) for _ in rows]
        with w.b.if_else(whole) as branches:
            for branch, inside in zip(branches, (True, False), strict=True):
                with branch:
                    for variable, vector in zip(vectors, load(inside), strict=True):
                        variable.set(vector)
        columns = w.transposed([variable.value for variable in vectors])
        with w.b.if_else(whole) as branches:
            for branch, inside in zip(branches, (True, False), strict=True):
                with branch:
                    store(columns, inside)


@dataclass(frozen=True)
class _Square:
    """One vector of each line in memory, and one of each position in the buffer.

    Unless all is ``inside``, only positions that exist and are copied are loaded and stored.
    """

    w: Writer
    # pointers and integers of `write_copies`, and ``first``, the position of line 0 at which these
    # vectors start
    a: Arguments
    j: Int  # number of positions that were copied before
    rows: list[Value]  # addresses of the vectors of lines
    places: list[Int]  # positions of the vectors in the buffer

    def all_there(self) -> Value:
        """Return the condition that every line has all positions, and all are copied."""
        w, a, t = self.w, self.a, self.a["first"]
        last = t - a["skew"] * (w.lanes - 1)
        conditions = (
            a["lines_there"].is_(">=", w.lanes),
            (self.j + w.lanes).is_("<=", a["count"]),
            t.least(last).is_(">=", 0),
            (t.most(last) + w.lanes).is_("<=", a["width"]),
        )
        return functools.reduce(w.b.and_, conditions)

    def _masks(self) -> list[tuple[Value, Value]]:
        """Return, for each line, its address and the mask of positions that exist and are copied.

        A line without such positions gets the address of line 0: a masked load of unmapped memory
        is slow, even if nothing is read.
        """
        w, a, pairs = self.w, self.a, []
        for line, row in enumerate(self.rows):
            first = a["first"] - a["skew"] * line
            width = a["width"].if_(w.integer(line).is_("<", a["lines_there"]), 0)
            start, end = -first, (width - first).least(a["count"] - self.j)
            mask = w.b.and_(w.lanes_are(">=", start), w.lanes_are("<", end))
            some = w.b.and_(start.is_("<", w.lanes), end.is_(">", start.most(0)))
            pairs.append((w.b.select(some, row, a["safe"]), mask))
        return pairs

    def _copied(self) -> list[Value]:
        return [(self.j + i).is_("<", self.a["count"]) for i in range(self.w.lanes)]

    def load_lines(self, inside: bool) -> list[Value]:
        if inside:
            return [self.w.load(row, 0) for row in self.rows]
        return [self.w.masked_load(*pair) for pair in self._masks()]

    def store_lines(self, vectors: list[Value], inside: bool) -> None:
        w = self.w
        if not inside:
            for vector, pair in zip(vectors, self._masks(), strict=True):
                w.masked_store(vector, *pair)
            return
        for row in self.rows:
            ahead = w.at(row, costs.AHEAD * w.lanes)
            w.call("llvm.prefetch.p0", VOID, ahead, I32(1), I32(3), I32(1))
        for vector, row in zip(vectors, self.rows, strict=True):
            w.store(vector, row, 0)

    def load_positions(self, inside: bool) -> list[Value]:
        """Load the vectors; a position that is not copied loads the first one, which exists."""
        places = self.places
        if not inside:
            first = places[0]
            places = [p.if_(here, first) for p, here in zip(places, self._copied(), strict=True)]
        return [self.w.load(self.a["z"], place) for place in places]

    def store_positions(self, vectors: list[Value], inside: bool) -> None:
        here = [] if inside else self._copied()
        for i, (vector, place) in enumerate(zip(vectors, self.places, strict=True)):
            with nullcontext() if inside else self.w.b.if_then(here[i]):
                self.w.store(vector, self.a["z"], place)
