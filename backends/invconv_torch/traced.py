"""When PyTorch looks into code instead of running it."""

from __future__ import annotations

import torch


def compiling() -> bool:
    """Tell whether torch.compile or torch.export is tracing."""
    return bool(torch.compiler.is_compiling())


def traced() -> bool:
    """Tell whether tensors may be other than they look: compiled, or inside torch.func."""
    return compiling() or torch._C._functorch.peek_interpreter_stack() is not None
