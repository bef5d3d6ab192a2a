"""Which tensors are in host memory, and what the host knows of others: their versions."""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv_torch.private import version

Tensor: TypeAlias = torch.Tensor

PLAIN = (Tensor, torch.nn.Parameter)


def version_of(t: Tensor) -> tuple[int, int]:
    """Return where a tensor is, and in which version, 0 where PyTorch counts none."""
    return t.data_ptr(), 0 if t.is_inference() else version(t)


def in_host_memory(x: Tensor) -> bool:
    """Tell whether a tensor's numbers are in host memory; fake ones have none."""
    return bool(x.is_cpu and type(x) in PLAIN)
