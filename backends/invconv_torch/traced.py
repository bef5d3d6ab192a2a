"""When PyTorch looks into code instead of running it."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

_JVP = torch._C._functorch.TransformType.Jvp


def compiling() -> bool:
    """Tell whether torch.compile or torch.export is tracing."""
    return bool(torch.compiler.is_compiling())


def traced() -> bool:
    """Tell whether tensors may be other than they look: compiled, traced, or inside torch.func."""
    looked_into = compiling() or torch.jit.is_tracing()
    return looked_into or torch._C._functorch.peek_interpreter_stack() is not None


def in_forward_mode() -> bool:
    """Tell whether anything carries tangents."""
    return not compiling() and (forward_ad._current_level >= 0 or _forward_levels() > 0)


def _forward_levels() -> int:
    stack = torch._C._functorch.get_interpreter_stack() or []
    return sum(level.key() == _JVP for level in stack)


def refuse_nested_forward_mode() -> None:
    """Raise where PyTorch would drop derivatives: of forward mode inside forward mode.

    It takes what a ``jvp`` of a custom function returns for a constant of the outer one.
    """
    if _forward_levels() > 1:
        raise NotImplementedError(
            "invconv: PyTorch cannot differentiate forward mode by forward mode here, as in "
            "jvp of jvp or jacfwd of jacfwd; use jacfwd of jacrev, or jvp of grad"
        )


def unwatched(*tensors: torch.Tensor) -> bool:
    """Tell whether nobody records or traces what is done with tensors."""
    if traced() or forward_ad._current_level >= 0:
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
