"""Waves where arrays have strided views, and products go into one: NumPy, CuPy, PyTorch's CPU.

They run the plans of `invconv.pitched` and `invconv.relay`. What is called for a plan is found out
once: the views into a buffer take longer to make than a small solve takes to run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from invconv.arrays import Array, Namespace
from invconv.pitched import Index, Layout, channels_at_once
from invconv.planes import PitchedSolver
from invconv.primitives import triangular_solve
from invconv.relay import Relay
from invconv.replay import Call, Steps
from invconv.team import Team
from invconv.work import Chunk, Part, Work, pitched_work, relay_work, tiled
from invconv.workspaces import Workspaces

Product = Callable[[Array, Array, Array, Array | None], list[Call]]
Stacked = Callable[[Array, Array, Array], Steps | None]

_ALL = slice(None)


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
    team : Team, optional
        Threads that share out the parts of a batch.
    stacked : callable, optional
        Returns the steps that put products somewhere, as `invconv.blas.stacked_product` does.
    """

    xp: Namespace
    as_strided: Callable[[Array, tuple[int, ...], tuple[int, ...]], Array]
    product: Product
    matmul: Callable[[Array, Array, Array], object]
    keeps: bool
    copy: Callable[[Array, Array, tuple[Index, ...]], None] = copy_in_pieces
    team: Team | None = None
    stacked: Stacked | None = None
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
        strides = y.strides if len(plan.parts) > 1 and plan.shape[4] == 1 else None
        work = self._work(
            (plan, solved, strides), weights, lambda w: pitched_work(self, plan, w, solved, y)
        )
        if work.reads is not None:
            work.reads.read([y[samples] for samples in plan.parts])
        else:
            for part, samples in zip(work.parts, plan.parts, strict=True):
                self._enter(plan, part, work.weights[0], y[samples])
        for call in work.calls:
            call()
        for part, samples in zip(work.parts, plan.parts, strict=True):
            for calls, rows, found in part.steps:
                for call in calls:
                    call()
                found[...] = rows if substitute is None else substitute(rows)
            target = tiled(plan.shape, x[samples])
            self.copy(target, part.found[: target.shape[0]], plan.exits)
        self._keep(work)

    def relay(self, plan: Relay, weights: list[Array], y: Array, x: Array) -> None:
        """Put the solution x of one image y into ``x``."""
        work = self._work(plan, weights, lambda w: relay_work(self, plan, w))
        (part,) = work.parts
        self.copy(part.given, tiled(plan.shape, y), plan.copies)
        for call in work.calls:
            call()
        self.copy(tiled(plan.shape, x), part.found, plan.copies)
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

    def _enter(self, plan: Layout, part: Part, inverse: Array, y: Array) -> None:
        """Put images y, or T^-1 y, into a part's buffer; what else it has room for stays zero."""
        images, source = part.given[: y.shape[0]], tiled(plan.shape, y)
        if plan.own:
            self.copy(images, source, plan.entries)
        elif part.chunks:
            self._solve_tiles(part.chunks, y)
        else:
            self.matmul(source[:, :, 0, :, 0, :], inverse, images[:, :, 0, :, 0, :])

    def _solve_tiles(self, chunks: list[Chunk], y: Array) -> None:
        """Put T^-1 y into the buffer."""
        channels = tuple((_ALL, _ALL, _ALL, some) for some in channels_at_once(y.shape[1]))
        for (samples, band), pixels, calls, solved, inside in chunks:
            source = y[samples, :, band].transpose(0, 2, 3, 1)
            here = slice(0, source.shape[0])
            self.copy(pixels[here], source, channels)
            for call in calls:
                call()
            self.copy(inside[here], solved[here], ((_ALL,),))


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
