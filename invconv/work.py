"""What a plan needs besides images and weights: a buffer, and the calls that solve in it."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from invconv.arrays import Array
from invconv.pitched import Layout
from invconv.relay import Relay
from invconv.replay import Call, Steps, in_turn
from invconv.team import Program

if TYPE_CHECKING:
    from invconv.strided import Strided

_CALL_BYTES = 2**11  # of views and arguments, for each call

Chunk = tuple[tuple[slice, slice], Array, list[Call], Array, Array]


@dataclass(eq=False)
class Part:
    """A part of the batch in a part of the buffer.

    Attributes
    ----------
    given, found : array
        The images y and x in the buffer, as the plan has them.
    calls : list
        What is to be called.
    steps : list of (calls, rows, x)
        Instead, what is to be called for each wavefront before x is copied from rows.
    chunks : list of (index of images, pixels, calls, solved, images)
        Of `invconv.pitched.Layout.chunks`, where tiles are solved on the way into the buffer: which
        images go into which pixels, the calls that solve them, and what goes where after that.
    count : int
        Of all calls, before they were put together.
    """

    given: Array
    found: Array
    calls: list[Call]
    steps: list[tuple[list[Call], Array, Array]] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    count: int = 0


@dataclass(eq=False)
class Work:
    """A buffer, the calls that let waves pass through it, and the memory that both refer to.

    Attributes
    ----------
    parts : list of Part
        Their calls are not made: those of the work itself are.
    weights : list of array
        Theirs, where the calls look for them.
    calls : list
        What is to be called for all parts.
    reads : Program or None
        The one of these calls that puts y into the buffer itself.
    nbytes : int
        Of the buffer and what belongs to it; then of all that is kept, about.
    loaded : list of array or None
        Whose values ``weights`` are; they live as long as this.
    key : hashable
        What it is kept under.
    """

    parts: list[Part]
    weights: list[Array]
    calls: list[Call]
    reads: Program | None
    nbytes: int
    loaded: list[Array] | None = None
    key: Hashable = None

    def __post_init__(self) -> None:
        """Count the weights, here and where they are from, and what calls refer to."""
        self.nbytes += 2 * sum(w.nbytes for w in self.weights)
        self.nbytes += _CALL_BYTES * sum(part.count for part in self.parts)
        self.nbytes += sum(call.nbytes for call in self.calls if isinstance(call, Program))


def tiled(shape: tuple[int, ...], x: Array) -> Array:
    """View images (B, C, H, W) as (B, H / h, h, W / w, w, C), of which ``shape`` has all but B."""
    _, rows, high, columns, wide, channels = shape
    return x.reshape((x.shape[0], channels, rows, high, columns, wide)).transpose(0, 2, 3, 4, 5, 1)


def relay_work(library: Strided, plan: Relay, weights: list[Array]) -> Work:
    """Return what a library needs for a relay."""
    buffer = library.xp.zeros(plan.length, dtype=weights[0].dtype)
    row, calls = (plan.record, 1), list[Call]()
    for reads, finds, count in plan.steps:
        read = _view(library, buffer, reads, (count, plan.reads), row)
        found = _view(library, buffer, finds, (count, plan.finds), row)
        calls += library.product(read, weights[0], found, None)
    given, found = (
        _view(library, buffer, place, plan.shape, plan.strides) for place in (plan.entry, plan.exit)
    )
    parts = [Part(given, found, calls, count=len(calls))]
    return Work(parts, weights, in_turn(calls), None, buffer.nbytes)


def pitched_work(
    library: Strided, plan: Layout, weights: list[Array], solved: bool, y: Array
) -> Work:
    """Return what a library needs for the pitched layout.

    Parameters
    ----------
    library : Strided
    plan : Layout
    weights : list of array
        Memory for M_0, M_1, ..., after T^-T where T^-1 y goes into the buffer.
    solved : bool
        Whether they solve with D.
    y : array, shape (B, C, H, W)
        Images with the strides of those that are to be solved.
    """
    count = len(plan.parts)
    buffer = library.xp.zeros(count * plan.length, dtype=weights[0].dtype)
    scratch = library.xp.empty((plan.longest if plan.own else 0, plan.size), dtype=buffer.dtype)
    products = weights if plan.own else weights[1:]
    parts, nbytes = list[Part](), buffer.nbytes + scratch.nbytes
    for memory in buffer.reshape(count, plan.length):
        images = _view(library, memory, plan.start, plan.shape, plan.strides)
        parts.append(Part(images, images, []))
        for calls, rows, x in _waves(library, plan, memory, products, scratch, solved):
            parts[-1].count += len(calls)
            if plan.own and not (solved and len(products) > 1):
                parts[-1].steps.append((in_turn(calls), rows, x))
            else:
                parts[-1].calls += calls
    if not plan.own and plan.shape[4] > 1:
        largest = max(parts[0].given[samples, band, 0].size for samples, band in plan.chunks)
        room = library.xp.empty((2, largest), dtype=buffer.dtype)
        nbytes += room.nbytes
        for part in parts:
            _add_chunks(library, plan, part, room, weights[0])
    calls, reads = _together(library, plan, parts, weights[0], y)
    return Work(parts, weights, calls, reads, nbytes)


def _waves(
    library: Strided,
    plan: Layout,
    buffer: Array,
    products: list[Array],
    scratch: Array,
    solved: bool,
) -> Iterator[tuple[list[Call], Array, Array]]:
    """Yield the calls of each wavefront, the rows that they leave its result in, and x."""
    row = (plan.strides[0], 1)
    for place, count in plan.steps:
        x = _view(library, buffer, place, (count, plan.size), row)
        windows = [_view(library, buffer, place + s, (count, k), row) for s, k in plan.windows]
        rows, calls = (scratch[:count] if plan.own else x), list[Call]()
        for i, (window, matrix) in enumerate(zip(windows, products, strict=True)):
            if matrix.shape[0] > 0:
                last = solved and 0 < i == len(products) - 1
                plus = rows if i > 0 or not plan.own else None
                calls += library.product(window, matrix, x if last else rows, plus)
        yield calls, rows, x


def _add_chunks(library: Strided, plan: Layout, part: Part, room: Array, inverse: Array) -> None:
    """Add the chunks of a part; ``room`` is for the largest, before it is solved and after."""
    team = library.team if len(plan.parts) > 1 else None
    for chunk in plan.chunks:
        images = part.given[*chunk, 0]
        given, solved = (numbers[: images.size] for numbers in room)
        rows = [numbers.reshape(-1, plan.size) for numbers in (given, solved)]
        pixels = given.reshape(*images.shape[:2], -1, plan.shape[5])
        pieces = library.product(rows[0], inverse, rows[1], None)
        part.count += len(pieces)
        program = None if team is None else team.program([[piece] for piece in pieces])
        solve = in_turn(pieces) if program is None else list[Call]([program])
        part.chunks.append((chunk, pixels, solve, solved.reshape(images.shape), images))


def _together(
    library: Strided, plan: Layout, parts: list[Part], inverse: Array, y: Array
) -> tuple[list[Call], Program | None]:
    """Return the calls for all parts, at the same time if that can be, and the one that reads y."""
    waves = [part.calls for part in parts]
    team = library.team if len(parts) > 1 else None
    if team is not None:
        enters = not plan.own and not parts[0].chunks
        entries = _entries(library, plan, parts, inverse, y) if enters else []
        first = [[steps] for steps in entries] or [list[Steps]() for _ in parts]
        program = team.program([[*e, *w] for e, w in zip(first, waves, strict=True)])
        if program is not None:
            return [program], program if entries else None
    return in_turn(list(itertools.chain.from_iterable(waves))), None


def _entries(
    library: Strided, plan: Layout, parts: list[Part], inverse: Array, y: Array
) -> list[Steps]:
    """Return what puts T^-1 y into the buffers; nothing where gemm cannot."""
    if library.stacked is None:
        return []
    found = list[Steps]()
    for part, samples in zip(parts, plan.parts, strict=True):
        source = tiled(plan.shape, y[samples])
        target = part.given[: source.shape[0]]
        put = library.stacked(source[:, :, 0, :, 0, :], inverse, target[:, :, 0, :, 0, :])
        found += [] if put is None else [put]
    return found if len(found) == len(parts) else []


def _view(
    library: Strided,
    buffer: Array,
    place: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> Array:
    return library.as_strided(buffer[place:], shape, tuple(s * buffer.itemsize for s in strides))
