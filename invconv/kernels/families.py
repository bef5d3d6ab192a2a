"""Families of matrices A(w) that depend linearly on weights w; operators are built of them.

    apply   y = A(w) x          gram    the gradient of <y, A(w) x> by w
    solve   x = A(w)^-1 y       A(w)^T  is of the family ``transpose()`` with weights ``adjoint(w)``

The weights are an array of the user: a kernel (C, C, *k), a matrix, a scale. A family holds the
settings: a mask, a direction, a dilation. A family *lowers* to taps with offsets and a border, a
matrix, a scale or a triangle: an array library needs to know these four. `invconv.kernels.maps`
runs families for every library, and differentiates them all alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from invconv.arrays.namespaces import Array, Shape, namespace, triangle
from invconv.arrays.stencil import Offset, Stencil, kernel_of, tap_indices, taps_of
from invconv.kernels import primitives
from invconv.kernels.matrices import matrix_solver
from invconv.kernels.primitives import Plan, Solver, matmul, multiply, per_channel, pixel_rows

_MOST = 512  # families of a class that are remembered


class LinearFamily:
    """Matrices A(w) that depend linearly on weights w; hashable, and registered under its name."""

    named: ClassVar[dict[str, type[LinearFamily]]] = {}
    made: ClassVar[dict[Any, Any]]  # the families that `of` returned, by their settings
    lowers: ClassVar[Literal["taps", "matrix", "scale", "triangle"]]  # the kind of map that runs
    # the kind of solve
    solved: ClassVar[Literal["causal", "spectral", "matrix", "scale", "triangle"] | None] = None
    text: Any  # the ``repr``, for libraries that pass settings as text

    def __init_subclass__(cls) -> None:
        cls.named[cls.__name__], cls.made = cls, {}

    @classmethod
    def of(cls, *settings: Any) -> Self:
        """Return the family of some settings, the same one each time.

        Its transpose is made with it: torch.compile can look a family up, but cannot make one.
        """
        family: Self | None = cls.made.get(settings)
        if family is None:
            if len(cls.made) >= _MOST:
                cls.made.clear()  # perhaps of a family that another thread, or `transpose`, made
            family = cls.made[settings] = cls(*settings)
            family.transpose()
        return family

    def apply(self, w: Array, x: Array) -> Array:
        """Return A(w) x."""
        raise NotImplementedError

    def gram(self, x: Array, y: Array) -> Array:
        """Return the gradient of <y, A(w) x> with respect to w."""
        raise NotImplementedError

    def shape_of(self, x: Array) -> Shape:
        """Return the shape of the weights for images like x."""
        raise NotImplementedError

    def factor(self, w: Array, shape: Shape) -> Solver:
        """Factor A(w) on a grid."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def transpose(self) -> Self:
        """Return the family of A(w)^T; its weights are ``adjoint(w)``."""
        raise NotImplementedError

    def adjoint(self, w: Array) -> Array:
        """Return the weights of A(w)^T."""
        return namespace(w).permute_dims(w, (1, 0, *range(2, w.ndim)))


class TapsFamily(LinearFamily):
    """Correlations: y[p] = sum over t of taps(w)[t] x[p + offsets[t]], for a border."""

    lowers = "taps"
    kernel_size: Shape  # w is a kernel (C, C, *kernel_size)
    offsets: tuple[Offset, ...]
    wrap: Any  # the border: True if periodic, False if zero, "symmetric", or a word for each axis
    first: int = 0  # the flat position in the kernel of the first tap; those before it are masked
    kept: int = 0  # the triangle of the first tap's matrix that is kept: 1 lower, -1 upper, 0 both

    @property
    def whole(self) -> TapsFamily:
        """The family of ``unfolded(w)``, which has every tap."""
        return self

    def unfolded(self, w: Array) -> Array:
        """Return the weights of ``whole``."""
        return w

    def folded(self, bar: Array) -> Array:
        """Return the gradient by w, given that by ``unfolded(w)``."""
        return bar

    def taps(self, w: Array) -> Array:
        """Return the taps (T, C, C), without masked ones."""
        return taps_of(w)

    def kernel(self, taps: Array) -> Array:
        """Return the weights with these taps; masked entries are zero."""
        return kernel_of(taps, self.kernel_size)

    def by_frequencies(self, x: Array) -> bool:
        """Tell whether A(w) x, and the gradient by w, are quicker in the frequency domain."""
        return False

    def shape_of(self, x: Array) -> Shape:
        return (x.shape[1], x.shape[1], *self.kernel_size)

    def apply(self, w: Array, x: Array) -> Array:
        return primitives.correlate(Stencil(self.offsets, self.taps(w)), x, wrap=self.wrap)

    def gram(self, x: Array, y: Array) -> Array:
        return self.kernel(primitives.correlate_kernel_vjp(x, y, self.offsets, wrap=self.wrap))


@dataclass(frozen=True)
class StencilFamily(TapsFamily):
    """Correlations with free taps w (T, C, C) at fixed offsets; there is no solve."""

    offsets: tuple[Offset, ...]
    wrap: bool

    @property
    def text(self) -> str:
        return f"StencilFamily(offsets={self.offsets}, wrap={self.wrap})"

    def taps(self, w: Array) -> Array:
        return w

    def kernel(self, taps: Array) -> Array:
        return taps

    def shape_of(self, x: Array) -> Shape:
        return len(self.offsets), x.shape[1], x.shape[1]

    def transpose(self) -> StencilFamily:
        return StencilFamily(tuple(tuple(-o for o in offset) for offset in self.offsets), self.wrap)

    def adjoint(self, w: Array) -> Array:
        return namespace(w).matrix_transpose(w)


@dataclass(frozen=True)
class CentredFamily(StencilFamily):
    """The `StencilFamily` of all taps of a kernel; torch.compile cannot list their offsets."""

    size: Shape  # of the kernel
    dilation: Shape
    flipped: bool = False  # the sign of the offsets
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        apart = tuple(-d if self.flipped else d for d in self.dilation)
        vars(self).update(offsets=centred_offsets(self.size, apart))

    def transpose(self) -> CentredFamily:
        return self.of(self.wrap, self.size, self.dilation, not self.flipped)


def centred_offsets(kernel_size: Shape, dilation: Shape) -> tuple[Offset, ...]:
    """Return the offsets dilation (t - (k - 1)//2) of every tap of a kernel."""
    return tuple(
        tuple(d * (i - (k - 1) // 2) for i, k, d in zip(t, kernel_size, dilation, strict=True))
        for t in tap_indices(kernel_size)
    )


@dataclass(frozen=True)
class MatrixFamily(LinearFamily):
    """One matrix w (C, C) at every pixel of x (B, C, *spatial)."""

    lowers = solved = "matrix"
    text = "MatrixFamily()"

    def shape_of(self, x: Array) -> Shape:
        return x.shape[1], x.shape[1]

    def apply(self, w: Array, x: Array) -> Array:
        return multiply(w, x)

    def gram(self, x: Array, y: Array) -> Array:
        return matmul(pixel_rows(y), namespace(x).matrix_transpose(pixel_rows(x)))

    def factor(self, w: Array, shape: Shape) -> Solver:
        return matrix_solver(w)

    def transpose(self) -> MatrixFamily:
        return self


@dataclass(frozen=True)
class TriangularFamily(LinearFamily):
    """Triangular matrices (C, C) for x (C, M); the entries of w beyond the triangle are ignored."""

    lowers = solved = "triangle"
    lower: bool

    def shape_of(self, x: Array) -> Shape:
        return x.shape[0], x.shape[0]

    @property
    def text(self) -> str:
        return "TriangularFamily(lower=True)" if self.lower else "TriangularFamily(lower=False)"

    def apply(self, w: Array, x: Array) -> Array:
        return matmul(triangle(w, lower=self.lower), x)

    def gram(self, x: Array, y: Array) -> Array:
        return triangle(matmul(y, namespace(x).matrix_transpose(x)), lower=self.lower)

    def transpose(self) -> TriangularFamily:
        return TriangularFamily(not self.lower)


@dataclass(frozen=True)
class ScaleFamily(LinearFamily):
    """A scale w (C,) for each channel of x (B, C, *spatial)."""

    lowers = solved = "scale"
    text = "ScaleFamily()"

    def shape_of(self, x: Array) -> Shape:
        return (x.shape[1],)

    def apply(self, w: Array, x: Array) -> Array:
        return per_channel(w, x) * x

    def gram(self, x: Array, y: Array) -> Array:
        return primitives.channel_sums(x * y)

    def factor(self, w: Array, shape: Shape) -> Solver:
        return Division(w)

    def transpose(self) -> ScaleFamily:
        return self

    def adjoint(self, w: Array) -> Array:
        return w


@dataclass(frozen=True, eq=False)
class Division:
    """x = y / scale, per channel."""

    scale: Array
    plan: ClassVar[Plan] = Plan("division")

    def __call__(self, y: Array) -> Array:
        return y / per_channel(self.scale, y)
