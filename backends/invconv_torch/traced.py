"""When PyTorch looks into code instead of running it."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def compiling() -> bool:
    """Tell whether torch.compile or torch.export is tracing."""
    return bool(torch.compiler.is_compiling())


def traced() -> bool:
    """Tell whether tensors may be other than they look: compiled, or inside torch.func."""
    return compiling() or torch._C._functorch.peek_interpreter_stack() is not None


def unwatched(*tensors: torch.Tensor) -> bool:
    """Tell whether nobody records or traces what is done with tensors."""
    if traced() or forward_ad._current_level >= 0:
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
