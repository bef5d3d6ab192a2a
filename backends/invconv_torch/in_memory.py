"""NumPy's waves in the memory of tensors on the CPU, in torch's own threads.

What BLAS would share out among its own threads is torch's (see `invconv.blas`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch

from invconv import blas
from invconv.numpy_primitives import STRIDED, Floats
from invconv.pitched import Index
from invconv.strided import Call, copy_in_pieces

Tensor: TypeAlias = torch.Tensor

_LARGE = 2**20  # multiplications of few columns that are better shared out
_ROW = 2**17  # multiplications of a row of pixels, which NumPy makes in one thread
_WIDE = 32  # columns from which torch's products of many multiplications are as fast as any
_MANY = 2**18  # numbers that are better copied by all threads, which wait for more in a loop
_BAND = 2**18  # numbers that stay in the cache


def memory(x: Tensor) -> Floats:
    """Return the numbers of a tensor on the CPU, where they are."""
    numbers: Floats = x.numpy(force=True)  # whatever autograd says: nothing is copied
    return numbers


def _copy(target: Floats, source: Floats, pieces: tuple[Index, ...]) -> None:
    if torch.get_num_threads() > 1 and target.size > _MANY:
        torch.from_numpy(target).copy_(torch.from_numpy(source))
    else:
        copy_in_pieces(target, source, pieces)


def _matmul(a: Floats, b: Floats, out: Floats) -> None:
    """Multiply images by the matrix ``b`` from the right, pixel by pixel."""
    _, rows, columns, channels = a.shape
    if columns * b.size <= (_ROW if torch.get_num_threads() > 1 else blas.SMALL):
        np.matmul(a, b, out=out)
        return
    matrix, band = torch.from_numpy(b), max(1, _BAND // (columns * channels))
    for image, found in zip(a, out, strict=True):
        for i in range(0, rows, band):
            some = torch.from_numpy(image[i : i + band])
            product = torch.mm(some.reshape(-1, channels), matrix)
            torch.from_numpy(found[i : i + band]).copy_(product.view(some.shape))


def _product(a: Floats, b: Floats, out: Floats, plus: Floats | None = None) -> list[Call]:
    if b.shape[1] >= _WIDE:
        most: float = blas.SMALL
    else:
        most = _LARGE if torch.get_num_threads() > 1 else math.inf
    if len(out) * b.size > most:
        return _torch_product(a, b, out, plus)
    return blas.product(a, b, out, plus, otherwise=_torch_product, largest=blas.SMALL)


def _torch_product(a: Floats, b: Floats, out: Floats, plus: Floats | None) -> list[Call]:
    x, left, right = (torch.from_numpy(array) for array in (out, a, b))
    if plus is None:
        return [functools.partial(torch.mm, left, right, out=x)]
    # of another tensor in the same memory, addmm would make a copy
    total = x if plus is out else torch.from_numpy(plus)
    return [functools.partial(torch.addmm, total, left, right, out=x)]


IN_MEMORY = replace(STRIDED, product=_product, matmul=_matmul, copy=_copy)
