"""Exponentials of correlations on PyTorch, with derivatives by `invconv.kernels.exponential`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from invconv.arrays.registry import Primitive
from invconv.families.convolutions import StencilFamily
from invconv.kernels import exponential as core
from invconv.kernels.exponential import Counts, counts_of
from invconv_torch.native.host import bare
from invconv_torch.native.kernels import Settings
from invconv_torch.native.nodes import MOST, Cotangents, Rule, run


def counted(
    family: StencilFamily, w: Tensor, kernel: Tensor, shape: tuple[int, ...]
) -> tuple[Tensor, Counts | None]:
    """See `invconv.kernels.exponential`; a traced series counts as it runs."""
    return w, counts_of(family, w.detach()) if bare(w) else None


def _recorded(
    function: Primitive[..., Any],
    like: int,
    tangent: Callable[..., Tensor],
    cotangent: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    """Return a primitive that is recorded; its result has the shape of argument ``like``."""

    def agnostic(settings: Settings, *tensors: Tensor) -> Tensor:
        family, counts = settings
        return torch.as_tensor(function.agnostic(family, *tensors, counts=counts))

    def vjp(settings: Settings, saved: Sequence[Tensor], bar: Tensor, wanted: Any) -> Cotangents:
        family, counts = settings
        slots = enumerate(wanted)
        return tuple(cotangent(family, saved, i, bar, counts) if w else None for i, w in slots)

    def jvp(settings: Settings, saved: Sequence[Tensor], *dots: Tensor | None) -> Tensor | None:
        family, counts = settings
        slots = ((i, dot) for i, dot in enumerate(dots) if dot is not None)
        parts = [tangent(family, saved, i, dot, counts) for i, dot in slots]
        return sum(parts[1:], start=parts[0]) if parts else None

    def shape(_: Any, *tensors: Tensor) -> Sequence[int]:
        return tuple(tensors[like].shape)

    rule = Rule(function.name, agnostic, shape, False, vjp, jvp)

    def call(family: StencilFamily, *tensors: Tensor, counts: Counts | None = None) -> Tensor:
        if len(tensors) > MOST:  # each derivative adds one: correlations record the series
            return agnostic((family, counts), *tensors)
        return run(rule, (family, counts), *tensors)

    return call


# See `invconv.kernels.exponential`.
exponential = _recorded(core.exponential, 1, core.exponential_tangent, core.exponential_cotangent)
exponential_gram = _recorded(core.exponential_gram, 0, core.gram_tangent, core.gram_cotangent)
