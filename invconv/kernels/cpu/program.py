"""The records of a solve's program, of 64-bit integers: one header, and segments.

The work on an image, or on as many images as there are lanes, is divided into *units*, which follow
each other. A unit is divided into *segments*: pixels that are copied in, solved and copied out
together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Header:
    """Settings of all segments.

    Attributes
    ----------
    images : int
        Images of a unit: as many as there are lanes, or one.
    units, segments : int
        Units of one image (or of the images in the lanes), and segments of a unit.
    channels, pixels, taps : int
        C, pixels of an image, and taps, the pixel itself included.
    lower : int
        Whether D is lower triangular.
    block, blocks : int
        Output channels that are solved at once, and the number of such blocks.
    line_step, skew, width : int
        For `cpu.copies`: the distance from line to line in memory less the skew; the skew; and the
        length of a line, a huge integer if it is a whole image.
    step, channel_step : int
        Distances in the buffer from position to position of a row, and from channel to channel.
    row_step, column_step : int
        Distances in the buffer from row to row and from column to column, in the order of the
        solve.
    above, above_step, lag : int
        The number of rows above a strip that it reads, the distance between them in memory, and the
        number of levels by which a row lags behind the one above it.
    along, wide : int
        +1 or -1, the direction of a strip's row in memory, and its length.
    masked : int
        Whether lanes outside the grid are cleared after each pixel.
    cleared, spare, size : int
        The count of numbers at the buffer's start that must be zero at first, the place of a
        pixel's sums, and the length of the buffer.
    last_row, last_column : int
        Rows and columns up to these have lists of taps of their own; later ones share the last
        list.
    order, lists, places, keep, body : int
        Places in the program of the order of the taps, of the lists for `invconv.kernels.cpu.sums`,
        of the places for `invconv.kernels.cpu.copies`, of the masks, and of the segments.
    """

    images: int = 0
    units: int = 0
    segments: int = 0
    channels: int = 0
    pixels: int = 0
    taps: int = 0
    lower: int = 0
    block: int = 0
    blocks: int = 0
    line_step: int = 0
    skew: int = 0
    width: int = 0
    step: int = 0
    channel_step: int = 0
    row_step: int = 0
    column_step: int = 0
    above: int = 0
    above_step: int = 0
    lag: int = 0
    along: int = 0
    wide: int = 0
    masked: int = 0
    cleared: int = 0
    spare: int = 0
    size: int = 0
    last_row: int = 0
    last_column: int = 0
    order: int = 0
    lists: int = 0
    places: int = 0
    keep: int = 0
    body: int = 0


@dataclass(frozen=True)
class Segment:
    """Pixels that are copied in, solved and copied out together.

    Attributes
    ----------
    clear, clear_count : int
        Start and count of the buffer's numbers that are set to zero first.
    move_to, move_from, move_count : int
        Numbers of the buffer that are then moved, so that the last pixels are where taps read them.
    memory, lines : int
        Place of line 0 in a channel of an image, and number of lines.
    start, entered, left, place : int
        First position of the lines to be copied, number of positions copied in and copied out, and
        place of the first position in the buffer.
    at, top, rows, columns : int
        Place of the first pixel to be solved, its row in the grid, and numbers of rows and columns.
    lists : int
        Place of this segment's lists of taps among all lists.
    keep : int
        Place of the first column's masks.
    first, low, level : int
        For a strip: whether it has rows above, the first level at which these are copied, and the
        level of the first position, counted along the row.
    origin : int
        For a strip: the place of level ``level``, row 0, channel 0.
    needed, done : int
        Columns of the unit before that must be solved first, and columns of this unit that are
        solved afterwards.
    """

    clear: int = 0
    clear_count: int = 0
    move_to: int = 0
    move_from: int = 0
    move_count: int = 0
    memory: int = 0
    lines: int = 0
    start: int = 0
    entered: int = 0
    left: int = 0
    place: int = 0
    at: int = 0
    top: int = 0
    rows: int = 0
    columns: int = 0
    lists: int = 0
    places: int = 0
    keep: int = 0
    first: int = 0
    low: int = 0
    level: int = 0
    origin: int = 0
    needed: int = 0
    done: int = 0


def names(record: type) -> tuple[str, ...]:
    """Return the names of a record's numbers, in their order in memory."""
    return tuple(f.name for f in fields(record))


def numbers(record: Header | Segment) -> tuple[int, ...]:
    """Return the numbers of a record."""
    return tuple(map(int, vars(record).values()))
