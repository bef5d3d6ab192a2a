"""Tensors of PyTorch: what only private parts of it know, which its adapter tells the core."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_told: dict[str, Callable[[], int]] = {}


def tell_of_tensors(traced: Callable[[], bool], open_modes: Callable[[], int]) -> None:
    """Tell the core about tensors; before, it reads no tensor.

    Parameters
    ----------
    traced : callable
        Whether tensors may be other than they look: compiled, traced, or inside torch.func.
    open_modes : callable
        How many modes of dispatch are open.
    """
    _told.update(traced=traced, open_modes=open_modes)


def is_told() -> bool:
    """Tell whether the adapter has been imported."""
    return bool(_told)


def plain_tensor(x: Any) -> bool:
    """Tell whether a tensor is what it looks like: not traced, fake or transformed."""
    torch = sys.modules["torch"]
    if type(x) not in (torch.Tensor, torch.nn.Parameter) or not _told:
        return False
    return not _told["traced"]()


def open_modes() -> int:
    """Return how many modes of dispatch are open, such as those that make fake tensors."""
    return _told["open_modes"]()
