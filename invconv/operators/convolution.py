"""The base classes of the convolutions with a kernel (C, C, *k): the weight of one factor."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, cast, constant, namespace
from invconv.arrays.stencil import Offset, kernel_of, tap_indices, taps_of
from invconv.arrays.validation import require_alike
from invconv.families.convolutions import Spectral
from invconv.families.family import Family
from invconv.kernels.frequencies.least_squares import least_squares
from invconv.kernels.primitives import per_channel
from invconv.operators.base.calls import as_batch
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.base.operator import InvertibleConv
from invconv.trust.gains import matrix_within, taps_within


class WithKernel(InvertibleConv, abstract=True):
    """A map with a kernel (C, C, *k) and a bias."""

    kernel: Array = array("C", "C", "*k")
    bias: Array | None = array("C", optional=True)

    @derived
    def ndim(self) -> int:
        """Return the number of spatial axes."""
        return len(self._kernel_size)

    @property
    @abstractmethod
    def _family(self) -> Family:
        """The family whose weight is the kernel."""

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(self._family, self.kernel)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"kernel": bars[0]}


class SpectralConv(WithKernel, abstract=True):
    """A convolution with one C x C matrix K_hat(f) a frequency; log det = sum log|det K_hat(f)|."""

    @property
    @abstractmethod
    def _family(self) -> Spectral:
        """The family whose weight is the kernel."""

    def least_squares(self, y: Array, damp: float | Array = 0.0) -> Array:
        """Return the x that minimises |K x + b - y|^2 + damp^2 |x|^2, in one solve a frequency.

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
            As `inverse`, or if the kernel is not finite, or ``damp`` is negative or not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import PeriodicConv
        >>> laplacian = PeriodicConv(np.asarray([[[1.0, -2.0, 1.0]]]))
        >>> x = laplacian.least_squares(np.asarray([[1.0, 0.0, -1.0, 0.0]]))
        >>> np.round(laplacian.forward(x), 12) + 0.0
        array([[ 1.,  0., -1.,  0.]])
        """
        call = as_batch(self, "y", y)
        if not isinstance(damp, int | float):
            require_alike("damp", damp, "y", y)
        elif not 0 <= damp < math.inf:
            raise ValueError(f"damp: expected a finite number of at least 0, got {damp}")
        images = call.x
        if self.bias is not None:
            images = images - per_channel(cast(self.bias, images.dtype), images)
        kernel, family = cast(self.kernel, images.dtype), self._family
        x = least_squares(kernel, family.counts(), family.linear.basis, images, damp)
        return call.restore_shape(x)

    def _own_place(self) -> Offset:
        """Return the tap at the pixel itself."""
        return (0,) * len(self._kernel_size)

    def within(self, gain: float) -> Self:
        size = self._kernel_size
        centre = tap_indices(size).index(self._own_place())
        often = constant(self._family.counts(), self.kernel, self.kernel.dtype)[:, None, None]
        taps = taps_of(self.kernel) * often
        concat = namespace(taps).concat
        others = concat([taps[:centre, ...], taps[centre + 1 :, ...]], axis=0)
        own = gain ** (1 / 3) if others.shape[0] else gain
        block, inverse_norm = matrix_within(taps[centre, ...], own)
        if others.shape[0]:
            others = taps_within(others, inverse_norm, gain / own)
        taps = concat([others[:centre, ...], block[None, ...], others[centre:, ...]], axis=0)
        return self.replace(kernel=kernel_of(taps / often, size))
