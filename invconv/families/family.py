"""Families of invertible maps A(w): an operator is a list of them, with weights w of its own.

    y = A(w) x,    x = A(w)^-1 y,    log|det A(w)|,    and the derivatives of the three

A family holds settings, such as a mask or a dilation, and is hashable. Its weights are an array, or
a tuple of arrays if the class says so. How a family runs is said by what it *lowers* to, a family
of `invconv.kernels.families`: taps at offsets, a matrix, a scale, or a spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, size
from invconv.kernels import maps
from invconv.kernels.families import LinearFamily
from invconv.kernels.primitives import Map, Solver
from invconv.trust.bound import UNBOUNDED, Bounds
from invconv.trust.condition import Condition

Wanted = tuple[bool, bool]  # whether the gradients by the weights and by the image are wanted
BOTH = (True, True)


@dataclass(frozen=True)
class Family:
    """Invertible maps A(w) of images (B, C, *spatial).

    Attributes
    ----------
    hint : str
        What to change where A(w) is singular, for the error.
    pixelwise : bool
        Whether A acts at each pixel alone, and at all pixels alike.
    closed : bool
        Whether the grid continues beyond its border, periodically or by mirroring.
    spectral : bool
        Whether A is one matrix per frequency, so that its error is measured without its taps.
    needs_y : bool
        Whether the derivative of x = A^-1 y needs y besides x.
    solves_by_applying : bool
        Whether A^-1 is a map of the kind of A; then `made_ready` prepares A.
    """

    hint: ClassVar[str] = "change its parameters"
    pixelwise: ClassVar[bool] = False
    closed: ClassVar[bool] = False
    spectral: ClassVar[bool] = False
    needs_y: ClassVar[bool] = False
    solves_by_applying: ClassVar[bool] = False

    # --- values ------------------------------------------------------------------------------

    def prepared(self, w: Any, shape: Shape) -> Any:
        """Return what depends on the weights and the grid only, for `apply` and its derivative."""
        return None

    def apply(self, w: Any, x: Array, prepared: Any = None) -> Array:
        """Return A(w) x, a new array."""
        raise NotImplementedError

    def vjp(
        self, w: Any, x: Array, y_bar: Array, wanted: Wanted, prepared: Any = None
    ) -> tuple[Any, Array]:
        """Return the gradients of ``<y_bar, A(w) x>`` by w and by x."""
        raise NotImplementedError

    def factor(self, w: Any, shape: Shape) -> Solver:
        """Return y -> A(w)^-1 y on a grid."""
        raise NotImplementedError

    def solve_vjp(
        self, w: Any, y: Array | None, x: Array, x_bar: Array, wanted: Wanted
    ) -> tuple[Any, Array]:
        """Return the gradients of ``<x_bar, x>``, x = A(w)^-1 y, by w and y; see `needs_y`."""
        raise NotImplementedError

    def transposed(self, w: Any) -> tuple[Family, Any]:
        """Return the family and the weights of A(w)^T."""
        raise NotImplementedError

    def transposed_vjp(self, bar: Any) -> Any:
        """Return the gradient by w, given the gradient by the weights of A(w)^T."""
        return self.transposed(bar)[1]

    # --- log-determinant ---------------------------------------------------------------------

    def pivots(self, w: Any) -> Array | None:
        """Return numbers whose logarithms, summed over all pixels, are log|det A|; None if none."""
        return None

    def log_det(self, w: Any, shape: Shape, saving: bool = False) -> tuple[Array, Any]:
        """Return log|det A(w)|, and, if ``saving``, intermediate results for its derivative."""
        raise NotImplementedError

    def add_log_det_vjp(self, known: Any, w: Any, shape: Shape, memo: Any, bar: Array) -> Any:
        """Return known + the gradient of bar log|det A(w)|, perhaps in the memory of ``known``.

        ``known`` is a gradient by w, or None for zero. ``memo`` is pivots(w), or comes from
        `log_det`, or is None.
        """
        raise NotImplementedError

    # --- trust, on NumPy float64 -------------------------------------------------------------

    def made_ready(self, w: Any, shape: Shape) -> Map:
        """Return x -> A(w) x prepared for one grid, as quick as the inverse."""
        return partial(self.apply, w)

    def condition(self, w: Any, shape: Shape) -> Condition | None:
        """Return the condition in the 2-norm, or None if it is to be estimated in the 1-norm."""
        return None

    def bounds(self, w: Any) -> Bounds:
        """Return bounds of the errors of a solve at O(1) cost, or `UNBOUNDED`."""
        return UNBOUNDED

    def longest_columns(self, shape: Shape) -> tuple[int | None, ...]:
        """Return a pixel index per axis: every column of A is a shift of that pixel's column.

        The index is None along an axis without such a pixel.
        """
        return tuple(0 if self.pixelwise else None for _ in shape)

    def products(self, w: Any, shape: Shape, compiled: bool = False) -> float:
        """Return about how many products A x takes for one sample, fewer if ``compiled``."""
        return float(sum(size(a.shape) for a in arrays_of(w)) * size(shape))

    def reach(self, axis: int) -> int:
        """Return the number of pixels along an axis that a solve reaches back in one step."""
        return 0


class Linear(Family):
    """Maps that are linear in w, or in an array made of w: `kernels.maps` has their derivatives."""

    linear: Any  # the LinearFamily that runs

    def lowered(self, w: Any) -> Array:
        """Return the array in which the map is linear: w, unless a class says otherwise."""
        return w

    def lowered_vjp(self, w: Any, bar: Array) -> Any:
        """Return the gradient of ``<bar, lowered(w)>``."""
        return bar

    def apply(self, w: Any, x: Array, prepared: Any = None) -> Array:
        return maps.apply(self.linear, self.lowered(w), x)

    def vjp(
        self, w: Any, x: Array, y_bar: Array, wanted: Wanted, prepared: Any = None
    ) -> tuple[Any, Array]:
        bar, x_bar = maps.apply_vjp(self.linear, self.lowered(w), x, y_bar, wanted)
        return None if bar is None else self.lowered_vjp(w, bar), x_bar

    def factor(self, w: Any, shape: Shape) -> Solver:
        return maps.factor(self.linear, self.lowered(w), shape)

    def solve_vjp(
        self, w: Any, y: Array | None, x: Array, x_bar: Array, wanted: Wanted
    ) -> tuple[Any, Array]:
        linear: LinearFamily = self.linear
        weights = linear.adjoint(self.lowered(w))
        back = maps.factor(linear.transpose(), weights, tuple(x.shape[2:]))
        bar, y_bar = maps.solve_vjp(linear, back, x, x_bar, wanted)
        return None if bar is None else self.lowered_vjp(w, bar), y_bar

    def transposed(self, w: Any) -> tuple[Family, Array]:
        family: Any = self
        return replace(family, linear=self.linear.transpose()), self.linear.adjoint(w)


@dataclass(frozen=True)
class Shift(Family):
    """x + w, a bias for each channel (`invconv.families.path` runs it): the linear part is 1."""

    pixelwise: ClassVar[bool] = True

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        return Bounds(1.0, 1.0, 1, float(np.abs(w).max()))


SHIFT = Shift()


def arrays_of(w: Any) -> tuple[Array, ...]:
    """Return weights as a tuple of arrays."""
    return w if isinstance(w, tuple) else (w,)
