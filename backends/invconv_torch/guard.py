"""The core's guard for a model of PyTorch modules."""

from typing import Any

import torch
from torch import nn

from invconv.stability import guard
from invconv_torch.module import InvertibleModule


class InverseGuard(guard.InverseGuard):
    """Warn during training if a layer of a model is about to lose its inverse.

    Every `InvertibleModule` in ``model`` that is no part of another one is a layer; of a `Chain` of
    tensors, every step is. Without ``spatial_shape`` a module is judged on the grid of its last
    call in either direction since the guard saw it, and not at all if it has not run. The arguments
    are those of `invconv.stability.guard.InverseGuard`, as in `invconv_jax`.

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

    def _layers(self, model: Any) -> guard.Layers:
        layers: guard.Layers = {}
        parts: set[nn.Module] = set()
        found = model.named_modules(remove_duplicate=False) if isinstance(model, nn.Module) else ()
        for name, layer in found:
            if isinstance(layer, InvertibleModule) and layer not in parts:
                parts |= {*layer.modules()} - {layer}
                layer._watched = True
                with torch.no_grad():
                    layers[name or type(layer).__name__] = layer.operator(), layer._ran_on
        return layers or super()._layers(model)
