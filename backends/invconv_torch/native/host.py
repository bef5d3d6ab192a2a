"""Tests for tensors in host memory, and versions of other tensors."""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv_torch.private import version

Tensor: TypeAlias = torch.Tensor

PLAIN = (Tensor, torch.nn.Parameter)


def version_of(t: Tensor) -> tuple[int, int]:
    """Return the address of a tensor and its version, 0 for an inference tensor."""
    return t.data_ptr(), 0 if t.is_inference() else version(t)


def in_host_memory(x: Tensor) -> bool:
    """Tell whether a tensor's numbers are in host memory; fake tensors have none."""
    return bool(x.is_cpu and type(x) in PLAIN)
