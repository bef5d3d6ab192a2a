"""The basis of Fourier: a periodic convolution is one C x C matrix a frequency (section 3.2).

The images are real: half of the last axis's frequencies suffice, the rest are their conjugates.

The compiled kernel transforms in real arithmetic, in place: cosines and sines. Along an axis of n
points the places 0 ... n // 2 hold Re x_hat(k), and the places after them hold Im x_hat(k) for
k = 1 ... (n - 1) // 2: C and S in exp(-2 pi i k p / n) = C + i S. Along two axes

    x_hat(k, f) = (C + i S)(re + i im) = (C re - S im) + i (C im + S re)
    x_hat(-k, f) = (C - i S)(re + i im) = (C re + S im) + i (C im - S re)

so that each of the pairs C re and S im, C im and S re is replaced by its difference and its sum.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, device, namespace, size
from invconv.kernels.cpu.spectral.product_program import RealTransform

Places = tuple[np.ndarray[Any, np.dtype[np.intp]], ...]
_TURN = 2j * np.pi  # here, since torch.compile takes pi for an input in dynamic code
LONG_TURN = 8j * np.arctan(np.longdouble(1))


def turns(steps: np.ndarray[Any, Any], n: int, turn: Any = _TURN) -> np.ndarray[Any, Any]:
    """Return exp(2 pi i steps / n) of integers, reduced modulo n; quarter turns are exact.

    ``turn`` is 2 pi i, in the precision of the result.
    """
    n = int(n)  # a size is a tensor inside torch.jit.trace
    steps = steps % n
    if steps.size > n:  # all of them, once each
        every = turns(np.arange(n), n, turn)
        looked_up: np.ndarray[Any, Any] = every[steps]
        return looked_up
    quarter = 4 * steps % n == 0  # quarter turns: exp would return a rounding error for a zero
    exact = np.asarray([1, 1j, -1, -1j])[4 * steps // n]
    result: np.ndarray[Any, Any] = np.where(quarter, exact, np.exp(turn * steps / n))
    return result


def complex_dtype(like: Array) -> Any:
    """Return the complex dtype of the precision of ``like``."""
    xp = namespace(like)
    return xp.complex128 if xp.finfo(like.dtype).bits == 64 else xp.complex64


def complex_of(real: Array, imag: Array) -> Array:
    """Return real + i imag of two real arrays of one dtype."""
    xp = namespace(real)
    return xp.astype(real, complex_dtype(real)) + 1j * xp.astype(imag, complex_dtype(real))


@dataclass(frozen=True)
class Fourier:
    """exp(2 pi i f . p / n), half of the frequencies, for real images on a closed grid.

    An orthogonal basis in which convolutions decouple; `cosine.Cosine` is another one.
    """

    dilation: Shape  # the dilation of the kernels
    period: ClassVar[float] = 1  # how many periods frequency 1 has across the grid

    def dtype(self, like: Array) -> Any:
        """Return the dtype of a spectrum, real or complex, in the precision of ``like``."""
        return complex_dtype(like)

    def frequencies(self, shape: Shape) -> Shape:
        """Return the number of frequencies along each axis of a grid."""
        return (*shape[:-1], shape[-1] // 2 + 1)

    def multiplicity(self, shape: Shape) -> np.ndarray[Any, Any]:
        """Return how often each frequency of the half spectrum occurs in the full one, (F,)."""
        n = shape[-1]
        last = np.full(n // 2 + 1, 2.0)
        last[0] = 1.0
        if n % 2 == 0:
            last[-1] = 1.0
        return np.broadcast_to(last, (*shape[:-1], n // 2 + 1)).reshape(-1).copy()

    def phases(
        self, kernel_size: Shape, shape: Shape, places: Places | None = None
    ) -> list[np.ndarray[Any, Any]]:
        """Return, per axis, exp(2 pi i f dilation (t - (k - 1)//2) / n), shape (k, frequencies).

        The product f x offset is reduced modulo n in integers, so that a kernel wider than the
        grid folds onto it. If ``places``, some frequencies along each axis, are given, return only
        the factors at them, in longdouble.
        """
        result, turn = [], () if places is None else (LONG_TURN,)
        along = places or tuple(map(np.arange, self.frequencies(shape)))
        for k, d, f, n in zip(kernel_size, self.dilation, along, shape, strict=True):
            offsets = d * (np.arange(k) - (k - 1) // 2)
            result.append(turns(np.outer(offsets, f), int(n), *turn))
        return result

    def to_frequencies(self, x: Array) -> Array:
        """Return x_hat(f) = sum over p of x[p] exp(-2 pi i f . p / n), half of them.

        Parameters
        ----------
        x : array, shape (B, C, *spatial)

        Returns
        -------
        complex array, shape (F, C, B)
        """
        xp = namespace(x)
        batch, channels = x.shape[:2]
        if batch == 0:  # torch does not transform an empty batch
            count = size(self.frequencies(x.shape[2:]))
            return xp.zeros((count, channels, 0), dtype=complex_dtype(x), device=device(x))
        if isinstance(x, np.ndarray):
            from scipy.fft import rfftn  # 2 to 5 times as quick; here: it takes long to import
        else:
            rfftn = xp.fft.rfftn
        x_hat = rfftn(x, axes=tuple(range(2, x.ndim)))
        x_hat = xp.reshape(x_hat, (batch, channels, size(x_hat.shape[2:])))
        return xp.permute_dims(x_hat, (2, 1, 0))

    def from_frequencies(self, x_hat: Array, shape: Shape) -> Array:
        """Undo `to_frequencies`, to a grid of ``shape``."""
        xp = namespace(x_hat)
        _, channels, batch = x_hat.shape
        x_hat = xp.permute_dims(x_hat, (2, 1, 0))
        x_hat = xp.reshape(x_hat, (batch, channels, *self.frequencies(shape)))
        if isinstance(x_hat, np.ndarray):
            from scipy.fft import irfftn
        else:
            irfftn = xp.fft.irfftn
        return irfftn(x_hat, s=shape, axes=tuple(range(2, x_hat.ndim)))

    def real(self, shape: Shape) -> RealTransform:
        """Return the transform in real arithmetic, for the compiled kernel; it is cached."""
        return real_fourier(tuple(shape))


Floats = np.ndarray[Any, np.dtype[np.float64]]
Number = tuple[Shape, int, int, int]  # frequency, places of its two parts, pairs it was made of


@functools.lru_cache(maxsize=32)
def real_fourier(shape: Shape) -> RealTransform:
    """Return the transform of images on a grid to half of their frequencies."""
    parts: list[Number] = [((), 0, -1, 0)]
    pairs: list[tuple[int, int]] = []
    step = 1
    for n in reversed(shape):
        pairs = [(u + j * step, v + j * step) for u, v in pairs for j in range(n)]
        grown = list[Number]()
        for number in parts:
            for k in range(n // 2 + 1):
                grown += _along(number, k, n, step, pairs)
        parts, step = grown, step * n
    parts.sort(key=lambda number: (number[2] >= 0, number[1]))
    counts = (*shape[:-1], shape[-1] // 2 + 1)
    return RealTransform(
        tuple(_matrix(n) for n in shape),
        tuple(_matrix(n).T * _weights(n) for n in shape),
        np.asarray(pairs, np.int64).reshape(-1, 2),
        np.asarray([(real, imag) for _, real, imag, _ in parts]),
        np.asarray([np.ravel_multi_index(f, counts) for f, *_ in parts]),
        np.asarray([0.5**paired for *_, paired in parts]),
    )


def _along(number: Number, k: int, n: int, step: int, pairs: list[tuple[int, int]]) -> list[Number]:
    """Return the numbers for frequency k of one more axis, and append the pairs that they need."""
    f, real, imag, paired = number
    c, s = k * step, (n // 2 + k) * step
    if 2 * k % n == 0:
        return [((k, *f), real + c, imag + c if imag >= 0 else -1, paired)]
    if imag < 0:
        return [((k, *f), real + c, real + s, paired)]
    pairs += [(real + c, imag + s), (imag + c, real + s)]
    plus = (k, *f), real + c, real + s, paired + 1
    return [plus, ((n - k, *f), imag + s, imag + c, paired + 1)]


def _matrix(n: int) -> Floats:
    half = np.conj(turns(np.outer(np.arange(n // 2 + 1), np.arange(n)), n))
    return np.concatenate([half.real, half.imag[1 : (n + 1) // 2]])


def _weights(n: int) -> Floats:
    """Return, for each place, how often its frequency occurs along the axis, divided by n."""
    k = np.concatenate([np.arange(n // 2 + 1), np.arange(1, (n + 1) // 2)])
    return np.where(2 * k % n == 0, 1.0, 2.0) / n
