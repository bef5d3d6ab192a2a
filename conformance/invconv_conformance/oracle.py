"""The dense matrix of every operator, from its definition.

Loops over pixels and taps in NumPy float64, sharing no code with the core: it reads an operator's
public fields and nothing else. Vectors are (C, *spatial) in C order.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

import invconv as ic

Matrix = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def affine(conv: ic.InvertibleConv, shape: Shape) -> tuple[Matrix, Matrix]:
    """Return (K, b) with forward(x) = K x + b, for an operator of NumPy float64 arrays."""
    if isinstance(conv, ic.Chain):
        return _compose([affine(step, shape) for step in conv.steps])
    if isinstance(conv, ic.Inverse):
        matrix, shift = affine(conv.conv, shape)
        inverse = np.linalg.inv(matrix)
        return inverse, -inverse @ shift
    pixels = math.prod(shape)
    bias = getattr(conv, "bias", None)
    shift = np.zeros(conv.channels * pixels) if bias is None else np.repeat(bias, pixels)
    if isinstance(conv, ic.EmergingConv):
        matrix, inner = _compose([affine(conv.first, shape), affine(conv.second, shape)])
        return matrix, inner + shift
    return _matrix(conv, shape), shift


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
    if isinstance(conv, ic.Conv1x1):
        weight = conv.weight
    elif isinstance(conv, ic.PLUConv1x1):
        weight = plu(conv.permutation, conv.lower, conv.upper, conv.sign, conv.log_scale)
    elif isinstance(conv, ic.QRConv1x1):
        weight = qr(conv.reflectors, conv.upper, conv.scale)
    elif isinstance(conv, ic.ActNorm):
        weight = np.diag(np.exp(conv.log_scale))
    else:
        raise TypeError(f"the oracle has no definition of {type(conv).__name__}")
    return np.kron(weight, np.eye(math.prod(shape)))


def plu(
    permutation: Matrix, lower: Matrix, upper: Matrix, sign: Matrix, log_scale: Matrix
) -> Matrix:
    """Return P L (U + diag(sign exp(log_scale)))."""
    channels = len(sign)
    p, left, right = (np.zeros((channels, channels)) for _ in range(3))
    for i in range(channels):
        p[i, int(permutation[i])] = 1.0
        for j in range(channels):
            left[i, j] = 1.0 if i == j else (lower[i, j] if j < i else 0.0)
            right[i, j] = (
                sign[i] * math.exp(log_scale[i]) if i == j else (upper[i, j] if j > i else 0.0)
            )
    return p @ left @ right


def qr(reflectors: Matrix, upper: Matrix, scale: Matrix) -> Matrix:
    """Return H_1 ... H_m (U + diag(scale))."""
    channels = len(scale)
    q = np.eye(channels)
    for v in reflectors:
        q = q @ (np.eye(channels) - 2 * np.outer(v, v) / (v @ v))
    right = np.zeros((channels, channels))
    for i in range(channels):
        right[i, i] = scale[i]
        for j in range(i + 1, channels):
            right[i, j] = upper[i, j]
    return q @ right


def _grid(shape: Shape) -> list[Shape]:
    return list(itertools.product(*map(range, shape)))


def _autoregressive(conv: ic.AutoregressiveConv, shape: Shape) -> Matrix:
    kernel, channels = conv.kernel, conv.channels
    assert isinstance(conv.direction, tuple)
    assert isinstance(conv.dilation, tuple)
    block = np.zeros((channels, *shape, channels, *shape))
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
    block = np.zeros((channels, *shape, channels, *shape))
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


def log_terms(conv: ic.InvertibleConv, shape: Shape) -> float:
    """Return the sum of |log singular value| over K, the scale of a log-determinant's terms."""
    return float(np.abs(np.log(np.linalg.svd(affine(conv, shape)[0], compute_uv=False))).sum())
