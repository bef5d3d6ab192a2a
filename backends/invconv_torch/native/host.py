"""Whether PyTorch observes operations on tensors, and its answers to the core's `ArrayOps`."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from invconv.arrays.namespaces import ArrayOps
from invconv_torch.private import (
    constant_in_graphs,
    forward_level,
    get_interpreter_stack,
    is_tracing,
    open_modes,
)

PLAIN = (Tensor, torch.nn.Parameter)
TRACERS = "torch.export.export and torch.compile can trace it"


def bare(*tensors: Tensor, unrecorded: bool = False) -> bool:
    """Tell whether a kernel may read these tensors' memory: nothing observes, none is a stand-in.

    Without tensors: whether none can be a stand-in, as they can under tracers, torch.func and
    modes. A subclass of tensors and parameters may wrap other tensors, or have no memory; it goes
    through PyTorch's dispatcher (`native.nodes`), as do batches of vmap and zeros of autograd.
    If ``unrecorded``, also False where autograd records the tensors, or forward mode is on.
    """
    if (
        torch.compiler.is_compiling()
        or is_tracing()
        or get_interpreter_stack() is not None
        or open_modes()
        or (unrecorded and forward_level() >= 0)
    ):
        return False
    recording = unrecorded and torch.is_grad_enabled()
    try:
        for t in tensors:
            if type(t) not in PLAIN or (t.numel() and not t.data_ptr()):
                return False
            if recording and t.requires_grad:
                return False
    except RuntimeError:  # a batch has no address
        return False
    return True


# in the export's second attempt Dynamo would read False
_in_onnx_export: Callable[[], bool] = constant_in_graphs(lambda: torch.onnx.is_in_onnx_export())


def exporting_to_onnx() -> bool:
    """Tell whether torch.onnx.export traces: it knows none of our operators."""
    return bool(torch.compiler.is_compiling() and _in_onnx_export())


def require_onnx_form() -> None:
    """Raise if an operator of the core, which is no layer, is exported to ONNX."""
    if exporting_to_onnx():
        raise NotImplementedError(
            "torch.onnx.export of an operator of invconv: expected a layer, whose parameters are "
            "constants in the file; of tensors that are not, ONNX computes neither factorisations "
            "nor determinants. Wrap the operator: invconv_torch.InvertibleModule(conv)"
        )


def device_kind(name: str, x: Any) -> str:
    """Return the kind of device of a tensor ("cpu", "cuda"), or raise if x is no tensor."""
    if not isinstance(x, Tensor):
        hint = ""
        if isinstance(x, tuple):
            hint = "; a layer returns (z, log_det), of which z goes on"
        elif isinstance(x, torch.fx.Proxy):
            hint = f" of torch.fx.symbolic_trace, which sees no shapes; {TRACERS}"
        elif x is None:  # the context of zuko's lazy flows
            hint = "; a flow of zuko takes ZukoTransform(layer), of invconv_torch.interop"
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}{hint}")
    return str(x.device.type)


@constant_in_graphs
def _transforms() -> tuple[str, ...]:
    """Return the names of the open transforms of `torch.func`."""
    return tuple(level.key().name for level in get_interpreter_stack() or [])


def refuse_nested_forward_mode() -> None:
    """Raise in forward mode inside forward mode, where PyTorch would drop derivatives.

    PyTorch treats the result of a custom function's ``jvp`` as a constant of the outer mode.
    """
    if _transforms().count("Jvp") > 1:
        raise NotImplementedError(
            "invconv: PyTorch cannot differentiate forward mode by forward mode here, as in "
            "jvp of jvp or jacfwd of jacfwd; use jacfwd of jacrev, or jvp of grad"
        )


def refuse_compiled_transforms() -> None:
    """Raise if torch.compile would drop derivatives, or break: in forward or nested transforms.

    Of a custom function it supports no second derivative, no forward mode, no vmap of a gradient.
    """
    transforms = _transforms()
    if "Jvp" in transforms or transforms.count("Grad") > 1 or len(transforms) > 1:
        raise NotImplementedError(
            "invconv: torch.compile of jvp, jacfwd, hessian and of grad of grad, or beside vmap, "
            "would lose derivatives here; compile what is inside of them, or run them as they are"
        )


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_in_graphs: dict[Any, Tensor] = {}  # constants whose memory recorded CUDA graphs read


class TorchOps(ArrayOps):
    """PyTorch's answers; torch.compile traces the methods that traced code calls."""

    def require(self, name: str, x: Tensor) -> None:
        if x.is_nested or x.layout is not torch.strided:
            kind = "a nested tensor" if x.is_nested else f"one of layout {x.layout}"
            raise TypeError(f"{name}: expected a dense tensor, got {kind}; convert it first")

    def device(self, x: Tensor) -> torch.device:
        return x.device

    def readable(self, x: Tensor) -> bool:
        return x.device.type == "cpu" and bare(x)

    def recorded(self, x: Tensor) -> bool:
        return has_tangent(x) or (x.requires_grad and torch.is_grad_enabled())

    def without_derivative(self, x: Tensor) -> Tensor:
        return x.detach()

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
        return x.clone()

    def to_numpy(self, x: Tensor) -> np.ndarray[Any, Any]:
        half = x.dtype.itemsize == 2 and x.is_floating_point()
        # a copy first: memory that NumPy has seen cannot be resized, as FSDP does with parameters
        own = (x.float() if half else x).detach().clone()
        return np.asarray(own.numpy(force=True))

    def constant(self, values: np.ndarray[Any, Any], like: Tensor, dtype: Any) -> Any:
        """Return a constant, which is copied to an accelerator once."""
        if like.device.type == "cpu" or not bare() or type(like) not in PLAIN:
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
    """Copy a constant to a device, once: a copy waits for all work that is queued there."""
    values = np.frombuffer(content, kind).reshape(shape).copy()
    with torch.inference_mode(False):  # else it could not be used outside that mode
        return torch.asarray(values, dtype=dtype, device=place)


def has_tangent(x: Tensor) -> bool:
    """Tell whether forward mode differentiates by a tensor."""
    return forward_ad.unpack_dual(x).tangent is not None


def laid_out(result: Tensor, x: Tensor) -> Tensor:
    """Return a result in channels_last if the argument x is."""
    if x.is_contiguous() or x.ndim not in _CHANNELS_LAST:
        return result
    layout = _CHANNELS_LAST[x.ndim]
    in_it = x.is_contiguous(memory_format=layout)
    return result.contiguous(memory_format=layout) if in_it else result


def shared_out(t: Tensor) -> bool:
    """Tell whether a tensor is distributed over processes: a DTensor, as FSDP2's parameters."""
    return hasattr(t, "placements")


def gathered(t: Tensor) -> Tensor:
    """Return a tensor; if it is `shared_out`, return the whole of it in each process."""
    return t.full_tensor() if shared_out(t) else t


def require_whole(name: str, tensors: Iterable[Tensor], advice: str) -> None:
    """Raise NotImplementedError if tensors are `shared_out`."""
    if any(map(shared_out, tensors)):
        raise NotImplementedError(
            f"{name}: expected whole parameters, got DTensors, of fully_shard or "
            f"distribute_module; {advice}"
        )


def owned(result: Tensor) -> Tensor:
    """Return a Function's result, detached if it is a view: autograd refuses edits of a view."""
    return result.detach() if result._is_view() else result
