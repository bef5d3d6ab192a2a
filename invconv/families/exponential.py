"""The family of exponentials of convolutions: invertible with every kernel."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, constant, diagonal, namespace, size, total
from invconv.arrays.stencil import kernel_of, reaching, tap_indices, taps_of
from invconv.families.convolutions import StencilFamily, centred_offsets
from invconv.families.family import Family, Wanted
from invconv.families.path import Leg, Pulled
from invconv.kernels.exponential import (
    Counts,
    ExponentialSolver,
    counted,
    exponential,
    exponential_cotangent,
    exponential_vjp,
)
from invconv.trust.bound import UNBOUNDED, Bounds

_BOUNDED = 60.0  # norm: beyond it e^norm is no useful bound


class Exponentiate(Leg):
    """y = e^M x, with the number of terms that M needs."""

    def __init__(self, family: "Exponential", w: Array, shape: Shape) -> None:
        self.family = family
        self.taps, self.counts = family.counted(w, shape)

    def __call__(self, x: Array) -> Array:
        return exponential(self.family.linear, self.taps, x, counts=self.counts)

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        linear = self.family.linear
        if not wanted[0]:
            return [None], exponential_cotangent(linear, (self.taps, x), 1, bar, self.counts)
        taps_bar, x_bar = exponential_vjp(linear, self.taps, x, bar, self.counts)
        return [kernel_of(taps_bar, self.family.kernel_size)], x_bar


@dataclass(frozen=True)
class Exponential(Family):
    """e^M of the correlation M with the kernel w (C, C, *k); its log-determinant is tr M."""

    kernel_size: Shape
    dilation: Shape
    wrap: bool
    leg: ClassVar[Any] = Exponentiate
    needs_y: ClassVar[bool] = True
    solves_by_applying: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _ = self.linear  # torch.compile cannot compute it

    @derived
    def linear(self) -> StencilFamily:
        """Return the family of M."""
        return StencilFamily.of(centred_offsets(self.kernel_size, self.dilation), self.wrap)

    @property
    def closed(self) -> bool:  # type: ignore[override]
        return self.wrap

    def counted(self, w: Array, shape: Shape) -> tuple[Array, Counts | None]:
        """Return the taps of M, and the number of terms that they need."""
        return counted(self.linear, reaching_taps(self.linear, w, shape), w, shape)

    def solver(self, w: Array, shape: Shape) -> ExponentialSolver:
        taps, counts = self.counted(w, shape)
        return ExponentialSolver.of(self.linear, -taps, counts, shape)

    def made_ready(self, w: Array, shape: Shape) -> ExponentialSolver:
        taps, counts = self.counted(w, shape)
        return ExponentialSolver.of(self.linear, taps, counts, shape)

    def solve_vjp(
        self, w: Array, y: Array | None, x: Array, x_bar: Array, wanted: Wanted
    ) -> tuple[Array, Array]:
        taps, counts = self.counted(w, tuple(x.shape[2:]))
        taps_bar, y_bar = exponential_vjp(self.linear, -taps, y, x_bar, counts)
        return kernel_of(-taps_bar, self.kernel_size), y_bar

    def transpose(self) -> "Exponential":
        return self

    def adjoint(self, w: Array) -> Array:
        """Return flipped taps with transposed matrices."""
        return namespace(w).flip(super().adjoint(w), axis=tuple(range(2, w.ndim)))

    def log_det(self, w: Array, shape: Shape, saving: bool) -> tuple[Array, Any]:
        traces = [total(diagonal(w[(..., *tap)])) for tap in _at_the_pixel(self, shape)]
        return size(shape) * sum(traces[1:], start=traces[0]), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        ones = np.zeros(w.shape)
        for tap in _at_the_pixel(self, shape):
            ones[(..., *tap)] = size(shape) * np.eye(w.shape[0])
        more = bar * constant(ones, w, w.dtype)
        return more if known is None else known + more

    def products(self, w: Any, shape: Shape) -> float:
        if self.wrap:  # by transforms, and frequencies' matrices are squared some ten times
            return float((400 + 10 * len(w) ** 2) * len(w) * size(shape))
        return self.summed(w, shape)

    def summed(self, w: Any, shape: Shape) -> float:
        counts: Any = self.counted(w, shape)[1]  # known on the host
        return float(counts.steps * counts.terms * super().products(w, shape))

    def longest_columns(self, shape: Shape) -> tuple[int | None, ...]:
        """See `Family`; a circular grid is uniform."""
        return tuple(0 if self.wrap else None for _ in shape)

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        norm = float(np.abs(w).sum(axis=(1, *range(2, w.ndim))).max())
        if not norm <= _BOUNDED:
            return UNBOUNDED
        # Horner's step n rounds (C T + 2) products of |M|/n: (C T + 2) |M| e^|M| all together
        terms = (w[0].size + 2) * (norm + 1) + 2
        return Bounds(math.exp(norm), math.exp(norm), terms)


def reaching_taps(linear: StencilFamily, w: Array, shape: Shape) -> Array:
    """Return the taps of M, shape (T, C, C); taps that reach no pixel of the grid are zero."""
    taps, offsets = taps_of(w), linear.offsets
    farthest = map(abs, offsets[0])  # of the first tap, along each axis
    if linear.wrap or all(r < n for r, n in zip(farthest, shape, strict=True)):
        return taps
    kept, xp = set(reaching(offsets, shape)), namespace(taps)
    blank = xp.zeros_like(taps[0, ...])
    return xp.stack([taps[t, ...] if t in kept else blank for t in range(taps.shape[0])])


def _at_the_pixel(family: Exponential, shape: Shape) -> Iterator[Any]:
    """Yield the taps that land on the pixel itself."""
    for tap, offset in zip(tap_indices(family.kernel_size), family.linear.offsets, strict=True):
        if not any(o % n if family.wrap else o for o, n in zip(offset, shape, strict=True)):
            yield tap
