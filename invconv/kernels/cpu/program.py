"""Programs: the integers that compiled code reads to run; and the records of a solve's.

The work on an image, or on as many images as there are lanes, is divided into *units*, which follow
each other. A unit is divided into *segments*: pixels that are copied in, solved and copied out
together.
"""

import ctypes
import functools
import itertools
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

import numpy as np

from invconv.kernels.cpu.geometry import TapList

Floats = np.ndarray[Any, Any]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Record = TypeVar("Record", bound=Any)  # a dataclass of integers
_Byte: Any = ctypes.c_char  # NumPy's types say nothing of buffers before Python 3.12


@dataclass(frozen=True, eq=False)
class Assembled(Generic[Record]):
    """A program: a header, and sections."""

    header: Record
    numbers: Ints  # all of them; the compiled code reads them in place, so they are never edited

    @classmethod
    def of(cls, header: Record, sections: dict[str, Any], *others: Any) -> Self:
        """Return a program, with the place of each section in the header's field of its name."""
        starts = itertools.accumulate(map(len, sections.values()), initial=size(type(header)))
        header = replace(header, **dict(zip(sections, starts, strict=False)))
        parts = astuple(header), *sections.values()
        numbers = np.concatenate([np.asarray(part, np.int64) for part in parts])
        numbers.setflags(write=False)
        return cls(header, numbers, *others)

    @functools.cached_property
    def address(self) -> int:
        return addresses(self.numbers)[0]


def addresses(*arrays: Floats) -> list[int]:
    """Return the addresses of the arrays' first numbers."""
    try:
        return [ctypes.addressof(_Byte.from_buffer(a)) for a in arrays]
    except (TypeError, ValueError):  # one may not be written, or is empty: this takes longer
        return [a.__array_interface__["data"][0] for a in arrays]


def size(record: type) -> int:
    """Return how many numbers a record has."""
    return len(fields(record))


def numbers_of(records: Iterable[Any]) -> list[int]:
    """Return the numbers of records, one after the other."""
    return [n for record in records for n in astuple(record)]


def tap_list(taps: TapList, count: int, weights: int) -> list[int]:
    """Return a list of taps for `cpu.sums`, padded to ``count`` taps of so many ``weights``."""
    pairs = [n for tap, distance in taps for n in (tap * weights, distance)]
    return [len(taps), *pairs, *[0] * (2 * count - len(pairs))]


@dataclass(frozen=True)
class Header:
    """Settings of all segments. Distances and places are in the buffer unless said otherwise."""

    images: int = 0  # of a unit, at most
    units: int = 0  # of one image, or of the images in the lanes
    segments: int = 0  # of a unit
    channels: int = 0
    pixels: int = 0  # of an image
    taps: int = 0  # the pixel itself included
    lower: int = 0  # whether D is lower triangular
    limit: int = 0  # the condition of D up to which D^-1 is folded in
    block: int = 0  # output channels that are solved at once
    blocks: int = 0
    line_step: int = 0  # from line to line of `cpu.copies` in memory, less the skew
    skew: int = 0
    width: int = 0  # of a line
    step: int = 0  # from position to position of a row
    channel_step: int = 0
    row_step: int = 0  # from row to row, in the order of the solve
    column_step: int = 0
    lag: int = 0  # levels by which a row lags behind the one above it
    above: int = 0  # rows above a strip that it reads
    above_step: int = 0  # from one of them to the next in memory
    along: int = 0  # +1 or -1, the direction of a strip's row in memory
    masked: int = 0  # whether lanes outside the grid are cleared after each pixel
    cleared: int = 0  # numbers at the start that must be zero at first
    spare: int = 0  # place of a pixel's sums
    size: int = 0  # of the buffer
    last_row: int = 0  # rows up to this one have lists of taps of their own, later ones share one
    last_column: int = 0
    # places in the program of the order of the taps, of the lists for `invconv.kernels.cpu.sums`,
    # of the places for `invconv.kernels.cpu.copies`, of the masks, and of the segments
    order: int = 0
    lists: int = 0
    places: int = 0
    keep: int = 0
    body: int = 0


@dataclass(frozen=True)
class Segment:
    """Pixels that are copied in, solved and copied out together."""

    clear: int = 0  # place of the numbers that are set to zero first
    clear_count: int = 0
    move_to: int = 0  # then these are moved, so that the last pixels are where taps read them
    move_from: int = 0
    move_count: int = 0
    memory: int = 0  # place of line 0 in a channel of an image
    lines: int = 0
    start: int = 0  # first position of the lines to be copied in and out
    count: int = 0  # of positions
    place: int = 0  # of the first position
    at: int = 0  # place of the first pixel to be solved
    top: int = 0  # its row in the grid
    rows: int = 0
    columns: int = 0
    lists: int = 0  # place of this segment's lists of taps among all lists
    keep: int = 0  # place of the first column's masks
    first: int = 0  # whether a strip has rows above
    low: int = 0  # the first level at which these are copied
    level: int = 0  # of the first position, counted along the row
    needed: int = 0  # columns of the unit before that must be solved first
    done: int = 0  # columns of this unit that are solved afterwards


@dataclass(frozen=True)
class Parts:
    """What a module of `invconv.kernels.cpu.lanes` says of a program."""

    header: dict[str, int]  # numbers of the `Header`
    lists: list[TapList]
    segments: list[list[Segment]]  # of each unit
    sums: tuple[int, ...]  # settings of the code of the sums
    places: tuple[int, ...] = ()
    masks: bytes = b""
