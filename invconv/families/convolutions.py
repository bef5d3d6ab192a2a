"""Families of convolutions: autoregressive ones, and those that a basis decouples.

`Spectral` is one C x C matrix per frequency (`kernels.frequencies`):

    y[p] = sum over t of w[..., t] x[p + o(t)],    x continued beyond each border (`stencil.seen`)

Along a periodic axis w holds every tap, o(t) = dilation (t - (k - 1)//2). Along the others the
kernel is even, and w holds the half from the centre on: tap t stands at the offsets +t and -t.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    device,
    diagonal,
    namespace,
    size,
    triangle,
)
from invconv.arrays.stencil import (
    CausalStencil,
    Offset,
    Stencil,
    Sweep,
    at_end,
    kernel_of,
    seen,
    tap_indices,
    taps_of,
)
from invconv.families.family import Family
from invconv.kernels import maps
from invconv.kernels.frequencies.spectrum import (
    SpectralProduct,
    kernel_spectrum,
    spectral_gram,
    spectral_log_det,
    spectral_log_det_saving,
    spectral_log_det_vjp,
    spectral_solver,
)
from invconv.kernels.frequencies.waves import Basis
from invconv.kernels.primitives import (
    Map,
    Solver,
    add_pivots,
    correlate,
    correlate_kernel_vjp,
    flat,
    pad,
    part,
)
from invconv.kernels.wavefront import causal_solver
from invconv.trust import condition
from invconv.trust.bound import Bounds, of_taps

WIDE = 600  # taps from which on products per frequency are faster on most grids (November 2026)

_ONE_BORDER: dict[str, Any] = {"periodic": True, "zero": False, "symmetric": "symmetric"}


class TapsFamily(Family):
    """Correlations: y[p] = sum over t of taps(w)[t] x[p + offsets[t]], for a border."""

    lowers = "taps"
    kernel_size: Shape  # w is a kernel (C, C, *kernel_size)
    offsets: tuple[Offset, ...]
    wrap: Any  # the border: True if periodic, False if zero, "symmetric", or a word for each axis
    first: int = 0  # the flat position in the kernel of the first tap; those before it are masked
    kept: int = 0  # the triangle of the first tap's matrix that is kept: 1 lower, -1 upper, 0 both
    free: Any = None  # the family of A(w) M for C x C matrices M, with weights ``taps(w) M``
    wide: bool = False  # whether A(w) x, and the gradient by w, are computed per frequency

    @property
    def whole(self) -> "TapsFamily":
        """The family of ``unfolded(w)``, which has every tap."""
        return self

    def unfolded(self, w: Array) -> Array:
        """Return the weights of ``whole``."""
        return w

    def folded(self, bar: Array) -> Array:
        """Return the gradient by w, given that by ``unfolded(w)``."""
        return bar

    def taps(self, w: Array) -> Array:
        """Return the taps (T, C, C), without masked ones."""
        return taps_of(w)

    def kernel(self, taps: Array) -> Array:
        """Return the weights with these taps; masked entries are zero."""
        return kernel_of(taps, self.kernel_size)

    def placed(self, strides: Shape) -> tuple[int, tuple[int, int, int, int]] | None:
        """Return the place of the first tap's matrix in w, and three strides with ``kept``.

        The strides lead from tap to tap, row to row and column to column; all is counted in
        numbers. None if the taps of a pair of channels are not adjacent.
        """
        adjacent = 1
        for n, stride in zip(self.kernel_size[::-1], strides[:1:-1], strict=True):
            if n > 1 and stride != adjacent:
                return None
            adjacent *= n
        return self.first, (1, strides[0], strides[1], self.kept)

    def shape_of(self, x: Array) -> Shape:
        return (x.shape[1], x.shape[1], *self.kernel_size)

    def apply(self, w: Array, x: Array) -> Array:
        return correlate(Stencil(self.offsets, self.taps(w)), x, wrap=self.wrap)

    def gram(self, x: Array, y: Array) -> Array:
        return self.kernel(correlate_kernel_vjp(x, y, self.offsets, wrap=self.wrap))


@dataclass(frozen=True)
class StencilFamily(TapsFamily):
    """Correlations with free taps w (T, C, C) at fixed offsets; there is no solve."""

    offsets: tuple[Offset, ...]
    wrap: bool

    def taps(self, w: Array) -> Array:
        return w

    def kernel(self, taps: Array) -> Array:
        return taps

    def placed(self, strides: Shape) -> tuple[int, tuple[int, int, int, int]]:
        tap, row, column = strides
        return 0, (tap, row, column, 0)

    def shape_of(self, x: Array) -> Shape:
        return len(self.offsets), x.shape[1], x.shape[1]

    def transpose(self) -> "StencilFamily":
        return self.of(tuple(tuple(-o for o in offset) for offset in self.offsets), self.wrap)

    def adjoint(self, w: Array) -> Array:
        return namespace(w).permute_dims(w, (0, 2, 1))  # torch's older vmap knows no swapaxes


def centred_offsets(kernel_size: Shape, dilation: Shape) -> tuple[Offset, ...]:
    """Return the offsets dilation (t - (k - 1)//2) of every tap of a kernel."""
    return tuple(
        tuple(d * (i - (k - 1) // 2) for i, k, d in zip(t, kernel_size, dilation, strict=True))
        for t in tap_indices(kernel_size)
    )


@dataclass(frozen=True)
class Causal(TapsFamily):
    r"""Autoregressive convolutions of kernels w (C, C, *k), whose masked entries are ignored.

    A(w) x[p] = sum over t of w[..., t] x[p - direction dilation o(t)], zero outside the grid;
    $\log|\det A| = N \sum_c \log|w[c, c, \text{at } 0]|$.
    """

    hint: ClassVar[str] = (
        "the kernel has a zero on the diagonal of its C x C matrix at the pixel itself"
    )

    kernel_size: Shape
    # The tap at o = 0: (0, ...) of a corner, (0, (k_1 - 1)/2, ...) of a raster. Taps with a
    # lexicographically negative o are masked.
    centre: Offset
    direction: tuple[int, ...]
    dilation: tuple[int, ...]
    lower: bool  # whether the matrix at o = 0 is lower triangular; the other triangle is masked
    solved = "causal"
    wrap = False

    def __post_init__(self) -> None:
        _ = self.first, self.offsets, self.free, self.kept  # torch.compile cannot compute them

    @derived
    def first(self) -> int:
        return tap_indices(self.kernel_size).index(self.centre)

    @derived
    def sweep(self) -> Sweep:
        """Return o(t) of the taps behind the first, and the order of the substitution."""
        taps = tap_indices(self.kernel_size)[self.first + 1 :]
        others = (tuple(i - c for i, c in zip(t, self.centre, strict=True)) for t in taps)
        return Sweep(tuple(others), self.direction, self.dilation, self.lower)

    @derived
    def offsets(self) -> tuple[Offset, ...]:
        return ((0,) * len(self.centre), *self.sweep.offsets)

    @derived
    def free(self) -> StencilFamily:
        return StencilFamily.of(self.offsets, False)

    @derived
    def kept(self) -> int:
        return 1 if self.lower else -1

    def stencil(self, w: Array) -> CausalStencil:
        """Return the unmasked taps of a kernel with their offsets."""
        return CausalStencil(self.taps(w), self.sweep)

    def taps(self, w: Array) -> Array:
        """Return the taps (1 + T, C, C) of a kernel, o = 0 first; masked entries are zero."""
        return self._masked(taps_of(w, self.first))

    def kernel(self, taps: Array) -> Array:
        """Return the kernel with these taps (1 + T, C, C), o = 0 first; masked entries are zero."""
        return kernel_of(self._masked(taps), self.kernel_size)

    def _masked(self, taps: Array) -> Array:
        here = triangle(taps[0, ...], lower=self.lower)[None, ...]
        return namespace(taps).concat([here, taps[1:, ...]])

    def factor(self, w: Array, shape: Shape) -> Solver:
        return causal_solver(self.stencil(w), shape)

    def transpose(self) -> "Causal":
        away = tuple(-s for s in self.direction)
        return self.of(self.kernel_size, self.centre, away, self.dilation, not self.lower)

    def pivots(self, w: Array) -> Array | None:
        return diagonal(w[(..., *self.centre)])

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        known = namespace(w).zeros_like(w) if known is None else known
        memo = self.pivots(w) if memo is None else memo
        return add_pivots(known, self.centre, size(shape) * bar / memo)

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        causal = self.stencil(w)
        return of_taps(causal.diagonal, causal.others)

    def longest_columns(self, shape: Shape) -> tuple[int | None, ...]:
        # along an axis on which no offset points back, A and A^-1 are triangular and Toeplitz: the
        # column of a pixel is the first pixel's column, shifted and cut off by the grid
        ways = zip(self.direction, shape, strict=True)
        first = [0 if s > 0 else n - 1 for s, n in ways]
        followed = 1 if any(self.centre) else len(shape)
        return tuple(p if axis < followed else None for axis, p in enumerate(first))

    def reaches_back(self, axis: int) -> int:
        return max(abs(offset[axis]) for offset in self.offsets)


@dataclass(frozen=True)
class BorderedFamily(TapsFamily):
    """Correlations of kernels (C, C, *k) around their centres with continued images; no solve.

    ``wrap`` is the one border of all axes if libraries know it, else the word of each axis.
    """

    kernel_size: Shape
    borders: tuple[str, ...]  # one word per axis
    dilation: Shape  # 1 along axes that are not periodic

    def __post_init__(self) -> None:
        _ = self.wrap  # torch.compile cannot compute it

    @derived
    def wrap(self) -> Any:
        border, *others = set(self.borders)
        return self.borders if others else _ONE_BORDER.get(border, self.borders)

    @functools.cached_property
    def offsets(self) -> tuple[Offset, ...]:  # type: ignore[override]
        """The offset of every tap; only an exporter lists those of a wide kernel."""
        return centred_offsets(self.kernel_size, self.dilation)

    @functools.cached_property
    def inside(self) -> "BorderedFamily":
        """The family with zeros beyond the border, for images that are continued already."""
        return BorderedFamily(self.kernel_size, ("zero",) * len(self.borders), self.dilation)

    @property
    def margins(self) -> tuple[tuple[int, int], ...]:
        """The pixels that taps read before the first and behind the last one of each axis."""
        sides = zip(self.kernel_size, self.dilation, strict=True)
        return tuple((d * ((k - 1) // 2), d * (k // 2)) for k, d in sides)

    def apply(self, w: Array, x: Array) -> Array:
        if isinstance(self.wrap, bool):
            return super().apply(w, x)
        return self.cropped(maps.apply(self.inside, w, self.continued(x)))

    def gram(self, x: Array, y: Array) -> Array:
        if isinstance(self.wrap, bool):
            return super().gram(x, y)
        return self.kernel(correlate_kernel_vjp(self.continued(x), self.in_zeros(y), self.offsets))

    def continued(self, x: Array) -> Array:
        """Return x (B, C, *spatial) with its margins."""
        xp, shape = namespace(x), tuple(map(int, x.shape[2:]))
        places, signs, wide = _continuation(self.margins, self.borders, shape)
        pixels = flat(x)
        if signs is not None:  # zeros are a pixel of their own, behind the last one
            pixels = xp.concat([pixels, xp.zeros_like(pixels[:, :, :1])], axis=2)
        pixels = xp.take(pixels, constant(places, x), axis=2)
        if signs is not None:
            pixels = pixels * constant(signs, x, x.dtype)
        return xp.reshape(pixels, (*x.shape[:2], *wide))

    def in_zeros(self, y: Array) -> Array:
        """Return y (B, C, *spatial), weighted as by `cropped`, with zeros for margins."""
        y = self._weighted(y)
        for axis, (before, behind) in enumerate(self.margins, 2):
            y = pad(y, axis, before, behind)
        return y

    def cropped(self, y: Array) -> Array:
        """Return y (B, C, *spatial) without its margins, times D between transposed mirrors."""
        for axis, (before, behind) in enumerate(self.margins, 2):
            y = part(y, axis, before, y.shape[axis] - behind)
        return self._weighted(y)

    def _weighted(self, y: Array) -> Array:
        for axis, border in enumerate(self.borders, 2):
            if border == "transposed mirror":
                xp, n = namespace(y), int(y.shape[axis])
                ends = xp.astype(at_end(xp.arange(n, device=device(y)), n), y.dtype)
                y = y * xp.reshape(1 - ends / 2, (-1, *[1] * (y.ndim - 1 - axis)))
        return y


@functools.lru_cache(maxsize=16)
def _continuation(
    margins: tuple[tuple[int, int], ...], borders: tuple[str, ...], shape: Shape
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None, Shape]:
    """Return flat indices of the pixels of a continued grid, their signs, and its shape.

    The signs are None if all are +1; a pixel that is zero has the index behind the last one.
    """
    places, signs, wide = np.zeros(1, np.int64), np.ones(1), []
    for (before, behind), border, n in zip(margins, borders, shape, strict=True):
        along, sign = seen(border, np.arange(-before, n + behind), n)
        places = (places[:, None] * n + along).reshape(-1)
        signs = (signs[:, None] * sign).reshape(-1)
        wide.append(len(along))
    if (signs == 1).all():
        return places, None, tuple(wide)
    places = np.where(signs == 0, size(shape), places)
    return places, np.where(signs == 0, 1.0, signs), tuple(wide)


@dataclass(frozen=True)
class Spectral(TapsFamily):
    r"""Convolutions of kernels w that cosines, sines and Fourier's waves decouple.

    $$\log|\det A| = \sum_f \log|\det \hat K(f)|$$
    """

    hint: ClassVar[str] = (
        "K_hat(f) is singular at a frequency f; change the kernel or the grid size"
    )
    closed: ClassVar[bool] = True
    spectral: ClassVar[bool] = True
    kernel_size: Shape  # w is (C, C, *kernel_size)
    borders: tuple[str, ...]  # one word per axis
    dilation: Shape  # 1 along axes that are not periodic
    solved = "spectral"

    def __post_init__(self) -> None:
        _ = self.basis, self.wrap, self.free  # torch.compile cannot compute them

    @derived
    def basis(self) -> Basis:
        """Return the basis of waves: A is one C x C matrix for each wave."""
        return Basis(self.borders, self.dilation)

    @derived
    def wrap(self) -> Any:
        return self.whole.wrap

    @derived
    def wide(self) -> bool:
        return size(self.whole.kernel_size) >= WIDE

    @derived
    def free(self) -> StencilFamily | None:
        if self.wide:
            return None
        offsets = self.whole.offsets
        return StencilFamily.of(offsets, True) if self.wrap is True else None  # a half is not free

    @derived
    def whole(self) -> BorderedFamily:
        """Return the family of whole kernels."""
        sides = list(zip(self.kernel_size, self.borders, strict=True))
        taps = tuple(k if border == "periodic" else 2 * k - 1 for k, border in sides)
        # of an odd continuation, a kernel of three taps reads only the zero
        near = tuple("zero" if border == "odd" and k <= 2 else border for k, border in sides)
        return BorderedFamily(taps, near, self.dilation)

    @derived
    def orthogonal(self) -> bool:
        """Return whether the basis is orthogonal."""
        return self.basis.transpose() is self.basis

    def apply(self, w: Array, x: Array) -> Array:
        if self.wide:
            return self.made_ready(w, tuple(x.shape[2:]))(x)
        return self.whole.apply(self.unfolded(w), x)

    def gram(self, x: Array, y: Array) -> Array:
        if self.wide:
            return spectral_gram(x, y, self.kernel_size, self.basis)
        return self.folded(self.whole.gram(x, y))

    def unfolded(self, w: Array) -> Array:
        """Return the whole kernel, of 2 k - 1 taps along axes that are not periodic."""
        xp = namespace(w)
        for axis, border in enumerate(self.borders, 2):
            if border != "periodic":
                w = xp.concat([xp.flip(part(w, axis, 1), axis=axis), w], axis=axis)
        return w

    def folded(self, bar: Array) -> Array:
        xp = namespace(bar)
        for axis, border in enumerate(self.borders, 2):
            if border != "periodic":
                h = (bar.shape[axis] + 1) // 2
                before = xp.flip(part(bar, axis, 0, h - 1), axis=axis)
                behind = part(bar, axis, h) + before
                bar = xp.concat([part(bar, axis, h - 1, h), behind], axis=axis)
        return bar

    def factor(self, w: Array, shape: Shape) -> Solver:
        matrices = kernel_spectrum(w, self.basis, shape)
        return spectral_solver(matrices, self.basis, shape)

    def transpose(self) -> "Spectral":
        """Return the family of odd sizes: flipping an even size moves the centre by one."""
        sides = zip(self.kernel_size, self.borders, strict=True)
        odd = tuple(k + 1 - k % 2 if border == "periodic" else k for k, border in sides)
        return self.of(odd, self.basis.transpose().borders, self.dilation)

    def adjoint(self, w: Array) -> Array:
        """Return transposed matrices, flipped along periodic axes, a zero tap behind even sizes."""
        w, closed = super().adjoint(w), tuple(2 + axis for axis in self.basis.closed)
        w = namespace(w).flip(w, axis=closed) if closed else w
        for axis in closed:
            w = pad(w, axis, 0, 1 - w.shape[axis] % 2)
        return w

    def transposed_vjp(self, bar: Array) -> Array:
        """See `Family`; the transpose of a kernel of even size has one more tap."""
        back = self.transpose().adjoint(bar)
        sizes = zip(back.shape[2:], self.kernel_size, strict=True)
        return back[(slice(None), slice(None), *(slice(n - k, None) for n, k in sizes))]

    def log_det(self, w: Array, shape: Shape, saving: bool) -> tuple[Array, Any]:
        if saving:
            return spectral_log_det_saving(w, self, shape)
        return spectral_log_det(w, self, shape), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        more = bar * spectral_log_det_vjp(w, self, shape, memo)
        return more if known is None else known + more

    def made_ready(self, w: Array, shape: Shape) -> Map:
        """See `Family`; by frequencies, without a sum over taps."""
        basis = self.basis
        return SpectralProduct(kernel_spectrum(w, basis, shape), basis, shape).by_transforms

    def of_waves(self, w: np.ndarray[Any, Any], shape: Shape) -> condition.Condition:
        """Return the largest singular value of all frequencies' matrices over the smallest one."""
        order = None if len(w) == 1 else 2  # one number needs no factorisation
        taps = float(
            np.linalg.norm(taps_of(w), order, axis=(1, 2)) @ self.basis.counts(self.kernel_size)
        )
        rounding = len(w) * taps * condition.EPS["float64"]
        basis = self.basis
        spectral = condition.of_spectrum(kernel_spectrum(w, basis, shape), rounding)
        (worst,) = map(int, spectral.frequency or (0,))
        place = np.unravel_index(worst, basis.frequencies(shape))
        return replace(spectral, frequency=basis.periods(tuple(map(int, place))))

    def condition(self, w: np.ndarray[Any, Any], shape: Shape) -> condition.Condition | None:
        if not np.isfinite(w).all():  # some LAPACKs print a complaint
            raise condition.SolveOverflowError
        return self.of_waves(w, shape) if self.orthogonal else None

    def longest_columns(self, shape: Shape) -> tuple[int | None, ...]:
        """See `Family`; along a periodic axis all pixels are alike."""
        return tuple(0 if border == "periodic" else None for border in self.borders)

    def products(self, w: Any, shape: Shape) -> float:
        taps = WIDE if self.wide else float(self.basis.counts(self.kernel_size).sum())
        return len(w) ** 2 * taps * size(shape)
