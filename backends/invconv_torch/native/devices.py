"""PyTorch's functions for solves on devices: by the kernel of CUDA, or by plain wavefronts.

Memory comes from torch's pool, and launches go to torch's current stream: a solve runs in the order
of the program, and torch.cuda.graph records it. As always in PyTorch, call it once before the
recording, to compile and load the code. Nothing here waits for a device, or reads a value.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv.kernels.cuda.launch import DeviceOps
from invconv.kernels.plain.pitched import StridedOps
from invconv_torch.native.host import PLAIN
from invconv_torch.precision import full_precision

Tensor: TypeAlias = torch.Tensor


def _as_strided(x: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], start: int) -> Tensor:
    return x.as_strided(shape, strides, start)


def _matmul(a: Tensor, b: Tensor, out: Tensor) -> None:
    torch.mm(a, b, out=out)


def _substitute(diagonal: Tensor, rows: Tensor, lower: bool) -> Tensor:
    return torch.linalg.solve_triangular(diagonal.mT, rows, upper=lower, left=False)


TORCH = StridedOps(
    _as_strided, _matmul, full_precision, torch.Tensor.copy_, torch.Tensor.copy_, _substitute
)


def _ordinal(x: Tensor) -> int | None:
    """Return the number of the device; None for fake tensors and on AMD's devices, "cuda" too."""
    there = x.device.type == "cuda" and type(x) in PLAIN and torch.version.cuda is not None
    return x.device.index if there else None


def _address(x: Tensor) -> int:
    return int(x.data_ptr())


def _stream(x: Tensor) -> int:
    return int(torch.cuda.current_stream(x.device).cuda_stream)


def _contiguous(x: Tensor) -> Tensor:
    return x.resolve_neg().contiguous()


CUDA = DeviceOps(_ordinal, _address, _stream, _contiguous)
