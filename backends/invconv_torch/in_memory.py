"""NumPy's waves in the memory of tensors on the CPU, in torch's own threads.

Torch's threads share out the parts of a batch, and each makes its products by NumPy's BLAS, too
small ones for that to use threads too: those of two libraries get in each other's way (see
`invconv.blas`). Of one image, products are so too, or if they are large they are torch's.
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
from invconv.replay import Call, loops
from invconv.strided import Strided, copy_in_pieces
from invconv.team import Team
from invconv_torch.precision import full_precision

Tensor: TypeAlias = torch.Tensor

_LARGE = 3 * 2**18  # multiplications of a plan's largest product, from which all are torch's
_ROW = 2**17  # multiplications of a row of pixels, which NumPy makes in one thread
_MANY = 2**15  # numbers that are better copied by all threads
_BAND = 2**18  # numbers that stay in the cache
_SHARED = 2**15  # numbers of images that are shared out among threads
_MOST = 64  # threads that NumPy's OpenBLAS has memory for


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


TEAM = Team.of(torch._C.__file__, torch.get_num_threads)

IN_MEMORY = replace(
    STRIDED, product=_product, matmul=_matmul, copy=_copy, team=TEAM, stacked=blas.stacked_product
)
"""With products of NumPy's BLAS, each in one thread; the few that are torch's see to precision."""

IN_THREADS = replace(IN_MEMORY, product=_torch_product)
"""With torch's own products, in all of its threads; who runs them sees to their precision."""


def parts(y: Tensor) -> int:
    """Return how many parts of a batch torch's threads are to solve at the same time."""
    threads: int = torch.get_num_threads()
    if threads == 1 or y.numel() < _SHARED or TEAM is None or loops() is None:
        return 1
    return min(threads, len(y), _MOST)


def in_small_products(plan: Layout) -> bool:
    """Tell whether all products of a plan can be made in pieces that BLAS does not share out."""
    return plan.weights_size * blas.ROWS <= blas.SMALL


def fastest(plan: Layout) -> Strided:
    """Return how a plan runs.

    All products are made in one way: threads of one library wait in a loop for the next product,
    and are in the way of another library's.
    """
    alone = len(plan.parts) == 1 and torch.get_num_threads() > 1
    return IN_THREADS if alone and plan.longest * plan.weights_size > _LARGE else IN_MEMORY
