"""Tests for torch.func, torch.compile and dispatch modes: what observes an operation on tensors."""

from typing import Any

import torch

from invconv_torch.private import (
    Transform,
    constant_in_graphs,
    forward_level,
    get_interpreter_stack,
    is_tracing,
    open_modes,
    peek_interpreter_stack,
)

PLAIN = (torch.Tensor, torch.nn.Parameter)
TRACERS = "torch.export.export and torch.compile can trace it"


def traced() -> bool:
    """Tell whether tensors may be stand-ins: under tracers, torch.func and modes."""
    return bool(
        torch.compiler.is_compiling()
        or is_tracing()
        or peek_interpreter_stack() is not None
        or open_modes()
    )


def differentiated(*tensors: torch.Tensor) -> bool:
    """Tell whether autograd records operations on these tensors, or forward mode is on."""
    if forward_level() >= 0:
        return True
    if torch.is_grad_enabled():
        for t in tensors:
            if t.requires_grad:
                return True
    return False


def bare(*tensors: torch.Tensor) -> bool:
    """Tell whether a kernel may read these tensors' memory: nothing observes, none is a stand-in.

    Only tensors and parameters themselves are their memory. A subclass may hold others, or none; it
    goes through PyTorch's dispatcher (`native.ops`), as do batches of vmap and zeros of autograd.
    """
    if traced():
        return False
    try:
        for t in tensors:
            if type(t) not in PLAIN or not (t.data_ptr() or t.numel() == 0):
                return False
    except RuntimeError:  # a batch has no address
        return False
    return True


@constant_in_graphs
def _in_onnx_export() -> bool:
    """Tell whether torch.onnx.export runs; in its second attempt Dynamo would read False."""
    return bool(torch.onnx.is_in_onnx_export())


def exporting_to_onnx() -> bool:
    """Tell whether torch.onnx.export traces: it knows none of our operators."""
    return bool(torch.compiler.is_compiling() and _in_onnx_export())


def require_onnx_form() -> None:
    """Raise if an operator of the core, which is no layer, is exported to ONNX.

    Raises
    ------
    NotImplementedError
    """
    if exporting_to_onnx():
        raise NotImplementedError(
            "torch.onnx.export of an operator of invconv: expected a layer, whose parameters are "
            "constants in the file; of tensors that are not, ONNX computes neither factorisations "
            "nor determinants. Wrap the operator: invconv_torch.InvertibleModule(conv)"
        )


def device_kind(name: str, x: Any) -> str:
    """Return the kind of device of a tensor ("cpu", "cuda"), or raise if x is no tensor."""
    if not isinstance(x, torch.Tensor):
        hint = ""
        if isinstance(x, tuple):
            hint = "; a layer returns (z, log_det), of which z goes on"
        elif isinstance(x, torch.fx.Proxy):
            hint = f" of torch.fx.symbolic_trace, which sees no shapes; {TRACERS}"
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}{hint}")
    return str(x.device.type)


def refused_trace() -> NotImplementedError:
    """Return the error for torch.jit.trace, which would keep numbers of one grid as constants."""
    return NotImplementedError(
        "torch.jit.trace of a layer of invconv_torch, with which torch.onnx.export begins unless "
        "told: expected dynamo=True, or torch.export.export"
    )


def refuse_nested_forward_mode() -> None:
    """Raise in forward mode inside forward mode, where PyTorch would drop derivatives.

    It treats the result of a custom function's ``jvp`` as a constant of the outer one.
    """
    if sum(level.key() == Transform.Jvp for level in get_interpreter_stack() or []) > 1:
        raise NotImplementedError(
            "invconv: PyTorch cannot differentiate forward mode by forward mode here, as in "
            "jvp of jvp or jacfwd of jacfwd; use jacfwd of jacrev, or jvp of grad"
        )


@constant_in_graphs
def _transforms() -> tuple[str, ...]:
    """Return the names of the open transforms of `torch.func`, while the compiler traces."""
    return tuple(level.key().name for level in get_interpreter_stack() or [])


def refuse_compiled_transforms() -> None:
    """Raise if torch.compile would drop derivatives, or break: in all but one `torch.func.grad`.

    It supports no second derivative, no forward mode and no vmap of a custom function's gradient.
    """
    transforms = _transforms()
    if "Jvp" in transforms or transforms.count("Grad") > 1 or len(transforms) > 1:
        raise NotImplementedError(
            "invconv: torch.compile of jvp, jacfwd, hessian and of grad of grad, or beside vmap, "
            "would lose derivatives here; compile what is inside of them, or run them as they are"
        )
