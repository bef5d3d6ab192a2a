"""The core's guard for a model of PyTorch modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from invconv.arrays.namespaces import Shape
from invconv.operators.base.calls import grid_of
from invconv.operators.base.operator import InvertibleConv
from invconv.stability.guard import Guard, LayerCondition
from invconv_torch.module import InvertibleModule


class ConditionGuard:
    """Name the layer of a model whose inverse is about to be lost, while it trains.

    It remembers on which grid each of the model's invertible layers ran last, and now and then
    judges one of them. Values of a layer on an accelerator are copied to the host for it.

    Parameters
    ----------
    model : nn.Module
        Every `InvertibleModule` in it that is no part of another one is watched.
    digits : float
        Warn below so many decimal digits; with fewer than two an inverse counts as lost.
    budget : float
        The share of the time that may be spent on looking.

    Raises
    ------
    TypeError, ValueError
        If the model is no module or has no invertible layer, or a number is out of range.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import ConditionGuard, EmergingConv2d
    >>> model = torch.nn.Sequential(EmergingConv2d(3))
    >>> guard = ConditionGuard(model)
    >>> z, log_det = model(torch.zeros(2, 3, 8, 8))  # a training step, and then:
    >>> guard.step().name
    '0'
    """

    def __init__(self, model: nn.Module, *, digits: float = 3.0, budget: float = 0.005) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        self._guard = Guard(digits=digits, budget=budget)
        self._layers = _outermost(model)
        if not self._layers:
            raise ValueError(
                f"model: expected a module with layers of invconv_torch in it, got "
                f"{type(model).__name__} without any"
            )
        self._shapes: dict[str, Shape] = {}
        self._hooks = [
            layer.register_forward_hook(_Remember(name, self._shapes))
            for name, layer in self._layers.items()
        ]

    @property
    def worst(self) -> LayerCondition | None:
        """The layer with the fewest digits left, None before the first look."""
        return self._guard.worst

    def step(self) -> LayerCondition | None:
        """Look at one layer if there is time for it, and return the worst known.

        Warns
        -----
        IllConditionedWarning
            That names the layer, once until it has recovered.

        Examples
        --------
        >>> from invconv_torch import ConditionGuard, EmergingConv2d
        >>> model = torch.nn.Sequential(EmergingConv2d(2))
        >>> guard = ConditionGuard(model)
        >>> z, log_det = model(torch.zeros(1, 2, 8, 8))
        >>> guard.step().digits > 5
        True
        """
        return self._guard.step(self._operators)

    def look_at_all(self) -> LayerCondition | None:
        """Look at every layer that has run, whatever time it takes, and return the worst.

        Warns
        -----
        IllConditionedWarning
            As `step` does.

        Examples
        --------
        >>> from invconv_torch import ConditionGuard, EmergingConv2d
        >>> model = torch.nn.Sequential(EmergingConv2d(2))
        >>> guard = ConditionGuard(model)
        >>> z, log_det = model(torch.zeros(1, 2, 8, 8))
        >>> guard.look_at_all().name
        '0'
        """
        return self._guard.look_at_all(self._operators)

    def _operators(self) -> dict[str, tuple[InvertibleConv, Shape]]:
        with torch.no_grad():
            found = {name: (self._layers[name].operator(), s) for name, s in self._shapes.items()}
        return {name: (conv, grid_of(conv, shape)) for name, (conv, shape) in found.items()}

    def remove(self) -> None:
        """Stop to follow the model.

        Examples
        --------
        >>> from invconv_torch import ConditionGuard, EmergingConv2d
        >>> model = torch.nn.Sequential(EmergingConv2d(2))
        >>> guard = ConditionGuard(model)
        >>> z, log_det = model(torch.zeros(1, 2, 8, 8))
        >>> guard.remove()
        """
        for hook in self._hooks:
            hook.remove()


@dataclass(frozen=True)
class _Remember:
    """A hook that notes the shape of a layer's output; a class, so that models can be pickled."""

    name: str
    shapes: dict[str, Shape]

    def __call__(self, layer: InvertibleModule, inputs: tuple[Any, ...], output: Any) -> None:
        self.shapes[self.name] = tuple(output[0].shape)


def _outermost(model: nn.Module, prefix: str = "") -> dict[str, InvertibleModule]:
    """Return the invertible modules that are no parts of others, by name."""
    if isinstance(model, InvertibleModule):
        return {prefix or type(model).__name__: model}
    found: dict[str, InvertibleModule] = {}
    for name, child in model.named_children():
        found |= _outermost(child, f"{prefix}.{name}" if prefix else name)
    return found
