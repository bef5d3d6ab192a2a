"""The base classes of the convolutions with a kernel (C, C, *k): the weight of one factor."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    namespace,
    readable,
    to_float,
    to_numpy,
)
from invconv.arrays.stencil import kernel_of, taps_of
from invconv.arrays.validation import generator, require_alike, sizes
from invconv.families.family import Family
from invconv.kernels.frequencies.spectrum import SpectralProduct, kernel_spectrum
from invconv.kernels.primitives import Map, part
from invconv.operators.base.calls import as_batch, require_spatial_shape
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
    """A convolution: one C x C matrix K_hat(f) per frequency; log det = sum log|det K_hat(f)|."""

    least_squares = least_squares

    def spectrum(self, spatial_shape: Sequence[int]) -> Array:
        """Return the eigenvalues of K on a grid, or the C x C matrices K_hat(f) of its waves.

        Parameters
        ----------
        spatial_shape : tuple of int

        Returns
        -------
        array, shape (*spatial) for one channel, else (*spatial, C, C)
            Along a periodic axis complex, in the order of `numpy.fft.fft`; along other axes in the
            order of the waves m = 0, 1, ..., by frequency; in float32 for half types. log|det K| is
            the sum of log|det K_hat(f)|.

        Raises
        ------
        TypeError, ValueError
            If the grid does not fit the operator.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import PeriodicConv, SymmetricConv
        >>> PeriodicConv(np.asarray([[[-1.0, 2.0, -1.0]]])).spectrum((4,)).real
        array([0., 2., 4., 2.])
        >>> SymmetricConv(np.asarray([[[2.0, -1.0]]])).spectrum((3,)).round(12)
        array([0., 1., 3.])
        """
        shape = require_spatial_shape(self, spatial_shape)
        basis, kernel = self._family.basis, self._in_working_precision().kernel
        channels = () if self.channels == 1 else (self.channels,) * 2
        found = kernel_spectrum(kernel, basis, shape)
        xp = namespace(found)
        found = xp.reshape(found, (*basis.frequencies(shape), *channels))
        if not basis.closed:
            return found
        last = basis.closed[-1]  # half of its frequencies are known: K_hat(-f) = conj(K_hat(f))
        rest = xp.flip(part(found, last, 1, (shape[last] + 1) // 2), axis=last)
        for axis in basis.closed[:-1]:
            rest = xp.take(rest, constant(-np.arange(shape[axis]) % shape[axis], rest), axis=axis)
        return xp.concat([found, xp.conj(rest)], axis=last)

    def funm(self, f: Callable[[Array], Array], x: Array) -> Array:
        r"""Return f(K) x, a function of the whole linear map, in one pass: `scipy.linalg.funm`'s.

        $$f(K) = \sum_f f(\hat K(f))\, w_f w_f^*$$

        with w_f the waves of the grid. f = sqrt gives the root of K; ``lambda k: k**-0.5`` turns
        white noise into a field with precision K, and a field with covariance K into white noise;
        ``1 / (1 + k)`` smooths. A bias does not count. The result is differentiable in x, in the
        kernel (among even ones) and in the arrays that f uses.

        Parameters
        ----------
        f : function
            From an array of eigenvalues to an array of the same shape, number by number.
        x : array, shape (*batch, 1, *spatial)

        Returns
        -------
        array
            Shaped as x.

        Raises
        ------
        TypeError, ValueError
            As `forward`, or if there are several channels, the kernel is not even, so that
            eigenvalues are not real, or f gives no real and finite number for each of them.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import PeriodicConv
        >>> conv, x = PeriodicConv(np.asarray([[[1.0, 4.0, 1.0]]])), np.ones((1, 8))
        >>> root = conv.funm(np.sqrt, x)
        >>> np.allclose(conv.funm(np.sqrt, root), conv.forward(x))
        True
        """
        call = as_batch(self, "x", x)
        if self.channels > 1:
            raise ValueError(
                f"kernel: expected one channel for funm, got {self.channels}; spectrum(shape) has "
                "the matrix of each frequency"
            )
        shape, basis, kernel = call.spatial_shape, self._family.basis, call.conv.kernel
        values, xp = kernel_spectrum(kernel, basis, shape), namespace(kernel)
        if basis.closed:
            if readable(kernel) and not self._is_even(host := to_numpy(kernel)):
                off = abs(kernel_spectrum(host, basis, shape).imag).max()
                if off > 4 * host.size * np.finfo(host.dtype).eps * abs(host).sum():
                    raise ValueError(
                        "kernel: expected an even one for funm, equal to its flip, got eigenvalues "
                        f"with an imaginary part of up to {off:.2g}; for K and its "
                        "inverse there are forward and inverse"
                    )
            values = xp.real(values)
        with np.errstate(all="ignore"):  # numbers that are not finite raise below
            found = f(values)
        require_alike("f(eigenvalues)", found, "the eigenvalues", values)
        if tuple(found.shape) != tuple(values.shape):
            raise ValueError(
                f"f: expected a number for each eigenvalue, of the shape {tuple(values.shape)}, "
                f"got {tuple(found.shape)}"
            )
        finite = xp.isfinite(found)
        if readable(finite) and not xp.all(finite) and xp.all(xp.isfinite(values)):
            lost = xp.where(finite, xp.full_like(values, math.inf), values)
            raise ValueError(
                "f: expected finite numbers, got one that is not at the eigenvalue "
                f"{to_float(xp.min(lost)):.6g}; if rounding made it of zero, let f take the "
                "larger one of each eigenvalue and zero"
            )
        return call.restore_shape(SpectralProduct(found, basis, shape).by_transforms(call.x))

    def _is_even(self, kernel: Array) -> bool:
        """Tell whether a kernel is equal to its flip along the periodic axes, number by number."""
        _, flipped = self._family.transposed(kernel)
        return bool(flipped.shape == kernel.shape and namespace(kernel).all(flipped == kernel))

    def _regularised(self, shape: Shape, damp: float | Array, penalties: Sequence[Any] = ()) -> Map:
        if not self._family.orthogonal:
            raise ValueError(
                "boundary: expected borders without 'mirror' for least_squares, since its waves "
                "are not orthogonal; use 'symmetric', or scipy.sparse.linalg.lsqr with "
                "aslinearoperator"
            )
        shape = tuple(map(int, shape))  # torch.export may have a dynamic one
        more = [one._blocks(shape) for one in penalties]
        inverses = regularised(self._blocks(shape), damp, "kernel", more)
        return SpectralProduct(inverses, self._family.basis, shape).by_transforms

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
