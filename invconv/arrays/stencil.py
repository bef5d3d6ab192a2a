"""A convolution as a stencil: a list of offsets, each with a C x C matrix.

Masks, directions and dilation are ways to list offsets. The transposed operator has the
negated offsets with the transposed matrices.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from invconv.arrays.namespaces import Array, Shape, namespace, size, zeros

Offset = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Stencil:
    """y[p] = sum over t of taps[t] x[p + offsets[t]].

    Attributes
    ----------
    offsets : tuple of T offsets
        In pixels, one integer per spatial axis.
    taps : array, shape (T, C, C)
        The matrix of each offset.
    """

    offsets: tuple[Offset, ...]
    taps: Array

    def transpose(self) -> Stencil:
        """Return the stencil of the transposed operator."""
        negated = tuple(tuple(-o for o in offset) for offset in self.offsets)
        return Stencil(negated, namespace(self.taps).matrix_transpose(self.taps))

    def within(self, shape: Shape) -> Stencil:
        """Leave out the taps that reach beyond a zero-padded grid from each of its pixels."""
        kept = reaching(self.offsets, shape)
        if len(kept) == len(self.offsets):
            return self
        xp = namespace(self.taps)
        taps = [self.taps[t : t + 1, ...] for t in kept]
        return Stencil(
            tuple(self.offsets[t] for t in kept),
            xp.concat(taps, axis=0) if taps else self.taps[:0, ...],
        )


def reaching(offsets: Sequence[Offset], shape: Shape) -> list[int]:
    """Return the positions of the offsets that connect two pixels of the grid."""
    return [
        t
        for t, offset in enumerate(offsets)
        if all(abs(o) < n for o, n in zip(offset, shape, strict=True))
    ]


def tap_indices(kernel_size: Shape) -> list[Offset]:
    """Return the index of every tap of a kernel, last axis fastest."""
    return list(itertools.product(*(range(k) for k in kernel_size)))


def taps_of(kernel: Array, first: int = 0) -> Array:
    """Turn a kernel (C, C, *k) into taps (T, C, C), those from a flat position on."""
    xp = namespace(kernel)
    c_out, c_in, *kernel_size = kernel.shape
    taps = xp.permute_dims(xp.reshape(kernel, (c_out, c_in, size(kernel_size))), (2, 0, 1))
    return taps[first:, ...] if first else taps


def kernel_of(taps: Array, kernel_size: Shape) -> Array:
    """Undo `taps_of`; taps that were left out are zero."""
    xp = namespace(taps)
    count, c_out, c_in = taps.shape
    if missing := size(kernel_size) - count:
        taps = xp.concat([zeros((missing, c_out, c_in), taps), taps], axis=0)
    return xp.reshape(xp.permute_dims(taps, (1, 2, 0)), (c_out, c_in, *kernel_size))
