"""Families of matrices A(w) that depend linearly on weights w: what the primitives apply and solve.

`invconv.kernels.rules` differentiates all of them alike.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, Self

from invconv.arrays.namespaces import Array, Shape, constant, namespace, size
from invconv.arrays.stencil import Offset, Stencil
from invconv.kernels.primitives import correlate, correlate_kernel_vjp, matmul, multiply, pixel_rows
from invconv.kernels.spectrum import from_frequencies, multiplicity, to_frequencies
from invconv.kernels.wavefront import CausalStencil


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

    The other attributes are those of `invconv.kernels.wavefront.CausalStencil`.
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
class MatrixFamily:
    """One matrix w (C, C) at every pixel of x (B, C, *spatial)."""

    def apply(self, w: Array, x: Array) -> Array:
        """See `LinearFamily`."""
        return multiply(w, x)

    def gram(self, x: Array, y: Array) -> Array:
        """See `LinearFamily`."""
        return matmul(pixel_rows(y), self.adjoint(pixel_rows(x)))

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
