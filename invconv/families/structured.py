"""Families of structured matrices: triangular, orthogonal and circulant ones.

The determinant of a triangular matrix is the product of its diagonal, and that of an orthogonal one
is +-1. A circulant matrix, given by its first column, is a product of numbers in Fourier's basis.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    diagonal,
    identity,
    log_abs,
    log_of_exp,
    namespace,
    size,
    total,
)
from invconv.families.family import Family, Wanted
from invconv.families.pointwise import MATRIX, PointwiseFamily
from invconv.kernels.frequencies.circulant import (
    CirculantStep,
    circulant_matrix,
    circulant_vjp,
    from_spectrum,
    inverse_of,
    spectrum,
)
from invconv.kernels.frequencies.waves import half_multiplicity
from invconv.kernels.matrices import (
    PixelStep,
    PixelSteps,
    Product,
    Reflections,
    Triangle,
    Turned,
    solver_of_steps,
)
from invconv.kernels.primitives import Solver, add_pivots, from_pixel_rows, pixel_rows
from invconv.trust.bound import Bounds, of_matrix
from invconv.trust.condition import Condition, SolveOverflowError


@dataclass(frozen=True)
class Structured(PointwiseFamily):
    """A matrix W(w) that is made of w and undone in steps."""

    def lowered(self, w: Any) -> tuple[Family, Array]:
        return MATRIX, self.matrix(w)[0]

    def solver(self, w: Any, shape: Shape) -> Solver:
        return solver_of_steps(PixelSteps((self.undoing(w),)))

    def solve_vjp(
        self, w: Any, y: Array | None, x: Array, x_bar: Array, wanted: Wanted
    ) -> tuple[Any, Array]:
        """See `Family`; for those that do not need y."""
        rows = self.undoing(w).transposed(pixel_rows(x_bar))
        w_bar = self.matrix_gram(w, -rows, pixel_rows(x)) if wanted[0] else None
        return w_bar, from_pixel_rows(rows, x.shape)


@dataclass(frozen=True)
class Triangular(Structured):
    """Triangular matrices w (C, C); entries beyond the triangle must be zero, as of `tril(w)`."""

    lower: bool

    def undoing(self, w: Any) -> PixelStep:
        return Triangle(self.matrix(w)[0], self.lower)

    def transposed(self, w: Array) -> tuple[Family, Array]:
        return replace(self, lower=not self.lower), namespace(w).matrix_transpose(w)

    def pivots(self, w: Array) -> Array | None:
        return diagonal(w)

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        known = namespace(w).zeros_like(w) if known is None else known
        return add_pivots(known, (), size(shape) * bar / (diagonal(w) if memo is None else memo))

    def bounds(self, w: Any) -> Bounds:
        matrix = self.matrix(w)[0]
        return of_matrix(matrix, self.undoing(w)(np.eye(len(matrix))), triangular=True)


@dataclass(frozen=True)
class KnownTriangular(Triangular):
    """Triangular matrices with a known diagonal, by w = (matrix, diagonal).

    The log-determinant has a gradient by the second alone. In some graphs Inductor loses the
    gradient by a diagonal that is read from a matrix.
    """

    def matrix(self, w: tuple[Array, Array]) -> tuple[Array, Any]:
        return w[0], None

    def matrix_vjp(self, w: Any, memo: Any, bar: Array) -> tuple[Any, Any]:
        return bar, None

    def transposed(self, w: tuple[Array, Array]) -> tuple[Family, Any]:
        turned, matrix = super().transposed(w[0])
        return turned, (matrix, w[1])

    def transposed_vjp(self, bar: tuple[Any, Any]) -> tuple[Any, Any]:
        matrix = None if bar[0] is None else namespace(bar[0]).matrix_transpose(bar[0])
        return matrix, bar[1]

    def pivots(self, w: tuple[Array, Array]) -> Array | None:
        return w[1]

    def logs_vjp(self, v: Array, bar: Array) -> Array:
        """Return the gradient of bar log|det A| at one pixel by the second array."""
        return bar / v

    def add_log_det_vjp(
        self, known: Any, w: tuple[Array, Array], shape: Shape, memo: Any, bar: Array
    ) -> tuple[Any, Array]:
        matrix = None if known is None else known[0]  # and no map has one by the diagonal's array
        return matrix, self.logs_vjp(w[1], size(shape) * bar)


@dataclass(frozen=True)
class LogTriangular(KnownTriangular):
    """Triangular matrices with a diagonal of +-exp(log_scale), by w = (matrix, log_scale)."""

    hint: ClassVar[str] = "a scale is zero, by its log_scale or sign"

    def pivots(self, w: tuple[Array, Array]) -> None:
        """Return None: the logarithms are known."""

    def log_det(self, w: tuple[Array, Array], shape: Shape, saving: bool) -> tuple[Array, Any]:
        logs = log_of_exp(w[1], diagonal(w[0]))
        return size(shape) * namespace(logs).sum(logs), None

    def logs_vjp(self, v: Array, bar: Array) -> Array:
        return bar + namespace(v).zeros_like(v)


@dataclass(frozen=True)
class Orthogonal(Structured):
    """Orthogonal matrices."""

    needs_y: ClassVar[bool] = False

    def undoing(self, w: Array) -> PixelStep:
        return Turned(self.matrix(w)[0])

    def solver(self, w: Array, shape: Shape) -> Product:
        return Product(namespace(w).matrix_transpose(self.matrix(w)[0]), "transpose")

    def log_det(self, w: Array, shape: Shape, saving: bool) -> tuple[Array, Any]:
        """Return 0, or NaN if a weight is not finite: then W is no orthogonal matrix."""
        return namespace(w).sum(0.0 * w), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Any:
        return known

    def condition(self, w: np.ndarray[Any, Any], shape: Shape) -> Condition:
        if not np.isfinite(w).all():
            raise SolveOverflowError
        return Condition(1.0, "2-norm")

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        matrix = self.matrix(w)[0]
        return replace(of_matrix(matrix, matrix.T), terms=len(matrix) + len(w) + 2)


@dataclass(frozen=True)
class Householder(Orthogonal):
    """H_1 ... H_m, `H_i = I - 2 v_i v_i^T / (v_i^T v_i)`, v_1 ... v_m the rows of w (m, C)."""

    def matrix(self, w: Array) -> tuple[Array, Any]:
        return self.times(w, identity(w.shape[1], w))

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> Array:
        return self.times_vjp(w, memo, bar)[0]

    def times(self, w: Array, before: Array) -> tuple[Array, Any]:
        reflections = Reflections.of(w)
        product, memo = reflections.times(before)
        return product, (reflections, memo)

    def times_vjp(self, w: Array, memo: Any, bar: Array) -> tuple[Array, Array]:
        reflections: Reflections = memo[0]
        return reflections.vjp(memo[1], bar)

    def transposed(self, w: Array) -> tuple[Family, Array]:
        return self, namespace(w).flip(w, axis=0)


@dataclass(frozen=True)
class Permutation(Orthogonal):
    """Permutation matrices w (C, C); they get no gradient."""

    hint: ClassVar[str] = "permutation has an index twice"

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> None:
        """See `PointwiseFamily`."""

    def log_det(self, w: Array, shape: Shape, saving: bool) -> tuple[Array, Any]:
        """Return 0, or -inf if a column has not one entry: an edit in place may have made it so."""
        xp = namespace(w)
        return log_abs(xp.min(xp.sum(w, axis=0))), None

    def transposed(self, w: Array) -> tuple[Family, Array]:
        return self, namespace(w).matrix_transpose(w)


@dataclass(frozen=True)
class Circulant(Structured):
    """Circulants circ(w); `log det = N sum over f of log|w_hat[f]|`, w_hat the transform of w.

    circ(w)[i, j] is w[(i - j) mod C].
    """

    hint: ClassVar[str] = "the Fourier transform of the circulant has a zero; change it"

    def matrix(self, w: Array) -> tuple[Array, Any]:
        return circulant_matrix(w), None

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> Array:
        return circulant_vjp(bar)

    def undoing(self, w: Array) -> PixelStep:
        return CirculantStep.of(w)

    def transposed(self, w: Array) -> tuple[Family, Array]:
        xp = namespace(w)
        return self, xp.concat([w[:1], xp.flip(w[1:])])

    def log_det(self, w: Array, shape: Shape, saving: bool) -> tuple[Array, Any]:
        half = namespace(w).hypot(*spectrum(w))
        often = constant(half_multiplicity(int(w.shape[0])), half, half.dtype)
        return size(shape) * total(often * log_abs(half)), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        """See `Family`; the sum of log|w_hat| has the derivative C circ(w)^-T e_0."""
        real, imag = inverse_of(*spectrum(w))
        channels = int(w.shape[0])
        more = (size(shape) * channels * bar) * from_spectrum(real, -imag, channels)
        return more if known is None else known + more

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        back = circulant_matrix(from_spectrum(*inverse_of(*spectrum(w)), len(w)))
        return replace(of_matrix(circulant_matrix(w), back), terms=2 * len(w))
