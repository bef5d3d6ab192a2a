"""The dense matrix of every operator, from its definition.

Loops over pixels and taps in extended precision, sharing no code with the core: it reads an
operator's public fields, of NumPy float64, and nothing else. Vectors are (C, *spatial) in C order.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

import invconv as ic
from invconv.extend import Transposed
from invconv_conformance.truth.extended import EXTENDED, ExtendedLU

Matrix = np.ndarray[Any, Any]
_PI = 2 * np.arccos(EXTENDED(0))
Shape = tuple[int, ...]


def affine(conv: ic.InvertibleConv, shape: Shape, dtype: Any = np.float64) -> tuple[Matrix, Matrix]:
    """Return (K, b) with forward(x) = K x + b.

    Parameters
    ----------
    conv : InvertibleConv
        Of NumPy float64 arrays.
    shape : tuple of int
        The grid.
    dtype : dtype
        What matrices are multiplied in: float64 (LAPACK's, for large grids) or ``EXTENDED``.
    """
    if isinstance(conv, ic.Chain):
        return _compose([affine(step, shape, dtype) for step in conv.steps])
    if isinstance(conv, ic.Inverse):
        matrix, shift = affine(conv.conv, shape, dtype)
        inverse = ExtendedLU(matrix).solve(_identity(len(matrix))).astype(dtype)
        return inverse, -inverse @ shift
    if isinstance(conv, Transposed):
        matrix = affine(conv.conv, shape, dtype)[0].T
        return matrix, np.zeros(len(matrix), dtype)
    pixels = math.prod(shape)
    bias = getattr(conv, "bias", None)
    bias = np.zeros(conv.channels) if bias is None else bias
    shift = np.repeat(bias.astype(dtype), pixels)
    if isinstance(conv, ic.EmergingConv):
        parts = [affine(conv.first, shape, dtype), affine(conv.second, shape, dtype)]
        matrix, inner = _compose(parts)
        return matrix, inner + shift
    return _matrix(conv, shape).astype(dtype), shift


def _identity(size: int) -> Matrix:
    return np.eye(size, dtype=EXTENDED)


def _compose(maps: list[tuple[Matrix, Matrix]]) -> tuple[Matrix, Matrix]:
    matrix, shift = maps[0]
    for next_matrix, next_shift in maps[1:]:
        matrix, shift = next_matrix @ matrix, next_matrix @ shift + next_shift
    return matrix, shift


def _matrix(conv: ic.InvertibleConv, shape: Shape) -> Matrix:
    if isinstance(conv, ic.AutoregressiveConv):
        return _autoregressive(conv, shape)
    if isinstance(conv, ic.PeriodicConv):
        return _periodic(conv, shape)
    if isinstance(conv, ic.ExponentialConv):
        return exponential(correlation(conv, shape))
    if isinstance(conv, ic.SymmetricConv):
        return _symmetric(conv, shape)
    if isinstance(conv, ic.Conv1x1):
        weight = conv.weight
    elif isinstance(conv, ic.PLUConv1x1):
        weight = plu(conv.permutation, conv.lower, conv.upper, conv.sign, conv.log_scale)
    elif isinstance(conv, ic.QRConv1x1):
        weight = qr(conv.reflectors, conv.upper, conv.scale)
    elif isinstance(conv, ic.CirculantConv1x1):
        weight = circulant(conv.left, conv.circulant, conv.right)
    elif isinstance(conv, ic.HouseholderConv1x1):
        weight = orthogonal(conv.reflectors) * np.exp(conv.log_scale.astype(EXTENDED))
    elif isinstance(conv, ic.OrthogonalConv1x1):
        weight = orthogonal(conv.reflectors)
    elif isinstance(conv, ic.ActNorm):
        weight = np.diag(np.exp(conv.log_scale.astype(EXTENDED)))
    else:
        raise TypeError(f"the oracle has no definition of {type(conv).__name__}")
    return np.kron(weight, np.eye(math.prod(shape)))


def plu(
    permutation: Matrix, lower: Matrix, upper: Matrix, sign: Matrix, log_scale: Matrix
) -> Matrix:
    """Return P L (U + diag(sign exp(log_scale)))."""
    channels = len(sign)
    p, left, right = (np.zeros((channels, channels), EXTENDED) for _ in range(3))
    for i in range(channels):
        p[i, int(permutation[i])] = 1.0
        for j in range(channels):
            left[i, j] = 1.0 if i == j else (lower[i, j] if j < i else 0.0)
            right[i, j] = (
                sign[i] * np.exp(log_scale[i].astype(EXTENDED))
                if i == j
                else (upper[i, j] if j > i else 0.0)
            )
    return p @ left @ right


def qr(reflectors: Matrix, upper: Matrix, scale: Matrix) -> Matrix:
    """Return H_1 ... H_m (U + diag(scale))."""
    channels = len(scale)
    right = np.zeros((channels, channels), EXTENDED)
    for i in range(channels):
        right[i, i] = scale[i]
        for j in range(i + 1, channels):
            right[i, j] = upper[i, j]
    return orthogonal(reflectors) @ right


def circulant(left: Matrix, c: Matrix, right: Matrix) -> Matrix:
    """Return diag(left) circ(c) diag(right)."""
    channels = len(c)
    weight = np.zeros((channels, channels), EXTENDED)
    for i in range(channels):
        for j in range(channels):
            weight[i, j] = left[i].astype(EXTENDED) * c[(i - j) % channels] * right[j]
    return weight


def orthogonal(reflectors: Matrix) -> Matrix:
    """Return H_1 ... H_m."""
    channels = reflectors.shape[1]
    q = _identity(channels)
    for v in reflectors.astype(EXTENDED):
        q = q @ (_identity(channels) - 2 * np.outer(v, v) / (v @ v))
    return q


def _grid(shape: Shape) -> list[Shape]:
    return list(itertools.product(*map(range, shape)))


def _autoregressive(conv: ic.AutoregressiveConv, shape: Shape) -> Matrix:
    kernel, channels = conv.kernel, conv.channels
    assert isinstance(conv.direction, tuple)
    assert isinstance(conv.dilation, tuple)
    block = np.zeros((channels, *shape, channels, *shape), EXTENDED)
    for p in _grid(shape):
        for t in _grid(kernel.shape[2:]):
            o = list(t)
            if conv.mask == "raster":
                for axis in range(1, len(t)):
                    o[axis] = t[axis] - (kernel.shape[2 + axis] - 1) // 2
            leading = next((i for i in o if i != 0), 0)
            if leading < 0:
                continue
            source = tuple(
                i - s * d * j
                for i, s, d, j in zip(p, conv.direction, conv.dilation, o, strict=True)
            )
            if any(i < 0 or i >= n for i, n in zip(source, shape, strict=True)):
                continue
            for out in range(channels):
                for inp in range(channels):
                    masked = inp > out if conv.channel_order == "lower" else inp < out
                    if not any(o) and masked:
                        continue
                    block[(out, *p, inp, *source)] += kernel[(out, inp, *t)]
    return block.reshape(channels * math.prod(shape), -1)


def _periodic(conv: ic.PeriodicConv, shape: Shape) -> Matrix:
    kernel, channels = conv.kernel, conv.channels
    assert isinstance(conv.dilation, tuple)
    block = np.zeros((channels, *shape, channels, *shape), EXTENDED)
    for p in _grid(shape):
        for t in _grid(kernel.shape[2:]):
            source = tuple(
                (i + d * (j - (k - 1) // 2)) % n
                for i, j, k, d, n in zip(p, t, kernel.shape[2:], conv.dilation, shape, strict=True)
            )
            for out in range(channels):
                for inp in range(channels):
                    block[(out, *p, inp, *source)] += kernel[(out, inp, *t)]
    return block.reshape(channels * math.prod(shape), -1)


def _symmetric(conv: ic.SymmetricConv, shape: Shape) -> Matrix:
    kernel, channels = conv.kernel, conv.channels
    block = np.zeros((channels, *shape, channels, *shape), EXTENDED)
    for p in _grid(shape):
        for o in itertools.product(*(range(1 - h, h) for h in kernel.shape[2:])):
            source = []
            for i, n in zip(map(sum, zip(p, o, strict=True)), shape, strict=True):
                while not 0 <= i < n:  # d c b a | a b c d | d c b a
                    i = -1 - i if i < 0 else 2 * n - 1 - i
                source.append(i)
            for out in range(channels):
                for inp in range(channels):
                    block[(out, *p, inp, *source)] += kernel[(out, inp, *map(abs, o))]
    return block.reshape(channels * math.prod(shape), -1)


def block_transform(basis: str, factor: int) -> Matrix:
    """Return T of a squeeze in a basis, its rows the bands: Haar's wavelets, or the DCT-II."""
    matrix = np.zeros((factor, factor), EXTENDED)
    for j in range(factor):
        matrix[0, j] = 1 / np.sqrt(EXTENDED(factor))
    for band in range(1, factor):
        if basis == "dct":
            for j in range(factor):
                angle = EXTENDED(band * (2 * j + 1)) / (2 * factor)
                matrix[band, j] = np.sqrt(EXTENDED(2) / factor) * np.cos(_PI * angle)
            continue
        scale = 1 << (band.bit_length() - 1)  # as many wavelets, each on so many pixels
        width, place = factor // scale, band - scale
        for j in range(width):
            sign = 1 if j < width // 2 else -1
            matrix[band, place * width + j] = sign / np.sqrt(EXTENDED(width))
    return matrix


def correlation(conv: ic.ExponentialConv, shape: Shape) -> Matrix:
    """Return M of e^M."""
    kernel, channels = conv.kernel, conv.channels
    assert isinstance(conv.dilation, tuple)
    block = np.zeros((channels, *shape, channels, *shape), EXTENDED)
    for p in _grid(shape):
        for t in _grid(kernel.shape[2:]):
            source = tuple(
                i + d * (j - (k - 1) // 2)
                for i, j, k, d in zip(p, t, kernel.shape[2:], conv.dilation, strict=True)
            )
            if conv.padding == "circular":
                source = tuple(i % n for i, n in zip(source, shape, strict=True))
            if any(i < 0 or i >= n for i, n in zip(source, shape, strict=True)):
                continue
            for out in range(channels):
                for inp in range(channels):
                    block[(out, *p, inp, *source)] += kernel[(out, inp, *t)]
    return block.reshape(channels * math.prod(shape), -1)


def exponential(matrix: Matrix) -> Matrix:
    """Return e^M: the series of M/2^s, its norm below 1/4, squared s times.

    What the series leaves out is below 4^-17 / 17! = 2e-25, of numbers of 64 bits, 5e-20.

    `scipy.linalg.expm` has no extended precision; a test compares them in float64.
    """
    norm = float(np.abs(matrix).sum(axis=1).max())
    squarings = max(0, math.ceil(math.log2(max(norm, 1e-300))) + 2)
    small, result = matrix / 2.0**squarings, _identity(len(matrix))
    for n in range(16, 0, -1):
        result = _identity(len(matrix)) + small @ result / n
    for _ in range(squarings):
        result = result @ result
    return result
