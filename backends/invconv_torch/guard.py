"""The core's guard for a model of PyTorch modules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from invconv.arrays.namespaces import Shape
from invconv.stability import guard
from invconv_torch.module import InvertibleModule


class InverseGuard(guard.InverseGuard):
    """Warn during training if a layer of a model is about to lose its inverse.

    Every `InvertibleModule` in ``model`` that is no part of another one is a layer; of a `Chain` of
    tensors, every step is. Without ``spatial_shape`` a module is judged on the grid of its last
    call, and not at all if it has not run. The arguments are those of
    `invconv.stability.guard.InverseGuard`, as in `invconv_jax`.

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
