"""Checks that stop a run: numbers that are not finite, and layers whose inverse is lost."""

from __future__ import annotations

import warnings
from typing import TypeAlias

import torch

from invconv import IllConditionedWarning
from invconv.arrays.errors import CommandError
from invconv.stability.guard import LayerCondition
from invconv_torch import InverseGuard, InvertibleModule
from invconv_torch.flows import Multiscale

Tensor: TypeAlias = torch.Tensor

_LOST = 2.0  # digits: with fewer an inverse cannot be right


class DivergedError(CommandError):
    """A run that cannot go on; its last checkpoint is from before."""


def require_finite(model: Multiscale, x: Tensor, loss: Tensor, norm: Tensor, step: int) -> None:
    """Raise unless the loss and the norm of its gradient are finite.

    Raises
    ------
    DivergedError
        That names the first layer whose output is not, else the last layer, from where gradients
        come, whose gradient is not.
    """
    if bool(torch.isfinite(loss) & torch.isfinite(norm)):
        return
    layer = first_non_finite(model, x)
    what = "output"
    if layer is None:
        what = "gradient"
        layer = next((n for n, part in reversed(model.steps()) if not _finite(part)), None)
    found = f"layer {layer} has a non-finite {what}" if layer else "the sum of all layers overflows"
    raise DivergedError(
        f"step {step}: {found}; the checkpoint before it is kept. Lower the learning rate, or "
        "train with a floor of the coupling's scale"
    )


@torch.no_grad()  # type: ignore[untyped-decorator]
def first_non_finite(model: Multiscale, x: Tensor) -> str | None:
    """Return the name of the first layer whose output for x has a NaN or inf, if any."""
    names: list[str] = []

    def look(name: str, out: Tensor) -> Tensor:
        if not torch.isfinite(out).all():
            names.append(name)
        return out

    model.encode(x, watch=look)
    return names[0] if names else None


def _finite(layer: torch.nn.Module) -> bool:
    gradients = [p.grad for p in layer.parameters() if p.grad is not None]
    return all(bool(torch.isfinite(g).all()) for g in gradients)


class Watch:
    """Judge all invertible layers of a model, and keep the warnings as notes."""

    def __init__(self, model: Multiscale) -> None:
        self._model, self._guard = model, InverseGuard(model, every=1)
        self._count = sum(isinstance(layer, InvertibleModule) for _, layer in model.steps())
        self.warnings: list[str] = []

    def look(self, step: int) -> LayerCondition:
        """Return the worst of all layers.

        Raises
        ------
        DivergedError
            If fewer than two digits of its inverse are left.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", IllConditionedWarning)
            for _ in range(self._count):
                worst = self._guard.step(self._model)
        self.warnings += [f"step {step}: {warning.message}" for warning in caught]
        if worst.digits < _LOST:
            grid = " x ".join(map(str, worst.spatial_shape))
            raise DivergedError(
                f"step {step}: the inverse of layer {worst.name} is lost: off by "
                f"{worst.error:.1e} of its largest entry on a grid of {grid}; "
                "the last checkpoint is kept. Lower the learning rate"
            )
        return worst
