"""Solutions of least squares, of operators whose regularised inverse is exact and cheap."""

from __future__ import annotations

import math
from abc import abstractmethod

from invconv.arrays.namespaces import Array, cast
from invconv.arrays.validation import require_alike
from invconv.kernels.primitives import per_channel
from invconv.operators.base.calls import as_batch
from invconv.operators.base.operator import InvertibleConv


class LeastSquares(InvertibleConv, abstract=True):
    """A map that is one C x C matrix a frequency, or one at every pixel."""

    def least_squares(self, y: Array, damp: float | Array = 0.0) -> Array:
        """Return the x that minimises |K x + b - y|^2 + damp^2 |x|^2, exactly, in one solve.

        Parameters
        ----------
        y : array, shape (*batch, C, *spatial)
        damp : float or 0-d array
            At least 0, as in `scipy.sparse.linalg.lsqr`. With 0 and a singular K, such as the
            Laplacian of a Poisson problem, the solution of least norm. Singular values that cannot
            be told from rounding count as zero.

        Returns
        -------
        array, shape (*batch, C, *spatial)

        Raises
        ------
        TypeError, ValueError
            As `inverse`, or if K is not finite, or ``damp`` is negative or not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import Conv1x1, PeriodicConv
        >>> laplacian = PeriodicConv(np.asarray([[[1.0, -2.0, 1.0]]]))
        >>> x = laplacian.least_squares(np.asarray([[1.0, 0.0, -1.0, 0.0]]))
        >>> np.round(laplacian.forward(x), 12) + 0.0
        array([[ 1.,  0., -1.,  0.]])
        >>> Conv1x1(np.diag([2.0, 0.0])).least_squares(np.ones((1, 2, 1)), damp=1.0)[0, :, 0]
        array([0.4, 0. ])
        """
        call = as_batch(self, "y", y)
        if not isinstance(damp, int | float):
            require_alike("damp", damp, "y", y)
            damp = cast(damp, call.x.dtype)
        elif not 0 <= damp < math.inf:
            raise ValueError(f"damp: expected a finite number of at least 0, got {damp}")
        images, bias = call.x, getattr(call.conv, "bias", None)
        if bias is not None:
            images = images - per_channel(bias, images)
        return call.restore_shape(call.conv._least_squares(images, damp))

    @abstractmethod
    def _least_squares(self, y: Array, damp: float | Array) -> Array:
        """Return `least_squares` for K alone, for y (B, C, *spatial) in the working precision."""
