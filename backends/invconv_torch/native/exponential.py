"""Exponentials of correlations on PyTorch, with derivatives by `invconv.kernels.exponential`."""

from __future__ import annotations

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
from invconv_torch.native.nodes import Cotangents, Rule, run


def counted(
    family: StencilFamily, w: Tensor, kernel: Tensor, shape: tuple[int, ...]
) -> tuple[Tensor, Counts | None]:
    """See `invconv.kernels.exponential`; a traced series counts as it runs."""
    return w, counts_of(family, w.detach()) if bare(w) else None


def _runs(name: str, function: Primitive[..., Any]) -> Callable[..., Tensor]:
    def run(settings: Settings, w: Tensor, *others: Tensor) -> Tensor:
        family, counts = settings
        return torch.as_tensor(function.agnostic(family, w, *others, counts=counts))

    return run


def _vjp(cotangent: Callable[..., Tensor]) -> Callable[..., Cotangents]:
    def vjp(settings: Settings, saved: Sequence[Tensor], bar: Tensor, wanted: Any) -> Cotangents:
        family, counts = settings
        slots = enumerate(wanted)
        return tuple(cotangent(family, saved, i, bar, counts) if w else None for i, w in slots)

    return vjp


def _jvp(tangent: Callable[..., Tensor]) -> Callable[..., Tensor | None]:
    def jvp(settings: Settings, saved: Sequence[Tensor], *dots: Tensor | None) -> Tensor | None:
        total, (family, counts) = None, settings
        for slot, dot in enumerate(dots):
            if dot is not None:
                part = tangent(family, saved, slot, dot, counts)
                total = part if total is None else total + part
        return total

    return jvp


EXPONENTIAL = Rule(
    "exponential",
    _runs("exponential", core.exponential),
    lambda family, w, x, *directions: x.shape,
    False,
    _vjp(core.exponential_cotangent),
    _jvp(core.exponential_tangent),
)
GRAM = Rule(
    "exponential_gram",
    _runs("exponential_gram", core.exponential_gram),
    lambda family, w, *others: w.shape,
    False,
    _vjp(core.gram_cotangent),
    _jvp(core.gram_tangent),
)


def exponential(
    family: StencilFamily, w: Tensor, x: Tensor, *directions: Tensor, counts: Counts | None = None
) -> Tensor:
    """See `invconv.kernels.exponential`."""
    return run(EXPONENTIAL, (family, counts), w, x, *directions)


def exponential_gram(
    family: StencilFamily,
    w: Tensor,
    x: Tensor,
    y: Tensor,
    *directions: Tensor,
    counts: Counts | None = None,
) -> Tensor:
    """See `invconv.kernels.exponential`."""
    return run(GRAM, (family, counts), w, x, y, *directions)
