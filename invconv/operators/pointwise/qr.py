"""The QR 1x1 convolution (the paper's section 3.3): flexible as a plain one, and stable.

W = Q (U + diag(scale)) with Q = H_1 H_2 ... H_m a product of Householder reflections
H_i = I - 2 v_i v_i^T / (v_i^T v_i), so log|det W| = sum log|scale|.

The product is formed by its compact WY form (Schreiber & Van Loan, 1989): with the unit vectors v_i
as the columns of V,

    Q = I - V T V^T,    T^-1 = S = striu(V^T V) + I / 2,

for a block of reflections at a time, since S costs the square of their number.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    copy_of,
    identity,
    log_abs,
    namespace,
    readable,
    size,
    to_numpy,
    zeros,
)
from invconv.arrays.settings import generator, optional_ndim, positive_int
from invconv.kernels.primitives import matmul, triangular_solve
from invconv.kernels.triangular_steps import TriangularSteps
from invconv.operators.base.parameters import require_shape
from invconv.operators.base.protocol import Gradients
from invconv.operators.pointwise.factored import Factored

_BLOCK = 96  # reflections that one T joins


@dataclass(frozen=True, eq=False, repr=False)
class QRConv1x1(Factored):
    """A 1x1 convolution with W = Q (U + diag(scale)), Q a product of Householder reflections.

    log det = N sum(log|scale|).

    Parameters
    ----------
    reflectors : array, shape (m, C)
        v_1 ... v_m, none of them zero; m = 0 gives Q = I. Their lengths do not matter.
    upper : array, shape (C, C)
        U is its strict upper triangle; other entries are ignored.
    scale : array, shape (C,)
    bias : array, shape (C,), optional
    ndim : int or None
        As for `Conv1x1`.
    """

    reflectors: Array
    upper: Array
    scale: Array
    bias: Array | None = None
    _: KW_ONLY
    ndim: int | None = None

    _array_names = ("reflectors", "upper", "scale", "bias")

    def __post_init__(self) -> None:
        optional_ndim(self)
        self._validate_arrays()
        channels = self.upper.shape[0] if self.upper.ndim else 0
        require_shape("upper", self.upper, (max(channels, 1),) * 2, "a square matrix")
        require_shape("scale", self.scale, (channels,), "one number a channel")
        if self.bias is not None:
            require_shape("bias", self.bias, (channels,), "one number a channel")
        count = self.reflectors.shape[0] if self.reflectors.ndim else 0
        require_shape("reflectors", self.reflectors, (count, channels), "m vectors of C numbers")
        if readable(self.reflectors):
            zero = ~to_numpy(self.reflectors).any(axis=1)
            if zero.any():
                raise ValueError(
                    f"reflectors: expected no zero vector, got one in row {int(zero.argmax())}"
                )

    @classmethod
    def init(
        cls,
        channels: int,
        *,
        ndim: int | None = None,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return C random reflections, U = 0, scale 1; NumPy float64 unless ``like`` is given."""
        channels = positive_int("channels", channels)
        conv = cls(
            generator(rng).standard_normal((channels, channels)),
            np.zeros((channels, channels)),
            np.ones(channels),
            ndim=ndim,
        )
        return conv if like is None else conv.asarrays(like)

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return int(self.upper.shape[0])

    def _directions(self) -> tuple[Array, Array]:
        """Return V (C, m) of unit columns, and the lengths (m,), which cannot overflow."""
        xp = namespace(self.reflectors)
        if self.reflectors.shape[0] == 0:
            return xp.matrix_transpose(self.reflectors), zeros((0,), self.reflectors)
        largest = xp.max(xp.abs(self.reflectors), axis=1, keepdims=True)
        scaled = self.reflectors / largest
        lengths = xp.sqrt(xp.sum(scaled * scaled, axis=1, keepdims=True))
        return xp.matrix_transpose(scaled / lengths), (largest * lengths)[:, 0]

    def _compact_wy(self, v: Array) -> Array:
        """Return S = T^-1, shape (m, m)."""
        xp = namespace(v)
        gram = matmul(xp.matrix_transpose(v), v)
        return xp.triu(gram, k=1) + 0.5 * identity(v.shape[1], v)

    def _triangle(self, v: Array) -> Array:
        """Return T, shape (m, m)."""
        if v.shape[1] == 0:
            return zeros((0, 0), v)
        s = self._compact_wy(v)
        return triangular_solve(s, identity(s.shape[0], s), lower=False)

    def _reflections(self) -> tuple[Array, Array, list[tuple[Array, Array]]]:
        """Return V, the lengths, and a pair (block of V, its T) for each block of reflections."""
        v, lengths = self._directions()
        count = v.shape[1]
        blocks = [v[:, i : min(i + _BLOCK, count)] for i in range(0, count, _BLOCK)]
        return v, lengths, [(block, self._triangle(block)) for block in blocks]

    def _reflected(self, matrix: Array, blocks: list[tuple[Array, Array]]) -> Array:
        """Return Q times a matrix (C, M)."""
        for v, t in reversed(blocks):
            inner = matmul(namespace(v).matrix_transpose(v), matrix)
            matrix = matrix - matmul(v, matmul(t, inner))
        return matrix

    def _orthogonal(self) -> Array:
        """Return Q."""
        return self._reflected(identity(self.channels, self.upper), self._reflections()[2])

    def _upper(self) -> Array:
        """Return R = U + diag(scale)."""
        xp = namespace(self.upper)
        on_diagonal = identity(self.channels, self.upper) != 0
        return xp.where(on_diagonal, self.scale[:, None], xp.triu(self.upper, k=1))

    def _matrix(self) -> Array:
        return self._weights_saving()[0]

    def _weights_saving(self) -> tuple[Array, Any]:
        v, lengths, blocks = self._reflections()
        upper = self._upper()
        t = blocks[0][1] if len(blocks) == 1 else None
        return self._reflected(upper, blocks), (v, lengths, t, upper)

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        xp = namespace(w_bar)
        v, lengths, t, upper = memo or self._weights_saving()[1]
        t = self._triangle(v) if t is None else t
        q_bar = matmul(w_bar, xp.matrix_transpose(upper))
        # Q^T W_bar, with Q^T = I - V T^T V^T
        inner = matmul(xp.matrix_transpose(t), matmul(xp.matrix_transpose(v), w_bar))
        return self._factors_vjp(v, lengths, t, q_bar, w_bar - matmul(v, inner))

    def _factors_vjp(
        self, v: Array, lengths: Array, t: Array, q_bar: Array, upper_bar: Array
    ) -> Gradients:
        """Return the gradients of <q_bar, Q> + <upper_bar, U + diag(scale)>."""
        xp = namespace(q_bar)
        return {
            "reflectors": self._reflectors_vjp(v, lengths, t, q_bar),
            "upper": xp.triu(upper_bar, k=1),
            "scale": copy_of(xp.linalg.diagonal(upper_bar)),  # NumPy's is a view, and read-only
        }

    def _reflectors_vjp(self, v: Array, lengths: Array, t: Array, q_bar: Array) -> Array:
        """Pull back through Q = I - V T V^T, T = S^-1, S = striu(V^T V) + I/2, V = v / |v|."""
        xp = namespace(q_bar)
        if self.reflectors.shape[0] == 0:
            return copy_of(self.reflectors)
        t_t, right = xp.matrix_transpose(t), matmul(q_bar, v)
        v_bar = -matmul(right, t_t) - matmul(matmul(xp.matrix_transpose(q_bar), v), t)
        t_bar = -matmul(xp.matrix_transpose(v), right)
        s_bar = xp.triu(-matmul(t_t, matmul(t_bar, t_t)), k=1)
        v_bar = v_bar + matmul(v, s_bar + xp.matrix_transpose(s_bar))
        radial = xp.sum(v * v_bar, axis=0, keepdims=True)
        return xp.matrix_transpose(v_bar - v * radial) / lengths[:, None]

    def _log_det(self, shape: Shape) -> Array:
        return size(shape) * namespace(self.scale).sum(log_abs(self._known_scale()))

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        self._regular_log_det(shape)
        return {"scale": size(shape) * log_det_bar / self._known_scale()}

    def _known_scale(self) -> Array:
        """Return scale, or NaN where a reflector is not finite: then Q is no orthogonal matrix."""
        xp = namespace(self.scale)
        orthogonal = xp.all(xp.isfinite(self.reflectors))
        return xp.where(orthogonal, self.scale, xp.full_like(self.scale, math.nan))

    def _steps(self) -> TriangularSteps:
        q_t = namespace(self.upper).matrix_transpose(self._orthogonal())
        return TriangularSteps(q_t, ((self._upper(), False),), "QR factors")

    def _steps_vjp(self, first_bar: Array, triangle_bars: list[Array]) -> Gradients:
        (upper_bar,) = triangle_bars
        v, lengths = self._directions()
        q_bar = namespace(first_bar).matrix_transpose(first_bar)
        return self._factors_vjp(v, lengths, self._triangle(v), q_bar, upper_bar)
