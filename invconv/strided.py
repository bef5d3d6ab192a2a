"""Waves where arrays have strided views, and products go into one: NumPy, CuPy, PyTorch's CPU.

They run the plans of `invconv.pitched` and `invconv.relay`. What is called for a plan is found out
once: the views into a buffer take longer to make than a small solve takes to run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from invconv.arrays import Array, Namespace
from invconv.pitched import Index, Layout, channels_at_once
from invconv.planes import PitchedSolver
from invconv.primitives import triangular_solve
from invconv.relay import Relay
from invconv.workspaces import Workspaces

Call = Callable[[], object]
Product = Callable[[Array, Array, Array, Array | None], list[Call]]
Chunk = tuple[tuple[slice, slice], Array, list[Call], Array, Array]

_CALL_BYTES = 2**11  # of views and arguments, for each call


@dataclass(eq=False)
class Work:
    """A buffer, the calls that let a wave pass through it, and the memory that both refer to.

    Attributes
    ----------
    given, found : array
        The images y and x in the buffer, as the plan has them.
    weights : list of array
        Theirs, where the calls look for them.
    calls : list
        What is to be called.
    steps : list of (calls, rows, x)
        Instead, what is to be called for each wavefront before x is copied from rows.
    chunks : list of (index of images, pixels, calls, solved, images)
        Of `invconv.pitched.Layout.chunks`, where tiles are solved on the way into the buffer: which
        images go into which pixels, the calls that solve them, and what goes where after that.
    nbytes : int
        Of the buffer and what belongs to it; then of all that is kept, about.
    loaded : list of array or None
        Whose values ``weights`` are; they live as long as this.
    key : hashable
        What it is kept under.
    """

    given: Array
    found: Array
    weights: list[Array]
    calls: list[Call]
    steps: list[tuple[list[Call], Array, Array]]
    nbytes: int
    chunks: list[Chunk] = field(default_factory=list)
    loaded: list[Array] | None = None
    key: Hashable = None

    def __post_init__(self) -> None:
        """Count the weights, here and where they are from, and what calls refer to."""
        calls = [self.calls, *(c for c, *_ in self.steps), *(c for _, _, c, *_ in self.chunks)]
        self.nbytes += 2 * sum(w.nbytes for w in self.weights)
        self.nbytes += _CALL_BYTES * (sum(map(len, calls)) + len(self.steps))


def copy_in_pieces(target: Array, source: Array, pieces: tuple[Index, ...]) -> None:
    """Copy images into others."""
    for some in pieces:
        target[some] = source[some]


@dataclass(frozen=True, eq=False)
class Strided:
    """A library.

    Attributes
    ----------
    xp : namespace
        The library itself: array-api-compat's functions take longer to call than a small product.
    as_strided : callable
        Returns a view of an array with a shape and strides in bytes.
    product : callable
        Returns the calls that put a product somewhere, as `invconv.blas.product` does.
    matmul : callable
        Puts pixels (B, H, W, C) times a matrix into its third argument.
    keeps : bool
        Whether a thread keeps its buffers. Not where work is queued: streams may not share one.
    copy : callable
        Does what `copy_in_pieces` does.
    """

    xp: Namespace
    as_strided: Callable[[Array, tuple[int, ...], tuple[int, ...]], Array]
    product: Product
    matmul: Callable[[Array, Array, Array], object]
    keeps: bool
    copy: Callable[[Array, Array, tuple[Index, ...]], None] = copy_in_pieces
    _kept: Workspaces[Any] = field(default_factory=Workspaces, init=False)

    def pitched(
        self,
        plan: Layout,
        weights: list[Array],
        y: Array,
        x: Array,
        substitute: Callable[[Array], Array] | None,
    ) -> None:
        """Put the solution x of the images y into ``x``.

        Parameters
        ----------
        plan : Layout
        weights : list of array
            M_0, M_1, ..., after T^-T where T^-1 y goes into the buffer.
        y, x : array, shape (B, C, H, W)
        substitute : callable or None
            Solves with D in rows, where the weights do not.
        """
        solved = substitute is None
        work = self._work((plan, solved), weights, lambda w: self._pitched_work(plan, w, solved))
        source = _tiled(plan.shape, y)
        if plan.own:
            self.copy(work.given, source, plan.entries)
        elif work.chunks:
            self._solve_tiles(work, y)
        else:
            inverse = work.weights[0]
            self.matmul(source[:, :, 0, :, 0, :], inverse, work.given[:, :, 0, :, 0, :])
        for call in work.calls:
            call()
        for calls, rows, found in work.steps:
            for call in calls:
                call()
            found[...] = rows if substitute is None else substitute(rows)
        self.copy(_tiled(plan.shape, x), work.found, plan.exits)
        self._keep(work)

    def relay(self, plan: Relay, weights: list[Array], y: Array, x: Array) -> None:
        """Put the solution x of one image y into ``x``."""
        work = self._work(plan, weights, lambda w: self._relay_work(plan, w))
        self.copy(work.given, _tiled(plan.shape, y), plan.copies)
        for call in work.calls:
            call()
        self.copy(_tiled(plan.shape, x), work.found, plan.copies)
        self._keep(work)

    def _work(self, plan: Any, weights: list[Array], make: Callable[[list[Array]], Work]) -> Work:
        if not self.keeps:
            return make(weights)

        key = plan, weights[0].dtype

        def new() -> Work:
            made = make([self.xp.empty(w.shape, dtype=w.dtype) for w in weights])
            made.key = key
            return made

        work: Work = self._kept.take(key, new)
        if work.loaded is not weights:
            for kept, given in zip(work.weights, weights, strict=True):
                kept[...] = given
            work.loaded = weights
        return work

    def _keep(self, work: Work) -> None:
        if self.keeps:
            self._kept.give_back(work.key, work)

    def _solve_tiles(self, work: Work, y: Array) -> None:
        """Put T^-1 y into the buffer."""
        for (samples, band), pixels, calls, solved, inside in work.chunks:
            source = y[samples, :, band].transpose(0, 2, 3, 1)
            for some in channels_at_once(y.shape[1]):
                pixels[..., some] = source[..., some]
            for call in calls:
                call()
            inside[...] = solved

    def _pitched_work(self, plan: Layout, weights: list[Array], solved: bool) -> Work:
        buffer = self.xp.zeros(plan.length, dtype=weights[0].dtype)
        images = self._view(buffer, plan.start, plan.shape, plan.strides)
        chunks = [] if plan.own or plan.shape[4] == 1 else self._chunks(plan, images, weights[0])
        products = weights if plan.own else weights[1:]
        scratch = self.xp.empty((plan.longest if plan.own else 0, plan.size), dtype=buffer.dtype)
        row = (plan.strides[0], 1)
        together = list[Call]()
        steps = list[tuple[list[Call], Array, Array]]()
        for place, count in plan.steps:
            x = self._view(buffer, place, (count, plan.size), row)
            windows = [self._view(buffer, place + s, (count, k), row) for s, k in plan.windows]
            rows, calls = (scratch[:count] if plan.own else x), list[Call]()
            for i, (window, matrix) in enumerate(zip(windows, products, strict=True)):
                if matrix.shape[0] > 0:
                    last = solved and 0 < i == len(products) - 1
                    plus = rows if i > 0 or not plan.own else None
                    calls += self.product(window, matrix, x if last else rows, plus)
            if plan.own and not (solved and len(products) > 1):
                steps.append((calls, rows, x))
            else:
                together += calls
        copied_in = sum(2 * solved.nbytes for *_, solved, _ in chunks[:1])
        nbytes = buffer.nbytes + scratch.nbytes + copied_in
        return Work(images, images, weights, together, steps, nbytes, chunks)

    def _chunks(self, plan: Layout, images: Array, inverse: Array) -> list[Chunk]:
        parts = [images[samples, band, 0] for samples, band in plan.chunks]
        room = self.xp.empty((2, max(part.size for part in parts)), dtype=images.dtype)
        chunks = []
        for chunk, part in zip(plan.chunks, parts, strict=True):
            given, solved = (numbers[: part.size] for numbers in room)
            rows = [numbers.reshape(-1, plan.size) for numbers in (given, solved)]
            pixels = given.reshape(*part.shape[:2], -1, plan.shape[5])
            solve = self.product(rows[0], inverse, rows[1], None)
            chunks.append((chunk, pixels, solve, solved.reshape(part.shape), part))
        return chunks

    def _relay_work(self, plan: Relay, weights: list[Array]) -> Work:
        buffer = self.xp.zeros(plan.length, dtype=weights[0].dtype)
        row = (plan.record, 1)
        calls = list[Call]()
        for reads, finds, count in plan.steps:
            read = self._view(buffer, reads, (count, plan.reads), row)
            found = self._view(buffer, finds, (count, plan.finds), row)
            calls += self.product(read, weights[0], found, None)
        given, found = (
            self._view(buffer, place, plan.shape, plan.strides) for place in (plan.entry, plan.exit)
        )
        return Work(given, found, weights, calls, [], buffer.nbytes)

    def _view(
        self, buffer: Array, place: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> Array:
        return self.as_strided(buffer[place:], shape, tuple(s * buffer.itemsize for s in strides))


def _tiled(shape: tuple[int, ...], x: Array) -> Array:
    """View images (B, C, H, W) as ``shape``, (B, H / h, h, W / w, w, C)."""
    batch, rows, high, columns, wide, channels = shape
    return x.reshape((batch, channels, rows, high, columns, wide)).transpose(0, 2, 3, 4, 5, 1)


def general_product(xp: Namespace) -> Product:
    """Return what `invconv.blas.product` is, by a library's matmul and add."""

    def product(a: Array, b: Array, out: Array, plus: Array | None = None) -> list[Call]:
        if plus is None:
            return [functools.partial(xp.matmul, a, b, out=out)]
        return [lambda: xp.add(plus, xp.matmul(a, b), out=out)]

    return product


@dataclass(frozen=True, eq=False)
class StridedSolver(PitchedSolver):
    """The waves of a library, which derives from this at the top of a module: for pickle."""

    library: ClassVar[Strided]

    def _wave(self, plan: Layout, matrices: list[Array], y: Array) -> Array:
        x = self.library.xp.empty(y.shape, dtype=y.dtype)
        substitute = self._substitute if self.inverse is None else None
        self.library.pitched(plan, matrices, y, x, substitute)
        return x

    def _relay(self, plan: Relay, matrices: list[Array], y: Array) -> Array:
        x = self.library.xp.empty(y.shape, dtype=y.dtype)
        self.library.relay(plan, matrices, y, x)
        return x

    def _substitute(self, rhs: Array) -> Array:
        """Return D^-1 applied to rows (M, C)."""
        return triangular_solve(self._pivot, rhs.T, lower=self.causal.lower).T

    @functools.cached_property
    def _pivot(self) -> Array:
        """D in the order that BLAS wants, which would copy it at every wavefront."""
        return self.library.xp.asfortranarray(self.causal.diagonal)
