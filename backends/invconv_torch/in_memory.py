"""NumPy's waves in the memory of tensors on the CPU, in torch's own threads.

A plan's products are NumPy's BLAS's, in parts too small for its threads, or all are torch's: the
threads of two libraries get in each other's way (see `invconv.blas`).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch

from invconv import blas
from invconv.numpy_primitives import STRIDED, Floats
from invconv.pitched import Index, Layout
from invconv.strided import Call, Strided, copy_in_pieces
from invconv_torch.precision import full_precision

Tensor: TypeAlias = torch.Tensor

_LARGE = 3 * 2**18  # multiplications of a plan's largest product, from which all are torch's
_ROW = 2**17  # multiplications of a row of pixels, which NumPy makes in one thread
_WIDE = 32  # columns from which torch's products in one thread are as fast as any
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
    with full_precision(matrix):
        for image, found in zip(a, out, strict=True):
            for i in range(0, rows, band):
                pixels = torch.from_numpy(image[i : i + band]).reshape(-1, channels)
                target = torch.from_numpy(found[i : i + band])
                target.copy_(torch.mm(pixels, matrix).view(target.shape))


def _product(a: Floats, b: Floats, out: Floats, plus: Floats | None = None) -> list[Call]:
    return blas.product(a, b, out, plus, otherwise=_precise_product, largest=blas.SMALL)


def _precise_product(a: Floats, b: Floats, out: Floats, plus: Floats | None = None) -> list[Call]:
    """Return torch's calls, each at full precision by itself.

    A plan that runs in memory has few such calls, mostly none: it does not look at the switches,
    which takes as long as several products.
    """
    x = torch.from_numpy(out)

    def run(call: Call) -> None:
        with full_precision(x):
            call()

    return [functools.partial(run, call) for call in _torch_product(a, b, out, plus)]


def _torch_product(a: Floats, b: Floats, out: Floats, plus: Floats | None = None) -> list[Call]:
    with torch.inference_mode(False):  # else they would be of no use outside that mode
        x, left, right = (torch.from_numpy(array) for array in (out, a, b))
        # of another tensor in the same memory, addmm would make a copy
        total = x if plus is None or plus is out else torch.from_numpy(plus)
    if plus is None:
        return [functools.partial(torch.mm, left, right, out=x)]
    return [functools.partial(torch.addmm, total, left, right, out=x)]


IN_MEMORY = replace(STRIDED, product=_product, matmul=_matmul, copy=_copy)
"""With products of NumPy's BLAS, each in one thread; the few that are torch's see to precision."""

IN_THREADS = replace(IN_MEMORY, product=_torch_product)
"""With torch's own products, in all of its threads; who runs them sees to their precision."""


def fastest(plan: Layout) -> Strided:
    """Return how a plan runs.

    All products are made in one way: threads of one library wait in a loop for the next product,
    and are in the way of another library's.
    """
    narrow = plan.size < _WIDE and torch.get_num_threads() == 1
    return IN_THREADS if plan.longest * plan.weights_size > _LARGE and not narrow else IN_MEMORY
