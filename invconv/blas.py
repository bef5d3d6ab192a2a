"""BLAS's gemm on views of NumPy arrays: C = A B + C in place, which `numpy.matmul` cannot do.

It is that of the BLAS that `numpy.matmul` itself calls, found by its name among what NumPy is
linked to, and tried out before it is trusted. Through ctypes it takes less time than `matmul`, and
many calls can be made in one (`invconv.replay`).

Where it is not found, as on Windows, it is that of SciPy, which offers its own with a description
of what it takes (`scipy.linalg.cython_blas`). BLAS shares large products out among threads. These
wait for work in a loop, and threads of two libraries get in each other's way for milliseconds. So
SciPy's gemm is asked only for products that are too small to be shared out.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cython_blas

from invconv.replay import STEP_BYTES, Call, Step, Steps
from invconv.strided import Product, general_product

Floats = np.ndarray[Any, Any]

_LETTERS = {"float32": "s", "float64": "d"}
_LINKED = "numpy._core._multiarray_umath"  # where NumPy's matmul is
# in NumPy's wheels; in OpenBLAS with 64-bit integers; in any BLAS, most often with 32-bit ones
_NAMES = ("scipy_{}gemm_64_", "{}gemm_64_", "{}gemm_")
_TAKES = "char, char, int, int, int, {0}, {0}, int, {0}, int, {0}, {0}, int"
_FUNCTION = ctypes.CFUNCTYPE(None)  # of declared types, it would convert every argument anew

_GENERAL = general_product(np)

SMALL = 2**18  # multiplications of a product that no BLAS shares out
ROWS = 16  # of a product, from which it takes as long as its share of a larger one

_PLAIN, _TRANSPOSED = ctypes.c_char(b"N"), ctypes.c_char(b"T")
_SIZES = ctypes.c_int64 * 6
_A, _OUT = 8, 11  # where they are among the arguments


class Gemm(NamedTuple):
    """The function, and the most multiplications that it is asked for at once."""

    function: Any
    largest: float


@functools.cache
def _gemm(dtype: np.dtype[Any]) -> Gemm | None:
    """Return the function for numbers of a type, None where there is none."""
    letter = _LETTERS.get(dtype.name)
    if letter is None or not dtype.isnative:
        return None
    if (function := _of_numpy(letter, dtype)) is not None:
        return Gemm(function, np.inf)
    if (function := _of_scipy(letter)) is not None:
        return Gemm(function, SMALL)
    return None


def _of_numpy(letter: str, dtype: np.dtype[Any]) -> Any:
    try:
        linked = ctypes.CDLL(importlib.import_module(_LINKED).__file__)
    except (ImportError, OSError):
        return None
    named = (getattr(linked, name.format(letter), None) for name in _NAMES)
    usable = (_FUNCTION(ctypes.cast(f, ctypes.c_void_p).value or 0) for f in named if f)
    return next((f for f in usable if _multiplies(f, dtype)), None)


def _multiplies(function: Any, dtype: np.dtype[Any]) -> bool:
    """Try a function out, integers of its kind included."""
    a, b = (np.arange(1, n * 7 + 1, dtype=dtype).reshape(-1, 7) for n in (2, 3))
    a, b, out = a[:, :3], b[:, :4], np.ones((2, 7), dtype)
    wanted = out.copy()
    wanted[:, :4] += a @ b
    _call(function, a, b, out[:, :4], True)()
    return np.array_equal(out, wanted)


def _of_scipy(letter: str) -> Any:
    functions: dict[str, Any] = dict(cython_blas.__pyx_capi__)
    capsule = functions.get(f"{letter}gemm")
    if capsule is None:
        return None
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = name(capsule)
    number = f"__pyx_t_5scipy_6linalg_11cython_blas_{letter}"
    if signature.decode().replace(" *", "") != f"void ({_TAKES.format(number)})":
        return None
    return _FUNCTION(pointer(capsule, signature))


def product(
    a: Floats,
    b: Floats,
    out: Floats,
    plus: Floats | None = None,
    *,
    otherwise: Product = _GENERAL,
    largest: float = np.inf,
) -> list[Call]:
    """Return the calls that put A B into ``out``, with what else is in ``plus`` added to it.

    The arrays stay where they are: calls are for the values that they have when they are made.

    Parameters
    ----------
    a : array, shape (M, K)
        The numbers of a row one after the other, as in all of them.
    b : array, shape (K, N)
    out : array, shape (M, N)
        Apart from the other two.
    plus : array, shape (M, N), optional
        ``out`` itself, or scratch memory that may be overwritten.
    otherwise : callable
        Does it where gemm cannot, which takes no rows that overlap, or is not to.
    largest : float
        Multiplications that gemm is asked for at once, at most.
    """
    gemm = _gemm(out.dtype)
    if gemm is None or not all(map(_fits, (a, b, out))):
        return otherwise(a, b, out, plus)
    rows = int(min(len(out), min(largest, gemm.largest) / max(1, b.size)))
    if rows < min(len(out), ROWS):
        return otherwise(a, b, out, plus)
    calls = list[Call]()
    for i in range(0, len(out), rows):
        some = slice(i, i + rows)
        x = out[some]
        total = x if plus is None or plus is out else plus[some]
        calls.append(_call(gemm.function, a[some], b, total, plus is not None))
        if total is not x:
            calls.append(functools.partial(np.copyto, x, total))
    return calls


def stacked_product(a: Floats, b: Floats, out: Floats) -> Steps | None:
    """Return the calls that put products A B into ``out``, of an ``a`` that each run gives.

    Parameters
    ----------
    a : array, shape (L, L', M, K)
        The numbers of each row one after the other, or those of each column. What is given has
        its strides.
    b : array, shape (K, N)
    out : array, shape (L, L', M, N)

    Returns
    -------
    Steps or None
        None where gemm cannot do it, or takes so little at once that addresses are more.
    """
    gemm, first = _gemm(out.dtype), a[0, 0]
    fit = _fits(first) or _fits(first.T)
    if gemm is None or not (fit and _fits(b) and _fits(out[0, 0])):
        return None
    if len(first) * b.size > min(SMALL, gemm.largest) or first.nbytes < STEP_BYTES:
        return None
    step = _call(gemm.function, first, b, out[0, 0], add=False)
    step.reads = step.reads[1:]  # ``a`` is not kept: each run has its own
    return Steps(step, {_A: _shifts(a), _OUT: _shifts(out)}, _A)


def _shifts(stack: Floats) -> Floats:
    """Return how far each matrix of a stack is from the first, in bytes."""
    high, low = (np.arange(n) * s for n, s in zip(stack.shape[:2], stack.strides[:2], strict=True))
    shifts: Floats = (high[:, None] + low).reshape(-1)
    return shifts


def _call(function: Any, a: Floats, b: Floats, out: Floats, add: bool) -> Step:
    """Return the call of gemm, whose columns are our rows: it is asked for out^T = B^T A^T."""
    (m, k), n, in_rows = a.shape, b.shape[1], _fits(a)
    # who reads 32 bits finds them first, on machines that put the lowest ones first: all that
    # SciPy and NumPy are made for; `_multiplies` would tell
    sizes = _SIZES(n, m, k, *(_pitch(x) for x in (b, a if in_rows else a.T, out)))
    one, beta = _scalar(out.dtype, 1), _scalar(out.dtype, int(add))
    at = ctypes.addressof
    start = at(sizes)
    n_, m_, k_, ldb, lda, ldout = range(start, start + ctypes.sizeof(sizes), 8)
    letters = [at(_PLAIN), at(_PLAIN if in_rows else _TRANSPOSED)]
    matrices = [_address(b), ldb, _address(a), lda, at(beta), _address(out), ldout]
    reads = (a, b, out, sizes, one, beta, _PLAIN, _TRANSPOSED)
    return Step.of(function, [*letters, n_, m_, k_, at(one), *matrices], reads)


@functools.cache
def _scalar(dtype: np.dtype[Any], value: int) -> Any:
    return np.ctypeslib.as_ctypes_type(dtype)(value)


def _address(x: Floats) -> int:
    address: int = x.__array_interface__["data"][0]
    return address


def _fits(x: Floats) -> bool:
    """Tell whether the numbers of each row are one after the other, and no two rows overlap."""
    return (x.shape[1] == 1 or x.strides[1] == x.itemsize) and _pitch(x) >= x.shape[1]


def _pitch(rows: Floats) -> int:
    """Return how many numbers it is from one row to the next; of one row, anything will do."""
    count, size = rows.shape
    return rows.strides[0] // rows.itemsize if count > 1 else size
