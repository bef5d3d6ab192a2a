"""Families of matrices A(w) that depend linearly on weights w; operators are built of them.

    apply   y = A(w) x          gram    the gradient of <y, A(w) x> by w
    solve   x = A(w)^-1 y       A(w)^T  is of the family ``transpose()`` with weights ``adjoint(w)``

The weights are an array of the user: a kernel (C, C, *k), a matrix, a scale. A family holds the
settings: a mask, a direction, a dilation. `invconv.kernels.maps` runs families for every library,
and `invconv.kernels.rules` differentiates them all alike.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from invconv.arrays.namespaces import Array, Shape, namespace, triangle
from invconv.arrays.stencil import Offset, Stencil, tap_indices
from invconv.kernels.matrices import matrix_solver
from invconv.kernels.pixel_steps import Triangle
from invconv.kernels.primitives import (
    correlate,
    correlate_kernel_vjp,
    matmul,
    multiply,
    per_channel,
    pixel_rows,
)
from invconv.kernels.solver import Solver


class LinearFamily(Protocol):
    """Matrices A(w) that depend linearly on weights w; hashable."""

    @property
    def text(self) -> str:
        """The ``repr``, for libraries that pass settings as text."""

    @abstractmethod
    def apply(self, w: Array, x: Array) -> Array:
        """Return A(w) x."""

    @abstractmethod
    def gram(self, x: Array, y: Array) -> Array:
        """Return the gradient of <y, A(w) x> with respect to w."""

    @abstractmethod
    def factor(self, w: Array, shape: Shape) -> Solver:
        """Factor A(w) on a grid."""

    @abstractmethod
    def transpose(self) -> Self:
        """Return the family of A(w)^T; its weights are ``adjoint(w)``."""

    @abstractmethod
    def adjoint(self, w: Array) -> Array:
        """Return the weights of A(w)^T."""


@dataclass(frozen=True)
class StencilFamily:
    """Correlations with free taps w (T, C, C) at fixed offsets; there is no solve."""

    offsets: tuple[Offset, ...]
    wrap: bool

    @property
    def text(self) -> str:
        """The ``repr``."""
        return f"StencilFamily(offsets={self.offsets}, wrap={self.wrap})"

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return correlate(Stencil(self.offsets, w), x, wrap=self.wrap)

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        return correlate_kernel_vjp(x, y, self.offsets, wrap=self.wrap)

    def factor(self, w: Array, shape: Shape) -> Solver:
        """See `LinearFamily`."""
        raise NotImplementedError("free taps have no inverse")

    def transpose(self) -> StencilFamily:
        """See `LinearFamily`."""
        return StencilFamily(tuple(tuple(-o for o in offset) for offset in self.offsets), self.wrap)

    def adjoint(self, w: Array) -> Array:
        """See `LinearFamily`."""
        return namespace(w).matrix_transpose(w)


@dataclass(frozen=True)
class CentredFamily(StencilFamily):
    """A `StencilFamily` of a whole kernel; text and transpose are kept: Dynamo traces neither."""

    text: str = field(init=False, repr=False, compare=False)
    turned: CentredFamily = field(init=False, repr=False, compare=False)

    def transpose(self) -> CentredFamily:
        """See `LinearFamily`."""
        return self.turned


_centred: dict[Any, CentredFamily] = {}  # a dict, since torch.compile reads it
_MOST = 512  # families that are kept


def centred_family(kernel_size: Shape, dilation: Shape, wrap: bool) -> CentredFamily:
    """Return the family of a whole kernel of odd sizes around its centre; always the same one."""
    key = kernel_size, dilation, wrap
    if key not in _centred:
        if len(_centred) >= _MOST:
            _centred.clear()
        offsets = tuple(
            tuple(d * (i - (k - 1) // 2) for i, k, d in zip(t, kernel_size, dilation, strict=True))
            for t in tap_indices(kernel_size)
        )
        away = tuple(tuple(-o for o in offset) for offset in offsets)
        family, turned = CentredFamily(offsets, wrap), CentredFamily(away, wrap)
        for one, other in ((family, turned), (turned, family)):
            vars(one).update(text=StencilFamily(one.offsets, wrap).text, turned=other)
        _centred[key] = family
    return _centred[key]


@dataclass(frozen=True)
class MatrixFamily:
    """One matrix w (C, C) at every pixel of x (B, C, *spatial)."""

    text: ClassVar[str] = "MatrixFamily()"

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return multiply(w, x)

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        return matmul(pixel_rows(y), namespace(x).matrix_transpose(pixel_rows(x)))

    def factor(self, w: Array, shape: Shape) -> Solver:
        """See `LinearFamily`."""
        return matrix_solver(w)

    def transpose(self) -> MatrixFamily:
        """See `LinearFamily`."""
        return self

    def adjoint(self, w: Array) -> Array:
        """See `LinearFamily`."""
        return namespace(w).matrix_transpose(w)


@dataclass(frozen=True)
class TriangularFamily:
    """Triangular matrices (C, C) for x (C, M); the entries of w beyond the triangle are ignored."""

    lower: bool

    @property
    def text(self) -> str:
        """The ``repr``."""
        return "TriangularFamily(lower=True)" if self.lower else "TriangularFamily(lower=False)"

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return matmul(triangle(w, lower=self.lower), x)

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        return triangle(matmul(y, namespace(x).matrix_transpose(x)), lower=self.lower)

    def factor(self, w: Array, shape: Shape) -> Solver:
        """See `LinearFamily`."""
        return Triangle(w, self.lower)

    def transpose(self) -> TriangularFamily:
        """See `LinearFamily`."""
        return TriangularFamily(not self.lower)

    def adjoint(self, w: Array) -> Array:
        """See `LinearFamily`."""
        return namespace(w).matrix_transpose(w)


@dataclass(frozen=True)
class ScaleFamily:
    """A scale w (C,) for each channel of x (B, C, *spatial)."""

    text: ClassVar[str] = "ScaleFamily()"

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return per_channel(w, x) * x

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        return namespace(x).sum(x * y, axis=(0, *range(2, x.ndim)))

    def factor(self, w: Array, shape: Shape) -> Solver:
        """See `LinearFamily`."""
        return Division(w)

    def transpose(self) -> ScaleFamily:
        """See `LinearFamily`."""
        return self

    def adjoint(self, w: Array) -> Array:
        """See `LinearFamily`."""
        return w


@dataclass(frozen=True, eq=False)
class Division:
    """x = y / scale, per channel."""

    scale: Array

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "division"}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return y / per_channel(self.scale, y)
