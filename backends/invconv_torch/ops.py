"""The kernels as operators of PyTorch, for code that is traced: one node in a graph each.

torch.compile and torch.export neither look into these nor unroll a solve, and the switches of
`invconv_torch.precision` work when the graph runs, not when it is made. Families of matrices
travel as lists of integers, which is what an operator may take.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from invconv.kernels.families import (
    CausalFamily,
    LinearFamily,
    MatrixFamily,
    SpectralFamily,
    StencilFamily,
    TriangularFamily,
)
from invconv_torch import kernels

Tensor: TypeAlias = torch.Tensor


def encode(family: LinearFamily) -> list[int]:
    """Write a family as integers."""
    if isinstance(family, StencilFamily):
        return [0, family.wrap, len(family.offsets[0]), *_flat(family.offsets)]
    if isinstance(family, CausalFamily):
        settings = (*family.direction, *family.dilation, *family.slope)
        return [1, family.lower, len(family.direction), *settings, *_flat(family.reach)]
    if isinstance(family, SpectralFamily):
        return [2, *family.shape]
    if isinstance(family, TriangularFamily):
        return [3, family.lower]
    assert isinstance(family, MatrixFamily)
    return [4]


def _flat(offsets: tuple[tuple[int, ...], ...]) -> list[int]:
    return [o for offset in offsets for o in offset]


def decode(code: Sequence[int]) -> LinearFamily:
    """Undo `encode`."""
    return _decode(tuple(code))


@functools.lru_cache(maxsize=256)
def _decode(code: tuple[int, ...]) -> LinearFamily:
    kind, *rest = code
    if kind == 2:
        return SpectralFamily(tuple(rest))
    if kind == 3:
        return TriangularFamily(bool(rest[0]))
    if kind == 4:
        return MatrixFamily()
    flag, ndim, *numbers = rest
    groups = [tuple(numbers[i : i + ndim]) for i in range(0, len(numbers), ndim)]
    if kind == 0:
        return StencilFamily(tuple(groups), bool(flag))
    return CausalFamily(bool(flag), tuple(groups[3:]), *groups[:3])


@torch.library.custom_op("invconv::apply", mutates_args=())  # type: ignore[untyped-decorator]
def apply(family: list[int], w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x; see `invconv.kernels.rules`."""
    return _own(kernels.apply(decode(family), w, x), x)


@torch.library.custom_op("invconv::gram", mutates_args=())  # type: ignore[untyped-decorator]
def gram(family: list[int], x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    return _own(kernels.gram(decode(family), x, y), x)


@torch.library.custom_op("invconv::solve", mutates_args=())  # type: ignore[untyped-decorator]
def solve(family: list[int], w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y."""
    return _own(kernels.solve(decode(family), None, w, y), y)


@torch.library.custom_op("invconv::matmul", mutates_args=())  # type: ignore[untyped-decorator]
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    return _own(kernels.matmul(a, b), a)


def _own(result: Tensor, argument: Tensor) -> Tensor:
    """Return a result in the default layout that shares no memory with an argument."""
    result = result.contiguous()
    return result.clone() if result.data_ptr() == argument.data_ptr() else result


@apply.register_fake  # type: ignore[untyped-decorator]
def _(family: list[int], w: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@solve.register_fake  # type: ignore[untyped-decorator]
def _(family: list[int], w: Tensor, y: Tensor) -> Tensor:
    return y.new_empty(y.shape)


@gram.register_fake  # type: ignore[untyped-decorator]
def _(family: list[int], x: Tensor, y: Tensor) -> Tensor:
    known = decode(family)
    assert isinstance(known, StencilFamily)
    return x.new_empty((len(known.offsets), x.shape[1], x.shape[1]))


@matmul.register_fake  # type: ignore[untyped-decorator]
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(torch.matmul(a, b).shape)


def _one_by_one(operator: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return a vmap rule that runs the operator once for each element."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        mapped = {i for i, axis in enumerate(in_dims) if isinstance(axis, int)}
        rows = [
            operator(
                *(a.select(in_dims[i], n) if i in mapped else a for i, a in enumerate(arguments))
            )
            for n in range(info.batch_size)
        ]
        return torch.stack(rows), 0

    return rule


def _on_images(operator: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return a vmap rule that makes one batch of images where the weights are not mapped over."""

    def rule(
        info: Any, in_dims: tuple[Any, ...], family: list[int], w: Tensor, x: Tensor
    ) -> tuple[Tensor, int]:
        if isinstance(in_dims[1], int) or isinstance(decode(family), TriangularFamily):
            alone: tuple[Tensor, int] = _one_by_one(operator)(info, in_dims, family, w, x)
            return alone
        images = x.movedim(in_dims[2], 0)
        return operator(family, w, images.flatten(0, 1)).unflatten(0, images.shape[:2]), 0

    return rule


apply.register_vmap(_on_images(apply))
solve.register_vmap(_on_images(solve))
gram.register_vmap(_one_by_one(gram))
matmul.register_vmap(_one_by_one(matmul))
