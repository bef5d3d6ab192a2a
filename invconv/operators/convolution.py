"""The base classes of the convolutions with a kernel (C, C, *k): the weight of one factor."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, constant, namespace
from invconv.arrays.stencil import kernel_of, taps_of
from invconv.arrays.validation import generator, sizes
from invconv.families.family import Family
from invconv.kernels.frequencies.spectrum import SpectralProduct, kernel_spectrum
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.least_squares import Blocks, least_squares, regularised
from invconv.operators.pointwise.conv1x1 import random_orthogonal
from invconv.trust.gains import convolution_within, matrix_within


class WithKernel(InvertibleConv, abstract=True):
    """A map with a kernel (C, C, *k) and a bias."""

    kernel: Array = array("C", "C", "*k")
    bias: Array | None = array("C", optional=True)

    def validate(self) -> None:
        """Normalise the dilation, if the class has one, and make the family."""
        if "dilation" in self._setting_names:
            dilation = sizes("dilation", vars(self)["dilation"], len(self._kernel_size))
            object.__setattr__(self, "dilation", dilation)
        _ = self._family  # torch.compile can look a family up, but cannot make one

    @derived
    def ndim(self) -> int:
        """Return the number of spatial axes."""
        return len(self._kernel_size)

    @property
    @abstractmethod
    def _family(self) -> Any:
        """The family whose weight is the kernel."""

    def transpose(self) -> InvertibleConv:
        """Return the operator of K^T, without bias: transposed matrices, and flipped taps.

        Axes along which the kernel is even stay as they are. Along a periodic axis of even size,
        whose centre is the left one of the two middle taps, a zero tap behind the flipped ones
        moves the centre back.
        """
        return self.replace(kernel=self._family.transposed(self.kernel)[1], bias=None)

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(self._family, self.kernel)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"kernel": bars[0]}


class SpectralConv(WithKernel, abstract=True):
    """A convolution with one C x C matrix K_hat(f) a frequency; log det = sum log|det K_hat(f)|."""

    least_squares = least_squares

    def _least_squares(self, y: Array, damp: float | Array, penalties: Sequence[Any] = ()) -> Array:
        if not self._family.orthogonal:
            raise ValueError(
                "boundary: expected borders without 'mirror' for least_squares, since its waves "
                "are not orthogonal; use 'symmetric', or scipy.sparse.linalg.lsqr with "
                "aslinearoperator"
            )
        shape = tuple(map(int, y.shape[2:]))  # torch.export may have a dynamic one
        more = [one._blocks(shape) for one in penalties]
        inverses = regularised(self._blocks(shape), damp, "kernel", more)
        return SpectralProduct(inverses, self._family.basis, shape).by_transforms(y)

    def _blocks(self, shape: Shape) -> Blocks:
        basis, xp = self._family.basis, namespace(self.kernel)
        often = constant(basis.counts(self._kernel_size), self.kernel, self.kernel.dtype)
        sizes = xp.sum(xp.reshape(abs(self.kernel), (*self.kernel.shape[:2], -1)) * often, axis=-1)
        return kernel_spectrum(self.kernel, basis, shape), sizes

    @property
    def _decoupled_by(self) -> Any:
        return self._family.basis.waves

    def within(self, gain: float) -> Self:
        size = self._kernel_size
        centre = _centre(size, self._family.borders)
        # |E| <= 2^(1/2) |D^1/2 E D^-1/2| for each axis of a mirror in the last pixels
        mirrors = self._family.borders.count("mirror")
        counts = self._family.basis.counts(size) * math.sqrt(2.0) ** mirrors
        counts[centre] = 1.0
        often = constant(counts, self.kernel, self.kernel.dtype)[:, None, None]
        taps = taps_of(self.kernel) * often
        concat = namespace(taps).concat
        others = concat([taps[:centre, ...], taps[centre + 1 :, ...]])
        block, others = convolution_within(matrix_within, taps[centre, ...], others, gain)
        taps = concat([others[:centre, ...], block[None, ...], others[centre:, ...]])
        return self.replace(kernel=kernel_of(taps / often, size))

    def advice(self, channel: int | None) -> str:
        return "change the kernel or the grid, so that the spectrum stays away from zero there"


def _centre(kernel_size: Shape, borders: tuple[str, ...]) -> int:
    """Return the flat index of the tap at the pixel itself."""
    place = 0
    for k, border in zip(kernel_size, borders, strict=True):
        place = place * k + ((k - 1) // 2 if border == "periodic" else 0)
    return place


def drawn_kernel(
    channels: int, taps: Shape, borders: tuple[str, ...], rng: np.random.Generator | None
) -> np.ndarray[Any, Any]:
    """Return a kernel of a random rotation at the pixel itself + N(0, 0.02^2)."""
    kernel = 0.02 * generator(rng).standard_normal((channels, channels, *taps))
    place = _centre(taps, borders)
    kernel.reshape(channels, channels, -1)[:, :, place] += random_orthogonal(channels, rng)
    return kernel
