"""The orthogonal 1x1 convolution (Tomczak & Welling, 2016): a rotation with an exact inverse.

W = H_1 H_2 ... H_m, a product of Householder reflections (`reflections`), so that W^-1 = W^T and
log|det W| = 0.
"""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, Shape, identity, namespace
from invconv.arrays.settings import generator, optional_ndim, positive_int
from invconv.kernels.matrices import Product
from invconv.kernels.reflections import reflected, reflected_vjp
from invconv.operators.base.fields import array
from invconv.operators.base.protocol import Gradients
from invconv.operators.pointwise.conv1x1 import Pointwise
from invconv.operators.pointwise.reflections import require_reflectors
from invconv.trust import condition
from invconv.trust.bound import Bounds, largest_entry, row_sum
from invconv.trust.norms import SolveOverflowError


class OrthogonalConv1x1(Pointwise, mixing="orthogonal"):
    """A 1x1 convolution with W = H_1 ... H_m, a product of Householder reflections.

    y[:, p] = W x[:, p] + b, log det = 0. The inverse is a product with W^T, and the condition is 1
    for all parameters. Every orthogonal matrix is a product of at most C reflections; the
    determinant is 1 for an even number of reflections, -1 for an odd one.

    Parameters
    ----------
    reflectors : array, shape (m, C)
        v_1 ... v_m of H_i = I - 2 v_i v_i^T / (v_i^T v_i), none of them zero; m = 0 gives W = I.
        Their lengths do not matter.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    A reflection that exchanges two channels:

    >>> import numpy as np
    >>> conv = OrthogonalConv1x1(np.array([[1.0, -1.0]]))
    >>> conv.forward(np.array([[[1.0, 2.0], [3.0, 4.0]]])).round(12)
    array([[[3., 4.],
            [1., 2.]]])
    >>> float(conv.log_det((2,)))
    0.0
    """

    reflectors: Array = array("m", "C")
    bias: Array | None = array("C", optional=True)
    _: KW_ONLY
    ndim: int | None = None

    _saves_log_det = True

    def validate(self) -> None:
        """See `Fields`."""
        optional_ndim(self)
        require_reflectors(self.reflectors)

    @classmethod
    def init(
        cls,
        channels: int,
        *,
        ndim: int | None = None,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return C random reflections; NumPy float64 unless ``like`` is given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import OrthogonalConv1x1
        >>> w = OrthogonalConv1x1.init(3, rng=np.random.default_rng(0)).matrix()
        >>> bool(np.allclose(w @ w.T, np.eye(3)))
        True
        """
        channels = positive_int("channels", channels)
        conv = cls(generator(rng).standard_normal((channels, channels)), ndim=ndim)
        return conv if like is None else conv.asarrays(like)

    def transpose(self) -> OrthogonalConv1x1:
        """Return the same reflections in the opposite order, without bias."""
        backwards = namespace(self.reflectors).flip(self.reflectors, axis=0)
        return OrthogonalConv1x1(backwards, ndim=self.ndim)

    def _within(self, gain: float) -> Self:
        return self  # its inverse has norm 1

    def _matrix(self) -> Array:
        return self._weights_saving()[0]

    def _weights_saving(self) -> tuple[Array, Any]:
        return reflected(self.reflectors, identity(self.channels, self.reflectors))

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        memo = self._weights_saving()[1] if memo is None else memo
        return {"reflectors": reflected_vjp(self.reflectors, memo, w_bar)[0]}

    def _solver(self, shape: Shape) -> Product:
        matrix = self._matrix()
        return Product(namespace(matrix).matrix_transpose(matrix), "transpose")

    def _transposed_solver(self, shape: Shape) -> Product:
        return Product(self._matrix(), "transpose")

    def _log_det(self, shape: Shape) -> Array:
        # zero, but NaN if a reflector is not finite: then W is no orthogonal matrix
        return namespace(self.reflectors).sum(0.0 * self.reflectors)

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        return {}

    def _condition(self, shape: Shape) -> condition.Condition:
        if not np.isfinite(self.reflectors).all():
            raise SolveOverflowError
        return condition.Condition(1.0, "2-norm")

    def _bounds(self, shape: Shape) -> list[Bounds]:
        matrix = self._matrix()
        terms = self.channels + len(self.reflectors) + 2
        return [Bounds(row_sum(matrix), row_sum(matrix.T), terms, largest_entry(self.bias))]
