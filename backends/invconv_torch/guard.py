"""The core's guard for a model of PyTorch modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from invconv.arrays.namespaces import Shape
from invconv.stability import guard
from invconv_torch.module import InvertibleModule


class InverseGuard(guard.InverseGuard):
    """Warn during training if a layer of a model is about to lose its inverse.

    The first of every ``every`` calls of `step` judges one layer, with its present values. The
    layers take turns, so that a bad layer is named within ``every`` calls for each layer. The
    values of a layer on an accelerator are copied to the host. `invconv_jax.InverseGuard` has the
    same signature and does the same.

    Parameters
    ----------
    model : nn.Module, or invconv.InvertibleConv
        Every `InvertibleModule` in it that is no part of another one is a layer; of a `Chain` of
        tensors, every step is.
    spatial_shape : tuple of int, or a function from a layer's name to one, optional
        The grid on which to judge; None for a layer that is not to be judged. By default the grid
        of each module's last call; modules that have not run are not judged.
    digits : float
        Warn below this number of decimal digits; with fewer than two an inverse counts as lost.
    every : int
        1 judges a layer at every call.

    Attributes
    ----------
    known : dict of str to LayerCondition
        The last judgement of each layer.

    Raises
    ------
    TypeError, ValueError
        If the model has no layers, a grid does not fit a layer, or a number is out of range.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import EmergingConv2d, InverseGuard
    >>> model = torch.nn.Sequential(EmergingConv2d(3))
    >>> guard = InverseGuard(model)
    >>> z, log_det = model(torch.zeros(2, 3, 8, 8))  # a training step, and then:
    >>> worst = guard.step(model)
    >>> worst.name, worst.digits > 5
    ('0', True)
    """

    def __init__(
        self,
        model: Any,
        spatial_shape: Shape | Callable[[str], Shape | None] | None = None,
        *,
        digits: float = 3.0,
        every: int = 100,
    ) -> None:
        super().__init__(model, spatial_shape, digits=digits, every=every)
        for layer in _outermost(model).values():
            layer.register_forward_hook(_remember)

    def _layers(self, model: Any) -> guard.Layers:
        with torch.no_grad():
            layers = {
                name: (layer.operator(), getattr(layer, "_ran_on", None))
                for name, layer in _outermost(model).items()
            }
        return layers or super()._layers(model)


def _remember(layer: InvertibleModule, inputs: tuple[Any, ...], output: Any) -> None:
    layer._ran_on = tuple(output[0].shape)


def _outermost(model: Any, prefix: str = "") -> dict[str, InvertibleModule]:
    """Return the invertible modules that are not parts of others, by name."""
    if isinstance(model, InvertibleModule):
        return {prefix or type(model).__name__: model}
    layers: dict[str, InvertibleModule] = {}
    for name, child in model.named_children() if isinstance(model, nn.Module) else ():
        layers |= _outermost(child, f"{prefix}.{name}" if prefix else name)
    return layers
