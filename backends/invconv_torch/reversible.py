"""Backpropagation without stored activations: inputs are recomputed by inversion.

A. N. Gomez, M. Ren, R. Urtasun, R. B. Grosse, The Reversible Residual Network: Backpropagation
Without Storing Activations, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from invconv.arrays import Shape, readable
from invconv.checks import TOLERATED, require_invertible
from invconv_torch.module import InvertibleModule
from invconv_torch.traced import traced

Tensor: TypeAlias = torch.Tensor


class ReversibleChain(nn.ModuleList):  # type: ignore[misc]
    """Layers one after the other that keep only the chain's input and output for the gradient.

    Memory does not grow with depth. The backward pass inverts each layer, runs it again and
    differentiates it: about twice the time. Gradients are those of the stored version up to
    rounding, which the condition of the layers amplifies. So a layer whose inverse cannot be
    right is refused, when a grid is first seen, and if what is recomputed of the input is not the
    input, the backward pass raises instead of returning a wrong gradient. Neither is looked at on
    an accelerator, where it would make the host wait; `ConditionGuard` does it there now and then.

    Parameters
    ----------
    layers : iterable of nn.Module
        Each with ``forward(x) -> (z, log_det)`` and ``inverse(z) -> (x, log_det)``, one
        log-determinant a sample: layers of this package, couplings, ... They must be deterministic.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import ActNorm, EmergingConv2d, ReversibleChain
    >>> flow = ReversibleChain([ActNorm(3), EmergingConv2d(3), EmergingConv2d(3)])
    >>> z, log_det = flow(torch.zeros(2, 3, 8, 8))
    >>> log_det.mean().backward()
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__(layers)
        self._seen: set[Shape] = set()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the sum of the log-determinants, one a sample.

        Raises
        ------
        ValueError
            If a layer's inverse cannot be right on this grid, with the layer's name.
        """
        self._require_invertible(x)
        weights = [p for p in self.parameters() if p.requires_grad]
        result: tuple[Tensor, Tensor] = _Reversible.apply(list(self), x, *weights)
        return result

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and the sum of the log-determinants of the inverses; activations are stored."""
        total = None
        for layer in reversed(self):
            z, log_det = layer.inverse(z)
            total = log_det if total is None else total + log_det
        assert total is not None
        return z, total

    def _require_invertible(self, x: Tensor) -> None:
        """Judge every layer on a grid that was not seen before."""
        grid = tuple(x.shape[2:])
        if grid in self._seen or traced():
            return
        for name, layer in self.named_children():
            if isinstance(layer, InvertibleModule):
                with torch.no_grad():
                    require_invertible(f"layer {name}", layer.operator(), grid)
        self._seen.add(grid)


class _Reversible(Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, layers: list[nn.Module], x: Tensor, *weights: Tensor) -> Any:
        z, total = x, torch.zeros((), dtype=x.dtype, device=x.device)
        for layer in layers:
            z, log_det = layer(z)
            total = total + log_det
        ctx.layers = layers
        ctx.save_for_backward(x, z, *weights)
        return z, total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, z_bar: Tensor, log_det_bar: Tensor) -> tuple[Any, ...]:
        start, z, *weights = ctx.saved_tensors
        gradients: dict[int, Tensor] = {}
        for layer in reversed(ctx.layers):
            own = [p for p in layer.parameters() if p.requires_grad]
            x = layer.inverse(z)[0]
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                outputs = zip(layer(x), (z_bar, log_det_bar), strict=True)
            traced_outputs, bars = zip(
                *((o, b) for o, b in outputs if o.requires_grad), strict=True
            )
            z_bar, *found = torch.autograd.grad(traced_outputs, (x, *own), bars, allow_unused=True)
            for weight, gradient in zip(own, found, strict=True):
                if gradient is not None:
                    earlier = gradients.get(id(weight))
                    gradients[id(weight)] = gradient if earlier is None else earlier + gradient
            z = x.detach()
        _require_same(start, z)
        return None, z_bar, *(gradients.get(id(weight)) for weight in weights)


def _require_same(x: Tensor, again: Tensor) -> None:
    """Raise unless the input was recomputed."""
    if not readable(x) or x.numel() == 0:
        return
    error = float((again - x).norm() / x.norm()) if x.any() else float(again.norm())
    if not error <= TOLERATED:
        raise RuntimeError(
            f"ReversibleChain: the input that was recomputed for the gradient differs from the "
            f"input by {error:.1e} of its norm, so the gradient would be wrong: a layer's inverse "
            f"is lost. Use the layers without ReversibleChain, or with max_gain"
        )
