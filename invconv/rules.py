"""The derivatives of the primitives, for libraries whose autodiff should not look inside them.

A primitive is one of three functions of a matrix A(w) that depends linearly on weights w:

    apply   y = A(w) x           y_dot = A(w_dot) x + A(w) x_dot
                                 x_bar = A(w)^T y_bar,    w_bar = gram(x, y_bar)
    solve   x = A(w)^-1 y        x_dot = A(w)^-1 (y_dot - A(w_dot) x)
                                 y_bar = A(w)^-T x_bar,   w_bar = -gram(x, y_bar)
    gram    g = d<y, A(w) x>/dw  g_dot = gram(x_dot, y) + gram(x, y_dot)
                                 x_bar = A(g_bar)^T y,    y_bar = A(g_bar) x

The three are closed under differentiation, so that derivatives of any order need no more, and of
a solve x alone is kept. A tangent or a result that nobody has or wants is None.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from invconv.arrays import Array, Shape, constant, namespace, size
from invconv.primitives import correlate, correlate_kernel_vjp, matmul
from invconv.spectrum import from_frequencies, multiplicity, to_frequencies
from invconv.stencil import Offset, Stencil
from invconv.wavefront import CausalStencil


class LinearFamily(Protocol):
    """Matrices A(w) that depend linearly on weights w; hashable."""

    @abstractmethod
    def apply(self, w: Array, x: Array) -> Array:
        """Return A(w) x."""

    @abstractmethod
    def gram(self, x: Array, y: Array) -> Array:
        """Return the gradient of <y, A(w) x> with respect to w."""

    @abstractmethod
    def transpose(self) -> Self:
        """Return the family that A(w)^T is of, with weights ``adjoint(w)``."""

    @abstractmethod
    def adjoint(self, w: Array) -> Array:
        """Return the weights of A(w)^T."""


@dataclass(frozen=True)
class StencilFamily:
    """Correlations with taps w (T, C, C) at fixed offsets, for x (B, C, *spatial)."""

    offsets: tuple[Offset, ...]
    wrap: bool

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return correlate(Stencil(self.offsets, w), x, wrap=self.wrap)

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        return correlate_kernel_vjp(x, y, self.offsets, wrap=self.wrap)

    def transpose(self) -> StencilFamily:
        """See `LinearFamily`."""
        return StencilFamily(tuple(tuple(-o for o in offset) for offset in self.offsets), self.wrap)

    def adjoint(self, w: Array) -> Array:
        """See `LinearFamily`."""
        return namespace(w).matrix_transpose(w)


@dataclass(frozen=True)
class CausalFamily:
    """Autoregressive convolutions: w (1 + T, C, C) has the triangular D first, then the taps.

    The other attributes are those of `invconv.wavefront.CausalStencil`.
    """

    lower: bool
    reach: tuple[Offset, ...]
    direction: tuple[int, ...]
    dilation: tuple[int, ...]
    slope: tuple[int, ...]

    @staticmethod
    def of(causal: CausalStencil) -> tuple[CausalFamily, Array]:
        """Return the family of a stencil, and its weights."""
        family = CausalFamily(
            causal.lower, causal.reach, causal.direction, causal.dilation, causal.slope
        )
        return family, causal.stencil().taps

    def stencil(self, w: Array) -> CausalStencil:
        """Return the stencil with weights w."""
        return CausalStencil(
            w[0, ...],
            self.lower,
            w[1:, ...],
            self.reach,
            self.direction,
            self.dilation,
            self.slope,
        )

    @property
    def _correlation(self) -> StencilFamily:
        scale = [-s * d for s, d in zip(self.direction, self.dilation, strict=True)]
        away = [tuple(f * o for f, o in zip(scale, reach, strict=True)) for reach in self.reach]
        return StencilFamily(((0,) * len(scale), *away), wrap=False)

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return self._correlation.apply(w, x)

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        return self._correlation.gram(x, y)

    def transpose(self) -> CausalFamily:
        """See `LinearFamily`."""
        away = tuple(-s for s in self.direction)
        return CausalFamily(not self.lower, self.reach, away, self.dilation, self.slope)

    def adjoint(self, w: Array) -> Array:
        """See `LinearFamily`."""
        return namespace(w).matrix_transpose(w)


@dataclass(frozen=True)
class SpectralFamily:
    """Periodic convolutions by their spectra w (F, C, C), complex, for x (B, C, *shape).

    <y, A(w) x> = 1/N sum over the half spectrum of m_f Re(y_hat^H w x_hat), where m_f counts how
    often f occurs in the full one. A gradient by w is that by Re w plus i times that by Im w.
    """

    shape: Shape

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return from_frequencies(matmul(w, to_frequencies(x)), self.shape)

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        x_hat, y_hat = to_frequencies(x), to_frequencies(y)
        weights = constant(multiplicity(self.shape) / size(self.shape), x, x.dtype)
        outer = matmul(y_hat, self.adjoint(x_hat))
        return outer * weights[:, None, None]

    def transpose(self) -> SpectralFamily:
        """See `LinearFamily`."""
        return self

    def adjoint(self, w: Array) -> Array:
        """See `LinearFamily`."""
        xp = namespace(w)
        return xp.conj(xp.matrix_transpose(w))


@dataclass(frozen=True)
class TriangularFamily:
    """Triangular matrices (C, C) for x (C, M); the entries of w beyond the triangle are ignored."""

    lower: bool

    def _triangle(self, w: Array) -> Array:
        xp = namespace(w)
        return xp.tril(w) if self.lower else xp.triu(w)

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return matmul(self._triangle(w), x)

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        return self._triangle(matmul(y, self.adjoint(x)))

    def transpose(self) -> TriangularFamily:
        """See `LinearFamily`."""
        return TriangularFamily(not self.lower)

    def adjoint(self, w: Array) -> Array:
        """See `LinearFamily`."""
        return namespace(w).matrix_transpose(w)


Tangent = Array | None


def apply_jvp(family: LinearFamily, w: Array, x: Array, w_dot: Tangent, x_dot: Tangent) -> Tangent:
    """Push tangents through y = A(w) x."""
    return _sum(
        None if w_dot is None else family.apply(w_dot, x),
        None if x_dot is None else family.apply(w, x_dot),
    )


def apply_vjp(
    family: LinearFamily, w: Array, x: Array, y_bar: Array, wanted: tuple[bool, bool]
) -> tuple[Tangent, Tangent]:
    """Return (w_bar, x_bar) of y = A(w) x."""
    w_bar = family.gram(x, y_bar) if wanted[0] else None
    x_bar = family.transpose().apply(family.adjoint(w), y_bar) if wanted[1] else None
    return w_bar, x_bar


def solve_jvp(
    family: LinearFamily,
    solve: Callable[[Array], Array],
    x: Array,
    w_dot: Tangent,
    y_dot: Tangent,
) -> Tangent:
    """Push tangents through x = A(w)^-1 y; ``solve`` is y -> A(w)^-1 y."""
    moved = None if w_dot is None else -family.apply(w_dot, x)
    total = _sum(y_dot, moved)
    return None if total is None else solve(total)


def solve_vjp(
    family: LinearFamily,
    solve_transposed: Callable[[Array], Array],
    x: Array,
    x_bar: Array,
    wanted: tuple[bool, bool],
) -> tuple[Tangent, Tangent]:
    """Return (w_bar, y_bar) of x = A(w)^-1 y; ``solve_transposed`` is x_bar -> A(w)^-T x_bar."""
    y_bar = solve_transposed(x_bar)
    w_bar = -family.gram(x, y_bar) if wanted[0] else None
    return w_bar, y_bar if wanted[1] else None


def gram_jvp(family: LinearFamily, x: Array, y: Array, x_dot: Tangent, y_dot: Tangent) -> Tangent:
    """Push tangents through g = gram(x, y)."""
    return _sum(
        None if x_dot is None else family.gram(x_dot, y),
        None if y_dot is None else family.gram(x, y_dot),
    )


def gram_vjp(
    family: LinearFamily, x: Array, y: Array, g_bar: Array, wanted: tuple[bool, bool]
) -> tuple[Tangent, Tangent]:
    """Return (x_bar, y_bar) of g = gram(x, y)."""
    x_bar = family.transpose().apply(family.adjoint(g_bar), y) if wanted[0] else None
    return x_bar, family.apply(g_bar, x) if wanted[1] else None


def matmul_jvp(a: Array, b: Array, a_dot: Tangent, b_dot: Tangent) -> Tangent:
    """Push tangents through Y = A B."""
    return _sum(
        None if a_dot is None else matmul(a_dot, b),
        None if b_dot is None else matmul(a, b_dot),
    )


def matmul_vjp(
    a: Array, b: Array, y_bar: Array, wanted: tuple[bool, bool]
) -> tuple[Tangent, Tangent]:
    """Return (a_bar, b_bar) of Y = A B: Y_bar B^H and A^H Y_bar, summed where axes broadcast."""
    a_bar = b_bar = None
    if wanted[0]:
        a_bar = _sum_to(matmul(y_bar, _adjoint(b)), tuple(a.shape))
    if wanted[1]:
        b_bar = _sum_to(matmul(_adjoint(a), y_bar), tuple(b.shape))
    return a_bar, b_bar


def _adjoint(a: Array) -> Array:
    xp = namespace(a)
    a = xp.matrix_transpose(a)
    return xp.conj(a) if xp.isdtype(a.dtype, "complex floating") else a


def _sum_to(a: Array, shape: Shape) -> Array:
    """Undo a broadcast from ``shape``."""
    xp = namespace(a)
    extra = tuple(range(a.ndim - len(shape)))
    stretched = tuple(
        i + len(extra) for i, n in enumerate(shape) if n == 1 != a.shape[i + len(extra)]
    )
    axes = extra + stretched
    return xp.reshape(xp.sum(a, axis=axes), shape) if axes else a


def _sum(a: Tangent, b: Tangent) -> Tangent:
    if a is None or b is None:
        return b if a is None else a
    return a + b
