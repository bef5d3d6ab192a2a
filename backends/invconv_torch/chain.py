"""A chain of layers, one after the other: the base of `ReversibleChain`, too."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

import invconv as ic
from invconv.arrays.errors import of_one_list


class Chain(nn.ModuleList):  # type: ignore[misc]
    """Layers one after the other, as `torch.nn.Sequential` for layers with log-determinants.

    `invconv.save` and `invconv.diagnose` take a chain as they take a layer, if each of its layers
    holds an operator: `Squeeze` and couplings do not. `invconv_torch.load` returns it as one
    `InvertibleModule`, with the same numbers.

    Parameters
    ----------
    layers : iterable of nn.Module
        At least one; each with ``forward(x) -> (z, log_det)`` and ``inverse(z) -> (x, log_det)``,
        one log-determinant a sample: layers of this package, couplings, ...

    Raises
    ------
    TypeError, ValueError
        If ``layers`` is empty, or has an object that is no such module.

    Examples
    --------
    >>> import torch
    >>> from invconv import diagnose
    >>> from invconv_torch import ActNorm, Chain, EmergingConv2d
    >>> chain = Chain([ActNorm(3), EmergingConv2d(3, mixing="qr")])
    >>> z, log_det = chain(torch.zeros(2, 3, 8, 8))
    >>> chain.inverse(z)[0].shape, log_det.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2]))
    >>> diagnose(chain, (8, 8)).judgements["float32"].error < 1e-4, len(chain.operator())
    (True, 2)
    """

    @partial(of_one_list, items="layers")
    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__(invertible(layers).values())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the sum of the log-determinants, one per sample."""
        return _one_after_another(self, x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and the sum of the log-determinants of the inverses."""
        return _one_after_another([layer.inverse for layer in reversed(self)], z)

    def operator(self) -> ic.Chain:
        """Return the core's chain of the current parameters, differentiable in them.

        Raises
        ------
        TypeError
            If a layer holds no operator, as `Squeeze` and couplings.
        """
        for i, layer in enumerate(self):
            if not hasattr(layer, "operator"):
                raise TypeError(
                    "layers: expected layers that hold an operator, such as EmergingConv2d, got "
                    f"{type(layer).__name__} at {i}"
                )
        return ic.Chain([layer.operator() for layer in self])


def _one_after_another(
    maps: Iterable[Callable[[Tensor], tuple[Tensor, Tensor]]], x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the composition of maps at x, and the sum of their log-determinants."""
    log_dets = []
    for run in maps:
        x, log_det = run(x)
        log_dets.append(log_det)
    return x, sum(log_dets[1:], start=log_dets[0])


def invertible(layers: Any) -> dict[Any, nn.Module]:
    """Return layers, a list or a mapping, by numbers or names; raise unless each has an inverse."""
    modules = "modules with forward(x) -> (z, log_det) and inverse(z) -> (x, log_det)"
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers: expected {modules}, in a list, got one {type(layers).__name__}")
    named = dict(layers.items() if hasattr(layers, "items") else enumerate(layers))
    if not named:
        raise ValueError(f"layers: expected {modules}, at least one, got none")
    for name, layer in named.items():
        if not (isinstance(layer, nn.Module) and callable(getattr(layer, "inverse", None))):
            hint = "; InvertibleModule(conv) is one" if isinstance(layer, ic.InvertibleConv) else ""
            kind = type(layer).__name__
            raise TypeError(f"layers: expected {modules}, got {kind} at {name}{hint}")
    return named
