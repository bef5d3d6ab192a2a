"""NumPy's waves in the memory of tensors on the CPU, in torch's own threads.

BLAS has threads too, which wait for work as torch's do, so that the two of them get in each other's
way for milliseconds. So what BLAS is asked for is too little for it to share out (it does from
some 2^19 multiplications on), and what is more than that is torch's.
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

SMALL = 2**18  # multiplications of a product that are BLAS's
_LARGE = 2**20  # of one that is better shared out, and numbers that are better copied so
_ROWS = 16  # of a product, from which it takes as long as its share of a larger one


def memory(x: Tensor) -> Floats:
    """Return the numbers of a tensor on the CPU, where they are."""
    numbers: Floats = x.numpy(force=True)  # whatever autograd says: nothing is copied
    return numbers


def _copy(target: Floats, source: Floats, pieces: tuple[Index, ...]) -> None:
    if torch.get_num_threads() > 1 and target.size > _LARGE:
        torch.from_numpy(target).copy_(torch.from_numpy(source))
    else:
        copy_in_pieces(target, source, pieces)


def _matmul(a: Floats, b: Floats, out: Floats) -> None:
    """Multiply by the matrix ``b`` from the right."""
    if a.shape[-2] * b.size <= SMALL:
        np.matmul(a, b, out=out)
        return
    matrices = torch.from_numpy(b).expand(a.shape[-3], *b.shape)
    for index in np.ndindex(a.shape[:-3]):
        torch.bmm(torch.from_numpy(a[index]), matrices, out=torch.from_numpy(out[index]))


def _product(a: Floats, b: Floats, out: Floats, plus: Floats | None = None) -> list[Call]:
    """Return the calls that do what that of `invconv.blas.product` does."""
    rows = max(1, SMALL // max(1, b.size))
    large = torch.get_num_threads() > 1 and len(out) * b.size > _LARGE
    if not large and rows >= min(len(out), _ROWS):
        calls = []
        for i in range(0, len(out), rows):
            some = slice(i, i + rows)
            x = out[some]
            total = x if plus is out else None if plus is None else plus[some]
            calls += blas.product(a[some], b, x, total)
        return calls
    x, left, right = (torch.from_numpy(array) for array in (out, a, b))
    if plus is None:
        return [functools.partial(torch.mm, left, right, out=x)]
    return [functools.partial(torch.addmm, torch.from_numpy(plus), left, right, out=x)]


IN_MEMORY = replace(STRIDED, product=_product, matmul=_matmul, copy=_copy)
