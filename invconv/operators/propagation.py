"""Recursions over the pixels of an image, with taps that change from pixel to pixel.

    h[p] = x[p] + sum over k of taps[k, p] h[p + offsets[k]],    zero outside the image

It is (I - T) h = x with a triangular matrix I - T, once the pixels are in an order in which every
offset comes earlier. The transposed recursion reads the taps where it reads h: it is *turned*.

    turned      h[p] = x[p] + sum over k of taps[k, p + offsets[k]] h[p + offsets[k]]

So the recursions are closed under differentiation. With those of -offsets, turned if they were not:

    h_dot = (I - T)^-1 (x_dot + T_dot h)
    x_bar = (I - T)^-T h_bar,    taps_bar[k, p] = x_bar[p] h[p + offsets[k]]

Pixels of a level depend on earlier levels alone: level = slope . q, where q are the places counted
in the direction of the recursion. Without compiled code whole levels are computed, one after the
other: rows, columns or diagonals.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import (
    Array,
    Shape,
    cast,
    constant,
    copy_of,
    is_half,
    namespace,
    native_dtype,
    size,
    zeros,
)
from invconv.arrays.registry import Primitive
from invconv.arrays.stencil import Offset, dot, reaching
from invconv.arrays.validation import in_order, integer, require_alike, require_real
from invconv.families.family import Family
from invconv.kernels.cpu.propagation import Recursion
from invconv.kernels.primitives import pad

Axes = tuple[tuple[int, int], ...]  # axes with the directions in which a recursion runs along them


@dataclass(frozen=True)
class Propagation(Family):
    """A recursion over images (B, C, *spatial); its taps are (B or 1, C or 1, K, *spatial)."""

    offsets: tuple[Offset, ...]
    turned: bool = False  # whether taps are read where h is read

    def transpose(self) -> "Propagation":
        return Propagation.of(
            tuple(tuple(-o for o in one) for one in self.offsets), not self.turned
        )

    @derived
    def text(self) -> str:
        """Return the recursion as text; torch.compile cannot trace a dataclass's own."""
        return f"Propagation(offsets={self.offsets}, turned={self.turned})"

    @derived
    def order(self) -> Axes:
        """Return the order of axes, from the slowest on, in which every offset comes earlier.

        An axis that is left out may come anywhere: its pixels are independent of each other.
        """
        found: list[tuple[int, int]] = []
        left = list(self.offsets)
        while left:
            eligible = _first_axis(left)
            if eligible is None:
                raise ValueError(f"offsets: {_contradiction(left)}")
            found.append(eligible)
            left = [o for o in left if not o[eligible[0]]]
        return tuple(found)

    @derived
    def axes(self) -> tuple[int, ...] | None:
        """Return an order of axes for compiled code to run along rows; None if it needs none."""
        ndim, sequence = len(self.offsets[0]), [axis for axis, _ in self.order]
        *outer, last = (a for a in range(ndim) if a in sequence or a == ndim - 1)
        alone = (any(o[a] for a in outer) or not any(o[:-1]) for o in self.offsets)
        if last not in sequence[:-1] and all(alone):
            return None
        return (*sequence, *(a for a in range(ndim) if a not in sequence))

    @derived
    def directions(self) -> tuple[int, ...]:
        """Return the direction along each axis."""
        return tuple(dict(self.order).get(a, 1) for a in range(len(self.offsets[0])))

    @derived
    def slope(self) -> tuple[int, ...]:
        """Return the least weights of the axes by which every offset leads to an earlier level."""
        slope = [0] * len(self.directions)
        back, settled = [self.back(o) for o in self.offsets], set[int]()
        for axis, _ in reversed(self.order):
            before = {a for a, _ in self.order} - settled - {axis}
            own = (b for b in back if b[axis] and not any(b[a] for a in before))
            slope[axis] = max(0, *(-((dot(slope, b) - 1) // b[axis]) for b in own))
            settled.add(axis)
        return tuple(slope)

    @derived
    def compiled(self) -> Recursion:
        """Return the recursion for compiled code, if `axes` is None."""
        outer = list(range(len(self.directions) - 1))
        sequence = [axis for axis, _ in self.order]
        outer.sort(key=lambda a: sequence.index(a) if a in sequence else len(sequence))
        along = tuple((a, self.directions[a]) for a in outer)
        return Recursion(self.offsets, self.turned, along, self.directions[-1])

    def back(self, offset: Offset) -> Offset:
        """Return by how many pixels an offset leads back along each axis."""
        return tuple(-o * s for o, s in zip(offset, self.directions, strict=True))


def _first_axis(offsets: Sequence[Offset]) -> tuple[int, int] | None:
    """Return the first axis along which all offsets that move lead back, and its direction."""
    for axis, along in enumerate(zip(*offsets, strict=True)):
        if any(along) and (max(along) <= 0 or min(along) >= 0):
            return axis, 1 if min(along) < 0 else -1
    return None


def _contradiction(offsets: Sequence[Offset]) -> str:
    """Say which two offsets contradict each other, where no axis can come first."""
    expected = "expected an order of axes and directions in which every one comes earlier"
    for n, one in enumerate(offsets):
        for other in offsets[:n]:
            if _first_axis([other, one]) is None:
                return f"{expected}; {other} and {one} contradict each other"
    axis = next(a for a, along in enumerate(zip(*offsets, strict=True)) if any(along))
    one, other = (next(o for o in offsets if o[axis] * s > 0) for s in (1, -1))
    return (
        f"{expected}; {one} and {other} contradict each other along axis {axis}, and of {offsets} "
        "no other axis settles one of the two first"
    )


class Levels(NamedTuple):
    """The places of a grid's pixels: L levels, M lanes, N pixels, K taps that reach a pixel."""

    pixels: Any  # shape (L, M): the pixel of each place; N for a place without one
    taps: Any  # shape (K, L, M): the place of the tap, behind all of them where it reads outside
    reads: Any  # shape (K, M): the place in the window of levels before, behind it if outside
    places: Any  # shape (N,): the place of each pixel
    back: int  # the number of levels of the window


@functools.lru_cache(maxsize=64)
def levels_of(family: Propagation, shape: Shape) -> Levels | None:
    """Return the levels of a grid, None if no offset connects two of its pixels."""
    kept, slope, count = reaching(family.offsets, shape), family.slope, size(shape)
    if not kept:
        return None
    pixels = np.indices(shape).reshape(len(shape), -1)
    turned = [
        p if s > 0 else n - 1 - p for p, s, n in zip(pixels, family.directions, shape, strict=True)
    ]
    last = family.order[-1][0]  # its weight is 1: its place follows from the level and the others
    others = [a for a in range(len(shape)) if a != last]
    lanes = [shape[a] for a in others]
    level = np.asarray(sum(w * q for w, q in zip(slope, turned, strict=True)))
    lane = _raveled([turned[a] for a in others], lanes)
    table = np.full((int(level.max()) + 1, size(lanes)), count)
    table[level, lane] = np.arange(count)
    there = np.indices(lanes).reshape(len(lanes), size(lanes))
    back = [family.back(family.offsets[k]) for k in kept]
    drops = [dot(slope, b) for b in back]
    window, behind = max(drops) * size(lanes), len(family.offsets) * count
    taps, reads = [], []
    for k, one, drop in zip(kept, back, drops, strict=True):
        near = [q - one[a] for q, a in zip(there, others, strict=True)]
        at = (max(drops) - drop) * size(lanes) + _raveled(near, lanes)
        reads.append(np.where(_within(near, lanes), at, window))
        read = [p + o for p, o in zip(pixels, family.offsets[k], strict=True)]
        tap = k * count + (_raveled(read, shape) if family.turned else np.arange(count))
        taps.append(np.append(np.where(_within(read, shape), tap, behind), behind)[table])
    places = level * size(lanes) + lane
    found = np.stack(reads).reshape(len(kept), -1)
    return Levels(table, np.stack(taps), found, places, max(drops))


def _raveled(places: Sequence[Any], shape: Sequence[int]) -> Any:
    flat = np.zeros((), int)
    for q, n in zip(places, shape, strict=True):
        flat = flat * n + q
    return flat


def _within(places: Sequence[Any], shape: Sequence[int]) -> Any:
    inside = np.ones((), bool)
    for q, n in zip(places, shape, strict=True):
        inside = inside & (q >= 0) & (q < n)
    return inside


Step = Callable[[Array, tuple[Array, ...]], tuple[Array, Array]]


def in_turn(step: Step, window: Array, levels: tuple[Array, ...]) -> tuple[Array, Array]:
    """Run a step for each level, along the first axis, as `jax.lax.scan`."""
    found = []
    for n in range(levels[0].shape[0]):
        window, h = step(window, tuple(each[n, ...] for each in levels))
        found.append(h)
    return window, namespace(window).stack(found)


def by_levels(family: Propagation, taps: Array, x: Array, scan: Any = in_turn) -> Array:
    """Run a recursion with functions of every library: sums over whole levels."""
    xp, shape, levels = namespace(x), tuple(x.shape), levels_of(family, tuple(x.shape[2:]))
    if levels is None:
        return copy_of(x)
    count, width = levels.pixels.shape
    kept = levels.taps.shape[0]
    rows = _taken(xp.reshape(x, (*shape[:2], -1)), levels.pixels)
    weights = _taken(xp.reshape(taps, (*taps.shape[:2], -1)), levels.taps)
    inside = constant(levels.pixels < size(shape[2:]), x)
    reads, none = constant(levels.reads.reshape(-1), x), zeros((*shape[:2], 1), x)

    def step(window: Array, level: tuple[Array, ...]) -> tuple[Array, Array]:
        row, weight, there = level
        read = xp.take(window, reads, axis=2)
        terms = weight * xp.reshape(read, (*shape[:2], kept, width))
        h = xp.where(there, row + xp.sum(terms, axis=2), none)
        return xp.concat([window[:, :, width:-1], h, none], axis=2), h

    given = xp.permute_dims(rows, (2, 0, 1, 3)), xp.permute_dims(weights, (3, 0, 1, 2, 4)), inside
    window = zeros((*shape[:2], levels.back * width + 1), x)
    h = xp.permute_dims(scan(step, window, given)[1], (1, 2, 0, 3))
    h = xp.reshape(h, (*shape[:2], count * width))
    return xp.reshape(xp.take(h, constant(levels.places, x), axis=2), shape)


def _taken(x: Array, places: Any) -> Array:
    """Return numbers along the last axis, zero at the place behind the last one."""
    xp, lead = namespace(x), tuple(x.shape[:-1])
    found = xp.take(pad(x, 2, 0, 1), constant(places.reshape(-1), x), axis=2)
    return xp.reshape(found, (*lead, *places.shape))


# of a `Propagation`, its taps and x
propagated: Primitive[[Propagation, Array, Array], Array]
propagated = Primitive(by_levels, "propagated", on=2)


def by_parts(
    family: Propagation, inputs: tuple[Offset, ...], gains: Array, taps: Array, x: Array
) -> Array:
    """Run a recursion over sum over j of gains[j, p] x[p + inputs[j]]."""
    parts = (term(gains[:, :, j, ...], x, o) for j, o in enumerate(inputs))
    return propagated(family, taps, functools.reduce(lambda one, other: one + other, parts))


driven: Primitive[[Propagation, tuple[Offset, ...], Array, Array, Array], Array]
driven = Primitive(by_parts, "driven", on=4)


def term(a: Array, h: Array, offset: Offset, turned: bool = False) -> Array:
    """Return a[p] h[p + offset], or if ``turned`` a[p + offset] h[p + offset]; zero outside."""
    here: list[Any] = [...]
    there: list[Any] = [...]
    first, ends = h.ndim - len(offset), []
    for o, n in zip(offset, h.shape[first:], strict=True):
        low, high = (max(0, -o), min(n, n - o)) if abs(o) < n else (0, 0)
        here.append(slice(low, high))
        there.append(slice(low + o, high + o) if high else slice(0, 0))
        ends.append((low, n - high))
    found = a[tuple(there if turned else here)] * h[tuple(there)]
    for axis, (before, after) in enumerate(ends, first):
        found = pad(found, axis, before, after)
    return found


def terms(family: Propagation, taps: Array, h: Array) -> Array:
    """Return T h."""
    parts = (term(taps[:, :, k, ...], h, o, family.turned) for k, o in enumerate(family.offsets))
    return functools.reduce(lambda one, other: one + other, parts)


def tangent(
    run: Any, family: Propagation, taps: Array, h: Array, taps_dot: Array | None, x_dot: Any
) -> Array | None:
    """Return the tangent of h = run(family, taps, x), None if those of taps and x are None."""
    moved = x_dot if taps_dot is None else terms(family, taps_dot, h)
    if taps_dot is not None and x_dot is not None:
        moved = moved + x_dot
    return None if moved is None else run(family, taps, moved)


def gram(family: Propagation, x_bar: Array, h: Array, like: Array) -> Array:
    """Return the gradient of <x_bar, T h> by the taps, in the shape of ``like``."""
    xp, parts = namespace(h), []
    axes = tuple(a for a in (0, 1) if like.shape[a] == 1 != h.shape[a])
    for o in family.offsets:
        back = tuple(-n for n in o)
        part = term(h, x_bar, back) if family.turned else term(x_bar, h, o)
        parts.append(xp.sum(part, axis=axes, keepdims=True) if axes else part)
    return xp.stack(parts, axis=2)


def propagate(x: Array, taps: Array, offsets: Any, gain: Array | None = None) -> Array:
    r"""Propagate numbers from pixel to pixel, with taps of their own at every pixel.

    $$h[p] = gain[p] x[p] + \sum_k taps[k, p] h[p + offsets[k]]$$

    Outside the image h is zero. The order of the pixels follows from the offsets: it is an order of
    axes and directions in which every offset comes earlier, such as row by row downwards for
    (-1, -1), (-1, 0) and (-1, 1). `unpropagate` is the inverse, and log|det dh/dx| is the sum of
    log|gain| over all numbers of x, 0 without a gain. The result is differentiable in x, taps and
    gain, any number of times. On a CPU compiled code runs; elsewhere whole rows or diagonals follow
    each other.

    Parameters
    ----------
    x : array, shape (*batch, C, *spatial)
        Images, real and floating.
    taps : array, shape (*batch or 1, C or 1, K, *spatial)
        A tap for each offset at every pixel; batch axes and channels of size 1 are shared.
    offsets : sequence of K tuples of integers
        The pixel that each tap reads, relative to its own: an integer for each spatial axis.
    gain : array, optional, shape (*batch or 1, C or 1, *spatial)
        1 unless given.

    Returns
    -------
    array
        h, with the shape and dtype of x; half types are computed in float32.

    Raises
    ------
    TypeError, ValueError
        If shapes, libraries or dtypes do not fit, or two offsets contradict each other.

    Examples
    --------
    >>> import numpy as np
    >>> x, taps = np.eye(3)[None], np.ones((1, 2, 3, 3))
    >>> propagate(x, taps, [(-1, 0), (0, -1)])
    array([[[1., 1., 1.],
            [1., 3., 4.],
            [1., 4., 9.]]])
    """
    family = _checked("x", x, taps, offsets, gain)
    kind, x, taps, gain = _widened(x, taps, gain)
    if gain is None:
        return cast(recursed(family, taps, x), kind)
    ndim = len(family.offsets[0])
    gains = gain[(..., None, *(slice(None),) * ndim)]
    return cast(recursed(family, taps, x, ((0,) * ndim,), gains), kind)


def unpropagate(h: Array, taps: Array, offsets: Any, gain: Array | None = None) -> Array:
    r"""Undo `propagate`: a stencil that changes from pixel to pixel.

    $$x[p] = (h[p] - \sum_k taps[k, p] h[p + offsets[k]]) / gain[p]$$

    Parameters
    ----------
    h : array, shape (*batch, C, *spatial)
        Results of `propagate`.
    taps, offsets, gain
        As for `propagate`.

    Returns
    -------
    array
        x, with the shape and dtype of h.

    Raises
    ------
    TypeError, ValueError
        As `propagate`.

    Examples
    --------
    >>> import numpy as np
    >>> x, taps = np.asarray([[1.0, 2.0, 3.0]]), np.full((1, 1, 3), 0.5)
    >>> unpropagate(propagate(x, taps, [(-1,)]), taps, [(-1,)])
    array([[1., 2., 3.]])
    """
    family = _checked("h", h, taps, offsets, gain)
    kind, h, taps, gain = _widened(h, taps, gain)
    parts = (h, *(-term(_tap(taps, k, len(o)), h, o) for k, o in enumerate(family.offsets)))
    x = functools.reduce(lambda one, other: one + other, parts)
    return cast(x if gain is None else x / gain, kind)


def recursed(
    family: Propagation,
    taps: Array,
    x: Array,
    inputs: tuple[Offset, ...] = (),
    gains: Array | None = None,
) -> Array:
    """Run a recursion over arrays (*batch, C, *spatial) that fit; inputs are as for `by_parts`."""
    xp, shape, ndim = namespace(x), tuple(x.shape), len(family.offsets[0])
    lead, axes = shape[: -ndim - 1], family.axes
    weights = [taps] if gains is None else [taps, gains]
    if 0 in shape:  # empty sums, so that derivatives by taps and gains are zeros
        return x + functools.reduce(lambda a, b: a + b, (xp.sum(v[..., :0]) for v in weights))
    images = []
    for v in (x, *weights):
        own = tuple(v.shape[: len(lead)])
        if own not in (lead, (1,) * len(own)):  # some of the batch axes are shared
            v = xp.broadcast_to(v, (*lead, *v.shape[len(lead) :]))
            own = lead
        images.append(xp.reshape(v, (size(own), *v.shape[len(lead) :])))
    if axes is not None:
        rows = (tuple(tuple(o[a] for a in axes) for o in each) for each in (family.offsets, inputs))
        offsets, inputs = rows
        family = Propagation.of(offsets, family.turned)
        images = [_moved(v, axes) for v in images]
    if gains is None:
        h = propagated(family, images[1], images[0])
    else:
        h = driven(family, inputs, images[2], images[1], images[0])
    if axes is not None:
        h = _moved(h, [axes.index(a) for a in range(ndim)])
    return xp.reshape(h, shape)


def _moved(v: Array, axes: Sequence[int]) -> Array:
    """Return an array with its spatial axes, the last ones, in another order."""
    first = v.ndim - len(axes)
    return namespace(v).permute_dims(v, (*range(first), *(first + a for a in axes)))


def _tap(taps: Array, k: int, ndim: int) -> Array:
    return taps[(..., k, *(slice(None),) * ndim)]


def _widened(first: Array, *others: Array | None) -> tuple[Any, ...]:
    """Return the dtype of the first array, and all arrays in the dtype of the computation."""
    kind, arrays = first.dtype, (first, *others)
    inner = namespace(first).float32 if is_half(kind, first) else native_dtype(kind)
    return kind, *(None if v is None else cast(v, inner) for v in arrays)


def _checked(name: str, x: Array, taps: Array, offsets: Any, gain: Array | None) -> Propagation:
    """Return the recursion of some offsets, once everything fits."""
    require_real(name, x)
    require_alike("taps", taps, name, x)
    family = _family(offsets)
    count, ndim = len(family.offsets), len(family.offsets[0])
    shape = tuple(x.shape)
    if len(shape) <= ndim:
        raise ValueError(
            f"{name}: expected the shape (*batch, C, *spatial), with {ndim} spatial axes as every "
            f"offset has numbers, got {shape}"
        )
    _require_fit("taps", taps, name, shape, (*shape[:-ndim], count, *shape[-ndim:]), ndim)
    if gain is not None:
        require_alike("gain", gain, name, x)
        _require_fit("gain", gain, name, shape, shape, ndim)
    return family


def _require_fit(name: str, v: Array, like: str, shape: Shape, whole: Shape, ndim: int) -> None:
    lead, got = len(shape) - ndim, tuple(v.shape)
    fits = len(got) == len(whole) and got[lead:] == whole[lead:]
    if not fits or any(n not in (1, m) for n, m in zip(got[:lead], whole, strict=False)):
        taps = "one tap for each offset, and " if len(whole) > len(shape) else ""
        raise ValueError(
            f"{name}: expected the shape {whole}, or 1 for the first {lead} sizes: {taps}the sizes "
            f"of {like}, {shape}; got {got}"
        )


def _family(offsets: Any) -> Propagation:
    """Return the recursion of some offsets, or raise."""
    expected = "offsets: expected a sequence of tuples, one integer in each for every spatial axis"
    try:
        rows = tuple(map(in_order, in_order(offsets)))
    except TypeError:
        raise TypeError(f"{expected}, got {offsets!r}") from None
    known = tuple(tuple(integer("offsets", o) for o in row) for row in rows)
    if not known or not known[0] or len(set(map(len, known))) > 1:
        raise ValueError(f"{expected}, got {offsets!r}")
    for one in known:
        if not any(one):
            raise ValueError(
                f"offsets: expected pixels other than the own one, got {one}; a tap at the pixel "
                "itself divides: pass gain / (1 - tap), and the taps divided by 1 - tap"
            )
    family = Propagation.of(known)
    _ = family.order  # it raises where offsets contradict each other
    return family
