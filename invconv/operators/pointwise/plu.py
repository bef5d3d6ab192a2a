"""The PLU 1x1 convolution (Kingma & Dhariwal, Glow, 2018): a determinant that costs nothing.

W = P L (U + diag(sign exp(log_scale)))        log|det W| = sum of log_scale
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    device,
    diagonal_matrix,
    identity,
    library_name,
    log_of_exp,
    namespace,
    readable,
    size,
    to_numpy,
)
from invconv.arrays.settings import optional_ndim, positive_int
from invconv.arrays.validation import require_alike, require_array
from invconv.kernels.primitives import matmul
from invconv.kernels.triangular_steps import TriangularSteps
from invconv.operators.base.fields import array
from invconv.operators.base.protocol import Gradients
from invconv.operators.pointwise.conv1x1 import permutation_matrix, random_orthogonal
from invconv.operators.pointwise.factored import TriangularlyFactored
from invconv.trust.gains import strict_below, triangle_within


class PLUConv1x1(TriangularlyFactored, mixing="plu"):
    """A 1x1 convolution with W = P L (U + diag(sign exp(log_scale))).

    log det = N sum(log_scale). The permutation and the sign are not trained and get no gradient, so
    training cannot change the sign of the determinant. ``jax.grad`` refuses an operator with a
    permutation, since that holds integers: use ``equinox.filter_grad``, or differentiate by
    ``conv.parameters()`` and build the operator from them, ``conv.replace(**parameters)``.

    Parameters
    ----------
    permutation : integer array, shape (C,)
        (P v)[i] = v[permutation[i]].
    lower : array, shape (C, C)
        L is its strict lower triangle with a unit diagonal; other entries are ignored.
    upper : array, shape (C, C)
        U is its strict upper triangle; other entries are ignored.
    sign : array, shape (C,)
        Only the signs of the numbers count: an optimiser's weight decay that shrinks them changes
        nothing. A zero, which only an edit in place can write, makes W singular; so does a
        permutation that has an index twice.
    log_scale : array, shape (C,)
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import PLUConv1x1
    >>> swap = np.asarray([1, 0])
    >>> lower, upper = np.asarray([[1.0, 0], [2, 1]]), np.asarray([[0.0, 4], [0, 0]])
    >>> conv = PLUConv1x1(swap, lower, upper, np.ones(2), np.log([3.0, 5.0]))
    >>> np.round(conv.forward(np.eye(2)[:, :, None])[:, :, 0].T, 12) + 0.0  # W = P L (U + diag)
    array([[ 6., 13.],
           [ 3.,  4.]])
    """

    permutation: Array = array("C", constant=True)
    lower: Array = array("C", "C")
    upper: Array = array("C", "C")
    sign: Array = array("C", constant=True)
    log_scale: Array = array("C")
    bias: Array | None = array("C", optional=True)
    _: KW_ONLY
    ndim: int | None = None

    _saves_log_det = True

    def validate(self) -> None:
        """See `Fields`."""
        optional_ndim(self)
        require_alike("sign", self.sign, "lower", self.lower)
        xp = require_array("permutation", self.permutation)
        if library_name(self.permutation) != library_name(self.lower):
            raise TypeError(
                f"permutation: expected an array of {library_name(self.lower)} as lower is, "
                f"got one of {library_name(self.permutation)}"
            )
        if device(self.permutation) != device(self.lower):
            raise ValueError(
                f"permutation: expected an array on device {device(self.lower)} as lower is, "
                f"got one on {device(self.permutation)}"
            )
        if not xp.isdtype(self.permutation.dtype, "integral"):
            raise TypeError(f"permutation: expected integers, got {self.permutation.dtype}")
        if readable(self.permutation):
            order = to_numpy(self.permutation).tolist()
            if sorted(order) != list(range(self.channels)):
                raise ValueError(
                    f"permutation: expected each of 0 to {self.channels - 1} once, got {order}"
                )
        if readable(self.sign) and not (np.abs(to_numpy(self.sign)) > 0).all():
            raise ValueError(
                f"sign: expected a positive or negative number a channel, as +1 or -1, got "
                f"{to_numpy(self.sign).tolist()}"
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
        """Return the factors of a random rotation; NumPy float64 unless ``like`` is given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import PLUConv1x1
        >>> w = PLUConv1x1.init(3, rng=np.random.default_rng(0)).matrix()
        >>> bool(np.allclose(w @ w.T, np.eye(3)))
        True
        """
        from scipy.linalg import lu  # here: it takes as long to import as invconv does

        weight = random_orthogonal(positive_int("channels", channels), rng)
        order, lower, upper = lu(weight, p_indices=True)
        scale = np.diagonal(upper)
        conv = cls(
            np.asarray(order, dtype=np.int64),
            np.tril(lower, -1),
            np.triu(upper, 1),
            np.sign(scale),
            np.log(np.abs(scale)),
            ndim=ndim,
        )
        return conv if like is None else conv.asarrays(like)

    def _lower(self) -> Array:
        """Return L, unit lower triangular."""
        return namespace(self.lower).tril(self.lower, k=-1) + identity(self.channels, self.lower)

    def _scale(self) -> Array:
        xp = namespace(self.log_scale)
        scale = xp.exp(self.log_scale)
        positive = xp.where(self.sign > 0, scale, xp.zeros_like(scale))
        return xp.where(self.sign < 0, -scale, positive)

    def _upper(self) -> Array:
        """Return U + diag(sign exp(log_scale))."""
        return namespace(self.upper).triu(self.upper, k=1) + diagonal_matrix(self._scale())

    def _within(self, gain: float) -> Self:
        xp = namespace(self.upper)
        third = gain ** (1 / 3)
        upper = xp.triu(self.upper, k=1)
        scale, upper, _ = triangle_within(self.log_scale, upper, third**2)
        lower = strict_below(xp.tril(self.lower, k=-1), 1 - 1 / third)
        signed = (self.sign * scale)[:, None]
        return self.replace(lower=lower, upper=signed * upper, log_scale=xp.log(scale))

    def _matrix(self) -> Array:
        return self._weights_saving()[0]

    def _weights_saving(self) -> tuple[Array, Any]:
        xp, factors = namespace(self.lower), (self._lower(), self._upper())
        return xp.take(matmul(*factors), self.permutation, axis=0), factors

    def _weights_vjp(self, matrix_bar: Array, memo: Any = None) -> Gradients:
        xp = namespace(matrix_bar)
        lower, upper = memo or (self._lower(), self._upper())
        product_bar = matmul(self._inverse_permutation(), matrix_bar)
        lower_bar = matmul(product_bar, xp.matrix_transpose(upper))
        return self._factors_vjp(lower_bar, matmul(xp.matrix_transpose(lower), product_bar))

    def _factors_vjp(self, lower_bar: Array, upper_bar: Array) -> Gradients:
        """Return the gradients of <lower_bar, L> + <upper_bar, U + diag(sign exp(log_scale))>."""
        xp = namespace(lower_bar)
        return {
            "lower": xp.tril(lower_bar, k=-1),
            "upper": xp.triu(upper_bar, k=1),
            "log_scale": xp.linalg.diagonal(upper_bar) * self._scale(),
        }

    def _inverse_permutation(self) -> Array:
        """Return P^-1 = P^T as a matrix."""
        xp = namespace(self.lower)
        return xp.matrix_transpose(permutation_matrix(self.permutation, self.lower))

    def _log_det(self, shape: Shape) -> Array:
        xp = namespace(self.log_scale)
        total = xp.sum(log_of_exp(self.log_scale, self._scale()))
        # P was validated, but may have been edited since, or may not have been readable
        rows = constant(np.arange(self.channels), self.permutation)
        regular = xp.all(xp.sort(self.permutation) == rows)
        return size(shape) * xp.where(regular, total, xp.full_like(total, -math.inf))

    @property
    def _singular_hint(self) -> str:
        return "a scale is zero, by its log_scale or sign, or permutation has an index twice"

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        ones = namespace(self.log_scale).ones_like(self.log_scale)
        return {"log_scale": size(shape) * log_det_bar * ones}

    def _steps(self) -> TriangularSteps:
        triangles = self._lower(), self._upper()
        return TriangularSteps(self._inverse_permutation(), triangles, (True, False), "PLU factors")

    def _steps_vjp(self, *bars: Array) -> Gradients:
        _, lower_bar, upper_bar = bars
        return self._factors_vjp(lower_bar, upper_bar)
