"""The QR 1x1 convolution (the paper's section 3.3): as flexible as a plain one, and stable.

W = Q (U + diag(scale)) with Q = H_1 H_2 ... H_m a product of Householder reflections
H_i = I - 2 v_i v_i^T / (v_i^T v_i) (`reflections`), so log|det W| = sum log|scale|.
"""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    copy_of,
    diagonal,
    identity,
    namespace,
    size,
)
from invconv.arrays.settings import generator, optional_ndim, positive_int
from invconv.kernels.primitives import add_pivots, log_abs_product
from invconv.kernels.reflections import reflected, reflected_vjp
from invconv.kernels.triangular_steps import TriangularSteps
from invconv.operators.base.fields import array
from invconv.operators.base.protocol import Gradients
from invconv.operators.pointwise.factored import TriangularlyFactored
from invconv.operators.pointwise.reflections import require_reflectors
from invconv.trust.gains import triangle_within


class QRConv1x1(TriangularlyFactored, mixing="qr"):
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
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import QRConv1x1
    >>> conv = QRConv1x1(np.asarray([[1.0, -1.0]]), np.zeros((2, 2)), np.asarray([2.0, 3.0]))
    >>> w = conv.forward(np.eye(2)[:, :, None])[:, :, 0].T  # I - 2 v v^T / v^T v exchanges rows
    >>> np.round(w, 12)
    array([[0., 3.],
           [2., 0.]])
    """

    reflectors: Array = array("m", "C")
    upper: Array = array("C", "C")
    scale: Array = array("C")
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
        """Return C random reflections, U = 0, scale 1; NumPy float64 unless ``like`` is given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import QRConv1x1
        >>> w = QRConv1x1.init(3, rng=np.random.default_rng(0)).matrix()
        >>> bool(np.allclose(w @ w.T, np.eye(3)))
        True
        """
        channels = positive_int("channels", channels)
        conv = cls(
            generator(rng).standard_normal((channels, channels)),
            np.zeros((channels, channels)),
            np.ones(channels),
            ndim=ndim,
        )
        return conv if like is None else conv.asarrays(like)

    def _upper(self) -> Array:
        """Return R = U + diag(scale)."""
        return add_pivots(namespace(self.upper).triu(self.upper, k=1), (), self.scale)

    def _within(self, gain: float) -> Self:
        strict = namespace(self.upper).triu(self.upper, k=1)
        scale, strict, _ = triangle_within(self.scale - 1, strict, gain)
        return self.replace(upper=scale[:, None] * strict, scale=scale)

    def _matrix(self) -> Array:
        return self._weights_saving()[0]

    def _weights_saving(self) -> tuple[Array, Any]:
        return reflected(self.reflectors, self._upper())

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        memo = self._weights_saving()[1] if memo is None else memo
        reflectors_bar, upper_bar = reflected_vjp(self.reflectors, memo, w_bar)
        return {"reflectors": reflectors_bar} | self._upper_vjp(upper_bar)

    def _upper_vjp(self, upper_bar: Array) -> Gradients:
        """Return the gradients of <upper_bar, U + diag(scale)>."""
        xp = namespace(upper_bar)
        # NumPy's diagonal is a view, and read-only
        return {"upper": xp.triu(upper_bar, k=1), "scale": copy_of(diagonal(upper_bar))}

    def _log_det(self, shape: Shape) -> Array:
        return self._log_det_saving(shape)[0]

    def _log_det_saving(self, shape: Shape) -> tuple[Array, Any]:
        scale = self._known_scale()
        return log_abs_product(size(shape), scale), scale

    def _add_log_det_vjp(
        self, gradients: Gradients, shape: Shape, log_det_bar: Array, memo: Any
    ) -> Gradients:
        more = size(shape) * log_det_bar / (self._known_scale() if memo is None else memo)
        known = gradients.get("scale")
        return gradients | {"scale": more if known is None else known + more}

    def _known_scale(self) -> Array:
        """Return scale, or NaN if a reflector is not finite: then Q is no orthogonal matrix."""
        return self.scale + namespace(self.reflectors).sum(0.0 * self.reflectors)

    def _steps(self) -> TriangularSteps:
        q = reflected(self.reflectors, identity(self.channels, self.reflectors))[0]
        return TriangularSteps(
            namespace(q).matrix_transpose(q), (self._upper(),), (False,), "QR factors"
        )

    def _steps_vjp(self, *bars: Array) -> Gradients:
        first_bar, upper_bar = bars
        memo = reflected(self.reflectors, identity(self.channels, self.reflectors))[1]
        q_bar = namespace(first_bar).matrix_transpose(first_bar)
        reflectors_bar, _ = reflected_vjp(self.reflectors, memo, q_bar)
        return {"reflectors": reflectors_bar} | self._upper_vjp(upper_bar)
