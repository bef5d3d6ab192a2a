"""Functions on tensors for the kernel of CUDA devices (`invconv.kernels.cuda.launch`).

Memory comes from torch's pool, and launches go to torch's current stream: a solve runs in the order
of the program, and torch.cuda.graph records it. As always in PyTorch, call it once before the
recording, to compile and load the code.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv.kernels.cuda.launch import DeviceOps

Tensor: TypeAlias = torch.Tensor
_PLAIN = (Tensor, torch.nn.Parameter)


def _ordinal(x: Tensor) -> int | None:
    """Return the number of the device; None for fake tensors and on AMD's devices, "cuda" too."""
    there = x.device.type == "cuda" and type(x) in _PLAIN and torch.version.cuda is not None
    return x.device.index if there else None


def _address(x: Tensor) -> int:
    return int(x.data_ptr())


def _stream(x: Tensor) -> int:
    return int(torch.cuda.current_stream(x.device).cuda_stream)


def _contiguous(x: Tensor) -> Tensor:
    return x.resolve_neg().contiguous()


CUDA = DeviceOps(_ordinal, _address, _stream, _contiguous)
