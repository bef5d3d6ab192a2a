"""Squeeze: trade pixels for channels between the levels of a flow (Real NVP, Dinh et al., 2017)."""

import functools
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, cast, constant, namespace, size, widened
from invconv.arrays.validation import choice, positive_int, require_array, require_real
from invconv.kernels.primitives import matmul

Matrix = np.ndarray[Any, np.dtype[np.float64]]


def squeeze(x: Array, factor: int = 2, *, ndim: int = 2, basis: str = "pixels") -> Array:
    r"""Turn every block of factor^ndim pixels into channels.

    $$z[c f^2 + i f + j, h, w] = x[c, h f + i, w f + j]$$

    in two dimensions, as torch's pixel_unshuffle; or the coefficients of the block in an
    orthonormal basis, with an f x f matrix T:

    $$z[c f^2 + i f + j, h, w] = \sum_{k, l} T[i, k]\, T[j, l]\, x[c, h f + k, w f + l]$$

    The log-determinant is 0 in all of them.

    Parameters
    ----------
    x : array, shape (*batch, C, *spatial)
    factor : int
        f, a divisor of every spatial size.
    ndim : int
        The number of spatial axes.
    basis : {"pixels", "haar", "dct"}
        "pixels": the pixels themselves. "haar": means and differences of halves, the coarsest
        first, for f a power of 2. "dct": cosines, by frequency. In the last two the first band of
        each channel is the mean of the block times f^(ndim / 2), and with several axes the bands
        are products of one band per axis, in the order of the axes.

    Returns
    -------
    array, shape (*batch, C f^ndim, *(spatial / f))

    Examples
    --------
    >>> import numpy as np
    >>> squeeze(np.arange(16.0).reshape(1, 4, 4))[:, 0, 0]
    array([0., 1., 4., 5.])
    >>> np.round(squeeze(np.arange(16.0).reshape(1, 4, 4), basis="haar")[:, 0, 0], 12)
    array([ 5., -1., -4.,  0.])
    """
    factor, ndim, (*batch, channels), grid = _validate(x, factor, ndim, basis)
    if any(n % factor for n in grid):
        raise ValueError(f"x: expected spatial sizes divisible by {factor}, got {grid}")
    coarse = [n // factor for n in grid]
    xp = namespace(x)
    split = xp.reshape(x, (*batch, channels, *(m for n in coarse for m in (n, factor))))
    lead = len(batch) + 1
    inner, outer = ([lead + 2 * a + i for a in range(ndim)] for i in (1, 0))
    moved = xp.permute_dims(split, (*range(lead), *inner, *outer))
    pixels = _in_order(moved, (*batch, channels * factor**ndim, *coarse))
    return pixels if basis == "pixels" else _transformed(pixels, _MATRICES[basis](factor), ndim)


def unsqueeze(x: Array, factor: int = 2, *, ndim: int = 2, basis: str = "pixels") -> Array:
    """Undo `squeeze`: turn ``(*batch, C f^ndim, *spatial)`` into ``(*batch, C, *(spatial f))``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(32.0).reshape(2, 4, 4)
    >>> bool(np.all(unsqueeze(squeeze(x)) == x))
    True
    """
    factor, ndim, (*batch, channels), coarse = _validate(x, factor, ndim, basis)
    if channels % factor**ndim:
        raise ValueError(
            f"x: expected a number of channels divisible by {factor**ndim}, got {channels}"
        )
    xp = namespace(x)
    channels //= factor**ndim
    if basis != "pixels":
        x = _transformed(x, _MATRICES[basis](factor).T, ndim)
    split = xp.reshape(x, (*batch, channels, *(factor,) * ndim, *coarse))
    lead = len(batch) + 1
    pairs = [axis for a in range(ndim) for axis in (lead + ndim + a, lead + a)]
    moved = xp.permute_dims(split, (*range(lead), *pairs))
    return _in_order(moved, (*batch, channels, *(n * factor for n in coarse)))


def _in_order(moved: Array, shape: tuple[int, ...]) -> Array:
    """Return a permuted array in another shape, always as a copy, never as a view of the image."""
    xp = namespace(moved)
    return xp.reshape(xp.concat([moved]), shape)  # concat copies, and reshape only moves


def _validate(x: Array, factor: int, ndim: int, basis: str) -> tuple[int, int, Shape, Shape]:
    """Return the factor, the number of axes, the shape before the grid, and the grid."""
    require_array("x", x)
    factor, ndim = positive_int("factor", factor), positive_int("ndim", ndim)
    choice("basis", basis, ("pixels", *_MATRICES))
    if basis != "pixels":
        require_real("x", x)
    if basis == "haar" and factor & (factor - 1):
        raise ValueError(f"factor: expected a power of 2 for basis='haar', got {factor}")
    if x.ndim < ndim + 1:
        raise ValueError(
            f"x: expected shape (*batch, C, *spatial) with {ndim} spatial axes, "
            f"got {tuple(x.shape)}"
        )
    return factor, ndim, tuple(x.shape[:-ndim]), tuple(x.shape[-ndim:])


def _transformed(x: Array, matrix: Matrix, ndim: int) -> Array:
    """Apply an f x f matrix along each axis of the blocks of x (*batch, C f^ndim, *coarse)."""
    xp, factor, given = namespace(x), len(matrix), x.dtype
    lead = x.ndim - ndim - 1
    x = widened(x)
    shape, blocks = x.shape, size(x.shape[: lead + 1]) // factor**ndim
    along = constant(matrix, x, x.dtype)
    for axis in range(ndim):
        inner = factor ** (ndim - 1 - axis) * size(shape[lead + 1 :])
        x = matmul(along, xp.reshape(x, (blocks * factor**axis, factor, inner)))
    return cast(xp.reshape(x, shape), given)


@functools.lru_cache(maxsize=32)
def _haar(factor: int) -> Matrix:
    """Return Haar's matrix of f means and differences; rows 2^i to 2^(i+1) - 1 are one scale."""
    if factor == 1:
        return np.ones((1, 1))
    means = np.kron(_haar(factor // 2), [1.0, 1.0])
    differences = np.kron(np.eye(factor // 2), [1.0, -1.0])
    return np.asarray(np.concatenate([means, differences]) / np.sqrt(2.0))


@functools.lru_cache(maxsize=32)
def _dct(factor: int) -> Matrix:
    k, j = np.indices((factor, factor))
    cosines = np.cos(np.pi * (k * (2 * j + 1) % (4 * factor)) / (2 * factor))
    return np.asarray(cosines * np.where(k == 0, 1.0, np.sqrt(2.0)) / np.sqrt(factor))


_MATRICES = {"haar": _haar, "dct": _dct}
