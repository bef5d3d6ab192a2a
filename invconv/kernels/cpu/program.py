"""The numbers that a compiled solve goes by: header, lists of taps, segments; 64-bit integers.

A solve is some *units*: those of one image, or of as many images as there are lanes, follow each
other. A unit is some *segments*: what is copied in, solved, and copied out at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Header:
    """What all segments have in common.

    Attributes
    ----------
    images : int
        Of a unit: as many as there are lanes, or one.
    units, segments : int
        Units of one image (or of those in the lanes), and segments of a unit.
    channels, pixels, taps : int
        C, pixels of an image, and taps, that of the pixel itself included.
    lower : int
        Whether D is lower triangular.
    block, blocks : int
        Output channels that are solved at once, and how often.
    line_step, skew, width : int
        Of `cpu.copies`: from line to line in memory less the skew; the skew; and how
        long a line is, the longest integer for a whole image.
    step, channel_step : int
        In the buffer: from position to position of a row, and from channel to channel.
    row_step, column_step : int
        In the buffer, in the order of the solve.
    above, above_step, lag : int
        How many rows above a strip it reads, from row to row above in memory, and by how many
        levels a row lags behind the one above it.
    along, wide : int
        +1 or -1, the direction of a row of a strip in memory, and how long it is.
    masked : int
        Whether lanes outside the grid are cleared after each pixel.
    cleared, spare, size : int
        How many numbers of the buffer are zero at first, where the room of a pixel's sums is, and
        how long the buffer is.
    last_row, last_column : int
        Up to which row and column the taps that read something differ from pixel to pixel.
    order, lists, places, keep, body : int
        Where the order of the taps, the lists of `invconv.kernels.cpu.sums`, the places of
        `invconv.kernels.cpu.copies`, the masks, and the segments are in the program.
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
    """What is copied in, solved and copied out at a time.

    Attributes
    ----------
    clear, clear_count : int
        Numbers of the buffer that are zero from now on.
    move_to, move_from, move_count : int
        Numbers of the buffer that are copied, to have the last pixels where the next ones read.
    memory, lines : int
        Where line 0 starts in a channel of an image, and how many lines there are.
    start, entered, left, place : int
        From which position on lines are copied, how many are copied in and how many out, and where
        the first one is in the buffer.
    adds : int
        Whether other lines are in the same vectors already: theirs are kept.
    at, top, rows, columns : int
        Where the first pixel is that is solved, in which row of the grid, and how many there are.
    lists : int
        Which lists the taps are in: where they start among all.
    keep : int
        Where the masks of the first column are.
    first, low, level : int
        Of a strip: whether it has rows above, the first level whose rows above are copied, and the
        level of the first position, counted along the row.
    origin : int
        Of a strip: the place of level ``level``, row 0, channel 0.
    needed, done : int
        How many columns of the unit before must be solved, and how many of this are afterwards.
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
    adds: int = 0
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
