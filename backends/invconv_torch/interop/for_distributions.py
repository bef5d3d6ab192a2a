"""A layer as a transform of torch.distributions, and the layer that any drop-in here runs."""

from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

import invconv as ic
from invconv.arrays.namespaces import size
from invconv.operators.base.calls import as_batch
from invconv.operators.dropins import batch_and_event, event_ndim, on_batch
from invconv_torch.module import InvertibleModule
from invconv_torch.native.host import exporting_to_onnx
from invconv_torch.precision import autocasting

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


class TorchTransform(Transform, nn.Module):  # type: ignore[misc]
    """A layer for ``torch.distributions.TransformedDistribution``.

    The transform is a module too, with the layer's parameters. It maps latents to data, as
    `TransformedDistribution` expects: the layer's *inverse*; ``.inv`` is the layer itself.

    Parameters
    ----------
    conv : layer or InvertibleConv
        It must keep the shape of a sample.
    ndim : int, optional
        The number of spatial axes, if the layer takes any number; batch axes come before.
    cache_size : {0, 1}
        Whether to remember the last (z, x), as in torch.distributions; use 0 while training, since
        the parameters change.

    Examples
    --------
    >>> from torch.distributions import Normal, TransformedDistribution
    >>> from invconv_torch import EmergingConv2d
    >>> from invconv_torch.interop import TorchTransform
    >>> base = Normal(torch.zeros(3, 8, 8), 1.0)
    >>> flow = TransformedDistribution(base, [TorchTransform(EmergingConv2d(3))])
    >>> flow.log_prob(flow.sample((5,))).shape
    torch.Size([5])
    """

    bijective = True

    def __init__(self, conv: ConvOrModule, *, ndim: int | None = None, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.layer = layer_of(conv)
        self._axes = event_ndim(ndim_of(self.layer), ndim)
        self.domain = self.codomain = constraints.independent(constraints.real, self._axes)

    def _call(self, x: Tensor) -> Tensor:
        return on_batch(self.layer.inverse, x, self._axes)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return on_batch(self.layer, y, self._axes)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log|det dy/dx| = -log|det K|, shape batch, of latent x and data y."""
        if not isinstance(self.layer, InvertibleModule) or exporting_to_onnx():
            return -on_batch(self.layer, y, self._axes)[1]
        batch, event = batch_and_event(y, self._axes)
        kind = y.device.type
        conv = self.layer.operator()
        if not autocasting(kind):
            as_batch(conv, "y", y.reshape(size(batch), *event))  # raises if y does not fit
        with torch.autocast(kind, enabled=False) if autocasting(kind) else nullcontext():
            return -conv.log_det(event[1:]).repeat(batch)

    def with_cache(self, cache_size: int = 1) -> "TorchTransform":
        """Return this transform of the same layer with another size of the cache."""
        if cache_size == self._cache_size:
            return self
        return type(self)(self.layer, ndim=self._axes - 1, cache_size=cache_size)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache, which may hold a graph, out of pickles and copies."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_cached_x_y": (None, None)}

    def __repr__(self) -> str:
        return str(nn.Module.__repr__(self))

    def __hash__(self) -> int:
        return object.__hash__(self)
