"""Waves along each axis, the transforms of images to them, and the bases they make.

A `Basis` has one kind of waves along each axis. In it convolutions decouple, K_hat(f) x_hat(f),
with a phase for each tap. Along an axis of N pixels:

    border      wave at pixel p                        phase of tap t
    periodic    exp(2 pi i k p / N)                    exp(2 pi i k t / N)
    symmetric   cos(pi m (p + 1/2) / N)                cos(pi m t / N)                 DCT-II
    mirror      cos(pi m p / (N - 1))                  cos(pi m t / (N - 1))           DCT-I
    odd         sin(pi (m + 1) (p + 1) / (N + 1))      cos(pi (m + 1) t / (N + 1))     DST-I

with m = 0 ... N - 1. The last three end at walls: mirrors beside the last pixels or in them, or
zeros. There the kernel is even: tap t stands at the offsets +-t, and counts twice unless t = 0
(S. A. Martucci, Symmetric Convolution and the Discrete Sine and Cosine Transforms, 1994). Images
are real: along the last periodic axis k = 0 ... N // 2 suffice. Without such axes all is real.

DCT-II and DST-I are orthonormal. The transform of mirrors, (2 / (N - 1))^1/2 V D with the matrix V
of the waves and D = diag(1/2, 1, ..., 1, 1/2), is its own inverse; transposed mirrors have its
transpose. SciPy has all for NumPy's arrays; elsewhere each is a product with a matrix along short
axes, and one FFT along longer ones (of the cosines: J. Makhoul, 1980).

The compiled kernel transforms in real arithmetic and in place (`real_transform`). Along a periodic
axis of n points the places 0 ... n // 2 hold Re x_hat(k), and the places after them hold Im
x_hat(k) for k = 1 ... (n - 1) // 2: C and S in exp(-2 pi i k p / n) = C + i S. Along two such axes

    x_hat(k, f) = (C + i S)(re + i im) = (C re - S im) + i (C im + S re)
    x_hat(-k, f) = (C - i S)(re + i im) = (C re + S im) + i (C im - S re)

so that each of the pairs C re and S im, C im and S re is replaced by its difference and its sum.
Along other axes place m holds the coefficient of wave m.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, device, namespace, size
from invconv.arrays.stencil import at_end
from invconv.kernels.cpu.spectral.product import RealTransform
from invconv.kernels.primitives import matmul, pad, part

Floats = np.ndarray[Any, np.dtype[np.float64]]
Number = tuple[Shape, int, int, int]  # frequency, places of its two parts, pairs it was made of

# points: an axis of at most so many is transformed by a product with a matrix
BY_MATRIX = 128
_TURN = 2j * np.pi  # here, since torch.compile takes pi for an input in dynamic code


def turns(steps: np.ndarray[Any, Any], n: int) -> Array:
    """Return exp(2 pi i steps / n) of integers, reduced modulo n; quarter turns are exact."""
    n = int(n)  # a size is a tensor inside torch.jit.trace
    steps = steps % n
    if steps.size > n:  # all of them, once each
        return turns(np.arange(n), n)[steps]
    quarter = 4 * steps % n == 0  # quarter turns: exp would return a rounding error for a zero
    exact = np.asarray([1, 1j, -1, -1j])[4 * steps // n]
    return np.where(quarter, exact, np.exp(_TURN * steps / n))


def complex_dtype(like: Array) -> Any:
    """Return the complex dtype of the precision of ``like``."""
    xp = namespace(like)
    return xp.complex128 if xp.finfo(like.dtype).bits == 64 else xp.complex64


def complex_of(real: Array, imag: Array) -> Array:
    """Return real + i imag of two real arrays of one dtype."""
    xp = namespace(real)
    return xp.astype(real, complex_dtype(real)) + 1j * xp.astype(imag, complex_dtype(real))


@dataclass(frozen=True)
class Waves:
    """Cosines or sines: a transform of real numbers along axes."""

    first: int  # half waves of the lowest frequency between the walls: 1 of sines, else 0
    beyond: int  # the walls are N + beyond pixels apart
    transposed: bool = False  # whether these are the waves of transposed mirrors

    def period(self, n: int) -> int:
        """Return the number of pixels after which n pixels and their continuation repeat."""
        return 2 * (n + self.beyond) or 1

    def phases(self, h: int, m: np.ndarray[Any, Any], n: int) -> Array:
        """Return w_t cos(2 pi (m + first) t / period), t = 0 ... h - 1: w_0 = 1, else 2."""
        steps = np.outer(np.arange(h), m + self.first)
        return doubled(h)[:, None] * turns(steps, self.period(n)).real

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def matrix(self, n: int, back: bool = False) -> Floats:
        """Return the transform of n points, or its inverse, as a matrix; rows are frequencies."""
        m, p = np.indices((n, n))
        period, unit = self.period(n), math.sqrt(4 / self.period(n))
        if self.first:
            return np.asarray(turns((m + 1) * (p + 1), period).imag * unit)
        if self.beyond:
            shares = 1 - at_end(m if self.transposed else p, n) / 2
            return np.asarray(turns(m * p, period).real * unit * shares)
        matrix = np.asarray(turns(m * (2 * p + 1), 4 * n).real * np.sqrt(doubled(n) / n)[:, None])
        return matrix.T if back else matrix

    def transform(self, x: Array, axes: Sequence[int], *, back: bool = False) -> Array:
        """Return the transform of x along some axes, or with ``back`` the one that undoes it."""
        if isinstance(x, np.ndarray):
            from scipy import fft  # here: it takes long to import

            if self.first:
                return fft.dstn(x, type=1, axes=axes, norm="ortho")
            if not self.beyond:
                return (fft.idctn if back else fft.dctn)(x, axes=axes, norm="ortho")
            axes = [axis for axis in axes if x.shape[axis] > 1]
            x = self._weighted(x, axes, 1)
            x = fft.dctn(x, type=1, axes=axes, norm="ortho", orthogonalize=False)
            return self._weighted(x, axes, -1 / 2)
        quick = _sines if self.first else _cosines_back if back else _cosines
        quick = self._mirrors if self.beyond < 0 else quick
        for axis in axes:
            n, shape = int(x.shape[axis]), x.shape
            lead, rest = size(shape[:axis]), size(shape[axis + 1 :])
            rows = namespace(x).reshape(x, (lead, n, rest))
            if n > BY_MATRIX and size(shape):  # torch has no FFT of an empty batch
                rows = quick(rows)
            else:
                matrix = self.matrix(n, back)
                if rest == 1:  # one product instead of many
                    rows = matmul(rows[:, :, 0], constant(matrix.T, rows, rows.dtype))
                else:
                    rows = matmul(constant(matrix, rows, rows.dtype), rows)
            x = namespace(x).reshape(rows, shape)
        return x

    def _mirrors(self, rows: Array) -> Array:
        xp, n, rows = namespace(rows), rows.shape[1], self._weighted(rows, [1], 1)
        whole = xp.concat([rows, xp.flip(rows[:, 1:-1, :], axis=1)], axis=1)
        waves = xp.real(xp.fft.rfft(whole, axis=1)) * (2 * (n - 1)) ** -0.5
        return self._weighted(waves, [1], -1 / 2)

    def _weighted(self, x: Array, axes: Sequence[int], more: float) -> Array:
        """Multiply the ends of axes between transposed mirrors by 1 + ``more``: by D^-1, or D."""
        for axis in axes if self.transposed else ():
            n = int(x.shape[axis])
            x = x * _along(axis, x, 1 + more * at_end(np.arange(n), n))
        return x


def _sines(rows: Array) -> Array:
    xp, n = namespace(rows), rows.shape[1]
    zero = xp.zeros_like(rows[:, :1, :])
    whole = xp.concat([zero, rows, zero, -xp.flip(rows, axis=1)], axis=1)
    return xp.imag(xp.fft.rfft(whole, axis=1)[:, 1 : n + 1, :]) * -((2 * (n + 1)) ** -0.5)


def doubled(n: int) -> Floats:
    """Return 1, 2, 2, ...: how often tap t of an even kernel counts."""
    numbers = np.full(n, 2.0)  # Dynamo makes float32 of numbers in np.where
    numbers[0] = 1.0
    return numbers


@functools.lru_cache(maxsize=32)
def _order(n: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the order of points for one FFT, its inverse, and the factors of the frequencies."""
    order = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]])
    half = np.arange(n // 2 + 1)
    return order, np.argsort(order), np.conj(turns(half, 4 * n)) * np.sqrt(doubled(n) / n)[half]


def _cosines(rows: Array) -> Array:
    xp, n = namespace(rows), rows.shape[1]
    order, _, factor = _order(n)
    half = xp.fft.rfft(xp.take(rows, constant(order, rows), axis=1), axis=1)
    half = half * constant(factor[:, None], rows, complex_dtype(rows))
    rest = xp.flip(-xp.imag(half[:, 1 : (n + 1) // 2, :]), axis=1)
    return xp.concat([xp.real(half), rest], axis=1)


def _cosines_back(rows: Array) -> Array:
    xp, n = namespace(rows), rows.shape[1]
    _, places, factor = _order(n)
    # X[n - m] for m = 0 ... n // 2, and zero for m = 0
    mirrored = xp.flip(rows[:, n - n // 2 :, :], axis=1)
    mirrored = xp.concat([xp.zeros_like(rows[:, :1, :]), mirrored], axis=1)
    half = complex_of(rows[:, : n // 2 + 1, :], -mirrored)
    half = half * constant(1 / factor[:, None], rows, complex_dtype(rows))
    return xp.take(xp.fft.irfft(half, n=n, axis=1), constant(places, rows), axis=1)


@functools.lru_cache(maxsize=32)
def real_transform(waves: tuple[Waves | None, ...], shape: Shape, counts: Shape) -> RealTransform:
    """Return the transform of images on a grid to ``counts`` frequencies along the axes."""
    parts: list[Number] = [((), 0, -1, 0)]
    pairs: list[tuple[int, int]] = []
    step = 1
    for wave, n in zip(reversed(waves), reversed(shape), strict=True):
        pairs = [(u + j * step, v + j * step) for u, v in pairs for j in range(n)]
        grown = list[Number]()
        for number in parts:
            if wave is None:
                for k in range(n // 2 + 1):
                    grown += _split(number, k, n, step, pairs)
            else:
                grown += [_beside(number, k, step) for k in range(n)]
        parts, step = grown, step * n
    parts.sort(key=lambda number: (number[2] >= 0, number[1]))
    along = list(zip(waves, shape, strict=True))
    return RealTransform(
        tuple(_matrix(n) if wave is None else wave.matrix(n) for wave, n in along),
        tuple(_back(n) if wave is None else wave.matrix(n, True) for wave, n in along),
        np.asarray(pairs, np.int64).reshape(-1, 2),
        np.asarray([(real, imag) for _, real, imag, _ in parts]),
        np.asarray([np.ravel_multi_index(f, counts) for f, *_ in parts]),
        np.asarray([0.5**paired for *_, paired in parts]),
    )


def _beside(number: Number, k: int, step: int) -> Number:
    """Return the number for wave k of one more axis."""
    f, real, imag, paired = number
    return (k, *f), real + k * step, imag + k * step if imag >= 0 else -1, paired


def _largest_prime(n: int) -> int:
    """Return the largest prime factor of n, 1 if there is none."""
    divisor, largest = 2, 1
    while divisor * divisor <= n:
        if n % divisor:
            divisor += 1
        else:
            n, largest = n // divisor, divisor
    return max(n, largest)


def _split(number: Number, k: int, n: int, step: int, pairs: list[tuple[int, int]]) -> list[Number]:
    """Return the numbers for frequency k of one more axis, and append the pairs that they need."""
    f, real, imag, paired = number
    c, s = k * step, (n // 2 + k) * step
    if 2 * k % n == 0:
        return [_beside(number, k, step)]
    if imag < 0:
        return [((k, *f), real + c, real + s, paired)]
    pairs += [(real + c, imag + s), (imag + c, real + s)]
    plus = (k, *f), real + c, real + s, paired + 1
    return [plus, ((n - k, *f), imag + s, imag + c, paired + 1)]


def _matrix(n: int) -> Floats:
    half = np.conj(turns(np.outer(np.arange(n // 2 + 1), np.arange(n)), n))
    return np.concatenate([half.real, half.imag[1 : (n + 1) // 2]])


def _back(n: int) -> Floats:
    often = half_multiplicity(n)
    return _matrix(n).T * (np.concatenate([often, often[1 : (n + 1) // 2]]) / n)


BORDERS = "periodic", "symmetric", "mirror", "odd", "zero"
_WAVES: dict[str, Waves | None] = {
    "periodic": None,
    "symmetric": Waves(0, 0),
    "mirror": Waves(0, -1),
    "odd": Waves(1, 1),
    "zero": Waves(1, 1),  # between walls at zero, for kernels of three taps
    "transposed mirror": Waves(0, -1, transposed=True),
}
# the borders of the transpose; all other borders stay the same
_TURNED = {"mirror": "transposed mirror", "transposed mirror": "mirror"}


@dataclass(frozen=True)
class Basis:
    """A basis of real images in which convolutions with some borders decouple."""

    borders: tuple[str, ...]  # one word per axis: of `BORDERS`, or a transpose's
    dilation: Shape  # of the kernels, along periodic axes

    # the real waves along each axis, None for a periodic one
    waves: tuple[Waves | None, ...] = field(init=False, repr=False, compare=False)
    walls: tuple[Waves, ...] = field(init=False, repr=False, compare=False)  # distinct ones
    closed: tuple[int, ...] = field(init=False, repr=False, compare=False)  # the periodic axes

    def __post_init__(self) -> None:
        waves = tuple(_WAVES[border] for border in self.borders)
        closed = tuple(axis for axis, kind in enumerate(waves) if kind is None)
        walls = tuple(kind for kind in dict.fromkeys(waves) if kind is not None)
        vars(self).update(waves=waves, walls=walls, closed=closed)

    def transpose(self) -> "Basis":
        """Return the basis in which transposes decouple: this one, if it is orthogonal."""
        borders = tuple(_TURNED.get(border, border) for border in self.borders)
        return self if borders == self.borders else Basis(borders, self.dilation)

    def dtype(self, like: Array) -> Any:
        """Return the dtype of a spectrum, real or complex, in the precision of ``like``."""
        return complex_dtype(like) if self.closed else like.dtype

    def frequencies(self, shape: Shape) -> Shape:
        """Return the number of frequencies along each axis of a grid."""
        half = self.closed[-1:]
        return tuple(n // 2 + 1 if axis in half else n for axis, n in enumerate(shape))

    def multiplicity(self, shape: Shape) -> np.ndarray[Any, Any]:
        """Return how often each frequency of the half spectrum occurs in the full one, (F,)."""
        half = self.closed[-1:]
        along = [
            half_multiplicity(n) if axis in half else np.ones(n) for axis, n in enumerate(shape)
        ]
        return functools.reduce(np.multiply.outer, along).reshape(-1)

    def is_slow(self, shape: Shape) -> bool:
        """Tell whether FFTs take many times as long, since an axis has a large prime factor."""
        beyond = (0 if waves is None else waves.beyond for waves in self.waves)
        return any(_largest_prime(n + b) > 100 for n, b in zip(shape, beyond, strict=True))

    def part(self, shape: Shape, most: int) -> Shape | None:
        """Return a grid of at most so many pixels whose waves are also waves of the given grid.

        None if no such grid exists. Axes are divided by large primes first: short waves stay.
        """
        beyond = [0 if waves is None else waves.beyond for waves in self.waves]
        while size(shape) > most:
            for axis in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
                apart = shape[axis] + beyond[axis]
                n = apart // _largest_prime(apart) - beyond[axis]
                if 1 <= n < shape[axis]:
                    shape = (*shape[:axis], n, *shape[axis + 1 :])
                    break
            else:
                return None
        return shape

    def counts(self, kernel_size: Shape) -> np.ndarray[Any, Any]:
        """Return the number of offsets of each tap, (T,)."""
        sides = zip(self.waves, kernel_size, strict=True)
        along = [np.ones(k) if waves is None else doubled(k) for waves, k in sides]
        return functools.reduce(np.kron, along)

    def periods(self, place: Shape) -> tuple[float, ...]:
        """Return how many periods a frequency has along each axis."""
        pairs = zip(self.waves, place, strict=True)
        return tuple(f if waves is None else (f + waves.first) / 2 for waves, f in pairs)

    def phases(self, kernel_size: Shape, shape: Shape) -> list[np.ndarray[Any, Any]]:
        """Return the factors of each tap in each frequency, per axis, shape (k, frequencies)."""
        shape = tuple(map(int, shape))  # numbers, even where a tracer has symbols
        result, along = [], map(np.arange, self.frequencies(shape))
        settings = zip(self.waves, kernel_size, self.dilation, along, shape, strict=True)
        for waves, k, d, f, n in settings:
            if waves is None:
                result.append(turns(np.outer(d * (np.arange(k) - (k - 1) // 2), f), n))
            else:
                result.append(waves.phases(k, f, n))
        return result

    def transform(self, kernel: Array, shape: Shape) -> Array:
        """Return the sum over taps times phases, by FFTs of the taps summed modulo a period."""
        xp = namespace(kernel)
        for axis, waves, places, period in self._periods(kernel.shape[2:], shape):
            if waves is not None:
                kernel = kernel * _along(axis, kernel, doubled(len(places)))
            kernel = _folded(kernel, axis, places, period)
            if waves is not None:
                kernel = xp.real(_fft_of(kernel).rfft(kernel, axis=axis))
                kernel = part(kernel, axis, waves.first, waves.first + int(shape[axis - 2]))
        if self.closed:
            kernel = xp.conj(_fft_of(kernel).rfftn(kernel, axes=self._axes(None)))
        return kernel

    def transposed_transform(self, spectrum: Array, kernel_size: Shape, shape: Shape) -> Array:
        """Return the transpose of `transform`, a sum over all frequencies, conjugates included."""
        x, xp = spectrum, namespace(spectrum)
        if self.closed:
            lengths = tuple(shape[axis] for axis in self.closed)
            x = _fft_of(x).irfftn(x, s=lengths, axes=self._axes(None), norm="forward")
        for axis, waves, places, period in self._periods(kernel_size, shape):
            places = places % period
            if waves is not None:
                x = pad(x, axis, waves.first, period - waves.first - x.shape[axis])
                x = xp.real(_fft_of(x).rfft(x, axis=axis))  # the same at t and at period - t
                places = np.minimum(places, period - places)
            x = xp.take(x, constant(places, x), axis=axis)
            if waves is not None:
                x = x * _along(axis, x, doubled(len(places)))
        return x

    def _periods(
        self, kernel_size: Shape, shape: Shape
    ) -> Iterator[tuple[int, Waves | None, np.ndarray[Any, Any], int]]:
        """Yield the axis of (C, C, *k), the waves, the place of each tap, and the period."""
        settings = zip(self.waves, kernel_size, self.dilation, map(int, shape), strict=True)
        for axis, (waves, k, d, n) in enumerate(settings, 2):
            if waves is None:
                yield axis, waves, d * (np.arange(k) - (k - 1) // 2), n
            else:
                yield axis, waves, np.arange(k), waves.period(n)

    def to_frequencies(self, x: Array) -> Array:
        """Return x_hat (F, C, B) of images (B, C, *spatial): sums of x times conjugate waves."""
        xp, shape = namespace(x), x.shape[2:]
        batch, channels = x.shape[:2]
        if batch == 0:  # torch does not transform an empty batch
            count = size(self.frequencies(shape))
            return xp.zeros((count, channels, 0), dtype=self.dtype(x), device=device(x))
        for waves in self.walls:
            x = waves.transform(x, self._axes(waves))
        if self.closed:
            x = _fft_of(x).rfftn(x, axes=self._axes(None))
        return xp.permute_dims(xp.reshape(x, (batch, channels, size(x.shape[2:]))), (2, 1, 0))

    def from_frequencies(self, x_hat: Array, shape: Shape) -> Array:
        """Undo `to_frequencies`, to a grid of ``shape``."""
        xp = namespace(x_hat)
        x = xp.permute_dims(x_hat, (2, 1, 0))
        x = xp.reshape(x, (*x.shape[:2], *self.frequencies(shape)))
        if self.closed:
            lengths = tuple(shape[axis] for axis in self.closed)
            x = _fft_of(x).irfftn(x, s=lengths, axes=self._axes(None))
        for waves in self.walls:
            x = waves.transform(x, self._axes(waves), back=True)
        return x

    def _axes(self, waves: Waves | None) -> tuple[int, ...]:
        """Return the axes of (B, C, *spatial) with these waves, periodic ones for None."""
        return tuple(2 + axis for axis, other in enumerate(self.waves) if other == waves)


def _along(axis: int, x: Array, values: np.ndarray[Any, Any]) -> Array:
    """Return numbers along an axis of x, in a shape that broadcasts against it."""
    return constant(values.reshape(-1, *[1] * (x.ndim - 1 - axis)), x, x.dtype)


def _folded(x: Array, axis: int, places: np.ndarray[Any, Any], period: int) -> Array:
    """Return the sums of the numbers at evenly spaced places, modulo a period, along an axis."""
    xp, shape = namespace(x), tuple(x.shape)
    step = int(places[-1] - places[0]) // max(1, len(places) - 1)
    distinct = period // math.gcd(step, period)  # places, then they repeat
    rounds = -(-len(places) // distinct)
    x = pad(x, axis, 0, rounds * distinct - len(places))
    x = xp.sum(xp.reshape(x, (*shape[:axis], rounds, distinct, *shape[axis + 1 :])), axis=axis)
    source = np.full(period, distinct)  # a zero, unless a tap is there
    source[(int(places[0]) + step * np.arange(distinct)) % period] = np.arange(distinct)
    return xp.take(pad(x, axis, 0, 1), constant(source, x), axis=axis)


def half_multiplicity(n: int) -> Floats:
    """Return how often each of n // 2 + 1 frequencies of n real numbers occurs."""
    counts = doubled(n // 2 + 1)
    if n % 2 == 0:
        counts[-1] = 1.0
    return counts


def _fft_of(x: Array) -> Any:
    """Return the module of transforms: SciPy's are 2 to 5 times as quick as NumPy's."""
    if isinstance(x, np.ndarray):
        from scipy import fft  # here: it takes long to import

        return fft
    return namespace(x).fft


def fourier(ndim: int) -> Basis:
    """Return the basis of images that are periodic along all axes, for kernels of any dilation."""
    return Basis(("periodic",) * ndim, (1,) * ndim)
