"""NumPy's waves in the memory of tensors on the CPU, in torch's own threads.

What BLAS would share out among its own threads is torch's (see `invconv.blas`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from invconv import blas
from invconv.numpy_primitives import STRIDED, Floats
from invconv.pitched import Index
from invconv.strided import Call, Strided, Work, copy_in_pieces, tiled

Tensor: TypeAlias = torch.Tensor

_LARGE = 2**20  # multiplications that are better shared out
_MANY = 2**16  # numbers that are better copied by all threads
_FIT = 2**20  # numbers that stay in the cache when they are copied twice


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


@dataclass(frozen=True, eq=False)
class _InMemory(Strided):
    """NumPy's, but what is worth it is done by torch's threads."""

    def _solve_tiles(self, work: Work, y: Floats) -> None:
        if torch.get_num_threads() == 1 or not _MANY < y.size <= _FIT:
            super()._solve_tiles(work, y)
            return
        given, inverse = torch.from_numpy(work.given), torch.from_numpy(work.weights[0])
        tiles = torch.from_numpy(tiled(work.given.shape, y)).contiguous()
        given.copy_(torch.mm(tiles.view(-1, len(inverse)), inverse).view(given.shape))


IN_MEMORY = _InMemory(np, STRIDED.as_strided, _product, _matmul, STRIDED.keeps, _copy)
