"""BLAS's gemm on views of NumPy arrays: C = A B + C in place, which `numpy.matmul` cannot do.

It is that of the BLAS that `numpy.matmul` itself calls, found by its name among what NumPy is
linked to, and tried out before it is trusted. Through ctypes it takes less time than `matmul`.

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

from invconv.strided import Call, Product, general_product

Floats = np.ndarray[Any, Any]

_LETTERS = {"float32": "s", "float64": "d"}
_LINKED = "numpy._core._multiarray_umath"  # where NumPy's matmul is
# in NumPy's wheels; in OpenBLAS with 64-bit integers; in any BLAS, most often with 32-bit ones
_NAMES = ("scipy_{}gemm_64_", "{}gemm_64_", "{}gemm_")
_TAKES = "char, char, int, int, int, {0}, {0}, int, {0}, int, {0}, {0}, int"
_FUNCTION = ctypes.CFUNCTYPE(None)  # of declared types, it would convert every argument anew

_GENERAL = general_product(np)

SMALL = 2**18  # multiplications of a product that no BLAS shares out
_ROWS = 16  # of a product, from which it takes as long as its share of a larger one

_PLAIN = ctypes.byref(ctypes.c_char(b"N"))  # neither A nor B is transposed
_SIZES = ctypes.c_int64 * 6


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
    function(*_by_reference(a, b, out[:, :4], True))
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
    fit = all(_pitch(x) >= x.shape[1] for x in (a, b, out))
    if gemm is None or not fit:
        return otherwise(a, b, out, plus)
    rows = int(min(len(out), min(largest, gemm.largest) / max(1, b.size)))
    if rows < min(len(out), _ROWS):
        return otherwise(a, b, out, plus)
    calls = []
    for i in range(0, len(out), rows):
        some = slice(i, i + rows)
        x = out[some]
        total = x if plus is None or plus is out else plus[some]
        calls.append(_call(gemm.function, a[some], b, total, plus is not None))
        if total is not x:
            calls.append(functools.partial(np.copyto, x, total))
    return calls


def _call(function: Any, a: Floats, b: Floats, total: Floats, add: bool) -> Call:
    call = functools.partial(function, *_by_reference(a, b, total, add))
    call.reads = (a, b, total)  # type: ignore[attr-defined]  # at addresses: let them live
    return call


def _by_reference(a: Floats, b: Floats, out: Floats, add: bool) -> list[Any]:
    """Return what gemm takes, references all. They keep sizes and scalars alive, but not arrays.

    Rows are its columns: it is asked for out^T = B^T A^T.
    """
    (m, k), n = a.shape, b.shape[1]
    # who reads 32 bits finds them first, on machines that put the lowest ones first: all that
    # SciPy and NumPy are made for; `_multiplies` would tell
    sizes = _SIZES(n, m, k, *(_pitch(x) for x in (b, a, out)))
    n_, m_, k_, *of = (ctypes.byref(sizes, i) for i in range(0, ctypes.sizeof(sizes), 8))
    data = [ctypes.byref(ctypes.c_char.from_address(_address(x))) for x in (b, a, out)]
    one, beta = _scalar(out.dtype, 1), _scalar(out.dtype, int(add))
    return [_PLAIN, _PLAIN, n_, m_, k_, one, data[0], of[0], data[1], of[1], beta, data[2], of[2]]


@functools.cache
def _scalar(dtype: np.dtype[Any], value: int) -> Any:
    return ctypes.byref(np.ctypeslib.as_ctypes_type(dtype)(value))


def _address(x: Floats) -> int:
    address: int = x.__array_interface__["data"][0]
    return address


def _pitch(rows: Floats) -> int:
    """Return how many numbers it is from one row to the next; of one row, anything will do."""
    count, size = rows.shape
    return rows.strides[0] // rows.itemsize if count > 1 else size
