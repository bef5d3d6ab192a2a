"""PyTorch's answers to what the core asks of an array library; place and layout of tensors."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from invconv.arrays.array_ops import ArrayOps
from invconv_torch.private import version
from invconv_torch.traced import PLAIN, bare, traced

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_in_graphs: dict[Any, Tensor] = {}  # constants whose memory recorded CUDA graphs read


class TorchOps(ArrayOps):
    """PyTorch's answers; torch.compile traces those that traced code asks for."""

    def require(self, name: str, x: Tensor) -> None:
        """Raise TypeError for a tensor that is not dense."""
        if x.is_nested or x.layout is not torch.strided:
            kind = "a nested tensor" if x.is_nested else f"one of layout {x.layout}"
            raise TypeError(f"{name}: expected a dense tensor, got {kind}; convert it first")

    def device(self, x: Tensor) -> torch.device:
        """Return the device of a tensor."""
        return x.device

    def readable(self, x: Tensor) -> bool:
        """Say True of a plain tensor in host memory."""
        return x.device.type == "cpu" and bare(x)

    def recorded(self, x: Tensor) -> bool:
        """Tell whether autograd or forward mode records a tensor."""
        dual = forward_ad.unpack_dual(x).tangent is not None
        return dual or (x.requires_grad and torch.is_grad_enabled())

    def same_kind(self, x: Tensor, like: Tensor) -> bool:
        """See `ArrayOps.same_kind`; False for a nested tensor and for another layout too."""
        return bool(
            x.dtype == like.dtype
            and x.dtype.itemsize != 2
            and x.device == like.device
            and x.layout == like.layout
            and not x.is_nested
        )

    def copy(self, x: Tensor) -> Tensor:
        """Return a copy, which autograd records."""
        return x.clone()

    def to_numpy(self, x: Tensor) -> np.ndarray[Any, Any]:
        """Copy the values of a tensor to the host, in float32 if it is of a half type."""
        half = x.dtype.itemsize == 2 and x.is_floating_point()
        # a copy first: memory that NumPy has seen cannot be resized, as FSDP does with parameters
        own = (x.float() if half else x).detach().clone()
        return np.asarray(own.numpy(force=True))

    def constant(self, values: np.ndarray[Any, Any], like: Tensor, dtype: Any) -> Any:
        """Return a constant, which is copied to an accelerator once."""
        if like.device.type == "cpu" or traced() or type(like) not in PLAIN:
            return self.xp.asarray(values, dtype=dtype, device=like.device)
        key = values.tobytes(), values.dtype, values.shape, dtype, like.device
        if like.is_cuda and torch.cuda.is_current_stream_capturing():
            return _in_graphs.setdefault(key, _constant_on_device(*key))
        return _constant_on_device(*key)

    def log_abs(self, x: Tensor) -> Tensor:
        """Return log|x|: torch.compile cannot trace NumPy's errstate."""
        return x.abs().log()


@functools.lru_cache(maxsize=256)
def _constant_on_device(
    content: bytes, kind: Any, shape: tuple[int, ...], dtype: Any, place: torch.device
) -> Tensor:
    """Copy a constant to a device, once: it waits for all that was queued there before."""
    values = np.frombuffer(content, kind).reshape(shape).copy()
    with torch.inference_mode(False):  # else it would be of no use outside that mode
        return torch.asarray(values, dtype=dtype, device=place)


def version_of(t: Tensor) -> tuple[int, int]:
    """Return the address of a tensor and its version, 0 for an inference tensor."""
    return t.data_ptr(), 0 if t.is_inference() else version(t)


def in_host_memory(x: Tensor) -> bool:
    """Tell whether a tensor is in host memory; what observes it was asked before (`bare`)."""
    return bool(x.is_cpu and type(x) in PLAIN)


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
