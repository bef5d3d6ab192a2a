"""Points on the unit circle, exact at quarter turns, and the complex numbers of a library."""

from __future__ import annotations

from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, namespace

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
