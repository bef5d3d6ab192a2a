"""Large images on a CPU are solved band by band: the work that one needs fits into a cache.

A band is a few rows of every image of the batch. With the rows before it that its taps reach,
solved already, it is a small image of its own. The loop over the bands writes into one array, the
result, so a solve needs the memory of a band besides it. On an accelerator, where every step of a
loop costs a launch, the whole image is solved at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from jax import lax
from jax import numpy as jnp

from invconv.arrays import Array, Shape
from invconv_jax.fronts import Geometry

_WHOLE = 8 * 10**6  # bytes of images up to which one solve is faster than several
_BAND = 2**19  # bytes of one band's images
_MOST = 16  # bands: a band's workspace is three to four times as large as its part of the images


@dataclass(frozen=True)
class Bands:
    """Which rows are solved together: hashable, so that JAX compiles once for each.

    Attributes
    ----------
    axis : int
        Along which the bands follow each other: one where no tap looks ahead.
    height : int
        Rows of a band. The last band is as high as the others and begins within the one before it.
    count : int
    """

    axis: int
    height: int
    count: int

    @classmethod
    def of(cls, geometry: Geometry, y_shape: Shape, itemsize: int) -> Bands:
        """Choose them for images (B, C, *shape)."""
        g = geometry
        ahead = [any(o[a] < 0 for o in g.reach) for a in range(len(g.shape))]
        axis = max((a for a, a_ahead in enumerate(ahead) if not a_ahead), key=g.shape.__getitem__)
        rows, halo = g.shape[axis], g.halo(axis)
        size = math.prod(y_shape) * itemsize
        known = isinstance(size, int)  # not where a program is exported for any batch
        wanted = min(_MOST, size // _BAND) if known and size > _WHOLE else 1
        height = max(rows // max(1, wanted), halo, 1)
        if rows - height < halo:  # all that the taps of the last band reach is to be before it
            return cls(axis, rows, 1)
        return cls(axis, height, math.ceil(rows / height))


def solve_in_bands(
    solve: Callable[[Geometry, Array], Array], geometry: Geometry, bands: Bands, y: Array
) -> Array:
    """Solve for x, shape (B, C, *shape).

    Parameters
    ----------
    solve : callable
        Takes a geometry and a right-hand side, and solves it at once.
    geometry : Geometry
    bands : Bands
    y : array, shape (B, C, *shape)
    """
    if bands.count == 1 or not geometry.reach:
        return solve(geometry, y)

    def banded(y: Array) -> Array:
        return _banded(solve, geometry, bands, y)

    def whole(y: Array) -> Array:
        return solve(geometry, y)

    return lax.platform_dependent(y, cpu=banded, default=whole)


def _banded(
    solve: Callable[[Geometry, Array], Array], geometry: Geometry, bands: Bands, y: Array
) -> Array:
    height, axis = bands.height, 2 + bands.axis
    rows, halo = y.shape[axis], geometry.halo(bands.axis)
    upwards = geometry.direction[bands.axis] < 0
    band = dataclasses.replace(
        geometry,
        shape=_with(geometry.shape, bands.axis, height + halo),
        solved=_with((0,) * len(geometry.shape), bands.axis, halo // geometry.dilation[bands.axis]),
    )

    def step(i: Array, x: Array) -> Array:
        passed = jnp.minimum(i * height, rows - height)
        start = rows - height - passed if upwards else passed
        # there is nothing before the first band; what is read in its place is zero still
        before = start + height if upwards else start - halo
        known = lax.dynamic_slice_in_dim(x, before, halo, axis)
        given = lax.dynamic_slice_in_dim(y, start, height, axis)
        found = solve(band, jnp.concatenate([given, known] if upwards else [known, given], axis))
        found = lax.slice_in_dim(found, *((0, height) if upwards else (halo, None)), axis=axis)
        return lax.dynamic_update_slice_in_dim(x, found, start, axis)

    return lax.fori_loop(0, bands.count, step, jnp.zeros_like(y))


def _with(sizes: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*sizes[:axis], size, *sizes[axis + 1 :])
