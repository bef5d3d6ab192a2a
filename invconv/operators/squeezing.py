"""Squeeze: trade pixels for channels between the levels of a flow (Real NVP, Dinh et al., 2017).

    out[c f^2 + i f + j, h, w] = x[c, h f + i, w f + j]

Public functions of arrays, called by nothing here.
"""

from __future__ import annotations

from invconv.arrays.namespaces import Array, namespace
from invconv.arrays.settings import positive_int
from invconv.arrays.validation import require_array


def squeeze(x: Array, factor: int = 2, *, ndim: int = 2) -> Array:
    """Turn every block of factor^ndim pixels into channels.

    out[c f^2 + i f + j, h, w] = x[c, h f + i, w f + j] in two dimensions, as torch's
    pixel_unshuffle.

    Parameters
    ----------
    x : array, shape (*batch, C, *spatial)
    factor : int
        f, a divisor of every spatial size.
    ndim : int
        The number of spatial axes.

    Returns
    -------
    array, shape (*batch, C f^ndim, *(spatial / f))

    Examples
    --------
    >>> import numpy as np
    >>> squeeze(np.arange(16.0).reshape(1, 4, 4))[:, 0, 0]
    array([0., 1., 4., 5.])
    """
    factor, ndim = _validate(x, factor, ndim)
    *batch, channels = x.shape[: x.ndim - ndim]
    grid = x.shape[x.ndim - ndim :]
    if any(n % factor for n in grid):
        raise ValueError(f"x: expected spatial sizes divisible by {factor}, got {tuple(grid)}")
    coarse = [n // factor for n in grid]
    xp = namespace(x)
    split = xp.reshape(x, (*batch, channels, *(m for n in coarse for m in (n, factor))))
    lead = len(batch) + 1
    inner = [lead + 2 * a + 1 for a in range(ndim)]
    outer = [lead + 2 * a for a in range(ndim)]
    moved = xp.permute_dims(split, (*range(lead), *inner, *outer))
    return xp.reshape(moved, (*batch, channels * factor**ndim, *coarse))


def unsqueeze(x: Array, factor: int = 2, *, ndim: int = 2) -> Array:
    """Undo `squeeze`.

    Parameters
    ----------
    x : array, shape (*batch, C f^ndim, *spatial)
    factor : int
        f.
    ndim : int
        The number of spatial axes.

    Returns
    -------
    array, shape (*batch, C, *(spatial f))

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(32.0).reshape(2, 4, 4)
    >>> bool(np.all(unsqueeze(squeeze(x)) == x))
    True
    """
    factor, ndim = _validate(x, factor, ndim)
    *batch, channels = x.shape[: x.ndim - ndim]
    coarse = x.shape[x.ndim - ndim :]
    if channels % factor**ndim:
        raise ValueError(
            f"x: expected a number of channels divisible by {factor**ndim}, got {channels}"
        )
    xp = namespace(x)
    channels //= factor**ndim
    split = xp.reshape(x, (*batch, channels, *(factor,) * ndim, *coarse))
    lead = len(batch) + 1
    pairs = [axis for a in range(ndim) for axis in (lead + ndim + a, lead + a)]
    moved = xp.permute_dims(split, (*range(lead), *pairs))
    return xp.reshape(moved, (*batch, channels, *(n * factor for n in coarse)))


def _validate(x: Array, factor: int, ndim: int) -> tuple[int, int]:
    require_array("x", x)
    factor, ndim = positive_int("factor", factor), positive_int("ndim", ndim)
    if x.ndim < ndim + 1:
        raise ValueError(
            f"x: expected shape (*batch, C, *spatial) with {ndim} spatial axes, "
            f"got {tuple(x.shape)}"
        )
    return factor, ndim
