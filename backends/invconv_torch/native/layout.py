"""Results of a call: in the memory layout of its argument, and no views."""

from __future__ import annotations

from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid_out(result: Tensor, x: Tensor) -> Tensor:
    """Return a result in channels_last if the argument x is."""
    if x.is_contiguous() or x.ndim not in _CHANNELS_LAST:
        return result
    layout = _CHANNELS_LAST[x.ndim]
    in_it = x.is_contiguous(memory_format=layout)
    return result.contiguous(memory_format=layout) if in_it else result


def owned(result: Tensor) -> Tensor:
    """Return a Function's result, detached if it is a view: autograd refuses edits of a view."""
    return result.detach() if result._is_view() else result
