"""Exponentials of convolutions: invertible with every kernel, on every grid.

    y = e^M x + b,    x = e^-M (y - b),    log|det e^M| = tr M

M is the correlation with the kernel, zero outside the grid or on a grid that closes on itself.

E. Hoogeboom, V. G. Satorras, J. M. Tomczak, M. Welling, The Convolution Exponential and
Generalized Sylvester Flows, NeurIPS 2020, arXiv 2006.01910.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, constant, diagonal, namespace, size, total
from invconv.arrays.settings import choice, generator, positive_int, sizes
from invconv.arrays.stencil import kernel_of, reaching, tap_indices, taps_of
from invconv.kernels.exponential import (
    ExponentialSolver,
    counted,
    exponential,
    exponential_vjp,
)
from invconv.kernels.families import StencilFamily, centred_family
from invconv.kernels.primitives import per_channel
from invconv.kernels.series import LARGEST, Counts
from invconv.operators.base.conditions import in_one_norm
from invconv.operators.base.protocol import BOTH, Gradients
from invconv.operators.convolution import WithKernel
from invconv.solve.state import Map, State
from invconv.trust import condition
from invconv.trust.bound import UNBOUNDED, Bounds, largest_entry
from invconv.trust.gains import norm_bound, shrinking


class ExponentialConv(WithKernel, mixing="exponential"):
    """The exponential of a convolution, y = e^M x + b = x + M x + M^2 x / 2! + ... + b.

    (M x)[p] = sum over t of K[..., t] x[p + dilation (t - (k - 1)/2)], zero outside the grid, or
    modulo the grid: a cross-correlation, so flip a point-spread function. log det = tr M = N sum
    over c of K[c, c, centre], N the number of pixels; on a circular grid that is narrower than K,
    the sum goes over all taps that land on the pixel itself.

    The map is invertible with every kernel on every grid: the inverse is e^-M. Its condition is at
    most e^(2 |S|), S the symmetric part of M: if K[o, i, t] = -K[i, o, -t], e^M is orthogonal.
    The determinant is positive, and for a kernel near 0 the map is near the identity, so let a 1x1
    convolution mix the channels before it.

    Parameters
    ----------
    kernel : array, shape (C, C, *k)
        Of odd size along each axis; it may be wider than the grid.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    padding : {"zeros", "circular"}
        The image beyond the border: zeros, or the periodic continuation.
    dilation : int or tuple of int
        Per axis.

    Raises
    ------
    ValueError
        If the kernel has an even size along an axis, and thus no centre.

    Notes
    -----
    The series has so many terms that its truncation is below rounding, by the kernel's 1- and
    infinity norms: 12 convolutions in float64 for a norm of 0.3, 33 for 4, and as many again for
    every further 4. Beyond 4096 the result is NaN. The host must know the number of terms, so on an
    accelerator it waits for the norm: once for a prepared inverse, and then for no solve; at every
    forward in CuPy; in PyTorch once for every version of the kernel, which is once a training step.
    (In PyTorch at every call if the kernel is computed in the call: compiled, with a half type, or
    with ``max_gain``.) No derivative waits, and JAX counts on the device. In host memory the
    inverse on a circular grid is one product a frequency instead (not in JAX).

    Examples
    --------
    A difference of neighbours is skew, so its exponential is orthogonal: it moves waves.

    >>> import numpy as np
    >>> conv = ExponentialConv(np.asarray([[[-5.0, 0.0, 5.0]]]), padding="circular")
    >>> x = np.eye(1, 8)
    >>> y = conv.forward(x)
    >>> bool(np.allclose((y**2).sum(), 1)), bool(np.allclose(conv.inverse(y), x))
    (True, True)
    >>> float(conv.log_det((8,)))
    0.0
    """

    _: KW_ONLY
    padding: str = "zeros"
    dilation: int | tuple[int, ...] = 1

    _needs_y = _solves_by_applying = True

    def validate(self) -> None:
        """See `Fields`."""
        choice("padding", self.padding, ("zeros", "circular"))
        object.__setattr__(
            self, "dilation", sizes("dilation", self.dilation, len(self._kernel_size))
        )
        if any(k % 2 == 0 for k in self._kernel_size):
            raise ValueError(
                "kernel: expected an odd size along every axis, since an even one has no centre, "
                f"got {self._kernel_size}"
            )
        _ = self._family  # torch.compile can look a family up, but cannot make one

    @classmethod
    def init(
        cls,
        channels: int,
        kernel_size: int | tuple[int, ...] = 3,
        ndim: int = 2,
        *,
        padding: str = "zeros",
        dilation: int | tuple[int, ...] = 1,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return N(0, 0.02^2) over the root of the number of taps: nearly the identity.

        Parameters
        ----------
        channels : int
        kernel_size : int or tuple of int
            Per axis, odd.
        ndim : int
            The number of spatial axes.
        padding : {"zeros", "circular"}
        dilation : int or tuple of int
        rng : numpy.random.Generator
        like : array, optional
            An array of the library, dtype and device to use; NumPy float64 unless given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import ExponentialConv
        >>> conv = ExponentialConv.init(3, padding="circular", rng=np.random.default_rng(0))
        >>> conv.kernel.shape, round(conv.condition((8, 8)), 1) < 2
        ((3, 3, 3, 3), True)
        """
        channels, ndim = positive_int("channels", channels), positive_int("ndim", ndim)
        taps = sizes("kernel_size", kernel_size, ndim)
        if any(k % 2 == 0 for k in taps):
            raise ValueError(f"kernel_size: expected odd sizes, got {kernel_size!r}")
        kernel = 0.02 * generator(rng).standard_normal((channels, channels, *taps))
        conv = cls(kernel / math.sqrt(size(taps)), padding=padding, dilation=dilation)
        return conv if like is None else conv.asarrays(like)

    def _prime(self) -> None:
        super()._prime()
        _ = self._family

    @derived
    def _family(self) -> StencilFamily:
        """Return the family of M, with all taps."""
        assert isinstance(self.dilation, tuple)
        return centred_family(self._kernel_size, self.dilation, self.padding == "circular")

    def _taps(self, shape: Shape) -> Array:
        """Return the taps of M, shape (T, C, C); taps that reach no pixel of the grid are zero."""
        assert isinstance(self.dilation, tuple)
        family, taps = self._family, taps_of(self.kernel)
        reach = (d * (k // 2) for k, d in zip(self._kernel_size, self.dilation, strict=True))
        if family.wrap or all(r < n for r, n in zip(reach, shape, strict=True)):
            return taps
        kept = set(reaching(family.offsets, shape))
        xp = namespace(taps)
        blank = xp.zeros_like(taps[0, ...])
        return xp.stack([taps[t, ...] if t in kept else blank for t in range(taps.shape[0])])

    def transpose(self) -> ExponentialConv:
        """Return the operator of (e^M)^T = e^(M^T): flipped taps, transposed matrices."""
        xp, axes = namespace(self.kernel), tuple(range(2, self.kernel.ndim))
        flipped = xp.flip(xp.permute_dims(self.kernel, (1, 0, *axes)), axis=axes)
        return ExponentialConv(flipped, padding=self.padding, dilation=self.dilation)

    def _within(self, gain: float) -> Self:
        """Return e^(S + A) with |S| <= log(gain), S the symmetric part of M, and A the skew part.

        |e^-(S + A)| <= e^|S|, since the logarithmic norm of -(S + A) is the largest eigenvalue of
        -S. A is only shrunk if the series would end, beyond `LARGEST` in the 1-norm, which is at
        most C^(1/2) times the 2-norm.
        """
        symmetric, most = self._symmetric(), LARGEST / self.channels**0.5
        skew, xp = self.kernel - symmetric, namespace(symmetric)
        norm, turns = (xp.sum(norm_bound(taps_of(part))) for part in (symmetric, skew))
        symmetric = symmetric * shrinking(norm, min(math.log(gain), most / 4) * xp.ones_like(norm))
        limit = most / 2 * xp.ones_like(turns)
        skew = skew * (limit / xp.where(turns > limit, turns, limit))
        return self.replace(kernel=symmetric + skew)

    def _symmetric(self) -> Array:
        """Return the kernel of the symmetric part of M."""
        return (self.kernel + self.transpose().kernel) / 2

    def _counted(self, shape: Shape) -> tuple[Array, Counts | None]:
        """Return the taps, and the number of terms that they need."""
        return counted(self._family, self._taps(shape), self.kernel, shape)

    def _apply(self, x: Array) -> Array:
        taps, counts = self._counted(tuple(x.shape[2:]))
        return exponential(self._family, taps, x, counts=counts)

    def _forward_saving(self, x: Array) -> tuple[Array, Any]:
        taps, counts = self._counted(tuple(x.shape[2:]))
        y = exponential(self._family, taps, x, counts=counts)
        return y if self.bias is None else y + per_channel(self.bias, y), (x, taps, counts)

    def _apply_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array]:
        family, (x, taps, counts) = self._family, memo
        if not wanted[0]:
            turned, adjoint = family.transpose(), family.adjoint(taps)
            return {}, exponential(turned, adjoint, y_bar, counts=counts)
        taps_bar, x_bar = exponential_vjp(family, taps, x, y_bar, counts)
        return {"kernel": kernel_of(taps_bar, self._kernel_size)}, x_bar

    def _factor(self, shape: Shape) -> State:
        taps, counts = self._counted(shape)
        solver = ExponentialSolver.of(self._family, -taps, counts, shape)
        return State(solver, self._log_det(shape), self.bias)

    def _solve_vjp(self, y: Array | None, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        taps, counts = self._counted(tuple(x.shape[2:]))
        taps_bar, y_bar = exponential_vjp(self._family, -taps, y, x_bar, counts)
        return {"kernel": kernel_of(-taps_bar, self._kernel_size)}, y_bar

    def _at_the_pixel(self, shape: Shape) -> Iterator[Any]:
        """Yield the taps that land on the pixel itself."""
        taps = tap_indices(self._kernel_size)
        for tap, offset in zip(taps, self._family.offsets, strict=True):
            folded = (o % n for o, n in zip(offset, shape, strict=True))
            if not any(folded if self._family.wrap else offset):
                yield tap

    def _log_det(self, shape: Shape) -> Array:
        traces = [total(diagonal(self.kernel[(..., *tap)])) for tap in self._at_the_pixel(shape)]
        return size(shape) * sum(traces[1:], start=traces[0])

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        ones = np.zeros(self.kernel.shape)
        for tap in self._at_the_pixel(shape):
            ones[(..., *tap)] = size(shape) * np.eye(self.channels)
        return {"kernel": log_det_bar * constant(ones, self.kernel, self.kernel.dtype)}

    @derived
    def _closed(self) -> bool:
        return self._family.wrap

    def _products(self, shape: Shape, compiled: bool = False) -> float:
        if compiled and self._family.wrap:  # by frequencies
            return float(self.channels**2 * size(shape))
        counts = self._counted(shape)[1]
        terms = 1 if counts is None else counts.steps * counts.terms
        return terms * super()._products(shape) / (_COMPILED if compiled else 1.0)

    def _linear_maps(self, shape: Shape) -> tuple[Map, Map]:
        return self._made_ready(shape), self._factor(shape).linear().solve

    def _made_ready(self, shape: Shape) -> Map:
        taps, counts = self._counted(shape)
        return ExponentialSolver.of(self._family, taps, counts, shape)

    def _condition(self, shape: Shape) -> condition.Condition:
        return in_one_norm(self, shape)

    def _longest_columns(self, shape: Shape, transposed: bool) -> tuple[int | None, ...]:
        return tuple(0 if self._family.wrap else None for _ in shape)  # a circular grid is uniform

    def _bounds(self, shape: Shape) -> list[Bounds]:
        if not np.isfinite(self.kernel).all():
            return [UNBOUNDED]
        norm = float(np.abs(self.kernel).sum(axis=(1, *range(2, self.kernel.ndim))).max())
        if norm > _BOUNDED:
            return [UNBOUNDED]
        # Horner's step n rounds (C T + 2) products of |M|/n: (C T + 2) |M| e^|M| all together
        terms = (self.kernel[0].size + 2) * (norm + 1) + 2
        return [Bounds(math.exp(norm), math.exp(norm), terms, largest_entry(self.bias))]


_COMPILED = 16.0  # speed-up of the compiled kernel's products over BLAS
_BOUNDED = 60.0  # norm: beyond it e^norm is no useful bound
