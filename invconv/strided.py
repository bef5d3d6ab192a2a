"""Autoregressive solves where arrays have strided views and products go into one: NumPy and CuPy.

Both libraries run this same code. A library's module of primitives says which functions a
`StridedSolver` calls.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from invconv.arrays import Array, Namespace
from invconv.pitched import Layout
from invconv.planes import PitchedSolver
from invconv.primitives import triangular_solve
from invconv.relay import Relay
from invconv.workspaces import Workspaces

P = TypeVar("P", Layout, Relay)
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Views:
    """A buffer laid out for a plan.

    Attributes
    ----------
    images : array, shape (B, H / h, h, W / w, w, C)
        The pixels of the buffer.
    steps : tuple of (windows, x, two scratch arrays)
        What each wavefront reads and writes.
    nbytes : int
        Of the buffer.
    """

    images: Array
    steps: tuple[tuple[tuple[Array, ...], Array, Array, Array], ...]
    nbytes: int


@dataclass(frozen=True, eq=False)
class RelayViews:
    """A buffer laid out for a relay.

    Attributes
    ----------
    given, found : array, shape (1, H / h, h, W / w, w, C)
        y and x.
    steps : tuple of (what is read, what is found)
    nbytes : int
        Of the buffer.
    """

    given: Array
    found: Array
    steps: tuple[tuple[Array, Array], ...]
    nbytes: int


_workspaces: Workspaces[Any] = Workspaces()


@dataclass(frozen=True, eq=False)
class StridedSolver(PitchedSolver):
    """The pitched wave by products of strided views.

    A library derives from it at the top of a module, so that solvers can be pickled.
    """

    xp: ClassVar[Namespace]
    """The library itself: array-api-compat's functions take longer to call than a small product."""

    keeps_workspaces: ClassVar[bool]
    """Whether a thread reuses its buffers. Not where work is queued: streams may not share one."""

    @staticmethod
    @abstractmethod
    def as_strided(x: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
        """Return a view; the strides are in bytes."""

    def _wave(self, plan: Layout, matrices: list[Array], y: Array) -> Array:
        work = self._workspace(plan, y, self._views)
        tiled, source = _tiled(plan.shape, y)
        if plan.own:
            for some in plan.entries:
                work.images[some] = source[some]
            self._run(work, matrices)
        else:
            self._add(work, matrices, source)
        x, target = _tiled(plan.shape, self.xp.empty(tiled.shape, dtype=y.dtype))
        for some in plan.exits:
            target[some] = work.images[some]
        return x.reshape(y.shape)

    def _relay(self, plan: Relay, matrix: Array, y: Array) -> Array:
        work = self._workspace(plan, y, self._relay_views)
        tiled, source = _tiled(plan.shape, y)
        for some in plan.copies:
            work.given[some] = source[some]
        matmul = self.xp.matmul
        for reads, finds in work.steps:
            matmul(reads, matrix, out=finds)
        x, target = _tiled(plan.shape, self.xp.empty(tiled.shape, dtype=y.dtype))
        for some in plan.copies:
            target[some] = work.found[some]
        return x.reshape(y.shape)

    def _workspace(self, plan: P, y: Array, make: Callable[[P, Array], V]) -> V:
        if not self.keeps_workspaces:
            return make(plan, y)
        found: V = _workspaces.get((plan, y.dtype), lambda: make(plan, y))
        return found

    def _run(self, work: Views, matrices: list[Array]) -> None:
        """Let the wave pass."""
        matmul, add = self.xp.matmul, self.xp.add
        first, *others = matrices
        if self.inverse is None or not others:
            for windows, x, rhs, term in work.steps:
                matmul(windows[0], first, out=rhs)
                for window, matrix in zip(windows[1:], others, strict=True):
                    matmul(window, matrix, out=term)
                    add(rhs, term, out=rhs)
                x[...] = rhs if self.inverse is not None else self._substitute(rhs)
            return
        *middle, last = others
        for windows, x, rhs, term in work.steps:
            matmul(windows[0], first, out=rhs)
            for window, matrix in zip(windows[1:-1], middle, strict=True):
                matmul(window, matrix, out=term)
                add(rhs, term, out=rhs)
            matmul(windows[-1], last, out=term)
            add(rhs, term, out=x)

    def _add(self, work: Views, matrices: list[Array], y: Array) -> None:
        """Put D^-1 y into the buffer, and let the wave pass."""
        matmul, add = self.xp.matmul, self.xp.add
        inverse, first, *others = matrices
        matmul(y[:, :, 0, :, 0, :], inverse, out=work.images[:, :, 0, :, 0, :])
        for windows, x, total, term in work.steps:
            matmul(windows[0], first, out=total)
            for window, matrix in zip(windows[1:], others, strict=True):
                matmul(window, matrix, out=term)
                add(total, term, out=total)
            add(x, total, out=x)

    def _substitute(self, rhs: Array) -> Array:
        """Return D^-1 applied to rows (M, C)."""
        return triangular_solve(self._pivot, rhs.T, lower=self.causal.lower).T

    @functools.cached_property
    def _pivot(self) -> Array:
        """D in the order that BLAS wants, which would copy it at every wavefront."""
        return self.xp.asfortranarray(self.causal.diagonal)

    def _views(self, plan: Layout, y: Array) -> Views:
        buffer = self.xp.zeros(plan.length, dtype=y.dtype)
        largest = max(count for _, count in plan.steps)
        scratch = self.xp.empty((2, largest, plan.size), dtype=y.dtype)
        row = (plan.strides[0], 1)
        steps = tuple(
            (
                tuple(
                    self._view(buffer, p + shift, (n, size), row) for shift, size in plan.windows
                ),
                self._view(buffer, p, (n, plan.size), row),
                scratch[0, :n],
                scratch[1, :n],
            )
            for p, n in plan.steps
        )
        images = self._view(buffer, plan.start, plan.shape, plan.strides)
        return Views(images, steps, buffer.nbytes)

    def _relay_views(self, plan: Relay, y: Array) -> RelayViews:
        buffer = self.xp.zeros(plan.length, dtype=y.dtype)
        row = (plan.record, 1)
        steps = tuple(
            (
                self._view(buffer, reads, (n, plan.reads), row),
                self._view(buffer, finds, (n, plan.finds), row),
            )
            for reads, finds, n in plan.steps
        )
        given, found = (
            self._view(buffer, place, plan.shape, plan.strides) for place in (plan.entry, plan.exit)
        )
        return RelayViews(given, found, steps, buffer.nbytes)

    def _view(
        self, buffer: Array, place: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> Array:
        return self.as_strided(buffer[place:], shape, tuple(s * buffer.itemsize for s in strides))


def _tiled(shape: tuple[int, ...], x: Array) -> tuple[Array, Array]:
    """View images as (B, C, H / h, h, W / w, w) and as ``shape``, (B, H / h, h, W / w, w, C)."""
    batch, rows, high, columns, wide, channels = shape
    tiled = x.reshape((batch, channels, rows, high, columns, wide))
    return tiled, tiled.transpose(0, 2, 3, 4, 5, 1)
