"""NumPy's waves in the memory of tensors on the CPU, in torch's own threads.

What BLAS would share out among its own threads is torch's (see `invconv.blas`).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch

from invconv import blas
from invconv.numpy_primitives import STRIDED, Floats
from invconv.pitched import Index
from invconv.strided import Call, copy_in_pieces

Tensor: TypeAlias = torch.Tensor

_LARGE = 2**20  # multiplications that are better shared out
_MANY = 2**18  # numbers that are better copied by all threads, which wait for more in a loop


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
    """Multiply by the matrix ``b`` from the right."""
    if a.shape[-2] * b.size <= blas.SMALL:
        np.matmul(a, b, out=out)
        return
    matrices = torch.from_numpy(b).expand(a.shape[-3], *b.shape)
    for index in np.ndindex(a.shape[:-3]):
        torch.bmm(torch.from_numpy(a[index]), matrices, out=torch.from_numpy(out[index]))


def _product(a: Floats, b: Floats, out: Floats, plus: Floats | None = None) -> list[Call]:
    if torch.get_num_threads() > 1 and len(out) * b.size > _LARGE:
        return _torch_product(a, b, out, plus)
    return blas.product(a, b, out, plus, otherwise=_torch_product, largest=blas.SMALL)


def _torch_product(a: Floats, b: Floats, out: Floats, plus: Floats | None) -> list[Call]:
    x, left, right = (torch.from_numpy(array) for array in (out, a, b))
    if plus is None:
        return [functools.partial(torch.mm, left, right, out=x)]
    return [functools.partial(torch.addmm, torch.from_numpy(plus), left, right, out=x)]


IN_MEMORY = replace(STRIDED, product=_product, matmul=_matmul, copy=_copy)
