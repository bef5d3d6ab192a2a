"""Programs: the integers that compiled code reads to run; and the records of a solve's.

The work on an image, or on as many images as there are lanes, is divided into *units*, which follow
each other. A unit is divided into *segments*: pixels that are copied in, solved and copied out
together.
"""

from __future__ import annotations

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
        """The address of the numbers."""
        return address_of(self.numbers)


def address_of(array: Floats) -> int:
    """Return the address of an array's first number."""
    address: int = array.__array_interface__["data"][0]
    return address


def size(record: type) -> int:
    """Return how many numbers a record has."""
    return len(fields(record))


def numbers_of(records: Iterable[Any]) -> list[int]:
    """Return the numbers of records, one after the other."""
    return [n for record in records for n in astuple(record)]


def tap_list(taps: TapList, count: int, weights: int) -> list[int]:
    """Return a list of taps in the layout of `cpu.sums`, as long as a list of ``count`` taps.

    ``weights`` is the number of weights of one tap in a block.
    """
    pairs = [n for tap, distance in taps for n in (tap * weights, distance)]
    return [len(taps), *pairs, *[0] * (2 * count - len(pairs))]


@dataclass(frozen=True)
class Header:
    """Settings of all segments."""

    images: int = 0  # images of a unit at most
    # units of one image (or of the images in the lanes), and segments of a unit
    units: int = 0
    segments: int = 0
    # C, pixels of an image, and taps, the pixel itself included
    channels: int = 0
    pixels: int = 0
    taps: int = 0
    lower: int = 0  # whether D is lower triangular
    limit: int = 0  # the condition of D up to which D^-1 is folded in
    # output channels that are solved at once, and the number of such blocks
    block: int = 0
    blocks: int = 0
    # for `cpu.copies`: the distance from line to line in memory less the skew; the skew; and the
    # length of a line, a huge integer if it is a whole image
    line_step: int = 0
    skew: int = 0
    width: int = 0
    # distances in the buffer from position to position of a row, and from channel to channel
    step: int = 0
    channel_step: int = 0
    # distances in the buffer from row to row and from column to column, in the order of the solve
    row_step: int = 0
    column_step: int = 0
    lag: int = 0  # number of levels by which a row lags behind the one above it
    # the number of rows above a strip that it reads, and the distance between them in memory
    above: int = 0
    above_step: int = 0
    along: int = 0  # +1 or -1, the direction of a strip's row in memory
    masked: int = 0  # whether lanes outside the grid are cleared after each pixel
    # the count of numbers at the buffer's start that must be zero at first, the place of a pixel's
    # sums, and the length of the buffer
    cleared: int = 0
    spare: int = 0
    size: int = 0
    # rows and columns up to these have lists of taps of their own; later ones share the last list
    last_row: int = 0
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

    # start and count of the buffer's numbers that are set to zero first
    clear: int = 0
    clear_count: int = 0
    # numbers of the buffer that are then moved, so that the last pixels are where taps read them
    move_to: int = 0
    move_from: int = 0
    move_count: int = 0
    # place of line 0 in a channel of an image, and number of lines
    memory: int = 0
    lines: int = 0
    # first position of the lines to be copied in and out, number of positions, and place of the
    # first position in the buffer
    start: int = 0
    count: int = 0
    place: int = 0
    # place of the first pixel to be solved, its row in the grid, and numbers of rows and columns
    at: int = 0
    top: int = 0
    rows: int = 0
    columns: int = 0
    lists: int = 0  # place of this segment's lists of taps among all lists
    keep: int = 0  # place of the first column's masks
    # for a strip: whether it has rows above, the first level at which these are copied, and the
    # level of the first position, counted along the row
    first: int = 0
    low: int = 0
    level: int = 0
    # columns of the unit before that must be solved first, and columns of this unit that are solved
    # afterwards
    needed: int = 0
    done: int = 0


@dataclass(frozen=True)
class Parts:
    """What a module of `invconv.kernels.cpu.lanes` says of a program."""

    header: Header
    lists: list[TapList]
    segments: list[list[Segment]]  # of each unit
    sums: tuple[int, ...]  # settings of the code of the sums
    places: tuple[int, ...] = ()
    masks: bytes = b""
