"""What the kernel of CUDA devices needs to know of tensors (`invconv.kernels.cuda.launch`).

Memory comes from torch's pool, the stream is torch's current one: a solve runs in the order of the
program, and torch.cuda.graph records it. As with all of PyTorch, a call before the recording
compiles and loads what is recorded.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv.kernels.cuda.launch import DeviceOps

Tensor: TypeAlias = torch.Tensor
_PLAIN = (Tensor, torch.nn.Parameter)


def _ordinal(x: Tensor) -> int | None:
    """Fake tensors have no memory, and on AMD's devices, "cuda" too, the kernel does not run."""
    there = x.device.type == "cuda" and type(x) in _PLAIN and torch.version.cuda is not None
    return x.device.index if there else None


def _address(x: Tensor) -> int:
    return int(x.data_ptr())


def _stream(x: Tensor) -> int:
    return int(torch.cuda.current_stream(x.device).cuda_stream)


def _contiguous(x: Tensor) -> Tensor:
    return x.resolve_neg().contiguous()


CUDA = DeviceOps(_ordinal, _address, _stream, _contiguous)
