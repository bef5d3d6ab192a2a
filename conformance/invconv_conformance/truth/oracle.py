"""The dense matrix of every operator, from its definition, and autoregressive ones of large grids.

Sums over taps of images that NumPy continues, in extended precision, sharing no code with the core:
it reads an operator's public fields, of NumPy float64, and nothing else. Vectors are (C, *spatial)
in C order.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.fft

import invconv as ic
from invconv.extend import Transposed

Matrix = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Taps = Iterable[tuple[Shape, Matrix]]  # offsets and C x C matrices

# On x86 it has 64 bits of mantissa; where it is a float64 in disguise, float64 is judged by itself.
EXTENDED = np.longdouble


class ExtendedLU:
    """P A = L U in extended precision, which LAPACK does not have, with partial pivoting."""

    def __init__(self, matrix: Matrix) -> None:
        lu = np.array(matrix, dtype=EXTENDED)
        n = len(lu)
        self.order = np.arange(n)
        for k in range(n):
            pivot = k + int(np.abs(lu[k:, k]).argmax())
            if pivot != k:
                lu[[k, pivot]] = lu[[pivot, k]]
                self.order[[k, pivot]] = self.order[[pivot, k]]
            if lu[k, k]:
                lu[k + 1 :, k] /= lu[k, k]
                lu[k + 1 :, k + 1 :] -= np.outer(lu[k + 1 :, k], lu[k, k + 1 :])
        self.lu = lu

    @functools.cached_property
    def inverse(self) -> Matrix:
        """A^-1."""
        return self.solve(np.eye(len(self.lu), dtype=EXTENDED))

    def log_det(self) -> Any:
        """Return log|det A|, -inf if a pivot is zero."""
        with np.errstate(divide="ignore"):
            return np.log(np.abs(np.diagonal(self.lu))).sum()

    def solve(self, rhs: Matrix, *, transposed: bool = False) -> Matrix:
        """Return A^-1 B, or A^-T B, for B of shape (n, m)."""
        n, x = len(self.lu), np.array(rhs, dtype=EXTENDED)
        diagonals: list[Any] = [np.ones(n), np.diagonal(self.lu)]  # of L and U
        first, second = diagonals[::-1] if transposed else diagonals
        triangles = self.lu.T if transposed else self.lu  # U^T L^T P^-T x = B
        x = x if transposed else x[self.order]
        for k in range(n):
            x[k] = (x[k] - triangles[k, :k] @ x[:k]) / first[k]
        for k in reversed(range(n)):
            x[k] = (x[k] - triangles[k, k + 1 :] @ x[k + 1 :]) / second[k]
        return x[np.argsort(self.order)] if transposed else x


def affine(conv: ic.InvertibleConv, shape: Shape, dtype: Any = np.float64) -> tuple[Matrix, Matrix]:
    """Return (K, b) with forward(x) = K x + b, of an operator of NumPy float64 arrays on a grid.

    Matrices are multiplied in ``dtype``: float64 (LAPACK's, for large grids) or ``EXTENDED``.
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
    bias = getattr(conv, "bias", None)
    bias = np.zeros(conv.channels) if bias is None else bias
    shift = np.repeat(bias.astype(dtype), math.prod(shape))
    if isinstance(conv, ic.EmergingConv):
        matrix, inner = _compose([affine(part, shape, dtype) for part in (conv.first, conv.second)])
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
        steps = ((tuple(-i for i in step), tap) for step, tap in autoregressive_taps(conv))
        return correlate(steps, shape, "zero")
    if isinstance(conv, ic.PeriodicConv):
        return correlate(_around(conv), shape, "periodic")
    if isinstance(conv, ic.ExponentialConv):
        padding = "periodic" if conv.padding == "circular" else "zero"
        return exponential(correlate(_around(conv), shape, padding))
    if isinstance(conv, ic.SymmetricConv):
        halved = [word != "periodic" for word in conv.boundary]
        return correlate(_around(conv, halved), shape, *conv.boundary)
    return np.kron(_weight(conv), np.eye(math.prod(shape)))


def _weight(conv: Any) -> Any:
    if isinstance(conv, ic.Conv1x1):
        return np.asarray(conv.weight)
    if isinstance(conv, ic.PLUConv1x1):  # P L (U + diag(sign exp(log_scale)))
        diagonal = np.diag(conv.sign * np.exp(conv.log_scale.astype(EXTENDED)))
        one, right = _identity(conv.channels), np.triu(conv.upper, 1) + diagonal
        return one[conv.permutation.astype(int)] @ (np.tril(conv.lower, -1) + one) @ right
    if isinstance(conv, ic.QRConv1x1):  # H_1 ... H_m (U + diag(scale))
        right = np.triu(conv.upper, 1) + np.diag(conv.scale)
        return orthogonal(conv.reflectors) @ right.astype(EXTENDED)
    if isinstance(conv, ic.CirculantConv1x1):
        c, index = conv.circulant.astype(EXTENDED), np.arange(conv.channels)
        return conv.left[:, None] * c[(index[:, None] - index) % conv.channels] * conv.right
    if isinstance(conv, ic.HouseholderConv1x1):
        return orthogonal(conv.reflectors) * np.exp(conv.log_scale.astype(EXTENDED))
    if isinstance(conv, ic.OrthogonalConv1x1):
        return orthogonal(conv.reflectors)
    if isinstance(conv, ic.ActNorm):
        return np.diag(np.exp(conv.log_scale.astype(EXTENDED)))
    raise TypeError(f"the oracle has no definition of {type(conv).__name__}")


def orthogonal(reflectors: Matrix) -> Matrix:
    """Return H_1 ... H_m."""
    channels = reflectors.shape[1]
    q = _identity(channels)
    for v in reflectors.astype(EXTENDED):
        q = q @ (_identity(channels) - 2 * np.outer(v, v) / (v @ v))
    return q


def correlate(taps: Taps, shape: Shape, *words: str) -> Matrix:
    """Return the matrix of y[p] = sum of tap x[p + offset], by a word for each border."""
    taps, words = list(taps), words * (len(shape) // len(words))
    reach = np.abs([offset for offset, _ in taps]).max(axis=0)
    sides = list(zip(words, reach, shape, strict=True))
    wide = [continued(_identity(n), 0, int(r), word) for word, r, n in sides]
    matrix: Any = 0
    for offset, tap in taps:
        places = zip(wide, offset, sides, strict=True)
        seen = [image[r + o : r + o + n] for image, o, (_, r, n) in places]
        matrix = matrix + functools.reduce(np.kron, seen, tap)
    return np.asarray(matrix)


# NumPy's names of borders; "odd" is in `continued`
_PADS: dict[str, Any] = {"symmetric": "symmetric", "mirror": "reflect", "zero": "constant"}
_PADS["periodic"] = "wrap"


def continued(x: Matrix, axis: int, reach: int, word: str) -> Matrix:
    """Return an image with pixels beyond both ends of an axis, as a border's word says."""
    sides = [(reach * (n == axis % x.ndim),) * 2 for n in range(x.ndim)]
    if word != "odd":
        return np.pad(x, sides, mode=_PADS[word])
    walls = [(min(one, 1), min(other, 1)) for one, other in sides]  # pixels of zero, which reflect
    inner = [(max(one - 1, 0), max(other - 1, 0)) for one, other in sides]
    return np.pad(np.pad(x, walls), inner, mode="reflect", reflect_type="odd")


def autoregressive_taps(conv: ic.AutoregressiveConv) -> Iterator[tuple[Shape, Matrix]]:
    """Yield direction dilation o(t) and K[..., t] of every tap that is not masked, o = 0 first."""
    assert isinstance(conv.direction, tuple)
    assert isinstance(conv.dilation, tuple)
    size = conv.kernel.shape[2:]
    centre = [0] * len(size)
    if conv.mask == "raster":
        centre = [0, *((k - 1) // 2 for k in size[1:])]
    for t in itertools.product(*map(range, size)):  # in the order of o(t)
        o = tuple(i - c for i, c in zip(t, centre, strict=True))
        if o >= (0,) * len(o):
            tap = conv.kernel[(..., *t)].astype(EXTENDED)
            if not any(o):
                tap = np.tril(tap) if conv.channel_order == "lower" else np.triu(tap)
            ways = zip(o, conv.direction, conv.dilation, strict=True)
            yield tuple(i * s * d for i, s, d in ways), tap


def _around(conv: Any, halved: Iterable[bool] = itertools.repeat(False)) -> Taps:
    """Yield offsets from the centre and taps; both signs along axes that keep half a kernel."""
    sides, dilation = [], getattr(conv, "dilation", itertools.repeat(1))
    for k, d, half in zip(conv.kernel.shape[2:], dilation, halved, strict=False):
        whole = [(d * (j - (k - 1) // 2), j) for j in range(k)]
        sides.append([(o, abs(o)) for o in range(1 - k, k)] if half else whole)
    for places in itertools.product(*sides):
        offset, place = zip(*places, strict=True)
        yield offset, conv.kernel[(..., *place)]


def block_transform(basis: str, factor: int) -> Matrix:
    """Return T of a squeeze in a basis, its rows the bands: Haar's wavelets, or the DCT-II."""
    if basis == "dct":
        return np.asarray(scipy.fft.dct(_identity(factor), axis=0, norm="ortho"))
    matrix = _identity(1)
    while len(matrix) < factor:  # bands of pixels twice as wide, then differences of two pixels
        wider, finest = np.kron(matrix, [1, 1]), np.kron(_identity(len(matrix)), [1, -1])
        matrix = np.concatenate([wider, finest]) / np.sqrt(EXTENDED(2))
    return matrix


def exponential(matrix: Matrix) -> Matrix:
    """Return e^M: the series of M/2^s, its norm below 1/4, squared s times.

    What the series leaves out is below 4^-17 / 17! = 2e-25, of numbers of 64 bits, 5e-20.
    """
    norm = float(np.abs(matrix).sum(axis=1).max())
    squarings = max(0, math.ceil(math.log2(max(norm, 1e-300))) + 2)
    small, result = matrix / 2.0**squarings, _identity(len(matrix))
    for n in range(16, 0, -1):
        result = _identity(len(matrix)) + small @ result / n
    for _ in range(squarings):
        result = result @ result
    return result


def convolve(conv: ic.AutoregressiveConv, x: Any) -> Matrix:
    """Return K x, shape (C, *spatial), without bias."""
    shape = x.shape[1:]
    y: Any = np.zeros(x.shape, EXTENDED)
    for step, tap in autoregressive_taps(conv):
        if all(abs(s) < n for s, n in zip(step, shape, strict=True)):
            there = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(step, shape, strict=True))
            here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, shape, strict=True))
            y[(slice(None), *there)] += np.tensordot(tap, x[(slice(None), *here)], 1)
    return np.asarray(y)


def substitute(conv: ic.AutoregressiveConv, y: Any) -> Matrix:
    """Return K^-1 y, shape (C, *spatial), without bias."""
    shape = y.shape[1:]
    (_, diagonal), *others = autoregressive_taps(conv)
    pixel = ExtendedLU(diagonal)
    assert isinstance(conv.direction, tuple)
    ways = [range(n)[::s] for n, s in zip(shape, conv.direction, strict=True)]
    x: Any = np.zeros(y.shape, EXTENDED)
    for p in itertools.product(*ways):
        rest: Any = y[(slice(None), *p)].astype(EXTENDED)
        for step, tap in others:
            source = tuple(i - s for i, s in zip(p, step, strict=True))
            if all(0 <= i < n for i, n in zip(source, shape, strict=True)):
                rest = rest - tap @ x[(slice(None), *source)]
        x[(slice(None), *p)] = pixel.solve(rest[:, None])[:, 0]
    return np.asarray(x)
