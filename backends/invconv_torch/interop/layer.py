"""The layer that a drop-in runs: the user's, or an `InvertibleModule` of the operator."""

from typing import TypeAlias

from torch import Tensor, nn

import invconv as ic
from invconv_torch.module import InvertibleModule

ConvOrModule: TypeAlias = ic.InvertibleConv | nn.Module


def layer_of(conv: ConvOrModule) -> nn.Module:
    """Return a layer as it is, or a new layer with copies of an operator's arrays."""
    if isinstance(conv, ic.InvertibleConv):
        return InvertibleModule(conv)
    if isinstance(conv, nn.Module) and callable(getattr(conv, "inverse", None)):
        return conv
    raise TypeError(
        f"conv: expected a layer of invconv_torch, a module with an inverse like theirs, or an "
        f"operator of invconv, got {type(conv).__name__}"
    )


def ndim_of(layer: nn.Module) -> int | None:
    """Return the number of spatial axes of a layer or of the layers inside it."""
    inside = (m for m in layer.modules() if isinstance(m, InvertibleModule))
    return next((n for m in inside if (n := m.operator().ndim) is not None), None)


def viewable(result: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return a value in the default layout: flow libraries call ``view`` on it."""
    value, log_det = result
    return value.contiguous(), log_det
