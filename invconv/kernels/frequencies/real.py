"""Transforms in real arithmetic and in place, for the compiled kernel: cosines and sines.

Along a periodic axis of n points the places 0 ... n // 2 hold Re x_hat(k), and the places after
them hold Im x_hat(k) for k = 1 ... (n - 1) // 2: C and S in exp(-2 pi i k p / n) = C + i S. Along
two such axes

    x_hat(k, f) = (C + i S)(re + i im) = (C re - S im) + i (C im + S re)
    x_hat(-k, f) = (C - i S)(re + i im) = (C re + S im) + i (C im - S re)

so that each of the pairs C re and S im, C im and S re is replaced by its difference and its sum.
Along other axes place m holds the coefficient of wave m (`invconv.kernels.frequencies.waves`).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Shape
from invconv.kernels.cpu.spectral.product_program import RealTransform
from invconv.kernels.frequencies.turns import turns
from invconv.kernels.frequencies.waves import Waves

Floats = np.ndarray[Any, np.dtype[np.float64]]
Number = tuple[Shape, int, int, int]  # frequency, places of its two parts, pairs it was made of


@functools.lru_cache(maxsize=32)
def real_transform(waves: tuple[Waves | None, ...], shape: Shape) -> RealTransform:
    """Return the transform of images on a grid to half of their frequencies."""
    parts: list[Number] = [((), 0, -1, 0)]
    pairs: list[tuple[int, int]] = []
    step, counts = 1, list(shape)
    for wave, n in zip(reversed(waves), reversed(shape), strict=True):
        pairs = [(u + j * step, v + j * step) for u, v in pairs for j in range(n)]
        grown = list[Number]()
        for number in parts:
            if wave is None:
                for k in range(n // 2 + 1):
                    grown += _along(number, k, n, step, pairs)
            else:
                grown += [_beside(number, k, step) for k in range(n)]
        parts, step = grown, step * n
    for axis in [axis for axis, wave in enumerate(waves) if wave is None][-1:]:
        counts[axis] = shape[axis] // 2 + 1
    parts.sort(key=lambda number: (number[2] >= 0, number[1]))
    along = list(zip(waves, shape, strict=True))
    return RealTransform(
        tuple(_matrix(n) if wave is None else wave.matrix(n) for wave, n in along),
        tuple(_matrix(n).T * _weights(n) if w is None else w.matrix(n).T for w, n in along),
        np.asarray(pairs, np.int64).reshape(-1, 2),
        np.asarray([(real, imag) for _, real, imag, _ in parts]),
        np.asarray([np.ravel_multi_index(f, counts) for f, *_ in parts]),
        np.asarray([0.5**paired for *_, paired in parts]),
    )


def _beside(number: Number, k: int, step: int) -> Number:
    """Return the number for wave k of one more axis."""
    f, real, imag, paired = number
    return (k, *f), real + k * step, imag + k * step if imag >= 0 else -1, paired


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
