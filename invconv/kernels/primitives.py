"""Primitives: operations in pure array-API form that an adapter may replace by a native version.

Arrays are (B, C, *spatial). A native replacement (`invconv.arrays.registry`) has the same name,
signature and result; it decides how its library runs the operation, not the meaning of the result.
The solvers of whole convolutions, primitives too, are in `invconv.kernels.wavefront` and
`invconv.kernels.frequencies.spectrum`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    device,
    identity,
    namespace,
    on_diagonal,
    ops_of,
    readable,
    size,
    zeros,
)
from invconv.arrays.registry import Primitive
from invconv.arrays.stencil import Offset, Stencil, reaching

Map = Callable[[Array], Array]


@dataclass(frozen=True, repr=False)
class Plan:
    """How a prepared inverse solves. An attribute that does not apply to its method is None.

    Attributes
    ----------
    method : str
        "compiled kernel", "CUDA kernel", "wavefront", "spectral", "division", ...; "steps, last
        first" for several factors.
    at_the_pixel, per_frequency : str, optional
        How the C x C matrix at each pixel, or of each frequency, is undone.
    levels : int, optional
        The number of wavefronts, each of which needs those before it.
    frequencies : int, optional
        The number of matrices of a spectral solve.
    times, terms : int, optional
        The series of an exponential: how often it is applied, and its terms; None if they are
        counted as it runs.
    vectors : str, optional
        The vectors of the compiled kernel.
    precision : str, optional
        "float64" if data of another dtype are solved in it.
    steps : tuple of Plan
        The plans of several factors, in the order in which the forward map runs them.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import ActNorm
    >>> ActNorm(np.zeros(1), np.zeros(1)).prepare((4, 4)).plan
    Plan(method='division')
    """

    method: str
    at_the_pixel: str | None = None
    per_frequency: str | None = None
    levels: int | None = None
    frequencies: int | None = None
    times: int | None = None
    terms: int | None = None
    vectors: str | None = None
    precision: str | None = None
    steps: "tuple[Plan, ...]" = ()

    def __repr__(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self)}
        return f"Plan({', '.join(f'{n}={v!r}' for n, v in shown.items() if v not in (None, ()))})"


class Solver(Protocol):
    """A factored matrix: y -> A^-1 y for y (B, C, *spatial). It can be pickled."""

    @property
    def plan(self) -> Plan:
        """How the solve runs."""

    def __call__(self, y: Array, /) -> Array:
        """Solve for x."""


def in_turn(maps: Sequence[Map]) -> Map:
    """Return the map that applies some maps, one after the other."""

    def run(x: Array) -> Array:
        for each in maps:
            x = each(x)
        return x

    return run


@Primitive
def matmul(a: Array, b: Array) -> Array:
    """Return A B, leading axes broadcast; a primitive, as libraries differ in precision."""
    return namespace(a).matmul(a, b)


def conjugate(a: Array) -> Array:
    """Return the complex conjugate of an array, which may be real."""
    xp = namespace(a)
    return xp.conj(a) if xp.isdtype(a.dtype, "complex floating") else a


@Primitive
def correlate(stencil: Stencil, x: Array, *, wrap: bool = False) -> Array:
    """y[b, :, p] = sum over t of taps[t] x[b, :, p + offsets[t]], for x and y (B, C, *spatial).

    If ``wrap``, the image continues periodically outside the grid; else pixels there are zero.
    """
    xp = namespace(x)
    y = zeros(x.shape, x)
    for t, shifted in shifts(x, stencil.offsets, wrap):
        y = y + xp.reshape(matmul(stencil.taps[t, ...], flat(shifted)), x.shape)
    return y


@Primitive
def correlate_kernel_vjp(
    x: Array, y_bar: Array, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Array:
    """Return taps_bar[t] = sum over b, p of y_bar[b, :, p] x[b, :, p + offsets[t]]^T."""
    xp = namespace(x)
    channels = x.shape[1]
    grads = [zeros((channels, channels), x)] * len(offsets)
    y_rows = pixel_rows(y_bar)
    for t, shifted in shifts(x, offsets, wrap):
        grads[t] = matmul(y_rows, xp.matrix_transpose(pixel_rows(shifted)))
    return xp.stack(grads)


@Primitive
def triangular_solve(matrix: Array, rhs: Array, *, lower: bool) -> Array:
    """Return T^-1 B, (C, M), by substitution if possible; T is zero beyond its triangle."""
    # Some libraries raise at a zero pivot. An operator refuses singular matrices if it can read
    # them; so here the values do not matter, as long as nothing is raised.
    xp = namespace(matrix)
    finite = xp.all(xp.isfinite(matrix))
    regular = finite & xp.all(xp.linalg.diagonal(matrix) != 0)
    rhs = xp.where(finite, rhs, xp.full_like(rhs, math.nan))  # else inf might come out as zero
    return xp.linalg.solve(xp.where(regular, matrix, identity(matrix.shape[0], matrix)), rhs)


@Primitive
def log_abs_det(matrices: Array) -> Array:
    """Return log|det A| of each matrix (..., C, C), -inf if it is singular.

    A zero pivot does not prove that a matrix with an inf or NaN is singular: its result is NaN.
    """
    xp = namespace(matrices)
    logs = xp.linalg.slogdet(matrices)[1]
    known = xp.all(xp.isfinite(matrices), axis=(-2, -1)) | (logs != -math.inf)
    return ops_of(matrices).nan_where(~known, logs)


@Primitive
def add_pivots(kernel: Array, centre: Offset, v: Array) -> Array:
    """Return a kernel (C, C, *k) with v (C,) added to K[c, c, centre]; it may reuse the kernel."""
    xp, on, kernel_size = namespace(kernel), device(kernel), tuple(kernel.shape[2:])
    here = on_diagonal(kernel.shape[0], kernel)
    if kernel_size:
        places, place = xp.arange(math.prod(kernel_size), device=on), 0
        for c, k in zip(centre, kernel_size, strict=True):
            place = place * k + c
        at_centre = xp.reshape(places == place, kernel_size)
        here = here[(..., *(None,) * len(kernel_size))] & at_centre
    return xp.where(here, kernel + v[(slice(None), *(None,) * (kernel.ndim - 1))], kernel)


@Primitive
def inverse_or_nan(matrices: Array) -> Array:
    """Return A^-1 of each matrix (..., C, C); a singular one gives NaN, or an error if readable.

    It is a primitive, since some libraries wait for the device to test for singular matrices.
    """
    xp = namespace(matrices)
    if readable(matrices):
        return xp.linalg.inv(matrices)
    singular, regular = split_singular(matrices)
    return ops_of(matrices).nan_where(singular, xp.linalg.inv(regular))


def split_singular(matrices: Array) -> tuple[Array, Array]:
    """Return the mask of singular matrices, and all matrices with 1 in place of singular ones."""
    xp = namespace(matrices)
    singular = (xp.linalg.slogdet(matrices)[1] == -math.inf)[..., None, None]
    return singular, xp.where(singular, identity(matrices.shape[-1], matrices), matrices)


@Primitive
def nan_where_singular(x: Array, log_det: Array) -> Array:
    """Return x, or NaN if the log-determinant is -inf."""
    xp = namespace(log_det)
    # `where` keeps every bit of x; a sum would not: XLA flushes the smallest numbers to zero
    return xp.where(log_det == -math.inf, xp.full_like(log_det, math.nan), x)


def shifts(x: Array, offsets: tuple[Offset, ...], wrap: bool) -> list[tuple[int, Array]]:
    """Return (t, x[p + offsets[t]]) for each offset that can contribute."""
    shape = x.shape[2:]
    if wrap:
        offsets = tuple(fold(offset, shape) for offset in offsets)
    kept = reaching(offsets, shape)
    padded, low = x, []
    for a in range(len(shape)):
        before = max([0, *(-offsets[t][a] for t in kept)])
        padded = pad(padded, 2 + a, before, max([0, *(offsets[t][a] for t in kept)]), wrap)
        low.append(before)
    windows = []
    for t in kept:
        starts = [lo + o for lo, o in zip(low, offsets[t], strict=True)]
        window = tuple(slice(s, s + n) for s, n in zip(starts, shape, strict=True))
        windows.append((t, padded[(slice(None), slice(None), *window)]))
    return windows


def fold(offset: Offset, shape: Shape) -> Offset:
    """Return the shortest offset that reaches the same pixel of a periodic grid."""
    return tuple((o + n // 2) % n - n // 2 for o, n in zip(offset, shape, strict=True))


@dataclass(frozen=True)
class TapGrid:
    """Evenly spaced offsets along each axis, among them zero and all offsets of a stencil."""

    taps: tuple[int, ...]  # the taps that reach a pixel, in the order of `places`
    places: tuple[int, ...]  # the flat index of each of these taps in the grid
    low: Offset  # the first offset along each axis, at most 0
    high: Offset  # the last one, at least 0
    spacing: Offset  # distance between the grid's taps
    size: Shape  # number of the grid's taps


@functools.lru_cache(maxsize=256)
def grid_of(offsets: tuple[Offset, ...], wrap: bool, shape: Shape) -> TapGrid | None:
    """Return the grid of the taps that reach a pixel, or None if no tap does."""
    if wrap:
        offsets = tuple(fold(offset, shape) for offset in offsets)
    taps = tuple(reaching(offsets, shape))
    if not taps:
        return None
    along = list(zip(*(offsets[t] for t in taps), strict=True))
    low, high = (tuple(end(0, *axis) for axis in along) for end in (min, max))
    spacing = tuple(math.gcd(*axis) or 1 for axis in along)
    size = tuple((h - lo) // s + 1 for h, lo, s in zip(high, low, spacing, strict=True))
    places = []
    for t in taps:
        place = 0
        for o, lo, s, n in zip(offsets[t], low, spacing, size, strict=True):
            place = place * n + (o - lo) // s
        places.append(place)
    return TapGrid(taps, tuple(places), low, high, spacing, size)


def pad(x: Array, axis: int, before: int, after: int, wrap: bool = False) -> Array:
    """Put zeros before and after an array along one axis, or if ``wrap`` its other end."""
    parts, n = [x], x.shape[axis]
    for place, first, count in ((0, n - before, before), (2, 0, after)):
        if count and wrap:
            parts.insert(place, part(x, axis, first, first + count))
        elif count:
            parts.insert(place, zeros((*x.shape[:axis], count, *x.shape[axis + 1 :]), x))
    return namespace(x).concat(parts, axis=axis) if len(parts) > 1 else x


def part(x: Array, axis: int, start: int, stop: int | None = None) -> Array:
    """Return x[start:stop] along one axis."""
    return x[(*(slice(None),) * axis, slice(start, stop), ...)]


def window(x: Array, axis: int, start: int, stop: int) -> Array:
    """Return x[start:stop] along one axis, with zeros before the first number and behind the last.

    A negative ``start`` or ``stop`` is a place before the first number.
    """
    n = x.shape[axis]
    inside = part(x, axis, min(max(start, 0), n), min(max(stop, 0), n))
    return pad(inside, axis, min(stop, 0) - min(start, 0), max(stop, n) - max(start, n))


def multiply(matrix: Array, x: Array) -> Array:
    """Return a C x C matrix applied at every pixel of x (B, C, *spatial)."""
    return namespace(x).reshape(matmul(matrix, flat(x)), (-1, *x.shape[1:]))


def flat(x: Array) -> Array:
    """(B, C, *spatial) to (B, C, N)."""
    shape = -1, x.shape[1], size(x.shape[2:])  # PyTorch's graphs may have taken B for a constant
    return namespace(x).reshape(x, shape)


@Primitive
def pixel_rows(x: Array) -> Array:
    """(B, C, *spatial) to (C, B N)."""
    xp = namespace(x)
    batch, channels = x.shape[:2]
    return xp.reshape(xp.permute_dims(flat(x), (1, 0, 2)), (channels, batch * size(x.shape[2:])))


@Primitive
def from_pixel_rows(rows: Array, shape: Shape) -> Array:
    """Undo `pixel_rows`, to an array of ``shape`` (B, C, *spatial)."""
    xp = namespace(rows)
    batch, channels = shape[:2]
    x = xp.permute_dims(xp.reshape(rows, (channels, batch, size(shape[2:]))), (1, 0, 2))
    return xp.reshape(x, shape)


def channel_sums(x: Array) -> Array:
    """Return the sums of x (B, C, *spatial) over batch and pixels, shape (C,).

    Where channels are last in memory, NumPy adds one number after the other. Then a sum of as many
    numbers as an image has keeps float32's digits only in float64.
    """
    xp, axes = namespace(x), (0, *range(2, x.ndim))
    if isinstance(x, np.ndarray) and x.dtype == np.float32:
        return xp.sum(x, axis=axes, dtype=np.float64).astype(x.dtype)
    return xp.sum(x, axis=axes)
