"""Autoregressive solves of any number of axes, dilation and direction, by the pitched wave in 2-D.

- Of three axes and more, the planes along the first are solved one after the other; what a plane
  depends on in earlier ones is a correlation.
- With dilation d, pixels whose coordinates differ modulo d never meet: they are separate images.
- Directions that differ are made alike by a flip.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from invconv import pitched, relay, tiles
from invconv.arrays import Array, Shape, namespace, zeros
from invconv.pitched import Layout
from invconv.primitives import correlate
from invconv.relay import Relay
from invconv.stencil import Offset, Stencil
from invconv.tile_matrices import Tile
from invconv.tiles import Choice, Costs
from invconv.wavefront import CausalStencil, stable_inverse


@dataclass(frozen=True, eq=False)
class PitchedSolver(ABC):
    """The map y -> x, both (B, C, *shape), that solves ``causal.stencil()`` x = y.

    A library supplies `_wave` and `_relay`.

    Attributes
    ----------
    causal : CausalStencil
    inverse : array, shape (C, C), or None
        D^-1 where it may be used, see `invconv.wavefront.stable_inverse`.
    shape : tuple of int
        The grid.
    tile : (h, w) or None
        Chosen by hand, see `invconv.tiles`.
    """

    causal: CausalStencil
    inverse: Array | None
    shape: Shape
    tile: Tile | None = field(default_factory=tiles.by_hand)
    _tiles: dict[tuple[int, ...], Tile] = field(default_factory=dict, init=False)
    _relays: set[tuple[int, ...]] = field(default_factory=set, init=False)
    _first: set[tuple[int, ...]] = field(default_factory=set, init=False)
    _in_parts: dict[tuple[int, ...], int] = field(default_factory=dict, init=False)
    # what was chosen for images (B, C, H, W) in so many parts, and weights that were asked for,
    # None where T^-1 would cost accuracy
    _chosen: dict[tuple[tuple[int, ...], int], tuple[Layout | Relay, list[Array]]] = field(
        default_factory=dict, init=False
    )
    _weights: dict[Choice, list[Array] | None] = field(default_factory=dict, init=False)

    @property
    def costs(self) -> Costs:
        """What products cost here."""
        return Costs()

    def __getstate__(self) -> dict[str, Any]:
        """Leave weights out, which are soon made again; keep what the plan refers to."""
        kept = {f.name: vars(self)[f.name] for f in fields(self)}
        return kept | {"_chosen": {}, "_weights": {}}

    @abstractmethod
    def _wave(self, plan: Layout, matrices: list[Array], y: Array) -> Array:
        """Run a plan with the weights M_0, M_1, ... on images (B, C, H, W).

        Where T^-1 y goes into the buffer, T^-T comes before them.
        """

    @abstractmethod
    def _relay(self, plan: Relay, matrices: list[Array], y: Array) -> Array:
        """Run a plan with the weights M, the only ones, on one image (1, C, H, W)."""

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs.

        "tiles" fills with what was chosen for images (B, C, H, W), "one product a wavefront" with
        those that run as a relay, "T^-1 y first" with those whose tiles are solved on the way into
        the buffer, before what they read is taken off, "parts" with how many parts of a batch
        threads solved at the same time, if they ever did.
        """
        corner = "triangular solve" if self.inverse is None else "cached inverse"
        return {
            "method": "pitched wavefront",
            "at the pixel": corner,
            "tiles": self._tiles,
            "one product a wavefront": self._relays,
            "T^-1 y first": self._first,
            "parts": self._in_parts,
        }

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        if 0 in y.shape:
            return y
        if self._plain:
            return self._pitched(y)
        if len(self.shape) > 2:
            return self._by_planes(y)
        xp = namespace(y)
        if len(self.shape) == 1:
            return xp.reshape(self._flipped(y[:, :, None, :]), tuple(y.shape))
        return self._flipped(y)

    @functools.cached_property
    def _plain(self) -> bool:
        """Whether images are solved as they are."""
        causal = self.causal
        return len(self.shape) == 2 and len(set(causal.direction)) == 1 == max(causal.dilation)

    @functools.cached_property
    def _reach(self) -> tuple[tuple[int, int], ...]:
        """The reach of every tap that is kept, as (row, column)."""
        causal = self.causal
        return _kept(causal.reach, causal.dilation, self.shape)[1]

    @functools.cached_property
    def _kept(self) -> CausalStencil:
        """The stencil without the taps that reach beyond the grid from everywhere."""
        causal = self.causal
        kept, _ = _kept(causal.reach, causal.dilation, self.shape)
        return causal if len(kept) == len(causal.reach) else self.causal.only(kept)

    def _weights_for(self, choice: Choice) -> list[Array] | None:
        if choice not in self._weights:
            self._weights[choice] = self._new_weights(choice)
        return self._weights[choice]

    def _new_weights(self, choice: Choice) -> list[Array] | None:
        inverse = self._inverse_for(choice)
        parts = (self._kept.diagonal, self._kept.taps, self._reach, self._sign, choice.tile)
        if inverse is None:
            return pitched.weights(*parts, None) if choice == tiles.SAFE else None
        if choice.way == "relay":
            return [relay.weights(*parts[1:], inverse)]
        own = choice.way == "pitched"
        found = pitched.weights(*parts, inverse, own)
        return found if own else [namespace(inverse).matrix_transpose(inverse), *found]

    def _inverse_for(self, choice: Choice) -> Array | None:
        """Return T^-1, if it keeps accuracy."""
        if choice.tile == (1, 1) or self.inverse is None:
            return self.inverse
        here = relay if choice.way == "relay" else pitched
        kept = self._kept
        return stable_inverse(
            here.tile_matrix(kept.diagonal, kept.taps, self._reach, self._sign, choice.tile)
        )

    @property
    def _sign(self) -> int:
        return self.causal.direction[0]

    def _flipped(self, y: Array) -> Array:
        if len(set(self.causal.direction)) == 1:
            return self._undilated(y)
        xp = namespace(y)
        return xp.flip(self._undilated(xp.flip(y, axis=3)), axis=3)

    def _undilated(self, y: Array) -> Array:
        rows, columns = (1, *self.causal.dilation)[-2:]

        def by_rows(part: Array) -> Array:
            return _each(self._pitched, part, 2, rows)

        return _each(by_rows, y, 3, columns)

    def _pitched(self, y: Array) -> Array:
        asked = tuple(y.shape), self._parts(y)
        if asked not in self._chosen:
            self._chosen[asked] = self._choose(*asked, y.dtype.itemsize)
        plan, matrices = self._chosen[asked]
        if isinstance(plan, Relay):
            return self._relay(plan, matrices, y)
        if len(plan.parts) != self._in_parts.get(asked[0], 1):
            self._in_parts[asked[0]] = len(plan.parts)
        return self._wave(plan, matrices, y)

    def _parts(self, y: Array) -> int:
        """Return how many parts of a batch can be solved at the same time."""
        return 1

    def _choose(
        self, shape: tuple[int, ...], parts: int, itemsize: int
    ) -> tuple[Layout | Relay, list[Array]]:
        order = tiles.ranked(shape, self._reach, self.costs, itemsize, self.tile)
        usable = ((c, w) for c in order if (w := self._weights_for(c)) is not None)
        choice, matrices = next(usable)
        asked = (shape, self._reach, self._sign, itemsize, choice.tile)
        self._tiles[shape] = choice.tile
        if choice.way == "relay":
            self._relays.add(shape)
            return relay.relay(*asked), matrices
        if choice.way == "pitched":
            return pitched.layout(*asked), matrices
        self._first.add(shape)
        return pitched.layout(*asked, own=False, parts=parts), matrices

    @functools.cached_property
    def _inside(self) -> Self:
        """The solver of one plane."""
        here = self.causal.only([t for t, o in enumerate(self.causal.reach) if o[0] == 0])
        return type(self)(_without_first_axis(here), self.inverse, self.shape[1:], self.tile)

    @functools.cached_property
    def _links(self) -> dict[int, Stencil]:
        """What a plane takes from the one at a distance, by the distance in planes."""
        causal, links = self.causal, {}
        for distance in sorted({o[0] for o in causal.reach if o[0] > 0}):
            some = self.causal.only([t for t, o in enumerate(causal.reach) if o[0] == distance])
            offsets = tuple(offset[1:] for offset in some.offsets)
            links[distance * causal.dilation[0]] = Stencil(offsets, some.taps)
        return links

    def _by_planes(self, y: Array) -> Array:
        count, sign = self.shape[0], self._sign
        planes: list[Any] = [None] * count
        for i in range(count)[::sign]:
            rhs = y[:, :, i, ...]
            for distance, stencil in self._links.items():
                if 0 <= i - sign * distance < count:
                    rhs = rhs - correlate(stencil, planes[i - sign * distance])
            planes[i] = self._inside(rhs)
        return namespace(y).stack(planes, axis=2)


@functools.lru_cache(maxsize=256)
def _kept(
    reach: tuple[Offset, ...], dilation: tuple[int, ...], shape: Shape
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Return which taps connect two pixels of a grid, and their reach as (row, column)."""
    kept = tuple(
        t
        for t, tap in enumerate(reach)
        if all(abs(o) * d < n for o, d, n in zip(tap, dilation, shape, strict=True))
    )
    rows = (reach[t] if len(shape) > 1 else (0, *reach[t]) for t in kept)
    return kept, tuple((o[0], o[1]) for o in rows)


def _each(solve: Callable[[Array], Array], y: Array, axis: int, step: int) -> Array:
    """Solve every ``step``-th slice along an axis by itself, and put them together again."""
    if step == 1:
        return solve(y)
    xp, lead, count = namespace(y), (slice(None),) * axis, y.shape[axis]
    parts = [solve(y[(*lead, slice(i, None, step), ...)]) for i in range(min(step, count))]
    blank = list(parts[0].shape)
    blank[axis] = 1
    parts = [
        p
        if p.shape[axis] == parts[0].shape[axis]
        else xp.concat([p, zeros(tuple(blank), p)], axis=axis)
        for p in parts
    ]
    shape = list(y.shape)
    shape[axis] = -1
    return xp.reshape(xp.stack(parts, axis=axis + 1), tuple(shape))[(*lead, slice(0, count), ...)]


def _without_first_axis(causal: CausalStencil) -> CausalStencil:
    return replace(
        causal,
        reach=tuple(o[1:] for o in causal.reach),
        direction=causal.direction[1:],
        dilation=causal.dilation[1:],
        slope=causal.slope[1:],
    )
