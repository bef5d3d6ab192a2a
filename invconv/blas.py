"""BLAS's gemm on views of NumPy arrays: C = A B + C in place, which `numpy.matmul` cannot do.

SciPy offers the function itself, with a description of what it takes, to compiled code
(`scipy.linalg.cython_blas`); called through ctypes it takes less time than a call of `matmul`.

BLAS shares large products out among threads, from some 2^19 multiplications on. These wait for work
in a loop, as those of NumPy's own BLAS and of PyTorch do, and threads of two libraries get in each
other's way for milliseconds. So gemm is asked for products that are too small to be shared out.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from scipy.linalg import cython_blas

from invconv.strided import Call, Product, general_product

Floats = np.ndarray[Any, Any]

_LETTERS = {"float32": "s", "float64": "d"}
_TAKES = "char, char, int, int, int, {0}, {0}, int, {0}, int, {0}, {0}, int"

_GENERAL = general_product(np)

SMALL = 2**18  # multiplications
_ROWS = 16  # of a product, from which it takes as long as its share of a larger one

_letter = ctypes.c_char(b"N")  # neither A nor B is transposed
_PLAIN = ctypes.addressof(_letter)


@functools.cache
def _gemm(dtype: np.dtype[Any]) -> Any:
    """Return the function for numbers of a type, None where it takes something else than known."""
    letter = _LETTERS.get(dtype.name, "")
    functions: dict[str, Any] = dict(cython_blas.__pyx_capi__)
    capsule = functions.get(f"{letter}gemm")
    if capsule is None or not dtype.isnative:
        return None
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = name(capsule)
    number = f"__pyx_t_5scipy_6linalg_11cython_blas_{letter}"
    if signature.decode().replace(" *", "") != f"void ({_TAKES.format(number)})":
        return None
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)(pointer(capsule, signature))


def product(
    a: Floats,
    b: Floats,
    out: Floats,
    plus: Floats | None = None,
    *,
    otherwise: Product = _GENERAL,
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
        Does it where gemm cannot, which takes no rows that overlap, or would share it out.
    """
    rows = SMALL // max(1, b.size)
    fit = all(_pitch(x) >= x.shape[1] for x in (a, b, out))
    if _gemm(out.dtype) is None or not fit or rows < min(len(out), _ROWS):
        return otherwise(a, b, out, plus)
    calls = []
    for i in range(0, len(out), rows):
        some = slice(i, i + rows)
        x = out[some]
        total = x if plus is None or plus is out else plus[some]
        calls.append(_call(a[some], b, total, plus is not None))
        if total is not x:
            calls.append(functools.partial(np.copyto, x, total))
    return calls


def _call(a: Floats, b: Floats, total: Floats, add: bool) -> Call:
    here, arguments = _by_reference(a, b, total, add)
    call = functools.partial(_gemm(total.dtype), *arguments)
    call.reads = (here, a, b, total)  # type: ignore[attr-defined]  # at addresses: let them live
    return call


def _by_reference(a: Floats, b: Floats, out: Floats, add: bool) -> tuple[Any, list[int]]:
    """Return memory for sizes and scalars, and what gemm takes, addresses all.

    Rows are its columns: it is asked for out^T = B^T A^T.
    """
    (m, k), n = a.shape, b.shape[1]
    integers = np.asarray([n, m, k, *(_pitch(x) for x in (b, a, out))], dtype=np.intc)
    scalars = np.asarray([1, add], dtype=out.dtype)
    at = integers.ctypes.data
    n_, m_, k_, *of = range(at, at + integers.nbytes, integers.itemsize)
    one = scalars.ctypes.data
    beta = one + scalars.itemsize
    data = [x.ctypes.data for x in (b, a, out)]
    factors = [one, data[0], of[0], data[1], of[1], beta, data[2], of[2]]
    return (integers, scalars), [_PLAIN, _PLAIN, n_, m_, k_, *factors]


def _pitch(rows: Floats) -> int:
    """Return how many numbers it is from one row to the next; of one row, anything will do."""
    count, size = rows.shape
    return rows.strides[0] // rows.itemsize if count > 1 else size
