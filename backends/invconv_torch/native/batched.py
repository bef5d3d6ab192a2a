"""Backward passes with several cotangents: ``is_grads_batched``, ``jacobian(vectorize=True)``.

PyTorch runs these with an older kind of vmap than `torch.func`, inside which few operations work.
So our nodes split the batch of cotangents and pull them back one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from invconv_torch.private import (
    add_batch_dim,
    enter_legacy_vmap,
    is_legacy_batchedtensor,
    leave_legacy_vmap,
    remove_batch_dim,
)

Backward: TypeAlias = Callable[..., tuple[Any, ...]]


def one_by_one(backward: Backward) -> Backward:
    """Return a backward for batches of cotangents that calls ``backward`` with one at a time."""

    @functools.wraps(backward)
    def each(ctx: Any, *bars: Any) -> tuple[Any, ...]:
        for bar in bars:  # a generator would cost a call for each
            if bar is not None and is_legacy_batchedtensor(bar):
                break
        else:
            return backward(ctx, *bars)
        level = enter_legacy_vmap() - 1
        leave_legacy_vmap()
        return _pull_back(functools.partial(each, ctx), bars, level)

    return each


def _pull_back(backward: Backward, bars: tuple[Any, ...], level: int) -> tuple[Any, ...]:
    """Pull back the cotangents of a level of vmap, and of lower levels inside it."""
    rows = [None if bar is None else _rows(bar, level) for bar in bars]
    count = max((len(bar) for bar in rows if bar is not None), default=0)
    leave_legacy_vmap()
    try:
        if not count:
            return _pull_back(backward, bars, level - 1)
        pulled = [
            backward(*(bar if r is None else r[n] for bar, r in zip(bars, rows, strict=True)))
            for n in range(count)
        ]
    finally:
        enter_legacy_vmap()
    return tuple(
        None if parts[0] is None else add_batch_dim(torch.stack(parts), 0, level)
        for parts in zip(*pulled, strict=True)
    )


def _rows(bar: torch.Tensor, level: int) -> torch.Tensor | None:
    """Return the batch of a level along the first axis, or None if the cotangent has none."""
    one, two = (remove_batch_dim(bar, level, size, 0) for size in (1, 2))
    return one if len(one) == len(two) else None  # a tensor without the axis takes any size
