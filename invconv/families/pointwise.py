"""Families of matrices: one C x C matrix W(w) at every pixel.

    y[:, p] = W x[:, p],    log|det| = N log|det W|, N the number of pixels

A run of such factors is one matrix, the product (`invconv.families.path`). Its inverse is solved
factor by factor, or is a product with W^-1 if that is as accurate.

The determinant of a triangular matrix is the product of its diagonal, and that of an orthogonal one
is +-1. A circulant matrix, given by its first column, is a product of numbers in Fourier's basis.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    copy_of,
    diagonal,
    diagonal_matrix,
    identity,
    log_abs,
    log_of_exp,
    namespace,
    per_channel,
    size,
    total,
    triangle,
)
from invconv.families.family import BOTH, Family, Wanted
from invconv.kernels import maps
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
    Divided,
    PixelStep,
    PixelSteps,
    Product,
    Reflections,
    Triangle,
    Turned,
    matrix_solver,
    solver_of_steps,
)
from invconv.kernels.primitives import (
    Plan,
    Solver,
    add_pivots,
    channel_sums,
    from_pixel_rows,
    inverse_or_nan,
    log_abs_det,
    matmul,
    multiply,
    pixel_rows,
)
from invconv.trust.bound import Bounds, of_matrix
from invconv.trust.condition import Condition, SolveOverflowError


@dataclass(frozen=True)
class PointwiseFamily(Family):
    """A matrix W(w) at every pixel."""

    hint: ClassVar[str] = "the C x C matrix has not full rank; change its weights"
    pixelwise: ClassVar[bool] = True
    needs_y: ClassVar[bool] = True
    stepwise: ClassVar[bool] = True  # W^-1 is a step, which can be joined to other factors' steps

    def matrix(self, w: Any) -> tuple[Array, Any]:
        """Return W(w), shape (C, C), and intermediate results for `matrix_vjp`: w itself, here."""
        return w, None

    def matrix_vjp(self, w: Any, memo: Any, bar: Array) -> Any:
        """Return the gradient of ``<bar, W(w)>``."""
        return bar

    def times(self, w: Any, before: Array) -> tuple[Array, Any]:
        """Return W(w) times a matrix (C, M), and intermediate results for `times_vjp`."""
        matrix, memo = self.matrix(w)
        return matmul(matrix, before), (matrix, memo, before)

    def times_vjp(self, w: Any, memo: Any, bar: Array) -> tuple[Any, Array]:
        """Return the gradients of ``<bar, W(w) M>`` by w and by M."""
        matrix, inside, before = memo
        matrix_bar, before_bar = maps.matmul_vjp(matrix, before, bar, BOTH)
        return self.matrix_vjp(w, inside, matrix_bar), before_bar

    def undoing(self, w: Any) -> PixelStep:
        """Return the map with W(w)^-1."""
        raise NotImplementedError

    def matrix_gram(self, w: Any, left: Array, right: Array) -> Any:
        """Return the gradient of ``<left, W(w) right>`` for matrices (C, M)."""
        bar = matmul(left, namespace(right).matrix_transpose(right))
        return self.matrix_vjp(w, self.matrix(w)[1], bar)


@dataclass(frozen=True)
class Matrix(PointwiseFamily):
    """Any matrix w."""

    lowers = solved = "matrix"
    text: ClassVar[str] = "Matrix()"
    needs_y: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False

    def shape_of(self, x: Array) -> Shape:
        return x.shape[1], x.shape[1]

    def apply(self, w: Array, x: Array) -> Array:
        return multiply(w, x)

    def gram(self, x: Array, y: Array) -> Array:
        return matmul(pixel_rows(y), namespace(x).matrix_transpose(pixel_rows(x)))

    def factor(self, w: Array, shape: Shape) -> Solver:
        return matrix_solver(w)

    def transpose(self) -> "Matrix":
        return self

    def log_det(self, w: Array, shape: Shape, saving: bool) -> tuple[Array, Any]:
        return size(shape) * log_abs_det(w), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        inverse = inverse_or_nan(w)
        more = (size(shape) * bar) * namespace(inverse).matrix_transpose(inverse)
        return more if known is None else known + more

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        return of_matrix(w, np.linalg.inv(w))


@dataclass(frozen=True)
class Scale(PointwiseFamily):
    """A scale w (C,) for each channel."""

    lowers = solved = "scale"
    text: ClassVar[str] = "Scale()"
    hint: ClassVar[str] = "the scale of a channel is zero; change it"
    needs_y: ClassVar[bool] = False

    def scale(self, w: Array) -> Array:
        """Return the scale, shape (C,)."""
        return self.lowered(w)[1]

    def shape_of(self, x: Array) -> Shape:
        return (x.shape[1],)

    def apply(self, w: Array, x: Array) -> Array:
        return per_channel(w, x) * x

    def gram(self, x: Array, y: Array) -> Array:
        return channel_sums(x * y)

    def factor(self, w: Array, shape: Shape) -> Solver:
        return Division(w)

    def matrix(self, w: Array) -> tuple[Array, Any]:
        return diagonal_matrix(self.scale(w)), None

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> Array:
        return self.lowered_vjp(w, copy_of(diagonal(bar)))  # NumPy's is a view, and read-only

    def times(self, w: Array, before: Array) -> tuple[Array, Any]:
        return self.scale(w)[:, None] * before, before

    def times_vjp(self, w: Array, memo: Any, bar: Array) -> tuple[Array, Array]:
        return self.matrix_gram(w, bar, memo), self.scale(w)[:, None] * bar

    def undoing(self, w: Array) -> PixelStep:
        return Divided(self.scale(w))

    def matrix_gram(self, w: Array, left: Array, right: Array) -> Array:
        return self.lowered_vjp(w, namespace(left).sum(left * right, axis=1))

    def transpose(self) -> Self:
        return self

    def adjoint(self, w: Array) -> Array:
        return w

    def pivots(self, w: Array) -> Array | None:
        return w

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        more = size(shape) * bar / w
        return more if known is None else known + more

    def condition(self, w: np.ndarray[Any, Any], shape: Shape) -> Condition:
        scale = np.abs(self.scale(w))
        value = float(scale.max() / scale.min()) if scale.min() else math.inf
        return Condition(value, "2-norm", channel=int(scale.argmin()))

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        scale = np.abs(self.scale(w))
        return Bounds(float(scale.max()), 1 / float(scale.min()) if scale.min() else math.inf, 2)


@dataclass(frozen=True)
class LogScale(Scale):
    r"""A scale exp(w) for each channel; its log-determinant is $N \sum_c w[c]$."""

    hint: ClassVar[str] = "exp(log_scale) is zero for a channel; raise log_scale"
    lowers = None  # type: ignore[assignment]
    solved = None  # type: ignore[assignment]

    def lowered(self, w: Array) -> tuple[Family, Array]:
        return SCALE, namespace(w).exp(w)

    def lowered_vjp(self, w: Array, bar: Array) -> Array:
        return bar * self.scale(w)

    def solver(self, w: Array, shape: Shape) -> Solver:
        return SCALE.solver(self.scale(w), shape)

    def solve_vjp(
        self, w: Array, y: Array | None, x: Array, x_bar: Array, wanted: Wanted
    ) -> tuple[Any, Any]:
        bar, y_bar = SCALE.solve_vjp(self.scale(w), y, x, x_bar, wanted)
        return None if bar is None else self.lowered_vjp(w, bar), y_bar

    def pivots(self, w: Array) -> None:
        """Return None: the logarithms are known."""

    def log_det(self, w: Array, shape: Shape, saving: bool) -> tuple[Array, Any]:
        return size(shape) * namespace(w).sum(log_of_exp(w, self.scale(w))), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        return size(shape) * bar + (namespace(w).zeros_like(w) if known is None else known)


MATRIX, SCALE, LOG_SCALE = Matrix(), Scale(), LogScale()


@dataclass(frozen=True)
class TriangleOfRows(Family):
    """Triangular matrices (C, C) for x (C, M); the entries of w beyond the triangle are ignored."""

    lowers = solved = "triangle"
    lower: bool

    def shape_of(self, x: Array) -> Shape:
        return x.shape[0], x.shape[0]

    def apply(self, w: Array, x: Array) -> Array:
        return matmul(triangle(w, lower=self.lower), x)

    def gram(self, x: Array, y: Array) -> Array:
        return triangle(matmul(y, namespace(x).matrix_transpose(x)), lower=self.lower)

    def transpose(self) -> "TriangleOfRows":
        return self.of(not self.lower)


@dataclass(frozen=True, eq=False)
class Division:
    """x = y / scale, per channel."""

    scale: Array
    plan: ClassVar[Plan] = Plan("division")

    def __call__(self, y: Array) -> Array:
        return y / per_channel(self.scale, y)


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
    r"""H_1 ... H_m, $H_i = I - 2 v_i v_i^T / (v_i^T v_i)$, v_1 ... v_m the rows of w (m, C)."""

    def matrix(self, w: Array) -> tuple[Array, Any]:
        return self.times(w, identity(w.shape[1], w))

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> Array:
        return self.times_vjp(w, memo, bar)[0]

    def times(self, w: Array, before: Array) -> tuple[Array, Any]:
        if not w.shape[0]:
            return before, None
        reflections = Reflections.of(w)
        product, memo = reflections.times(before)
        return product, (reflections, memo)

    def times_vjp(self, w: Array, memo: Any, bar: Array) -> tuple[Array, Array]:
        if memo is None:
            return w, bar
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
    r"""Circulants circ(w), whose entries i, j are w[(i - j) mod C].

    $\log|\det A| = N \sum_f \log|\hat w[f]|$, $\hat w$ the Fourier transform of w.
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
