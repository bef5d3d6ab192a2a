"""Families of invertible maps A(w): an operator is a list of them, with weights w of its own.

    y = A(w) x,    x = A(w)^-1 y,    log|det A(w)|,    and the derivatives of the three

A family holds settings, such as a mask or a dilation, and is hashable. Its weights are an array, or
a tuple of arrays if the class says so.

A family that is linear in w has *rules* in pure array API. `invconv.kernels.maps` runs them for
every library, and differentiates all families alike:

    apply   y = A(w) x          gram    the gradient of <y, A(w) x> by w
    factor  x = A(w)^-1 y       A(w)^T  is of the family ``transpose()`` with weights ``adjoint(w)``

It names the kind of map that runs: taps with offsets and a border, a matrix, a scale or a triangle.
An array library needs to know only these four. Any other family *lowers* to a linear one, whose
weights are computed from w, or has a leg of its own (`invconv.families.path`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, namespace, size
from invconv.kernels import maps
from invconv.kernels.primitives import Map, Solver
from invconv.trust.bound import UNBOUNDED, Bounds
from invconv.trust.condition import Condition

Wanted = tuple[bool, bool]  # whether the gradients by the weights and by the image are wanted
BOTH = (True, True)
_MOST = 512  # families of a class that are remembered


@dataclass(frozen=True)
class Family:
    """Invertible maps A(w) of images (B, C, *spatial).

    Attributes
    ----------
    hint : str
        The change that the error recommends where A(w) is singular.
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
    leg : type or None
        The class of its leg of a route, made of a family, w and a grid; None if the rules run it.
    lowers, solved : str or None
        The kinds of map and of solve that run natively, of a family that is linear in w; None if
        its rules run.
    """

    hint: ClassVar[str] = "change its parameters"
    pixelwise: ClassVar[bool] = False
    closed: ClassVar[bool] = False
    spectral: ClassVar[bool] = False
    needs_y: ClassVar[bool] = False
    solves_by_applying: ClassVar[bool] = False
    leg: ClassVar[Any] = None
    lowers: ClassVar[Literal["taps", "matrix", "scale", "triangle"] | None] = None
    solved: ClassVar[Literal["causal", "spectral", "matrix", "scale", "triangle"] | None] = None

    named: ClassVar[dict[str, "type[Family]"]] = {}  # the classes by their names
    made: ClassVar[dict[Any, Any]]  # the families that `of` returned, by settings and by text

    def __init_subclass__(cls) -> None:
        cls.made = {}
        known = cls.named.setdefault(cls.__qualname__, cls)
        if known.__module__ != cls.__module__:
            raise TypeError(
                f"class {cls.__qualname__}: expected a name of its own, by which compiled code "
                f"knows a family, got that of {known.__module__}.{known.__qualname__}"
            )
        cls.named[cls.__qualname__] = cls  # a cell of a notebook may have run again

    @classmethod
    def of(cls, *settings: Any) -> Self:
        """Return the one family of some settings, kept since torch.compile cannot make families."""
        try:
            family: Self | None = cls.made.get(settings)
        except TypeError:
            raise TypeError(
                f"{cls.__name__}: expected settings that have a hash, such as numbers, words and "
                f"tuples of them, got {settings!r:.80}"
            ) from None
        if family is None:
            if len(cls.made) >= 2 * _MOST:
                cls.made.clear()  # also of those that another thread, or `transpose`, just made
            family = cls.made[settings] = cls(*settings)
            family.transpose()  # is made, too
            cls.made[family.text] = family
        return family

    @derived
    def text(self) -> str:
        """Return the family as text, for libraries that pass settings as text."""
        return repr(self)

    # --- rules of a family that is linear in w: call those of `invconv.kernels.maps` ----------

    def apply(self, w: Array, x: Array) -> Array:
        """Return A(w) x, a new array."""
        raise self._lacking("apply")

    def gram(self, x: Array, y: Array) -> Array:
        """Return the gradient of <y, A(w) x> with respect to w."""
        raise self._lacking("gram")

    def shape_of(self, x: Array) -> Shape:
        """Return the shape of the weights for images like x, for code that is traced."""
        raise self._lacking("shape_of")

    def factor(self, w: Array, shape: Shape) -> Solver:
        """Return a `Solver`, y -> A(w)^-1 y for y (B, C, *shape), which states its `Plan`."""
        raise self._lacking("factor")

    def transpose(self) -> Any:
        """Return the family of A(w)^T, by `of`; its weights are ``adjoint(w)``."""
        raise self._lacking("transpose")

    def adjoint(self, w: Array) -> Array:
        """Return the weights of A(w)^T."""
        return namespace(w).permute_dims(w, (1, 0, *range(2, w.ndim)))

    # --- values, by the rules unless a class says otherwise -----------------------------------

    def lowered(self, w: Any) -> "tuple[Family, Any]":
        """Return the linear family that runs, and its weights."""
        return self, w

    def lowered_vjp(self, w: Any, bar: Any) -> Any:
        """Return the gradient by w, given that by the weights of `lowered`."""
        return bar

    def solver(self, w: Any, shape: Shape) -> Solver:
        """Return y -> A(w)^-1 y on a grid."""
        return maps.factor(self, w, shape)

    def solve_vjp(
        self, w: Any, y: Array | None, x: Array, x_bar: Array, wanted: Wanted
    ) -> tuple[Any, Any]:
        """Return the gradients of ``<x_bar, x>``, x = A(w)^-1 y, by w and y; see `needs_y`."""
        back = maps.factor(self.transpose(), self.adjoint(w), tuple(x.shape[2:]))
        return maps.solve_vjp(self, back, x, x_bar, wanted)

    def transposed(self, w: Any) -> "tuple[Family, Any]":
        """Return the family and the weights of A(w)^T."""
        return self.transpose(), self.adjoint(w)

    def transposed_vjp(self, bar: Any) -> Any:
        """Return the gradient by w, given the gradient by the weights of A(w)^T."""
        return self.transposed(bar)[1]

    def pivots(self, w: Any) -> Array | None:
        """Return numbers whose logarithms, summed over all pixels, are log|det A|, or None."""
        return None

    def log_det(self, w: Any, shape: Shape, saving: bool) -> tuple[Array, Any]:
        """Return log|det A(w)|, and, if ``saving``, intermediate results for its derivative."""
        raise self._lacking("pivots or log_det")

    def add_log_det_vjp(self, known: Any, w: Any, shape: Shape, memo: Any, bar: Array) -> Any:
        """Return known + the gradient of bar log|det A(w)|, which may reuse the array ``known``.

        ``known`` is a gradient by w, or None for zero. ``memo`` is pivots(w), or comes from
        `log_det`, or is None.
        """
        raise self._lacking("add_log_det_vjp")

    def _lacking(self, rule: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__}: expected a method {rule}, got none")

    # --- trust, on NumPy float64 -------------------------------------------------------------

    def made_ready(self, w: Any, shape: Shape) -> Map:
        """Return x -> A(w) x prepared for one grid, as quick as the inverse."""
        return partial(maps.apply, *self.lowered(w))

    def condition(self, w: Any, shape: Shape) -> Condition | None:
        """Return the condition in the 2-norm, or None if it is to be estimated in the 1-norm."""
        return None

    def bounds(self, w: Any) -> Bounds:
        """Return bounds of the errors of a solve at O(1) cost, or `UNBOUNDED`."""
        return UNBOUNDED

    def longest_columns(self, shape: Shape) -> tuple[int | None, ...]:
        """Return a pixel index per axis, or None: every column of A is a shift of that pixel's."""
        return tuple(0 if self.pixelwise else None for _ in shape)

    def products(self, w: Any, shape: Shape) -> float:
        """Return about how many products A x takes for one sample."""
        arrays = w if isinstance(w, tuple) else (w,)
        return float(sum(size(a.shape) for a in arrays) * size(shape))

    def summed(self, w: Any, shape: Shape) -> float:
        """Return about how many products A x takes as a call runs it, if A is not prepared."""
        return self.products(w, shape)

    def reaches_back(self, axis: int) -> int:
        """Return the number of pixels along an axis that a solve reaches back in one step."""
        return 0


@dataclass(frozen=True)
class Shift(Family):
    """x + w, a bias for each channel; its linear part is 1. `invconv.families.path` runs it."""

    pixelwise: ClassVar[bool] = True

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        return Bounds(1.0, 1.0, 1.0, float(np.abs(w).max()))


SHIFT = Shift()
